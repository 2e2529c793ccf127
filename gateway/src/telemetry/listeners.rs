//! The metrics of listeners and their connections.

use prometheus::{IntCounter, IntGauge};

/// The metrics of one listener.
#[derive(Clone)]
pub struct ListenerMetrics {
    /// Open connections.
    pub open: IntGauge,
    /// Connections accepted.
    pub accepted: IntCounter,
    pub(super) unwelcome: [IntCounter; Unwelcome::ALL.len()],
    /// How TLS handshakes ended.
    pub handshakes: HandshakeMetrics,
}

/// Why a connection was closed before its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwelcome {
    /// There are as many as there may be.
    Total,
    /// The listener has as many as it may have.
    ListenerTotal,
    /// The client has as many as it may have.
    PerClient,
    /// The PROXY header was not there, not valid, or from somebody who may not send one.
    ProxyHeader,
}

impl Unwelcome {
    pub(super) const ALL: [(Self, &'static str); 4] = [
        (Self::Total, "total"),
        (Self::ListenerTotal, "listener_total"),
        (Self::PerClient, "per_client"),
        (Self::ProxyHeader, "proxy_header"),
    ];
}

impl ListenerMetrics {
    /// Counts a connection that was closed before its first request.
    pub fn unwelcome(&self, why: Unwelcome) {
        if let Some(at) = Unwelcome::ALL.iter().position(|(reason, _)| *reason == why) {
            self.unwelcome[at].inc();
        }
    }
}

/// How the TLS handshakes of one listener ended.
#[derive(Clone)]
pub struct HandshakeMetrics {
    /// With new keys.
    pub full: IntCounter,
    /// By resuming a session.
    pub resumed: IntCounter,
    /// In an error, of either side.
    pub failed: IntCounter,
    /// Not in time.
    pub timeout: IntCounter,
}

/// When a certificate of a listener ends to be valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry<'a> {
    /// Name of the listener.
    pub listener: &'a str,
    /// First DNS name of the certificate.
    pub certificate: String,
    /// Its last second, since 1970-01-01T00:00:00Z.
    pub not_after: i64,
}
