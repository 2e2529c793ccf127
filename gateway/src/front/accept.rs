//! From an accepted socket to a conversation: admission, PROXY protocol, TLS.

use std::{fmt, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::BytesMut;
use crossway_plugin_api::RequestId;
use crossway_plugins::request_id;
use http::StatusCode;
use pingora_core::{
    apps::ServerApp,
    listeners::ConnectionFilter,
    modules::http::HttpModules,
    protocols::{GetSocketDigest as _, Shutdown as _, Stream, l4::stream::Stream as L4Stream},
    server::ShutdownWatch,
};
use pingora_proxy::HttpProxy;

use super::{Link, proxy_protocol, secure};
use crate::{
    flow::Steps,
    gateway::{Gateway, OpenConnection},
    proxy::Proxy,
    request::{MISDIRECTED, Refusal},
    snapshot::{ListenerState, Snapshot},
    telemetry::{
        access_log::Entry,
        audit::{Actor, Event, Outcome, Record, Source, Value, Who},
        flags::Flag,
        metrics::{NO_ROUTE, Unwelcome},
    },
};

/// Closes connections that there is no place for right where they are accepted: what is accepted faster than it is closed
/// would take the open files that those inside need.
pub(super) struct Door {
    /// Address as configured.
    pub(super) address: String,
    pub(super) gateway: Arc<Gateway>,
}

#[async_trait]
impl ConnectionFilter for Door {
    async fn should_accept(&self, _: Option<&SocketAddr>) -> bool {
        let snapshot = self.gateway.snapshot.load();
        let most = self.gateway.admission.most(snapshot.loaded.config.limits.connections.total);
        let room = self.gateway.connections.enter(most);
        if !room && let Some(listener) = snapshot.listeners.get(&self.address) {
            listener.metrics.accepted.inc();
            listener.metrics.unwelcome(Unwelcome::Total);
        }
        room
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Serves the connections of one listener that the door has let in.
pub struct Front {
    /// Address as configured: finds the listener in each configuration.
    pub address: String,
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Pingora's proxy, shared by all listeners.
    pub proxy: Arc<HttpProxy<Proxy>>,
    /// What Pingora's proxy would do with a request, for those that do without it.
    pub steps: Steps,
    /// Pingora's modules of a session: none.
    pub modules: HttpModules,
}

/// The listener of a connection as a generation of the configuration has it: looked up once for each generation. Holds
/// no snapshot, so that an idle connection keeps no old configuration alive.
pub(super) type Seen = Option<(u64, Arc<ListenerState>)>;

#[async_trait]
impl ServerApp for Front {
    async fn process_new(self: &Arc<Self>, io: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let open = self.gateway.connections.adopt();
        let listener = Arc::clone(self.gateway.snapshot.load().listeners.get(&self.address)?);
        let open = open.shown_in(listener.metrics.open.clone());
        listener.metrics.accepted.inc();
        let io = io.into_any().downcast::<L4Stream>().ok()?;
        if let Err(why) = self.welcome(io, &listener, open, shutdown).await {
            listener.metrics.unwelcome(why);
        }
        None
    }
}

impl Front {
    /// Lets a connection in, or closes it and says why.
    async fn welcome(
        self: &Arc<Self>,
        mut io: Box<L4Stream>,
        listener: &ListenerState,
        open: OpenConnection<'_>,
        shutdown: &ShutdownWatch,
    ) -> Result<(), Unwelcome> {
        let limits = &listener.limits;
        if limits.connections.total > 0 && listener.metrics.open.get() > i64::from(limits.connections.total) {
            return Err(Unwelcome::ListenerTotal);
        }
        let (mut peer, mut local) = addresses(&io);
        if listener.proxy_protocol {
            let read = proxy_protocol::read(&mut io, peer, &listener.trusted_proxies);
            let told = tokio::time::timeout(limits.client.header_deadline.0, read).await;
            let Ok(Some(told)) = told else {
                io.shutdown().await;
                return Err(Unwelcome::ProxyHeader);
            };
            (peer, local) = told.unwrap_or((peer, local));
        }
        let client = peer.ip().to_canonical();
        let is_proxy = listener.trusted_proxies.iter().any(|network| network.contains(client));
        let bound = if is_proxy { 0 } else { limits.connections.per_client };
        let place = self.gateway.admission.enter(client, bound).ok_or(Unwelcome::PerClient)?;
        match &listener.tls {
            None => self.serve_http1(io, Link::new(peer, local, None), shutdown).await,
            Some(table) => {
                let metrics = &listener.metrics.handshakes;
                let shaking = secure::shake_hands(io, table, metrics);
                let Ok(shaken) = tokio::time::timeout(limits.client.header_deadline.0, shaking).await else {
                    metrics.timeout.inc();
                    return Ok(());
                };
                let Some((stream, secured)) = shaken else { return Ok(()) };
                let (link, http2) = (Link::new(peer, local, Some(secured)), stream.speaks_http2());
                if http2 {
                    self.serve_http2(Box::new(stream), BytesMut::new(), link, shutdown).await;
                } else {
                    self.serve_http1(Box::new(stream), link, shutdown).await;
                }
            }
        }
        drop((place, open));
        Ok(())
    }

    /// The configuration in force, and the listener as it has it; `None` if it has it no more.
    pub(super) fn current(&self, seen: &mut Seen) -> Option<(Arc<Snapshot>, Arc<ListenerState>)> {
        let snapshot = self.gateway.snapshot.load_full();
        if seen.as_ref().is_none_or(|(generation, _)| *generation != snapshot.generation) {
            *seen = Some((snapshot.generation, snapshot.listeners.get(&self.address).cloned()?));
        }
        let listener = Arc::clone(&seen.as_ref()?.1);
        Some((snapshot, listener))
    }

    /// Counts and logs a request that is refused before it is one of Pingora's; gives it an id.
    pub(super) fn note_refusal(
        &self,
        link: &Link,
        refusal: &Refusal,
        listener: &ListenerState,
        said: &Said<'_>,
    ) -> RequestId {
        let id = request_id::fresh();
        self.gateway.metrics.refused(refusal.code);
        self.gateway.access_log.write(&Entry {
            request_id: id.as_str(),
            client: link.peer_ip(),
            protocol: said.protocol,
            method: said.method,
            host: said.host,
            path: said.path,
            listener: &listener.name,
            status: refusal.status.as_u16(),
            code: Some(refusal.code),
            flags: flag(refusal).into(),
            ..Entry::unread()
        });
        if *refusal == MISDIRECTED {
            self.audit(link, (refusal, &id), listener, said);
        }
        id
    }
}

impl Front {
    /// A request for a host whose rules for client certificates are not those that its connection was made under.
    fn audit(&self, link: &Link, (refusal, id): (&Refusal, &RequestId), listener: &ListenerState, said: &Said<'_>) {
        let more = [
            ("request_id", Value::Text(id.as_str())),
            ("listener", Value::Text(&listener.name)),
            ("protocol", Value::Text(said.protocol)),
            ("method", Value::Text(said.method)),
            ("host", Value::Text(said.host)),
            ("path", Value::Text(said.path)),
            ("status", Value::Number(refusal.status.as_u16().into())),
            ("code", Value::Text(refusal.code)),
        ];
        let certificate = link.secured.as_ref().and_then(|secured| secured.certificate.as_deref());
        let subject = certificate.map(|certificate| ("certificate", Value::Text(&certificate.subject)));
        let more: Vec<_> = more.into_iter().chain(subject).collect();
        self.gateway.audit.write(&Record {
            event: Event::RequestRefused,
            outcome: Outcome::Denied,
            who: Who { actor: Actor::Anonymous, source: Source::Address(link.peer_ip()) },
            target: NO_ROUTE,
            reason: Some(refusal.detail),
            more: &more,
        });
    }
}

/// What a request that is refused says of itself, for the logs.
pub(super) struct Said<'a> {
    /// `-` where it is not known.
    pub(super) protocol: &'static str,
    /// The method; empty, as what follows, where the request could not be read.
    pub(super) method: &'a str,
    /// The canonical host.
    pub(super) host: &'a str,
    /// The canonical path.
    pub(super) path: &'a str,
}

impl Said<'static> {
    /// Nothing that could be read.
    pub(super) const fn unread(protocol: &'static str) -> Self {
        Self { protocol, method: "", host: "", path: "" }
    }
}

/// What a refusal means for the log.
fn flag(refusal: &Refusal) -> Flag {
    match refusal.status {
        StatusCode::SERVICE_UNAVAILABLE => Flag::Shed,
        StatusCode::REQUEST_TIMEOUT => Flag::ClientSlow,
        _ => Flag::BadRequest,
    }
}

/// The other end and ours.
fn addresses(io: &L4Stream) -> (SocketAddr, SocketAddr) {
    let socket = io.get_socket_digest();
    let address = |a: Option<&pingora_core::protocols::l4::socket::SocketAddr>| {
        a.and_then(|a| a.as_inet().copied()).unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    };
    let socket = socket.as_ref();
    (address(socket.and_then(|s| s.peer_addr())), address(socket.and_then(|s| s.local_addr())))
}
