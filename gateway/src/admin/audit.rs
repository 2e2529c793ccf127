//! Who asks the admin listener for what, for the audit log.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    extract::{ConnectInfo, Request, State as From, connect_info::Connected},
    http::{Method, StatusCode},
    middleware::Next,
    response::Response,
    serve::IncomingStream,
};
use tokio::net::{TcpListener, UnixListener};

use super::State;
use crate::{
    gateway::Gateway,
    telemetry::audit::{Actor, Event, Outcome, Record, Source, Value, Who},
};

/// Pages that machines ask for all the time, and that change nothing.
const UNREMARKABLE: [&str; 3] = ["/healthz", "/metrics", "/readyz"];

/// The other end of a connection to the admin listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(Source);

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(Source::Address(stream.remote_addr().ip().to_canonical()))
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let peer = stream.io().peer_cred().ok();
        let pid = peer.and_then(|peer| u32::try_from(peer.pid()?).ok());
        Self(Source::Unix { uid: peer.map(|peer| peer.uid()), pid })
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    peer: Peer,
    known: Arc<AtomicBool>,
}

impl Caller {
    /// The caller has presented the token.
    pub(super) fn is_known(&self) {
        self.known.store(true, Ordering::Relaxed);
    }

    /// As the log names it.
    pub(super) fn who(&self) -> Who<'static> {
        let actor = if self.known.load(Ordering::Relaxed) { Actor::Admin } else { Actor::Anonymous };
        Who { actor, source: self.peer.0 }
    }
}

/// The code of a problem document, beside the response that it stands in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Code(pub(super) &'static str);

/// Something that was asked for. It is recorded when this is dropped, with what has come of it by then: an answer, or
/// nothing, because whoever asked has gone away in the middle.
struct Asked<'g> {
    gateway: &'g Gateway,
    event: Event,
    caller: Caller,
    target: String,
    method: Option<Method>,
    consumer: Option<String>,
    replaced_by: Option<String>,
    ended: Option<(StatusCode, Option<&'static str>)>,
}

impl<'g> Asked<'g> {
    fn new(gateway: &'g Gateway, event: Event, caller: Caller, target: &str) -> Self {
        let target = shown(target);
        Self { gateway, event, caller, target, method: None, consumer: None, replaced_by: None, ended: None }
    }

    fn ended(&mut self, response: &Response) {
        self.ended = Some((response.status(), response.extensions().get::<Code>().map(|code| code.0)));
    }

    /// Whether this is no more than a look at the pulse, and was answered.
    fn is_unremarkable(&self) -> bool {
        let reads = matches!(self.method, Some(Method::GET | Method::HEAD));
        let refused = self.ended.is_some_and(|(status, _)| outcome(status) == Outcome::Denied);
        reads && !refused && UNREMARKABLE.contains(&self.target.as_str())
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.is_unremarkable() {
            return;
        }
        let (outcome, reason) = match self.ended {
            Some((status, code)) => (outcome(status), code),
            None => (Outcome::Failure, Some("client_gone")),
        };
        let texts = [
            ("method", self.method.as_ref().map(Method::as_str)),
            ("consumer", self.consumer.as_deref()),
            ("replaced_by", self.replaced_by.as_deref()),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name, Value::Text(text?))));
        let status = self.ended.map(|(status, _)| ("status", Value::Number(status.as_u16().into())));
        let more: Vec<_> = texts.chain(status).collect();
        let (event, who, target) = (self.event, self.caller.who(), self.target.as_str());
        self.gateway.audit.write(&Record { event, outcome, who, target, reason, more: &more });
    }
}

/// A path, or an id, with `***` for what is no name of ours: where an id belongs, somebody may have written a whole key.
fn shown(path: &str) -> String {
    let is_plain = |part: &str| {
        part.len() <= 32
            && !part.starts_with("cw_")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    };
    path.split('/').map(|part| if is_plain(part) { part } else { "***" }).collect::<Vec<_>>().join("/")
}

fn outcome(status: StatusCode) -> Outcome {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => Outcome::Denied,
        status if status.is_success() => Outcome::Success,
        _ => Outcome::Failure,
    }
}

/// Records a call of whatever page, refused ones too. The query is left out.
pub(super) async fn note(
    From(state): From<State>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = Caller { peer, known: Arc::default() };
    request.extensions_mut().insert(caller.clone());
    let mut asked = Asked::new(&state.gateway, Event::AdminCalled, caller, request.uri().path());
    asked.method = Some(request.method().clone());
    let response = next.run(request).await;
    asked.ended(&response);
    response
}

/// A change of API keys.
pub(super) struct Change<'g>(Asked<'g>);

impl<'g> Change<'g> {
    /// A change of this key, or of one that has no id yet.
    pub(super) fn new(state: &'g State, event: Event, caller: Caller, id: Option<&str>) -> Self {
        Self(Asked::new(&state.gateway, event, caller, id.unwrap_or("-")))
    }

    /// Whose key it is.
    pub(super) fn of_consumer(&mut self, name: &str) {
        self.0.consumer = Some(name.to_owned());
    }

    /// The key that has come of it.
    pub(super) fn made(&mut self, id: &str) {
        match self.0.event {
            Event::KeyRotated => self.0.replaced_by = Some(id.to_owned()),
            _ => id.clone_into(&mut self.0.target),
        }
    }

    /// What has come of it.
    pub(super) fn ended(mut self, response: &Response) {
        self.0.ended(response);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_place_of_an_id_is_not_shown() {
        for (path, expected) in [
            ("/api/keys/abcdefghijkl/rotate", "/api/keys/abcdefghijkl/rotate"),
            ("/api/keys/cw_abcdefghijkl_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ01", "/api/keys/***"),
            ("/api/keys/%63w_abcdefghijkl_01234567", "/api/keys/***"),
            ("/api/keys/cw_abcdefghijkl_01/rotate", "/api/keys/***/rotate"),
            ("/x/0123456789abcdef0123456789abcdef0", "/x/***"),
            ("-", "-"),
            ("/", "/"),
        ] {
            assert_eq!(shown(path), expected);
        }
    }
}
