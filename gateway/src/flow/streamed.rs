//! The stream way: what Pingora's hooks do while it passes bytes on.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use crossway_plugin_api::Fault;
use http::{StatusCode, Version, header};
use pingora_core::{Error, ErrorSource, ErrorType, Result, upstreams::peer::HttpPeer};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::{Admitted, Attempt, Flight, Steps, body, outbound, steps::Next, upgrade::answered};
use crate::{
    front::Cut,
    request::{self, BodyFraming},
    snapshot::Failure,
    upstream::{
        Asked, Upstream,
        exchange::{self, Kept},
        fault, has_body, peer,
    },
};

/// Carries a fault of ours through Pingora's error type.
fn carried(flight: &mut Flight, fault: Fault) -> Box<Error> {
    if let Some(admitted) = flight.admitted() {
        admitted.outcome.fault = Some(fault);
    }
    Error::explain(ErrorType::Custom("fault"), "see the flight")
}

fn admitted(flight: &mut Flight) -> Result<&mut Admitted> {
    flight.admitted().ok_or_else(|| Error::explain(ErrorType::InternalError, "not admitted"))
}

impl Admitted {
    /// Ends the current attempt's account: time waited, place at the endpoint.
    fn end_attempt(&mut self) {
        self.attempts.leave();
        self.conn.answer_by(None);
    }

    /// The answer of the current attempt is over.
    pub(super) fn answer_ended(&mut self) {
        if let Some(mut answering) = self.attempt.answering.take() {
            answering.ended(None);
        }
    }

    /// A fault has ended the answer of the current attempt.
    fn answer_broke(&mut self, fault: &Fault) {
        let Some(mut answering) = self.attempt.answering.take() else { return };
        if self.attempt.sent.is_some() {
            answering.note_sent();
        }
        answering.broke(fault, self.conn.kept_waiting());
    }

    /// Bounds the wait for the response header from now on.
    fn await_header(&mut self, upstream: &Upstream) {
        let bound = self.attempts.waiting(upstream, self.attempt.whole);
        self.conn.answer_by(Some(bound.at));
        self.attempt.bound = Some(bound);
        self.attempt.sent = Some(Instant::now());
    }
}

impl Admitted {
    /// What it means that the upstream has kept us waiting for too long, if it has.
    fn overdue(&self) -> Option<Fault> {
        let is_overdue = self.conn.cut() == Some(Cut::Overdue);
        self.attempt.bound.filter(|_| is_overdue).map(|bound| bound.fault())
    }
}

impl Steps {
    /// The endpoint of the next attempt.
    pub async fn peer(&self, session: &mut Session, flight: &mut Flight) -> Result<Box<HttpPeer>> {
        let Some(in_air) = flight.admitted() else { return Err(Error::new(ErrorType::InternalError)) };
        let Some(upstream) = in_air.upstream.clone() else { return Err(Error::new(ErrorType::InternalError)) };
        let (endpoint, place) = match in_air.attempts.begin(&upstream).await {
            Ok(begun) => begun,
            Err(fault) => return Err(carried(flight, fault)),
        };
        if in_air.body.is_none() {
            // What was kept of the body is passed on, and counted, once more.
            in_air.outcome.request_bytes = 0;
        }
        let whole = in_air.body.is_some() || session.as_downstream_mut().is_body_done();
        let bound = in_air.attempts.sending(&upstream, whole);
        let peer = peer::for_attempt(&endpoint.peer, &upstream.timeouts, bound.left());
        in_air.attempt = Attempt { place: Some(place), whole, bound: Some(bound), ..Attempt::default() };
        in_air.outcome.fault = None;
        in_air.conn.answer_by(Some(bound.at));
        Ok(Box::new(peer))
    }

    /// The request as the endpoint gets it.
    pub fn upstream_request(&self, req: &mut RequestHeader, flight: &mut Flight) -> Result<()> {
        let in_air = admitted(flight)?;
        if in_air.upstream.clone().is_some_and(|upstream| upstream.http2) && req.version != Version::HTTP_2 {
            // Pingora would go on in HTTP/1.1 with an endpoint that has not agreed to HTTP/2.
            return Err(Error::explain(ErrorType::ConnectError, fault::NOT_HTTP2).into_up());
        }
        let endpoint = in_air.attempts.current().cloned();
        let Some(endpoint) = endpoint else { return Err(Error::new(ErrorType::InternalError)) };
        let prepared = outbound::prepare(in_air, req, &endpoint.authority);
        let Some(upstream) = in_air.upstream.clone() else { return Err(Error::new(ErrorType::InternalError)) };
        if let Err(fault) = prepared.and_then(|()| in_air.attempts.sign(&upstream, req)) {
            return Err(carried(flight, fault));
        }
        let in_air = admitted(flight)?;
        if in_air.framing.body == BodyFraming::None {
            in_air.await_header(&upstream);
        }
        Ok(())
    }

