//! One client connection, and the conversation on it, as the phases of a request see them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pingora_core::protocols::{Digest, raw_connect::ProxyDigest};

use super::secure::Secured;
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

/// One client connection: what all of its requests have in common.
#[derive(Debug)]
pub struct Link {
    /// The other end; where a PROXY header came, what that says.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// What the TLS handshake came to; without TLS nothing.
    pub secured: Option<Secured>,
    told: Mutex<Option<Arc<Told>>>,
}

impl Link {
    /// A connection between these two.
    pub fn new(peer: SocketAddr, local: SocketAddr, secured: Option<Secured>) -> Arc<Self> {
        Arc::new(Self { peer, local, secured, told: Mutex::new(None) })
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.secured.is_some() { "https" } else { "http" }
    }

    /// Whether a request for this host may come on this connection (RFC 9110, section 15.5.20).
    pub fn admits(&self, host: &str) -> bool {
        self.secured.as_ref().is_none_or(|secured| secured.admits(host))
    }

    /// Address of the peer, IPv4 where it is an IPv4 address in IPv6 clothes.
    pub fn peer_ip(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    /// What upstreams are told about a hop on this connection.
    pub fn told(&self, hop: &Hop<'_>) -> Arc<Told> {
        let mut kept = self.told.lock();
        match kept.as_ref().filter(|told| told.fits(hop)) {
            Some(told) => Arc::clone(told),
            None => Arc::clone(kept.insert(Arc::new(Told::of(hop)))),
        }
    }
}

/// Why a read from the client was ended by us, which Pingora's error cannot say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cut {
    /// The wait for the upstream's response header was too long.
    Overdue = 1,
    /// The client sent its body too slowly.
    Slow = 2,
    /// The body broke its framing.
    BrokenFraming = 3,
}

/// One HTTP/1 connection or one HTTP/2 stream. Reached from a Pingora session through the proxy digest, on every
/// protocol.
pub struct Conn {
    /// The connection.
    pub link: Arc<Link>,
    ticket: Mutex<Option<Ticket>>,
    /// Microseconds since [`origin`] by when a response header must be there; 0 for no such bound.
    answer_by: AtomicU64,
    cut: AtomicU8,
    pace: Mutex<Option<(u64, Duration)>>,
    /// Microseconds in which the client of the current request has taken nothing of what was there for it.
    kept_waiting: AtomicU64,
    /// Microseconds that an upgraded connection may be silent for; 0 while it is not upgraded.
    tunnel_idle: AtomicU64,
}

impl Conn {
    /// A conversation on this connection.
    pub fn new(link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self {
            link,
            ticket: Mutex::new(None),
            answer_by: AtomicU64::new(0),
            cut: AtomicU8::new(0),
            pace: Mutex::new(None),
            kept_waiting: AtomicU64::new(0),
            tunnel_idle: AtomicU64::new(0),
        })
    }

    /// The conversation behind a session.
    pub fn of(digest: Option<&Digest>) -> Option<&Arc<Self>> {
        let ProxyDigest { user_data, .. } = digest?.proxy_digest.as_deref()?;
        user_data.as_ref()?.downcast_ref()
    }

    pub(super) fn hand(&self, ticket: Ticket) {
        self.answer_by.store(0, Ordering::Relaxed);
        self.cut.store(0, Ordering::Relaxed);
        self.kept_waiting.store(0, Ordering::Relaxed);
        *self.ticket.lock() = Some(ticket);
    }

    /// The ticket of the request that is beginning; once for each request.
    pub fn take_ticket(&self) -> Option<Ticket> {
        self.ticket.lock().take()
    }

    /// Bounds the wait for a response header; `None` lifts the bound. Pingora itself has one time-out for every read
    /// from an upstream, of a header and within a body alike.
    pub fn answer_by(&self, deadline: Option<Instant>) {
        let micros = deadline.map_or(0, |d| micros(d.saturating_duration_since(origin())).max(1));
        self.answer_by.store(micros, Ordering::Relaxed);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.answer_by.load(Ordering::Relaxed) {
            0 => None,
            micros => origin().checked_add(Duration::from_micros(micros)),
        }
    }

    /// The route's own bounds on a client that sends or takes a body: bytes a second (0 for none) and the longest pause.
    pub fn set_pace(&self, rate: u64, pause: Duration) {
        *self.pace.lock() = Some((rate, pause));
    }

    /// The bounds that a route has set since the last call.
    pub(super) fn take_pace(&self) -> Option<(u64, Duration)> {
        self.pace.lock().take()
    }

    /// How long the client has kept the answer waiting, in all.
    pub fn kept_waiting(&self) -> Duration {
        Duration::from_micros(self.kept_waiting.load(Ordering::Relaxed))
    }

    pub(super) fn keeps_waiting(&self, time: Duration) {
        self.kept_waiting.fetch_add(micros(time), Ordering::Relaxed);
    }

    /// The connection is no HTTP from here on (a 101 goes out): it ends when nothing has moved for so long.
    pub fn become_tunnel(&self, idle: Duration) {
        self.tunnel_idle.store(micros(idle).max(1), Ordering::Relaxed);
    }

    pub(super) fn tunnel_idle(&self) -> Option<Duration> {
        match self.tunnel_idle.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    pub(super) fn mark(&self, cut: Cut) {
        self.cut.store(cut as u8, Ordering::Relaxed);
    }

    /// Forgets why a read was cut short: the request goes on with another attempt.
    pub fn go_on(&self) {
        self.answer_by(None);
        self.cut.store(0, Ordering::Relaxed);
    }

    /// Why the current request's read was cut short, if we did it.
    pub fn cut(&self) -> Option<Cut> {
        [Cut::Overdue, Cut::Slow, Cut::BrokenFraming]
            .into_iter()
            .find(|cut| *cut as u8 == self.cut.load(Ordering::Relaxed))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The instant that deadlines are counted from.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}
