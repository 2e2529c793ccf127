//! `Proxy-Status` (RFC 9209): which proxy has made an answer, and why, in words that every client can know.

use crossway_plugin_api::{Fault, Reply};
use http::{HeaderName, HeaderValue};

use crate::config::proxy_status::ProxyStatus as Config;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Whether answers to faults say so, and in whose name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyStatus(Option<String>);

impl ProxyStatus {
    /// From the configuration.
    pub fn compile(config: &Config) -> Self {
        Self(config.enabled.then(|| config.name.clone()))
    }

    /// Writes into the answer to a fault what kind of fault it is. Never more: what an operator needs is in the log.
    #[must_use]
    pub fn mark(&self, reply: Reply, fault: &Fault) -> Reply {
        let Some((name, error)) = self.0.as_ref().zip(error(fault)) else { return reply };
        match HeaderValue::from_str(&format!("{name}; error={error}")) {
            Ok(value) => reply.header(PROXY_STATUS, value),
            Err(_) => reply,
        }
    }
}

/// The kind of a fault (RFC 9209, section 2.3). A client that has gone is told nothing.
fn error(fault: &Fault) -> Option<&'static str> {
    Some(match fault {
        Fault::NoEndpoint | Fault::CircuitOpen { .. } | Fault::Unprocessed(_) => "destination_unavailable",
        Fault::Busy(_) => "connection_limit_reached",
        Fault::Connect(_) => "connection_refused",
        Fault::ConnectTimeout => "connection_timeout",
        Fault::Tls(detail) => tls_error(detail),
        Fault::Reset(_) => "connection_terminated",
        Fault::UpstreamTimeout | Fault::AttemptTimeout | Fault::Deadline => "http_response_timeout",
        Fault::UpstreamProtocol(_) => "http_protocol_error",
        Fault::ResponseTooLarge { .. } => "http_response_body_size",
        Fault::ClientTimeout | Fault::RequestTooLarge { .. } | Fault::RequestFraming(_) => "http_request_error",
        Fault::Loop => "proxy_loop_detected",
        Fault::Dependency(_) | Fault::UpstreamAuth { .. } | Fault::Internal(_) => "proxy_internal_error",
        Fault::ClientGone => return None,
    })
}

/// The TLS library's errors reach us as texts.
fn tls_error(detail: &str) -> &'static str {
    if detail.contains("received fatal alert") {
        "tls_alert_received"
    } else if detail.contains("certificate") {
        "tls_certificate_error"
    } else {
        "tls_protocol_error"
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn marked(config: &Config, fault: &Fault) -> Vec<String> {
        let reply = ProxyStatus::compile(config).mark(Reply::empty(StatusCode::BAD_GATEWAY), fault);
        reply.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn a_fault_is_named_and_nothing_more_is_said() {
        let config = Config::default();
        let refused = Fault::Connect("10.0.0.7 said no".into());
        assert_eq!(marked(&config, &refused), ["proxy-status: crossway; error=connection_refused"]);
        let own = Config { name: "edge-1.example".into(), ..config.clone() };
        assert_eq!(marked(&own, &Fault::Deadline), ["proxy-status: edge-1.example; error=http_response_timeout"]);
        assert!(marked(&Config { enabled: false, ..config.clone() }, &refused).is_empty());
        assert!(marked(&config, &Fault::ClientGone).is_empty());
    }

    #[test]
    fn errors_of_tls_are_told_apart() {
        use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};
        for (error, told) in [
            (Error::InvalidCertificate(CertificateError::Expired), "tls_certificate_error"),
            (Error::AlertReceived(AlertDescription::HandshakeFailure), "tls_alert_received"),
            (Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered), "tls_protocol_error"),
        ] {
            assert_eq!(tls_error(&error.to_string()), told, "{error}");
        }
    }
}