    /// A piece of the request body on its way to the upstream.
    pub fn request_body(&self, piece: &mut Option<Bytes>, end: bool, flight: &mut Flight) -> Result<()> {
        let in_air = admitted(flight)?;
        match in_air.body.clone() {
            // Already counted when it was read whole; goes out at the end, as the plugins left it. Nothing before the
            // end may be `None`, which Pingora takes for the end.
            Some(whole) => *piece = Some(if end { whole } else { Bytes::new() }),
            None => {
                let counted = body::count(in_air, piece.as_ref().map_or(0, Bytes::len));
                if let Err(fault) = counted.and_then(|()| body::check_deadline(in_air)) {
                    // As an error of the client's side: towards an upstream of HTTP/2 Pingora takes any other for a write
                    // that failed, and goes on to wait for the answer.
                    return Err(carried(flight, fault).into_down());
                }
            }
        }
        // Pingora writes an empty piece as a last chunk, and then the last chunk once more.
        if end && piece.as_ref().is_some_and(Bytes::is_empty) {
            *piece = None;
        }
        let in_air = admitted(flight)?;
        if end
            && in_air.attempts.current().is_some()
            && let Some(upstream) = in_air.upstream.clone()
        {
            in_air.await_header(&upstream);
        }
        Ok(())
    }

    /// The upstream's response header. A status that the retry rules name becomes a retryable error.
    pub async fn upstream_response(
        &self,
        session: &mut Session,
        res: &mut ResponseHeader,
        flight: &mut Flight,
    ) -> Result<()> {
        if res.status.is_informational() && res.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        let in_air = admitted(flight)?;
        if res.status == StatusCode::SWITCHING_PROTOCOLS {
            let fault = Fault::UpstreamProtocol("a protocol switch that nobody asked for".into());
            return Err(carried(flight, fault));
        }
        let Some(upstream) = in_air.upstream.clone() else { return Ok(()) };
        in_air.conn.answer_by(None);
        let asked = asked(session, &in_air.attempt);
        let again = in_air.attempts.settle(&upstream, Ok(res), &asked);
        let refused = in_air.attempts.is_refused(&upstream, res.status, asked.replayable).await;
        if again || refused {
            in_air.attempt.refused_status = true;
            let mut error = Error::explain(ErrorType::HTTPStatus(res.status.as_u16()), "tried again");
            error.set_retry(true);
            return Err(error.into_up());
        }
        in_air.is_spent = !asked.replayable;
        if in_air.declines(session, res.status) {
            in_air.attempts.decline();
            in_air.attempt.declined = Some(res.status);
            let mut error =
                Error::explain(ErrorType::HTTPStatus(res.status.as_u16()), "something else takes its place");
            error.set_retry(false);
            return Err(error.into_up());
        }
        in_air.attempt.answering = in_air.attempts.answering();
        let method = &session.req_header().method;
        let is_empty = res.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
        if is_empty || !has_body(method, res.status) {
            in_air.answer_ended();
        }
        Ok(())
    }

    /// A piece of the response, as it comes from the upstream.
    pub fn upstream_response_body(end: bool, flight: &mut Flight) {
        let Some(in_air) = flight.admitted() else { return };
        if end {
            in_air.answer_ended();
        } else if let Some(answering) = &mut in_air.attempt.answering {
            answering.moves();
        }
    }

    /// The response header on its way to the client.
    pub fn response(&self, session: &Session, res: &mut ResponseHeader, flight: &mut Flight) -> Result<()> {
        if res.status.is_informational() {
            return Ok(());
        }
        let in_air = admitted(flight)?;
        *res = exchange::plain(res);
        request::strip_hop_by_hop(res);
        in_air.speak_version(res);
        let chain = Arc::clone(&in_air.chain);
        let stuck = in_air.stick(res);
        if let Err(fault) = stuck.and_then(|()| chain.on_response(res, &mut in_air.ctx, &mut in_air.entered)) {
            return Err(carried(flight, fault));
        }
        in_air.encoder = in_air.compress_stream(session.req_header(), res);
        in_air.outcome.answered = Some(Instant::now());
        Ok(())
    }

    /// No connection to the endpoint: whether to try again.
    pub fn connect_failed(&self, session: &Session, flight: &mut Flight, mut error: Box<Error>) -> Box<Error> {
        let fault = fault::connecting(&error);
        error.set_retry(Self::try_again(session, flight, &fault));
        if let Some(in_air) = flight.admitted() {
            // Where it happened says more than the error does.
            in_air.outcome.fault = Some(fault);
        }
        error
    }

