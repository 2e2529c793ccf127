//! The way of gRPC calls: both directions at once, over the exchange's connections.
//!
//! On the stream way Pingora passes nothing of the answer on while it waits for the upstream to take more of the request.
//! A server that answers while it reads would then wait for us as we wait for it.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use crossway_plugin_api::{Fault, Overflow};
use http::{StatusCode, Version, header};
use pingora_core::protocols::http::HttpTask;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::{
    Admitted, body,
    grpc::{self, Upload, trailers},
    outbound,
    steps::{Next, Steps},
};
use crate::{
    request::{self, BodyFraming},
    upstream::{Answering, Asked, Endpoint, Upstream, exchange, fault, lease::Lease, state::InFlight},
};

/// How long a response header may be held to see whether the call ends right behind it: a status in trailers comes with the
/// header, or much later.
const AT_ONCE: Duration = Duration::from_millis(50);

/// A call whose response header has come.
struct Answered {
    head: ResponseHeader,
    /// What has come behind the header, where that was waited for.
    first: Option<Result<Piece, Fault>>,
    lease: Lease,
    _place: InFlight,
}

impl Answered {
    /// What the answer means, as far as it is there: a call without messages may end in its header or in trailers.
    fn meant(&self) -> StatusCode {
        match &self.first {
            Some(Ok(Piece::End(Some(fields)))) if grpc::is_unknown(fields) => StatusCode::UNAUTHORIZED,
            _ => grpc::meant(&self.head),
        }
    }
}

/// Makes the call, trying again as the upstream's rules say, and passes the answer on.
pub(super) async fn run(
    steps: &Steps,
    session: &mut Session,
    admitted: &mut Admitted,
    upstream: &Arc<Upstream>,
) -> Result<Next, Fault> {
    body::invite(session, admitted).await?;
    let deadline = admitted.ctx.deadline.unwrap_or_else(|| Instant::now() + upstream.timeouts.total);
    let has_body = !matches!(admitted.framing.body, BodyFraming::None | BodyFraming::Length(0));
    let mut upload = admitted.upload.take().map_or_else(|| Upload::new(has_body), |upload| *upload);
    admitted.attempts.deadline = Some(deadline);
    let answered = call(steps, session, admitted, &mut upload, upstream).await;
    admitted.is_spent = !upload.is_replayable();
    let declined = answered.as_ref().map(|answered| answered.head.status);
    let declined = declined.ok().filter(|status| admitted.declines(session, *status));
    if answered.is_err() || declined.is_some() {
        // The answer, if any, ends before the request can begin anew.
        let came = answered.map(drop);
        admitted.attempts.decline();
        upload.rewind();
        admitted.upload = Some(Box::new(upload));
        return came.map(|()| declined.map_or(Next::Sent, Next::Declined));
    }
    let answered = answered?;
    // From here on the messages go on their way, and are not kept.
    admitted.is_spent = true;
    let answering = admitted.attempts.answering();
    let mut passing = Passing { session, admitted, upload: &mut upload, upstream, answering };
    if let Err(fault) = passing.run(answered).await {
        passing.upload.stop();
        return passing.tell(steps, fault).await;
    }
    Ok(Next::Sent)
}

/// Tries until there is a response header, or no reason to try again.
async fn call(
    steps: &Steps,
    session: &mut Session,
    admitted: &mut Admitted,
    upload: &mut Upload,
    upstream: &Upstream,
) -> Result<Answered, Fault> {
    loop {
        let (endpoint, place) = admitted.attempts.begin(upstream).await?;
        let whole = upload.is_read();
        let mut attempt = Attempt { steps, upstream, endpoint: &endpoint, whole, reused: false, sent: None };
        let mut answered = attempt.run(session, admitted, upload, place).await;
        let Attempt { reused, sent, .. } = attempt;
        let method = &session.req_header().method;
        let asked = Asked { method, replayable: upload.is_replayable(), reused, sent };
        let again = admitted.attempts.settle(upstream, answered.as_ref().map(|answered| &answered.head), &asked);
        if let Ok(answered) = &mut answered
            && !again
        {
            look_ahead(session, admitted, upload, upstream, answered).await?;
        }
        let refused = match &answered {
            Ok(answered) => {
                let replayable = upload.is_replayable();
                admitted.attempts.is_refused(upstream, answered.meant(), replayable).await
            }
            Err(_) => false,
        };
        if !again && !refused {
            return answered;
        }
        upload.rewind();
    }
}

