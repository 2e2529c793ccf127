//! The exchange way: the gateway itself talks to the upstream, and holds bodies where a plugin wants the whole.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use crossway_plugin_api::{Fault, Overflow};
use http::{HeaderValue, StatusCode, Version, header, request::Parts};
use pingora_core::protocols::http::ServerSession as Client;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::{
    Admitted, body, coded, outbound,
    steps::{Next, Steps},
    tunnelled,
    upgrade::{self, Wanted},
};
use crate::{
    coding::Encoder,
    request,
    request::BodyFraming,
    snapshot::{HostRewrite, Target},
    upstream::{
        Answer, Attempts, Endpoint, Interim, Piece, Upstream,
        exchange::{Payload, Prepare, Replay},
    },
};

/// Sends the request, waits for the answer, runs the response phases and sends the result to the client.
pub(super) async fn run(
    steps: &Steps,
    session: &mut Session,
    admitted: &mut Admitted,
    upstream: &Arc<Upstream>,
) -> Result<Next, Fault> {
    let deadline = admitted.ctx.deadline.unwrap_or_else(|| Instant::now() + upstream.timeouts.total);
    let mut attempts = std::mem::take(&mut admitted.attempts);
    attempts.deadline = Some(deadline);
    let sent = send(steps, session, admitted, upstream, &mut attempts).await;
    admitted.attempts = attempts;
    admitted.is_spent = !admitted.kept.is_replayable();
    let (head, answer) = sent?;
    if admitted.declines(session, answer.status) {
        answer.close().await;
        return Ok(Next::Declined(head.status));
    }
    if answer.status == StatusCode::SWITCHING_PROTOCOLS {
        let idle = admitted.route.as_ref().and_then(|route| route.websocket);
        let idle = idle.ok_or_else(|| Fault::Internal("a switch on a route that allows none".into()))?;
        tunnelled::run(session, admitted, (head, answer), idle).await?;
        return Ok(Next::Sent);
    }
    answer_client(session, admitted, (head, answer), deadline).await?;
    Ok(Next::Sent)
}

async fn send(
    steps: &Steps,
    session: &mut Session,
    admitted: &mut Admitted,
    upstream: &Upstream,
    attempts: &mut Attempts,
) -> Result<(ResponseHeader, Answer), Fault> {
    let mut base = outbound::copy(session.req_header());
    request::strip_request_hop_by_hop(&mut base.headers);
    let exchange = &steps.gateway.exchange;
    match (admitted.body.clone(), admitted.framing.body) {
        (None, BodyFraming::Length(_) | BodyFraming::Chunked) => {
            // The header is made before the body is read, so the two never need the request at once; each attempt needs
            // it anew, and a body that has begun to stream is not sent twice.
            let header = Base { base, admitted: &mut *admitted }.make(&UNNAMED)?;
            let mut ready = Ready { header, named_after_endpoint: is_named_after_endpoint(admitted) };
            let mut kept = std::mem::take(&mut admitted.kept);
            let mut source = body::Downstream { session, admitted: &mut *admitted };
            let mut payload = Payload::Stream(Replay::new(&mut source, &mut kept));
            let sent = exchange.send(upstream, &mut ready, &mut payload, (attempts, &Interim::default())).await;
            admitted.kept = kept;
            sent
        }
        (whole, _) => {
            let mut prepare = Base { base, admitted };
            let mut payload = Payload::Whole(whole.unwrap_or_default());
            let interim = Interim::default();
            let sent = exchange.send(upstream, &mut prepare, &mut payload, (attempts, &interim));
            passing_on(session, pin!(sent), &interim).await
        }
    }
}

/// Waits for the upstream for as long as the client does, whose request has been read to its end.
async fn unless_gone<T, W>(session: &mut Session, mut wait: Pin<&mut W>) -> Result<T, Fault>
where
    W: Future<Output = Result<T, Fault>>,
{
    tokio::select! {
        biased;
        done = &mut wait => done,
        _ = session.as_downstream_mut().read_body_or_idle(true) => Err(Fault::ClientGone),
    }
}

/// The same for a final response, with what comes before it passed on (RFC 9110, section 15.2).
async fn passing_on<T, W>(session: &mut Session, mut wait: Pin<&mut W>, interim: &Interim) -> Result<T, Fault>
where
    W: Future<Output = Result<T, Fault>>,
{
    loop {
        let done = tokio::select! {
            biased;
            done = &mut wait => Some(done),
            () = interim.come() => None,
            _ = session.as_downstream_mut().read_body_or_idle(true) => return Err(Fault::ClientGone),
        };
        while let Some(mut head) = interim.take() {
            // HTTP/1.0 does not know them.
            if session.req_header().version != Version::HTTP_10 {
                request::strip_hop_by_hop(&mut head);
                session.write_response_header(Box::new(head), false).await.map_err(|_| Fault::ClientGone)?;
            }
        }
        if let Some(done) = done {
            return done;
        }
    }
}