    /// An error after the connection was made: whether to try again.
    pub fn proxy_failed(
        &self,
        session: &Session,
        flight: &mut Flight,
        mut error: Box<Error>,
        reused: bool,
    ) -> Box<Error> {
        let Some(in_air) = flight.admitted() else {
            error.set_retry(false);
            return error;
        };
        if in_air.attempt.refused_status || in_air.attempt.declined.is_some() {
            return error;
        }
        in_air.attempt.reused = reused;
        let begun = answered(session).is_some();
        let overdue = in_air.overdue().filter(|_| in_air.outcome.fault.is_none());
        let ours = in_air.outcome.fault.is_some() || *error.esource() != ErrorSource::Upstream;
        let again = match overdue {
            Some(fault) => !begun && Self::try_again(session, flight, &fault),
            None => !ours && !begun && Self::try_again(session, flight, &fault::of(&error)),
        };
        if let Some(in_air) = flight.admitted().filter(|_| again) {
            in_air.conn.go_on();
        }
        error.set_retry(again);
        error
    }

    fn try_again(session: &Session, flight: &mut Flight, fault: &Fault) -> bool {
        let Some(in_air) = flight.admitted() else { return false };
        let Some(upstream) = in_air.upstream.clone() else { return false };
        in_air.conn.answer_by(None);
        in_air.attempts.settle(&upstream, Err(fault), &asked(session, &in_air.attempt))
    }

    /// What ended a request: the fault to answer with.
    pub async fn fail(&self, session: &mut Session, flight: &mut Flight, error: &Error) -> u16 {
        let Some(in_air) = flight.admitted.as_deref_mut() else {
            self.defect(session).await;
            return 500;
        };
        let fault = fault_of(error, in_air);
        if let Some(upstream) = in_air.upstream.clone() {
            // Time-outs come this way, and what else ended an attempt without a word on trying again.
            let asked = asked(session, &in_air.attempt);
            in_air.attempts.note(&upstream, &fault, &asked);
        }
        if *error.esource() == ErrorSource::Upstream && in_air.outcome.fault.is_none() {
            in_air.answer_broke(&fault);
        }
        in_air.end_attempt();
        if in_air.outcome.code.is_some() {
            // The fault was met, and what could be said was said.
            return 0;
        }
        let failure = match in_air.attempt.declined {
            Some(status) => Failure::Status(status),
            None => Failure::Fault(fault),
        };
        let sent = match self.instead(session, in_air, &failure).await {
            Some(sent) => sent,
            None => match failure {
                Failure::Fault(fault) => self.fault(session, in_air, &fault).await.is_ok(),
                Failure::Status(_) => false,
            },
        };
        if sent { session.response_written().map_or(0, |head| head.status.as_u16()) } else { 0 }
    }

    /// Answers in place of a failure, if the route has something for that; whether the answer was sent.
    async fn instead(&self, session: &mut Session, in_air: &mut Admitted, failure: &Failure) -> Option<bool> {
        in_air.route.as_ref()?.fallback.as_ref()?;
        let downstream = session.as_downstream_mut();
        in_air.is_spent = downstream.retry_buffer_truncated();
        in_air.kept = Kept::from_beginning(downstream.get_retry_buffer(), downstream.is_body_done());
        in_air.attempt.place = None;
        let next = Box::pin(self.fall_back(session, in_air, failure)).await?;
        // Pingora uses no connection again on which it has met an error.
        session.set_keepalive(None);
        let sent = match next {
            Ok(Next::Reply(reply)) => self.reply(session, in_air, &reply).await.is_ok(),
            Ok(_) => true,
            Err(fault) => return Some(self.fault(session, in_air, &fault).await.is_ok()),
        };
        if !sent {
            in_air.failed(&Fault::ClientGone);
        }
        session.as_downstream_mut().shutdown().await;
        Some(sent)
    }
}

fn asked<'a>(session: &'a Session, attempt: &Attempt) -> Asked<'a> {
    Asked {
        method: &session.req_header().method,
        replayable: !session.as_downstream().retry_buffer_truncated(),
        reused: attempt.reused,
        sent: attempt.sent,
    }
}

/// The connection and the flight know more than Pingora's error says.
fn fault_of(error: &Error, in_air: &Admitted) -> Fault {
    match in_air.conn.cut() {
        Some(Cut::Overdue) => return in_air.overdue().unwrap_or(Fault::UpstreamTimeout),
        Some(Cut::BrokenFraming) => return Fault::RequestFraming("chunked coding".into()),
        Some(Cut::Slow) => return Fault::ClientTimeout,
        None => {}
    }
    if let Some(fault) = &in_air.outcome.fault {
        return fault.clone();
    }
    fault::of(error)
}