/// Waits a moment for what comes behind the header, where that could make another attempt.
async fn look_ahead(
    session: &mut Session,
    admitted: &mut Admitted,
    upload: &mut Upload,
    upstream: &Upstream,
    answered: &mut Answered,
) -> Result<(), Fault> {
    let may_be = upload.is_replayable() && admitted.attempts.may_be_refused(upstream);
    if may_be && !answered.lease.is_body_read()? {
        let mut passing = Passing { session, admitted, upload, upstream, answering: None };
        let first = tokio::time::timeout(AT_ONCE, passing.read(&mut answered.lease)).await;
        answered.first = first.ok();
    }
    Ok(())
}

struct Attempt<'a> {
    steps: &'a Steps,
    upstream: &'a Upstream,
    endpoint: &'a Arc<Endpoint>,
    /// All of the request was at hand when the attempt began.
    whole: bool,
    reused: bool,
    sent: Option<Instant>,
}

impl Attempt<'_> {
    /// Sends the header, and of the messages what there is until the response header comes.
    async fn run(
        &mut self,
        session: &mut Session,
        admitted: &mut Admitted,
        upload: &mut Upload,
        place: InFlight,
    ) -> Result<Answered, Fault> {
        let exchange = &self.steps.gateway.exchange;
        let mut bound = admitted.attempts.sending(self.upstream, self.whole);
        let (mut lease, reused) = exchange.connect(self.upstream, self.endpoint, bound).await?;
        self.reused = reused;
        let mut req = outgoing(session, admitted, self.endpoint)?;
        admitted.attempts.sign(self.upstream, &mut req)?;
        let stream = lease.http2()?;
        stream.write_request_header(Box::new(req), upload.is_over()).map_err(|e| fault::upstream(&e))?;
        upload.begin(stream.take_request_body_writer());
        let alarm = tokio::time::sleep_until(bound.at.into());
        tokio::pin!(alarm);
        let mut sending = true;
        loop {
            if sending && upload.is_over() {
                sending = false;
                self.sent = Some(Instant::now());
                bound = admitted.attempts.waiting(self.upstream, self.whole);
                alarm.as_mut().reset(bound.at.into());
            }
            tokio::select! {
                read = stream.read_response_header() => break read.map_err(|e| fault::upstream(&e))?,
                moved = upload.step(session, admitted) => moved?,
                () = &mut alarm => return Err(bound.fault()),
            }
        }
        let head = stream.response_header().cloned();
        let head = head.ok_or_else(|| Fault::Internal("no response header".into()))?;
        Ok(Answered { head, first: None, lease, _place: place })
    }
}

/// The header as the endpoint gets it.
fn outgoing(session: &Session, admitted: &mut Admitted, endpoint: &Endpoint) -> Result<RequestHeader, Fault> {
    let mut base = outbound::copy(session.req_header());
    request::strip_request_hop_by_hop(&mut base.headers);
    let mut req = RequestHeader::from(base);
    outbound::prepare(admitted, &mut req, &endpoint.authority)?;
    exchange::to_http2(&mut req, endpoint.peer.is_tls())?;
    Ok(req)
}

/// An answer on its way to the client, while the rest of the request goes the other way.
struct Passing<'a> {
    session: &'a mut Session,
    admitted: &'a mut Admitted,
    upload: &'a mut Upload,
    upstream: &'a Upstream,
    /// What the end of the answer says of the endpoint.
    answering: Option<Answering>,
}