/// Stands for the endpoint's name until an endpoint is chosen.
const UNNAMED: HeaderValue = HeaderValue::from_static("unnamed");

/// Makes the header from the client's for each attempt.
struct Base<'a> {
    base: Parts,
    admitted: &'a mut Admitted,
}

impl Prepare for Base<'_> {
    fn header(&mut self, endpoint: &Endpoint) -> Result<RequestHeader, Fault> {
        self.make(&endpoint.authority)
    }
}

impl Base<'_> {
    fn make(&mut self, endpoint_name: &HeaderValue) -> Result<RequestHeader, Fault> {
        let mut req = RequestHeader::from(self.base.clone());
        // What the endpoint speaks is known once there is a connection to it.
        req.set_version(Version::HTTP_11);
        outbound::prepare(self.admitted, &mut req, endpoint_name)?;
        if self.admitted.wanted == Wanted::WebSocket {
            upgrade::ask(&mut req)?;
        }
        if !req.headers.contains_key(header::CONTENT_LENGTH) && self.admitted.framing.body == BodyFraming::Chunked {
            req.insert_header(header::TRANSFER_ENCODING, "chunked")
                .map_err(|_| Fault::Internal("a header that cannot be written".into()))?;
        }
        Ok(req)
    }
}

/// A header made beforehand; only the endpoint's name differs between attempts.
struct Ready {
    header: RequestHeader,
    named_after_endpoint: bool,
}

impl Prepare for Ready {
    fn header(&mut self, endpoint: &Endpoint) -> Result<RequestHeader, Fault> {
        let mut req = self.header.clone();
        if self.named_after_endpoint {
            req.insert_header(header::HOST, endpoint.authority.clone())
                .map_err(|_| Fault::Internal("a header that cannot be written".into()))?;
        }
        Ok(req)
    }
}

fn is_named_after_endpoint(admitted: &Admitted) -> bool {
    let target = admitted.route.as_ref().map(|route| &route.target);
    match target {
        Some(Target::Upstream { host: HostRewrite::Endpoint, .. }) => true,
        Some(Target::Upstream { host: HostRewrite::Preserve, .. }) => admitted.ctx.host.is_empty(),
        _ => false,
    }
}

async fn answer_client(
    session: &mut Session,
    admitted: &mut Admitted,
    (mut head, answer): (ResponseHeader, Answer),
    deadline: Instant,
) -> Result<(), Fault> {
    request::strip_hop_by_hop(&mut head);
    admitted.speak_version(&mut head);
    head.remove_header(&header::TRANSFER_ENCODING);
    let method = session.req_header().method.clone();
    let chain = Arc::clone(&admitted.chain);
    let wanted = chain.wants_response_body(admitted.entered, &head);
    let limit = admitted.route.as_ref().and_then(|r| r.max_buffered_body);
    let limit = limit.unwrap_or(admitted.listener.limits.request.buffered_body.0);
    let fits = |max: u64| answer.declared_length.is_some_and(|length| length <= max);
    match wanted.map(|(max, overflow)| (max.min(limit), overflow)) {
        Some((max, overflow)) if overflow == Overflow::Refuse || fits(max) || !answer.has_body(&method) => {
            Box::pin(hold_answer(session, admitted, (head, answer), (max, overflow), deadline)).await
        }
        _ => stream_answer(session, admitted, answer, head).await,
    }
}

/// Reads a body whole, for the plugins that want it.
async fn hold_answer(
    session: &mut Session,
    admitted: &mut Admitted,
    (mut head, mut answer): (ResponseHeader, Answer),
    (max, overflow): (u64, Overflow),
    deadline: Instant,
) -> Result<(), Fault> {
    let chain = Arc::clone(&admitted.chain);
    let mut body =
        if answer.has_body(&session.req_header().method) { answer.whole(max, deadline).await? } else { Bytes::new() };
    answer.finish().await;
    if !body.is_empty() {
        match coded::response(body.clone(), &mut head, max).await {
            Ok(plain) => body = plain,
            Err(fault) if overflow == Overflow::Refuse => return Err(fault),
            Err(_) => {
                // Past the plugins, as a body goes that is too large.
                response_phase(admitted, &mut head)?;
                body::keep_or_close(session, admitted);
                return coded::deliver(session, admitted, head, body).await.map_err(|_| Fault::ClientGone);
            }
        }
    }
    let (length, was_empty) = (head.headers.get(header::CONTENT_LENGTH).cloned(), body.is_empty());
    chain.on_response_body(&mut body, &mut head, &mut admitted.ctx, &mut admitted.entered).await?;
    response_phase(admitted, &mut head)?;
    body::keep_or_close(session, admitted);
    if was_empty && body.is_empty() {
        // To HEAD, 204 and 304 the upstream's word on the length stands.
        return send_bodiless(session, admitted, head, length).await;
    }
    coded::deliver(session, admitted, head, body).await.map_err(|_| Fault::ClientGone)
}

