//! Refusals of callers, for the audit log.

use crossway_plugin_api::{Content, Fault, Reply};
use http::StatusCode;
use pingora_proxy::Session;

use super::{Admitted, Steps, steps::Next};
use crate::{
    chain::Link,
    respond,
    telemetry::{
        access_log::protocol,
        audit::{Actor, Event, Outcome, Record, Source, Value, Who, trace_id},
        metrics::NO_ROUTE,
    },
};

/// What stopped a request.
struct Stop<'a> {
    by: &'a Link,
    status: StatusCode,
    code: Option<&'static str>,
    reason: Option<&'a str>,
}

impl Steps {
    /// Notes that a plugin has refused a caller, or could not judge one. A request that goes on costs one test.
    pub(super) fn audit(&self, session: &Session, admitted: &Admitted, next: &Result<Next, Fault>) {
        let Some((by, needs)) = admitted.chain.stopped_by(admitted.entered) else { return };
        if !self.gateway.audit.is_on() {
            return;
        }
        let judges = needs.authenticates || needs.caller;
        let refusal = admitted.ctx.refusal.as_deref();
        match next {
            Ok(Next::Reply(reply)) if is_refusal(reply.status, judges) => {
                let reason = refusal.or(detail(reply));
                self.write(session, admitted, &Stop { by, status: reply.status, code: reply.code(), reason });
            }
            Err(fault) if judges => {
                let (status, reason) = (respond::fault_reply(fault).status, fault.to_string());
                self.write(session, admitted, &Stop { by, status, code: Some(fault.code()), reason: Some(&reason) });
            }
            _ => {}
        }
    }

    fn write(&self, session: &Session, admitted: &Admitted, stop: &Stop<'_>) {
        let (ctx, req) = (&admitted.ctx, session.req_header());
        let texts = [
            ("request_id", Some(ctx.request_id.as_str())),
            ("trace_id", trace_id(&req.headers)),
            ("listener", Some(admitted.listener.name.as_str())),
            ("protocol", Some(protocol(admitted.version))),
            ("method", Some(req.method.as_str())),
            ("host", Some(ctx.host.as_str())),
            ("path", Some(&*ctx.path)),
            ("plugin", Some(stop.by.name)),
            ("plugin_id", stop.by.id.as_deref()),
            ("code", stop.code),
            ("certificate", ctx.client_certificate.as_ref().map(|certificate| certificate.subject.as_str())),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name, Value::Text(text?))));
        let status = ("status", Value::Number(stop.status.as_u16().into()));
        let more: Vec<_> = texts.chain([status]).collect();
        let (event, outcome) = if stop.status.is_server_error() {
            (Event::RequestUnchecked, Outcome::Failure)
        } else {
            (Event::RequestRefused, Outcome::Denied)
        };
        let actor = ctx.consumer.as_ref().map_or(Actor::Anonymous, |consumer| Actor::Consumer(consumer.name()));
        self.gateway.audit.write(&Record {
            event,
            outcome,
            who: Who { actor, source: Source::Address(ctx.client) },
            target: admitted.route.as_ref().map_or(NO_ROUTE, |route| &route.name),
            reason: stop.reason,
            more: &more,
        });
    }
}

/// Whether an answer keeps somebody out: 401 and 403 from whomever, and from a plugin that judges callers whatever does not
/// let them in, such as the redirect to a page for signing in.
fn is_refusal(status: StatusCode, judges: bool) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        || (judges && !status.is_success() && !status.is_informational())
}

/// What the caller is told, where the plugin has not said more; a fixed sentence.
fn detail(reply: &Reply) -> Option<&str> {
    match &reply.content {
        Content::Problem(problem) => Some(&problem.detail),
        _ => None,
    }
}
