//! The end of a request: log, metrics, and the plugins' last word.

use std::time::Instant;

use crossway_plugin_api::Outcome;
use pingora_core::Error;
use pingora_proxy::Session;

use super::{Admitted, Flight, Steps, upgrade::answered};
use crate::{
    telemetry::{
        access_log::{Entry, protocol},
        metrics::NO_ROUTE,
    },
    upstream::fault,
};

impl Steps {
    /// Runs once for each request, however it ended. Whatever the request held, its places among others, is given back here,
    /// and not when the rest of its body has been read.
    pub fn finish(&self, session: &Session, flight: &mut Flight, error: Option<&Error>) {
        let Some(mut taken) = flight.admitted.take() else { return };
        let in_air = &mut *taken;
        if let (Some(error), None, None) = (error, in_air.outcome.code, in_air.outcome.fallback) {
            let fault = fault::of(error);
            self.gateway.metrics.fault(fault.code());
            in_air.failed(&fault);
        }
        if error.is_none() {
            // Of some answers the end comes in no piece.
            in_air.answer_ended();
        }
        let duration = in_air.started.elapsed();
        let head = answered(session);
        let outcome = Outcome {
            status: head.map(|head| in_air.outcome.meant.unwrap_or(head.status)),
            code: in_air.outcome.code,
            duration,
            request_bytes: in_air.outcome.request_bytes,
            response_bytes: session.body_bytes_sent() as u64,
        };
        let metrics = in_air.route.as_ref().map_or(&in_air.snapshot.no_route, |route| &route.metrics);
        let gateway = in_air.outcome.answered.map(|answered: Instant| {
            answered.saturating_duration_since(in_air.started).saturating_sub(in_air.attempts.waited)
        });
        metrics.record(outcome.status, duration, gateway);
        in_air.chain.on_done(&outcome, &in_air.ctx, in_air.entered);
        if self.gateway.access_log.is_on() {
            self.log(session, in_air, &outcome);
        }
    }

    fn log(&self, session: &Session, in_air: &Admitted, outcome: &Outcome) {
        let req = session.req_header();
        let upstream = in_air.upstream.as_ref().filter(|_| in_air.attempts.made > 0);
        let detail = in_air.outcome.fault.as_ref().map(ToString::to_string);
        // Where the request was let through after all, the reason is of no interest.
        let refusal = outcome.code.and(in_air.ctx.refusal.as_deref());
        self.gateway.access_log.write(&Entry {
            request_id: in_air.ctx.request_id.as_str(),
            client: in_air.ctx.client,
            protocol: protocol(in_air.version),
            listener: &in_air.listener.name,
            route: in_air.route.as_ref().map_or(NO_ROUTE, |route| &route.name),
            host: &in_air.ctx.host,
            method: req.method.as_str(),
            path: &in_air.ctx.path,
            query: req.uri.query(),
            headers: Some(&req.headers),
            status: outcome.status.map_or(0, |status| status.as_u16()),
            code: outcome.code,
            grpc_status: in_air.grpc.as_ref().and_then(|call| call.status),
            detail: detail.as_deref().or(refusal),
            flags: in_air.flags(outcome.status),
            consumer: in_air.ctx.consumer.as_ref().map(|consumer| consumer.name()),
            upstream: upstream.map(|upstream| (&*upstream.name, in_air.attempts.endpoint)),
            attempts: in_air.attempts.made,
            fallback: in_air.outcome.fallback,
            duration: outcome.duration,
            upstream_duration: in_air.attempts.waited,
            request_bytes: outcome.request_bytes,
            response_bytes: outcome.response_bytes,
        });
    }
}
