//! WebSocket handshakes (RFC 6455, section 4).

use crossway_plugin_api::{Fault, Reply};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version, header};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::Admitted;
use crate::{request::BodyFraming, snapshot::Route};

/// What a request wants of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Wanted {
    /// HTTP, as it is.
    #[default]
    Http,
    /// To become a WebSocket.
    WebSocket,
}

/// Finds out whether a request is a WebSocket handshake that the route takes. An upgrade to anything else is not offered,
/// and goes no further (RFC 9110, section 7.8: it may be ignored).
///
/// Errors: 403 where the route does not serve WebSockets, 400 for a handshake that cannot be one.
pub(super) fn check(session: &mut Session, admitted: &mut Admitted, route: &Route) -> Result<(), Reply> {
    let req = session.req_header();
    if !req.headers.contains_key(header::UPGRADE) {
        return Ok(());
    }
    if req.version != Version::HTTP_11 || !asks_for_websocket(&req.headers) {
        session.req_header_mut().remove_header(&header::UPGRADE);
        return Ok(());
    }
    let fits = req.method == Method::GET && admitted.framing.body == BodyFraming::None;
    if !fits {
        let detail = "A WebSocket handshake is a GET without a body.";
        return Err(Reply::problem(StatusCode::BAD_REQUEST, "bad_upgrade", detail));
    }
    if route.websocket.is_none() {
        let detail = "This route does not serve WebSockets.";
        return Err(Reply::problem(StatusCode::FORBIDDEN, "upgrade_not_allowed", detail));
    }
    admitted.wanted = Wanted::WebSocket;
    Ok(())
}

/// The response header that the client has got, if that is the one that counts: a final one, or the switch to another
/// protocol (RFC 9110, section 15.2.2), which nothing may follow either.
pub(super) fn answered(session: &Session) -> Option<&ResponseHeader> {
    let counts = |status: StatusCode| !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS;
    session.response_written().filter(|head| counts(head.status))
}

/// Asks the upstream for a WebSocket, in a header from which all that belongs to the client's connection was taken.
pub(super) fn ask(req: &mut RequestHeader) -> Result<(), Fault> {
    let broken = |_| Fault::Internal("a header that cannot be written".into());
    req.insert_header(header::CONNECTION, "Upgrade").map_err(broken)?;
    req.insert_header(header::UPGRADE, "websocket").map_err(broken)
}

/// Whether a 101 switches to what was asked for (RFC 6455, section 4.1).
pub(super) fn is_made(res: &ResponseHeader) -> bool {
    lists(&res.headers, &header::UPGRADE, b"websocket")
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
    lists(headers, &header::CONNECTION, b"upgrade") && lists(headers, &header::UPGRADE, b"websocket")
}

fn lists(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    let mut items = headers.get_all(name).iter().flat_map(|field| field.as_bytes().split(|&b| b == b','));
    items.any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}
