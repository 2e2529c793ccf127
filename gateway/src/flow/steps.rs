//! The steps from an admitted request to an upstream or an answer.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use crossway_plugin_api::{Ctx, Fault, Reply};
use futures_util::FutureExt as _;
use http::{HeaderValue, Method, StatusCode, Version, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::{
    Admitted, Flight, admit,
    admit::Routed,
    body, called, coded, exchanged,
    upgrade::{self, Wanted, answered},
};
use crate::{
    gateway::Gateway,
    request::BodyFraming,
    respond,
    router::Template,
    snapshot::{Route, Target, Way},
    upstream::{Upstream, deadline},
};

/// What the hooks of the proxy do.
pub struct Steps {
    pub(super) gateway: Arc<Gateway>,
}

/// What the first steps come to.
pub(super) enum Next {
    /// Send this.
    Reply(Reply),
    /// On to the upstream, on the stream way.
    Stream,
    /// The response has been sent.
    Sent,
    /// The upstream's answer, with this status, is not to go to the client: the route has something in its place.
    Declined(StatusCode),
}

impl Steps {
    /// Steps of this gateway.
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { gateway }
    }

    /// The request phase: `true` when the request has been answered.
    pub async fn request(&self, session: &mut Session, flight: &mut Flight) -> Result<bool> {
        let (admitted, routed) = admit::admit(&self.gateway, session).map_err(internal)?;
        let admitted = &mut **flight.admitted.insert(Box::new(admitted));
        let outcome = AssertUnwindSafe(self.decide(session, admitted, routed)).catch_unwind().await;
        let next = outcome.unwrap_or_else(|panic| {
            self.gateway.metrics.panics.inc();
            Err(Fault::Internal(panic_text(panic.as_ref())))
        });
        self.audit(session, admitted, &next);
        match next {
            Ok(Next::Stream) => Ok(false),
            Ok(Next::Sent | Next::Declined(_)) => Ok(true),
            Ok(Next::Reply(reply)) => self.reply(session, admitted, &reply).await.map(|()| true),
            Err(fault) => self.fault(session, admitted, &fault).await,
        }
    }

    async fn decide(&self, session: &mut Session, admitted: &mut Admitted, routed: Routed) -> Result<Next, Fault> {
        let nowhere = match routed {
            Routed::To(route, params) => {
                admitted.take_route(route, params, session.req_header());
                None
            }
            Routed::Nowhere(reply) => Some(reply),
        };
        let chain = Arc::clone(&admitted.chain);
        let Admitted { ctx, entered, .. } = &mut *admitted;
        if let Some(reply) = chain.on_request(session.req_header_mut(), ctx, entered).await? {
            return Ok(Next::Reply(reply));
        }
        match nowhere {
            Some(reply) => Ok(Next::Reply(reply)),
            None => self.routed(session, admitted).await,
        }
    }

    /// What follows the chain's first phase.
    async fn routed(&self, session: &mut Session, admitted: &mut Admitted) -> Result<Next, Fault> {
        let route = admitted.route.clone().ok_or_else(|| Fault::Internal("no route after routing".into()))?;
        if session.req_header().method == Method::OPTIONS && !route.methods.contains(&Method::OPTIONS) {
            // It was routed as a preflight, and nobody has answered it.
            return Ok(Next::Reply(admit::method_not_allowed(&route.methods)));
        }
        body::check_length(admitted)?;
        match &route.target {
            Target::Answered => Err(Fault::Internal("no plugin has answered".into())),
            Target::Redirect { to, status } => {
                let reply = Reply::empty(*status);
                Ok(Next::Reply(redirected(reply, to, &admitted.ctx, session)?))
            }
            Target::Upstream { to, .. } => {
                let upstream = to.choose(session.req_header(), &admitted.ctx);
                admitted.upstream = Some(Arc::clone(upstream));
                if let Err(reply) = upgrade::check(session, admitted, &route) {
                    return Ok(Next::Reply(reply));
                }
                let total = route.timeout.map_or(upstream.timeouts.total, |own| own.min(upstream.timeouts.total));
                if let Err(reply) = admitted.take_deadline(upstream, total, session.req_header()) {
                    return Ok(Next::Reply(reply));
                }
                upstream.can_sign_in(admitted.ctx.deadline.unwrap_or_else(|| Instant::now() + total)).await?;
                if let Some(reply) = body::buffer(session, admitted, &route).await? {
                    return Ok(Next::Reply(reply));
                }
                // Some plugins say only now who is calling.
                admitted.attempts.wish = upstream.wish(session.req_header(), &admitted.ctx);
                // Pingora ends a connection right after the switch to a WebSocket if the 101 outruns the end of the
                // request's body, empty as it is, from one half of its proxy to the other.
                let is_call = admitted.grpc.is_some() && upstream.http2;
                if is_call || admitted.wanted == Wanted::WebSocket || admitted.goes_by_exchange(&route, upstream) {
                    let came = self.talk(session, admitted, upstream).await;
                    return match came {
                        Ok(Next::Sent) => came,
                        other => Box::pin(self.or_fall_back(session, admitted, other)).await,
                    };
                }
                body::invite(session, admitted).await?;
                Ok(Next::Stream)
            }
        }
    }

    /// Sends the request over connections of our own, and passes the answer on.
    pub(super) async fn talk(
        &self,
        session: &mut Session,
        admitted: &mut Admitted,
        upstream: &Arc<Upstream>,
    ) -> Result<Next, Fault> {
        if admitted.grpc.is_some() && upstream.http2 {
            Box::pin(called::run(self, session, admitted, upstream)).await
        } else {
            Box::pin(exchanged::run(self, session, admitted, upstream)).await
        }
    }

    /// Sends a reply, with the response phases of the plugins that saw the request.
    pub(super) async fn reply(&self, session: &mut Session, admitted: &mut Admitted, reply: &Reply) -> Result<()> {
        if admitted.outcome.code.is_none() {
            admitted.outcome.code = reply.code();
        }
        let wire = admitted.grpc.as_ref().map(|call| call.wire);
        let (mut head, body) = respond::parts(reply, &admitted.ctx.request_id, wire)?;
        if let Some(call) = &mut admitted.grpc {
            call.note_status(&head.headers);
            admitted.outcome.meant = Some(reply.status);
        }
        let chain = Arc::clone(&admitted.chain);
        if let Err(fault) = chain.on_response(&mut head, &mut admitted.ctx, &mut admitted.entered) {
            tracing::warn!(%fault, "a plugin failed on a reply; the reply goes out as it is");
        }
        body::keep_or_close(session, admitted);
        admitted.outcome.answered = Some(Instant::now());
        coded::deliver(session, admitted, head, body).await
    }

    /// Answers a fault. If nothing can be sent any more this is an error, so that Pingora ends the connection where it
    /// stands: a response that was cut short must not look like a whole one.
    pub(super) async fn fault(&self, session: &mut Session, admitted: &mut Admitted, fault: &Fault) -> Result<bool> {
        admitted.failed(fault);
        self.gateway.metrics.fault(fault.code());
        let begun = answered(session).is_some();
        admitted.outcome.cut = begun;
        session.set_keepalive(None);
        if begun || *fault == Fault::ClientGone {
            return Err(Error::explain(ErrorType::Custom("fault"), "nothing can be sent any more"));
        }
        let reply = admitted.snapshot.proxy_status.mark(respond::fault_reply(fault), fault);
        self.reply(session, admitted, &reply).await?;
        session.as_downstream_mut().shutdown().await;
        Ok(true)
    }

    /// Answers what stopped a request before it could be admitted.
    pub(super) async fn defect(&self, session: &mut Session) {
        session.set_keepalive(None);
        let _ = session.respond_error(500).await;
    }
}

