//! The way of gRPC calls: both directions at once, over the exchange's connections.
//!
//! On the stream way Pingora passes nothing of the answer on while it waits for the upstream to take more of the request.
//! A server that answers while it reads would then wait for us as we wait for it.

mod passing;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossway_plugin_api::Fault;
use http::StatusCode;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use self::passing::{Passing, Piece};
use super::{
    Admitted, body,
    grpc::{self, Upload},
    outbound,
    steps::{Next, Steps},
};
use crate::{
    request::{self, BodyFraming},
    upstream::{Asked, Endpoint, Upstream, exchange, fault, lease::Lease, state::InFlight},
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