/// What comes next from the upstream.
enum Piece {
    Data(Bytes, bool),
    End(Option<http::HeaderMap>),
}

impl Passing<'_> {
    async fn run(&mut self, answered: Answered) -> Result<(), Fault> {
        let Answered { head, mut first, mut lease, _place } = answered;
        let ended = first.is_none() && lease.is_body_read().inspect_err(|fault| self.broke(fault))?;
        let head = self.head(head)?;
        if ended {
            self.ended(None);
        }
        self.write(HttpTask::Header(Box::new(head), ended)).await?;
        if !ended {
            loop {
                let piece = match first.take() {
                    Some(piece) => piece,
                    None => self.next(&mut lease).await,
                };
                let task = self.task(piece)?;
                let last = matches!(&task, HttpTask::Trailer(_) | HttpTask::Body(_, true));
                self.write(task).await?;
                if last {
                    break;
                }
            }
        }
        self.upload.stop();
        lease.end(true).await;
        Ok(())
    }

    /// The response header as the client gets it, after the response phases.
    fn head(&mut self, mut head: ResponseHeader) -> Result<ResponseHeader, Fault> {
        let admitted = &mut *self.admitted;
        request::strip_hop_by_hop(&mut head);
        admitted.speak_version(&mut head);
        let chain = Arc::clone(&admitted.chain);
        if let Some((_, Overflow::Refuse)) = chain.wants_response_body(admitted.entered, &head) {
            return Err(Fault::UpstreamProtocol("an answer to a gRPC call that a plugin must hold".into()));
        }
        if let Some(call) = &mut admitted.grpc {
            call.response(&mut head)?;
        }
        let bodiless = matches!(head.status.as_u16(), 204 | 304);
        let framed = bodiless || head.headers.contains_key(header::CONTENT_LENGTH);
        if admitted.version != Version::HTTP_2 && !framed {
            head.insert_header(header::TRANSFER_ENCODING, "chunked").map_err(|_| Fault::Internal("framing".into()))?;
        }
        admitted.stick(&mut head)?;
        chain.on_response(&mut head, &mut admitted.ctx, &mut admitted.entered)?;
        admitted.outcome.answered = Some(Instant::now());
        Ok(head)
    }

    /// Waits for more of the answer. An end that says that the gateway is not known there is too late for another attempt,
    /// but the next call shall have something else to show.
    async fn next(&mut self, lease: &mut Lease) -> Result<Piece, Fault> {
        let piece = self.read(lease).await?;
        if matches!(&piece, Piece::End(Some(fields)) if grpc::is_unknown(fields)) {
            self.admitted.attempts.is_refused(self.upstream, StatusCode::UNAUTHORIZED, false).await;
        }
        Ok(piece)
    }

    /// What has come, in the client's form.
    fn task(&mut self, piece: Result<Piece, Fault>) -> Result<HttpTask, Fault> {
        let piece = piece.inspect_err(|fault| self.broke(fault))?;
        match &piece {
            Piece::Data(_, false) => self.moves(),
            Piece::Data(_, true) => self.ended(None),
            Piece::End(fields) => self.ended(fields.as_ref()),
        }
        Ok(self.in_clients_form(piece))
    }

    /// Waits for more of the answer, and moves the request on meanwhile.
    async fn read(&mut self, lease: &mut Lease) -> Result<Piece, Fault> {
        let stream = lease.http2()?;
        let piece = loop {
            let patience = self.patience();
            let moved = tokio::select! {
                read = stream.read_response_body() => break read.map_err(|e| fault::upstream(&e))?,
                moved = self.upload.step(self.session, self.admitted) => moved,
                () = tokio::time::sleep_until(patience.until.into()) => Err(patience.fault()),
            };
            moved?;
            self.moves();
        };
        match piece {
            Some(data) => {
                let end = stream.check_response_end_or_error().map_err(|e| fault::upstream(&e))?;
                Ok(Piece::Data(data, end))
            }
            None => {
                let patience = self.patience();
                let read = patience.bound(stream.read_trailers()).await?;
                Ok(Piece::End(read.map_err(|e| fault::upstream(&e))?))
            }
        }
    }

    fn moves(&mut self) {
        if let Some(answering) = &mut self.answering {
            answering.moves();
        }
    }

    /// The answer is over, with these trailers or none.
    fn ended(&mut self, trailers: Option<&http::HeaderMap>) {
        if let Some(mut answering) = self.answering.take() {
            answering.ended(self.admitted.grpc.as_ref().and_then(|call| call.ended(trailers)));
        }
    }

    /// A fault has ended the answer.
    fn broke(&mut self, fault: &Fault) {
        // A caller that waits for the end of a stream has set the deadline itself.
        let Some(mut answering) = self.answering.take().filter(|_| *fault != Fault::Deadline) else { return };
        if self.upload.is_over() {
            answering.note_sent();
        }
        answering.broke(fault, self.admitted.conn.kept_waiting());
    }

    fn in_clients_form(&mut self, piece: Piece) -> HttpTask {
        let call = self.admitted.grpc.as_mut();
        let ended = |call: Option<&mut grpc::Call>, data, end| {
            let mut data = data;
            if let Some(call) = call {
                call.response_body(&mut data, end);
            }
            HttpTask::Body(data, end)
        };
        match piece {
            Piece::Data(data, end) => ended(call, Some(data), end),
            Piece::End(None) => ended(call, None, true),
            Piece::End(Some(mut fields)) => {
                trailers::clean(&mut fields);
                match call.and_then(|call| call.trailers(&fields)) {
                    Some(frame) => HttpTask::Body(Some(frame), true),
                    None => HttpTask::Trailer(Some(Box::new(fields))),
                }
            }
        }
    }

    /// Writes to the client, as long as it reads.
    async fn write(&mut self, task: HttpTask) -> Result<(), Fault> {
        let client = Instant::now() + self.admitted.listener.limits.client.idle.0;
        let until = self.until().map_or(client, |until| until.min(client));
        let written = tokio::time::timeout_at(until.into(), self.session.write_response_tasks(vec![task])).await;
        match written {
            Ok(Ok(_)) => Ok(()),
            Err(_) if until < client => Err(Fault::Deadline),
            _ => Err(Fault::ClientGone),
        }
    }

    fn until(&self) -> Option<Instant> {
        self.admitted.grpc.as_ref().and_then(grpc::Call::until)
    }

    fn patience(&self) -> Patience {
        let idle = Instant::now() + self.upstream.timeouts.idle;
        match self.until() {
            Some(until) if until < idle => Patience { until, is_call: true },
            _ => Patience { until: idle, is_call: false },
        }
    }

    /// Says in trailers what has ended an answer that had begun, where the client can be told: a status does not pass for
    /// the end of a whole answer.
    async fn tell(&mut self, steps: &Steps, fault: Fault) -> Result<Next, Fault> {
        let begun = self.session.response_written().is_some_and(|head| !head.status.is_informational());
        let told = self.admitted.grpc.as_mut().and_then(|call| call.last_words(&fault)).filter(|_| begun);
        let Some(fields) = told else { return Err(fault) };
        self.admitted.failed(&fault);
        self.admitted.outcome.cut = true;
        steps.gateway.metrics.fault(fault.code());
        self.write(HttpTask::Trailer(Some(Box::new(fields)))).await?;
        Ok(Next::Sent)
    }
}

/// How long to wait for the next thing.
struct Patience {
    until: Instant,
    /// The caller has set the bound, for the whole call.
    is_call: bool,
}

impl Patience {
    fn fault(&self) -> Fault {
        if self.is_call { Fault::Deadline } else { Fault::UpstreamTimeout }
    }

    async fn bound<T>(&self, work: impl Future<Output = T>) -> Result<T, Fault> {
        tokio::time::timeout_at(self.until.into(), work).await.map_err(|_| self.fault())
    }
}