impl Admitted {
    /// Bounds the wait for the response header: by the configured total, and by what the caller asks for.
    fn take_deadline(&mut self, upstream: &Upstream, total: Duration, req: &RequestHeader) -> Result<(), Reply> {
        let now = Instant::now();
        let call = match &mut self.grpc {
            Some(call) => call.take_timeout(&req.headers, now)?,
            None => None,
        };
        let field = match &upstream.deadline_header {
            Some(name) => deadline::asked(name, &req.headers, now)?,
            None => None,
        };
        let asked = [call, field].into_iter().flatten();
        let deadline = asked.fold(now + total, Instant::min);
        self.ctx.deadline = Some(deadline);
        self.attempts.deadline = Some(deadline);
        self.attempts.is_hurried = deadline < now + total;
        Ok(())
    }

    /// Whether the gateway itself talks to the upstream: where a plugin wants a body; where nothing has to pass both ways
    /// at once, which is the most that Pingora's own way can do and what makes it dear; and where an answer of an HTTP/2
    /// upstream without a length would become chunked, which a client of HTTP/1.0 cannot read.
    fn goes_by_exchange(&self, route: &Route, upstream: &Upstream) -> bool {
        let one_way = self.framing.body == BodyFraming::None && !(upstream.http2 && self.version == Version::HTTP_2);
        one_way || matches!(route.way, Way::Exchange(_)) || (upstream.http2 && self.version == Version::HTTP_10)
    }
}

fn internal(defect: &'static str) -> Box<Error> {
    tracing::error!(defect, "a request cannot be admitted");
    Error::explain(ErrorType::InternalError, defect)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a panic: {}", text.unwrap_or("of unknown kind"))
}

fn redirected(reply: Reply, to: &Template, ctx: &Ctx, session: &Session) -> Result<Reply, Fault> {
    let mut location = to.render(ctx);
    if let Some(query) = session.req_header().uri.query() {
        location.push(if location.contains('?') { '&' } else { '?' });
        location.push_str(query);
    }
    let value =
        HeaderValue::from_str(&location).map_err(|_| Fault::Internal("a location that is no header value".into()))?;
    Ok(reply.header(header::LOCATION, value))
}
