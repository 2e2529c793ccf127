//! One client connection, as the phases of its requests see it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pingora_core::protocols::{Digest, raw_connect::ProxyDigest};

use crate::{
    request::{Framing, Hop, Told, View},
    snapshot::{ListenerState, Snapshot},
};

/// What the front hands to the first phase of a request.
pub struct Ticket {
    /// The configuration that this request keeps to its end.
    pub snapshot: Arc<Snapshot>,
    /// The listener, as that configuration has it.
    pub listener: Arc<ListenerState>,
    /// How the request's body is framed.
    pub framing: Framing,
    /// Its host and path, canonical.
    pub view: View,
    /// When the first byte of the request arrived.
    pub started: Instant,
    /// Whether the connection ends with this request.
    pub last: bool,
}

/// One client connection. Reached from a Pingora session through the proxy digest, on every protocol.
pub struct Conn {
    /// The other end.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    ticket: Mutex<Option<Ticket>>,
    told: Mutex<Option<Arc<Told>>>,
    /// Microseconds since [`origin`] by when a response header must be there; 0 for no such bound.
    answer_by: AtomicU64,
    overdue: AtomicBool,
    broken_framing: AtomicBool,
}

impl Conn {
    /// A connection between these two.
    pub fn new(peer: SocketAddr, local: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            peer,
            local,
            ticket: Mutex::new(None),
            told: Mutex::new(None),
            answer_by: AtomicU64::new(0),
            overdue: AtomicBool::new(false),
            broken_framing: AtomicBool::new(false),
        })
    }

    /// The connection behind a session.
    pub fn of(digest: Option<&Digest>) -> Option<&Arc<Self>> {
        let ProxyDigest { user_data, .. } = digest?.proxy_digest.as_deref()?;
        user_data.as_ref()?.downcast_ref()
    }

    /// Address of the peer, IPv4 where it is an IPv4 address in IPv6 clothes.
    pub fn peer_ip(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    pub(super) fn hand(&self, ticket: Ticket) {
        self.answer_by.store(0, Ordering::Relaxed);
        self.overdue.store(false, Ordering::Relaxed);
        *self.ticket.lock() = Some(ticket);
    }

    /// The ticket of the request that is beginning; once for each request.
    pub fn take_ticket(&self) -> Option<Ticket> {
        self.ticket.lock().take()
    }

    /// What upstreams are told about a hop on this connection.
    pub fn told(&self, hop: &Hop<'_>) -> Arc<Told> {
        let mut kept = self.told.lock();
        match kept.as_ref().filter(|told| told.fits(hop)) {
            Some(told) => Arc::clone(told),
            None => Arc::clone(kept.insert(Arc::new(Told::of(hop)))),
        }
    }

    /// Bounds the wait for a response header; `None` lifts the bound. Pingora itself has one time-out for every read
    /// from an upstream, of a header and within a body alike.
    pub fn answer_by(&self, deadline: Option<Instant>) {
        let micros = deadline.map_or(0, |d| d.saturating_duration_since(origin()).as_micros().max(1));
        self.answer_by.store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.answer_by.load(Ordering::Relaxed) {
            0 => None,
            micros => origin().checked_add(Duration::from_micros(micros)),
        }
    }

    pub(super) fn mark_overdue(&self) {
        self.overdue.store(true, Ordering::Relaxed);
    }

    /// Whether the wait for the response header was cut short.
    pub fn is_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    pub(super) fn mark_broken_framing(&self) {
        self.broken_framing.store(true, Ordering::Relaxed);
    }

    /// Whether the body of the current request broke its framing.
    pub fn has_broken_framing(&self) -> bool {
        self.broken_framing.load(Ordering::Relaxed)
    }
}

/// The instant that deadlines are counted from.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}