async fn send_bodiless(
    session: &mut Session,
    admitted: &Admitted,
    mut head: ResponseHeader,
    length: Option<http::HeaderValue>,
) -> Result<(), Fault> {
    let bodiless = session.req_header().method == http::Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
    let length = if bodiless { length } else { Some(http::HeaderValue::from_static("0")) };
    head.remove_header(&header::CONTENT_LENGTH);
    if let Some(length) = length {
        head.insert_header(header::CONTENT_LENGTH, length).map_err(|_| Fault::Internal("a length".into()))?;
    }
    admitted.compress_stream(session.req_header(), &mut head);
    session.write_response_header(Box::new(head), true).await.map_err(|_| Fault::ClientGone)
}

pub(super) fn response_phase(admitted: &mut Admitted, head: &mut ResponseHeader) -> Result<(), Fault> {
    admitted.stick(head)?;
    let chain = Arc::clone(&admitted.chain);
    chain.on_response(head, &mut admitted.ctx, &mut admitted.entered)?;
    admitted.outcome.answered = Some(Instant::now());
    Ok(())
}

/// Passes a body on that no plugin wants whole.
async fn stream_answer(
    session: &mut Session,
    admitted: &mut Admitted,
    mut answer: Answer,
    mut head: ResponseHeader,
) -> Result<(), Fault> {
    let has_body = answer.has_body(&session.req_header().method);
    if has_body && !head.headers.contains_key(header::CONTENT_LENGTH) {
        head.insert_header(header::TRANSFER_ENCODING, "chunked").map_err(|_| Fault::Internal("framing".into()))?;
    }
    admitted.speak_version(&mut head);
    response_phase(admitted, &mut head)?;
    let mut encoder = admitted.compress_stream(session.req_header(), &mut head);
    body::keep_or_close(session, admitted);
    session.write_response_header(Box::new(head), !has_body).await.map_err(|_| Fault::ClientGone)?;
    if has_body {
        while let Some(piece) = next_piece(session, admitted, &mut answer).await? {
            pass_on(session, piece, encoder.as_mut()).await?;
        }
        let last = encoder.map(|mut encoder| encoder.push(b"", true)).transpose();
        let last = last.map_err(|e| Fault::Internal(e.to_string()))?;
        session.write_response_body(last, true).await.map_err(|_| Fault::ClientGone)?;
    }
    answer.finish().await;
    Ok(())
}

/// The next piece of the response, or the end of the client's patience.
async fn next_piece<'a>(
    session: &mut Session,
    admitted: &Admitted,
    answer: &'a mut Answer,
) -> Result<Option<Piece<'a>>, Fault> {
    if admitted.framing.body == BodyFraming::None || session.as_downstream_mut().is_body_done() {
        unless_gone(session, pin!(answer.lend())).await
    } else {
        answer.lend().await
    }
}

/// Most bytes of a body that go into one frame.
const PART: usize = 16 << 10;

/// Writes a piece to the client, through the encoder if there is one.
async fn pass_on(session: &mut Session, mut piece: Piece<'_>, encoder: Option<&mut Encoder>) -> Result<(), Fault> {
    if let Some(encoder) = encoder {
        piece = Piece::Own(encoder.push(&piece, false).map_err(|e| Fault::Internal(e.to_string()))?);
    }
    // An empty one would be the last chunk.
    if piece.is_empty() {
        return Ok(());
    }
    if let Client::H1(client) = session.as_downstream_mut() {
        return client.write_body(&piece).await.map(drop).map_err(|_| Fault::ClientGone);
    }
    // Copied as it is wanted: what waits for a window is not held twice.
    for part in piece.chunks(PART) {
        let part = Bytes::copy_from_slice(part);
        session.write_response_body(Some(part), false).await.map_err(|_| Fault::ClientGone)?;
    }
    Ok(())
}
