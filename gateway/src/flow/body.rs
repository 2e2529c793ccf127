//! Request bodies: bounds, and reading them whole where a plugin wants that.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use crossway_plugin_api::{Fault, Overflow, Reply};
use pingora_proxy::Session;

use super::{Admitted, coded, grpc, upgrade::Wanted};
use crate::{
    coding::Codings,
    front::Cut,
    request::BodyFraming,
    snapshot::Route,
    upstream::{exchange::BodySource, fault},
};

/// Refuses a body that says itself that it is too large.
pub(super) fn check_length(admitted: &Admitted) -> Result<(), Fault> {
    let max = admitted.ctx.max_request_body;
    match admitted.framing.body {
        BodyFraming::Length(length) if length > max => Err(Fault::RequestTooLarge { max }),
        _ => Ok(()),
    }
}

/// Counts a piece of the body; refuses it when it is one too many. What passes through a WebSocket is no body, and has no
/// end that could be bounded.
pub(super) fn count(admitted: &mut Admitted, piece: usize) -> Result<(), Fault> {
    admitted.outcome.request_bytes += piece as u64;
    let max = admitted.ctx.max_request_body;
    if admitted.wanted == Wanted::Http && admitted.outcome.request_bytes > max {
        Err(Fault::RequestTooLarge { max })
    } else {
        Ok(())
    }
}

/// A client that is still sending when the request's time is over has been too slow.
pub(super) fn check_deadline(admitted: &Admitted) -> Result<(), Fault> {
    let sending = admitted.attempts.current().is_some();
    let late = admitted.ctx.deadline.is_some_and(|deadline| Instant::now() >= deadline);
    match &admitted.grpc {
        _ if !(sending && late) => Ok(()),
        // A caller streams for as long as it has said: it is not slow.
        Some(_) => Err(Fault::Deadline),
        None => Err(Fault::ClientTimeout),
    }
}

/// Tells a client that waits for it to send its body (RFC 9110, section 10.1.1), once. The gateway answers for the
/// upstream: what could refuse the request has seen it by now.
pub(super) async fn invite(session: &mut Session, admitted: &mut Admitted) -> Result<(), Fault> {
    if std::mem::take(&mut admitted.framing.expects_continue) {
        session.as_downstream_mut().write_continue_response().await.map_err(|_| Fault::ClientGone)?;
    }
    Ok(())
}

/// Reads the body whole and runs the body phase, if a plugin wants this body. A reply ends the request.
pub(super) async fn buffer(
    session: &mut Session,
    admitted: &mut Admitted,
    route: &Route,
) -> Result<Option<Reply>, Fault> {
    let chain = Arc::clone(&admitted.chain);
    let Some((wanted, overflow)) = chain.wants_request_body(admitted.entered, &session.req_header().headers) else {
        return Ok(None);
    };
    if admitted.grpc.is_some() {
        return Ok((overflow == Overflow::Refuse).then(grpc::not_held));
    }
    let configured = admitted.listener.limits.request.buffered_body.0;
    let max = wanted.min(route.max_buffered_body.unwrap_or(configured)).min(admitted.ctx.max_request_body);
    match (admitted.framing.body, overflow) {
        (BodyFraming::Length(length), Overflow::Refuse) if length > max => return Err(Fault::RequestTooLarge { max }),
        (BodyFraming::Length(length), Overflow::Stream) if length > max => return Ok(None),
        (BodyFraming::Chunked, Overflow::Stream) => return Ok(None),
        _ => {}
    }
    let mut body = match whole(session, admitted, max).await? {
        (_, Ok(plain)) => plain,
        (_, Err(refusal)) if overflow == Overflow::Refuse => return Ok(Some(refusal)),
        (as_it_came, Err(_)) => {
            admitted.body = as_it_came;
            return Ok(None);
        }
    };
    let Admitted { ctx, entered, .. } = &mut *admitted;
    let reply = chain.on_request_body(&mut body, session.req_header_mut(), ctx, entered).await?;
    admitted.body = Some(body);
    Ok(reply)
}

/// The body as it came, where it was read, and what it is without its content codings, or the reply that refuses these.
async fn whole(
    session: &mut Session,
    admitted: &mut Admitted,
    max: u64,
) -> Result<(Option<Bytes>, Result<Bytes, Reply>), Fault> {
    let codings = match coded::request_codings(session.req_header()) {
        Ok(codings) => codings,
        Err(refusal) if admitted.framing.body != BodyFraming::None => return Ok((None, Err(refusal))),
        Err(_) => Codings::default(),
    };
    let until = admitted.ctx.deadline.unwrap_or_else(|| Instant::now() + admitted.listener.limits.client.idle.0);
    let read = tokio::time::timeout_at(until.into(), read_whole(session, admitted, max)).await;
    let body = read.map_err(|_| Fault::ClientTimeout)??;
    if codings.is_identity() || body.is_empty() {
        return Ok((None, Ok(body)));
    }
    let plain = coded::decode_request(codings, &body, session.req_header_mut(), max).await;
    Ok((Some(body), plain))
}

async fn read_whole(session: &mut Session, admitted: &mut Admitted, max: u64) -> Result<Bytes, Fault> {
    // Before the first read: what is read later is not kept for the upstream.
    session.as_downstream_mut().enable_retry_buffering();
    let mut body = BytesMut::new();
    let mut source = Downstream { session, admitted };
    while let Some(piece) = source.next().await? {
        if (body.len() + piece.len()) as u64 > max {
            return Err(Fault::RequestTooLarge { max });
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// The request's body as it comes from the client.
pub(super) struct Downstream<'a> {
    pub(super) session: &'a mut Session,
    pub(super) admitted: &'a mut Admitted,
}

#[async_trait]
impl BodySource for Downstream<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        if matches!(self.admitted.framing.body, BodyFraming::None) {
            return Ok(None);
        }
        invite(self.session, self.admitted).await?;
        let read = self.session.as_downstream_mut().read_request_body().await;
        let piece = read.map_err(|error| downstream_fault(&error.into_down(), self.admitted))?;
        if let Some(piece) = &piece {
            count(self.admitted, piece.len())?;
        }
        Ok(piece)
    }

    async fn gone(&mut self) {
        let _ = self.session.as_downstream_mut().read_body_or_idle(true).await;
    }
}

/// What an error on the client's side means; the connection knows more than the error says.
pub(super) fn downstream_fault(error: &pingora_core::Error, admitted: &Admitted) -> Fault {
    match admitted.conn.cut() {
        Some(Cut::BrokenFraming) => Fault::RequestFraming("chunked coding".into()),
        Some(Cut::Slow) => Fault::ClientTimeout,
        _ => fault::of(error),
    }
}

/// After an answer that does not depend on the body: a small rest of it is read and thrown away so that the connection
/// can be kept; otherwise the connection ends.
pub(super) fn keep_or_close(session: &mut Session, admitted: &Admitted) {
    /// A body of this size costs less than a new connection.
    const CHEAP: u64 = 64 << 10;
    let unread = match admitted.framing.body {
        _ if session.as_downstream_mut().is_body_done() => 0,
        BodyFraming::None => 0,
        BodyFraming::Length(length) => length.saturating_sub(admitted.outcome.request_bytes),
        BodyFraming::Chunked => u64::MAX,
    };
    // A client that still waits to be invited will not send what it has announced.
    if unread > CHEAP || admitted.framing.expects_continue {
        session.set_keepalive(None);
    } else if unread > 0 {
        session.as_downstream_mut().set_close_on_response_before_downstream_finish(false);
    }
}
