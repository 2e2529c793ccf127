//! Fallbacks of routes, checked.

use std::{collections::BTreeMap, sync::Arc};

use crossway_plugin_api::{Fault, Reply};
use crossway_plugins::respond::Fixed;
use http::StatusCode;
use prometheus::IntCounter;

use super::{Compiler, Target};
use crate::{
    config::{
        fallback::{Fallback as Config, FallbackOn},
        route::Route,
    },
    upstream::Upstream,
};

/// What takes the place of an upstream's failure.
pub struct Fallback {
    /// What does.
    pub instead: Instead,
    on: Vec<(FallbackOn, IntCounter)>,
}

/// What comes in place of an answer.
pub enum Instead {
    /// A fixed one.
    Reply(Reply),
    /// That of another upstream.
    Upstream(Arc<Upstream>),
}

/// What the attempts at an upstream have come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// A fault.
    Fault(Fault),
    /// An answer with this status.
    Status(StatusCode),
}

impl Failure {
    /// Whether it is what is meant.
    fn is(&self, on: FallbackOn) -> bool {
        match (self, on) {
            (Self::Status(status), FallbackOn::Status(set)) => set.contains(*status),
            (Self::Fault(fault), on) => kind(fault) == Some(on),
            (Self::Status(_), _) => false,
        }
    }
}

/// What a fault of an upstream is called where fallbacks are configured.
fn kind(fault: &Fault) -> Option<FallbackOn> {
    Some(match fault.code() {
        "no_endpoint" => FallbackOn::NoEndpoint,
        "circuit_open" => FallbackOn::CircuitOpen,
        "upstream_connect" | "upstream_connect_timeout" | "upstream_tls" => FallbackOn::ConnectError,
        "upstream_reset" | "upstream_unprocessed" | "upstream_protocol" => FallbackOn::Reset,
        "upstream_timeout" | "upstream_attempt_timeout" | "deadline_exceeded" => FallbackOn::Timeout,
        _ => return None,
    })
}

impl Fallback {
    /// Why it takes the place of this failure, and the count of such, if it does.
    pub fn takes(&self, failure: &Failure) -> Option<(&'static str, &IntCounter)> {
        self.on.iter().find(|(on, _)| failure.is(*on)).map(|(on, count)| (on.name(), count))
    }
}

impl Compiler<'_> {
    /// A route's fallback; `target` is what it stands in for.
    pub(super) fn fallback(
        &mut self,
        pointer: &str,
        config: &Route,
        target: &Target,
        upstreams: &BTreeMap<String, Arc<Upstream>>,
    ) -> Option<Fallback> {
        let fallback = config.fallback.as_ref()?;
        let place = format!("{pointer}/fallback");
        if config.upstream.is_none() && config.split.is_none() {
            self.error(&place, "has no effect without an upstream");
            return None;
        }
        for (at, on) in fallback.on.iter().enumerate() {
            if fallback.on[..at].contains(on) {
                self.error(&format!("{place}/on/{at}"), "stands twice");
            }
        }
        let instead = match (&fallback.respond, &fallback.upstream) {
            (Some(fixed), None) => Instead::Reply(self.fixed_reply(&format!("{place}/respond"), fixed)?),
            (None, Some(name)) if config.upstream.as_ref() == Some(name) => {
                self.error(&format!("{place}/upstream"), "is the upstream that has failed: name another");
                return None;
            }
            (None, Some(name)) => Instead::Upstream(self.second(&place, name, target, upstreams)?),
            (Some(_), Some(_)) => {
                self.error(&format!("{place}/upstream"), "stands beside `respond`: keep one of the two");
                return None;
            }
            (None, None) => {
                self.error(&place, "has neither `respond` nor `upstream`");
                return None;
            }
        };
        Some(Fallback { instead, on: self.counted(&config.name, fallback) })
    }

    fn counted(&self, route: &str, fallback: &Config) -> Vec<(FallbackOn, IntCounter)> {
        fallback.on.iter().map(|on| (*on, self.around.metrics.fallback(route, on.name()))).collect()
    }

    fn fixed_reply(&mut self, place: &str, fixed: &Fixed) -> Option<Reply> {
        let reply = fixed.clone().reply();
        reply.map_err(|wrong| self.error(&format!("{place}/{}", wrong.field), wrong.reason)).ok()
    }

    /// The upstream that is tried after the first.
    fn second(
        &mut self,
        place: &str,
        name: &str,
        target: &Target,
        upstreams: &BTreeMap<String, Arc<Upstream>>,
    ) -> Option<Arc<Upstream>> {
        let place = format!("{place}/upstream");
        let Some(second) = upstreams.get(name) else {
            let known: Vec<&str> = self.loaded.config.upstreams.keys().map(String::as_str).collect();
            if !known.contains(&name) {
                self.unknown(&place, "upstream", name, &known);
            }
            return None;
        };
        if matches!(target, Target::Upstream { to, .. } if to.all().any(|first| first.http2 != second.http2)) {
            self.error(&place, "must have the same `http2` as the route's upstream");
            return None;
        }
        Some(Arc::clone(second))
    }
}
