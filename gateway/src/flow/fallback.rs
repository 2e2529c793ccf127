//! What comes in place of an answer when an upstream has failed for good.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossway_plugin_api::Fault;
use http::StatusCode;
use pingora_proxy::Session;

use super::{
    Admitted,
    steps::{Next, Steps},
    upgrade::answered,
};
use crate::{
    snapshot::{Failure, Instead},
    upstream::{Upstream, retry},
};

impl Admitted {
    /// Whether an answer with this status is not to go to the client: the route has something in its place.
    pub(super) fn declines(&self, session: &Session, status: StatusCode) -> bool {
        self.instead_of(session, &Failure::Status(status)).is_some()
    }

    /// What the route has in place of a failure, and why; nothing once something has come in place already, or has gone to
    /// the client.
    fn instead_of(
        &self,
        session: &Session,
        failure: &Failure,
    ) -> Option<(&Instead, &'static str, &prometheus::IntCounter)> {
        let fallback = self.route.as_ref()?.fallback.as_ref()?;
        if self.outcome.fallback.is_some() || answered(session).is_some() {
            return None;
        }
        let (why, count) = fallback.takes(failure)?;
        let can_do = match &fallback.instead {
            Instead::Reply(_) => true,
            Instead::Upstream(_) => self.can_turn(session, failure),
        };
        can_do.then_some((&fallback.instead, why, count))
    }

    /// Whether the request can go to another upstream: all of it is at hand, and either the first one has not acted on it,
    /// or it may be repeated.
    fn can_turn(&self, session: &Session, failure: &Failure) -> bool {
        let Some(first) = &self.upstream else { return false };
        let is_unsent = match failure {
            Failure::Fault(fault) => self.attempts.made == 0 || retry::is_unsent(fault),
            Failure::Status(_) => false,
        };
        let is_at_hand = self.body.is_some() || !self.is_spent;
        let in_time = self.attempts.deadline.is_none_or(|deadline| Instant::now() < deadline);
        is_at_hand && in_time && (is_unsent || first.retry.may_repeat(&session.req_header().method))
    }

    fn turn_to(&mut self, upstream: &Arc<Upstream>, total: Duration) {
        self.upstream = Some(Arc::clone(upstream));
        self.attempts.turn();
        self.attempt = super::Attempt::default();
        let own = Instant::now() + total;
        let deadline = self.attempts.deadline.map_or(own, |deadline| deadline.min(own));
        self.attempts.deadline = Some(deadline);
        self.ctx.deadline = Some(deadline);
    }
}

impl Steps {
    /// What the attempts have come to, or what comes in its place.
    pub(super) async fn or_fall_back(
        &self,
        session: &mut Session,
        admitted: &mut Admitted,
        came: Result<Next, Fault>,
    ) -> Result<Next, Fault> {
        let failure = match came {
            Err(fault) => Failure::Fault(fault),
            Ok(Next::Declined(status)) => Failure::Status(status),
            other => return other,
        };
        match (self.fall_back(session, admitted, &failure).await, failure) {
            (Some(next), _) => next,
            (None, Failure::Fault(fault)) => Err(fault),
            (None, Failure::Status(_)) => Err(Fault::Internal("an answer was declined for nothing".into())),
        }
    }

    /// What comes in place of a failure, if the route has something.
    pub(super) async fn fall_back(
        &self,
        session: &mut Session,
        admitted: &mut Admitted,
        failure: &Failure,
    ) -> Option<Result<Next, Fault>> {
        // Kept beside the request, which changes below.
        let route = admitted.route.clone()?;
        let (_, why, count) = admitted.instead_of(session, failure)?;
        count.inc();
        admitted.outcome.fallback = Some(why);
        if let Failure::Fault(fault) = failure {
            admitted.outcome.fault = Some(fault.clone());
        }
        admitted.conn.go_on();
        match &route.fallback.as_ref()?.instead {
            Instead::Reply(reply) => Some(Ok(Next::Reply(reply.clone()))),
            Instead::Upstream(second) => {
                admitted.turn_to(second, second.timeouts.total);
                Some(self.talk(session, admitted, second).await)
            }
        }
    }
}
