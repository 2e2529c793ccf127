//! One task for each endpoint that is probed.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crossway_plugin_api::Fault;
use http::{HeaderValue, header};
use pingora_core::protocols::http::client::HttpSession;
use pingora_http::RequestHeader;
use tokio::task::AbortHandle;

use super::{
    super::{
        Endpoint,
        bound::Bound,
        exchange::{Exchange, to_http2},
        fault,
        lease::Lease,
        peer,
        state::EndpointState,
    },
    Ask, Plan,
};

/// What servers see in their logs.
const AGENT: HeaderValue = HeaderValue::from_static("crossway-health-check");

/// A task that probes; ends when dropped.
#[derive(Debug)]
pub(in crate::upstream) struct Probing {
    plan: Arc<Plan>,
    task: AbortHandle,
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is probed.
pub(in crate::upstream) struct Target {
    /// Where it is, and how connections are made.
    pub(in crate::upstream) endpoint: Arc<Endpoint>,
    /// Whether it is spoken to in HTTP/2.
    pub(in crate::upstream) http2: bool,
    /// Makes the connections.
    pub(in crate::upstream) exchange: Arc<Exchange>,
}

impl Probing {
    /// Begins to probe, for as long as the endpoint's state is wanted. Needs a runtime.
    pub(in crate::upstream) fn start(state: &Arc<EndpointState>, plan: Arc<Plan>, target: Target) -> Self {
        let task = tokio::spawn(probe_on(Arc::downgrade(state), Arc::clone(&plan), target)).abort_handle();
        Self { plan, task }
    }

    /// Whether it goes by these rules.
    pub(in crate::upstream) fn goes_by(&self, plan: &Plan) -> bool {
        *self.plan == *plan
    }
}

/// A number from 0 to 1, another one each time.
fn by_chance() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

async fn probe_on(state: Weak<EndpointState>, plan: Arc<Plan>, target: Target) {
    // Soon, but not all endpoints at the same moment.
    let soon = plan.interval.min(Duration::from_secs(1));
    tokio::time::sleep(soon.mul_f64(plan.jitter * by_chance())).await;
    loop {
        let began = Instant::now();
        let outcome = target.probe(&plan, began + plan.timeout).await;
        let is_healthy = match state.upgrade() {
            Some(state) => state.probed(&plan, outcome, Instant::now()),
            None => return,
        };
        let interval = if is_healthy { plan.interval } else { plan.unhealthy_interval };
        tokio::time::sleep_until((began + after(interval, plan.jitter, by_chance())).into()).await;
    }
}

fn after(interval: Duration, jitter: f64, chance: f64) -> Duration {
    interval + interval.mul_f64(jitter * chance)
}

impl Target {
    /// Asks once, on a connection of its own: one that was kept would not say whether the endpoint takes new ones. What
    /// is wrong, if something is.
    async fn probe(&self, plan: &Plan, deadline: Instant) -> Result<(), String> {
        let told = match &plan.ask {
            Ask::Tcp => self.connect(plan, false, deadline).await.map(|_| None),
            Ask::Http { expect, .. } => self.ask(plan, deadline).await.map(|status| {
                let is_expected = expect.iter().any(|set| set.contains(status));
                (!is_expected).then(|| format!("status {}", status.as_u16()))
            }),
        };
        match told {
            Ok(None) => Ok(()),
            Ok(Some(wrong)) => Err(wrong),
            Err(Fault::Deadline | Fault::ConnectTimeout | Fault::UpstreamTimeout) => {
                Err(format!("no answer within {:?}", plan.timeout))
            }
            Err(fault) => Err(fault.to_string()),
        }
    }

    async fn connect(&self, plan: &Plan, http2: bool, deadline: Instant) -> Result<Lease, Fault> {
        let peer = peer::for_probe(&self.endpoint.peer, plan.port, plan.timeout);
        let Endpoint { address, ref authority, weight, priority, place, tag, .. } = *self.endpoint;
        let authority = authority.clone();
        let once = Endpoint { address, authority, peer, weight, priority, place, tag, state: Arc::default() };
        self.exchange.connect_once(Arc::new(once), http2, deadline).await
    }

    async fn ask(&self, plan: &Plan, deadline: Instant) -> Result<http::StatusCode, Fault> {
        let mut lease = self.connect(plan, self.http2, deadline).await?;
        let answered = self.talk(plan, lease.session(), deadline).await;
        lease.end(false).await;
        answered
    }

    async fn talk(&self, plan: &Plan, session: &mut HttpSession, deadline: Instant) -> Result<http::StatusCode, Fault> {
        /// More interim responses than this are a defect.
        const MAX_INTERIM: usize = 16;
        let mut req = self.request(&plan.ask)?;
        if self.http2 {
            to_http2(&mut req, self.endpoint.peer.is_tls())?;
        }
        session.set_read_timeout(None);
        let bound = Bound::request(deadline);
        let sent = bound.within(session.write_request_header(Box::new(req))).await?;
        sent.map_err(|e| fault::upstream(&e))?;
        bound.within(session.finish_request_body()).await?.map_err(|e| fault::upstream(&e))?;
        for _ in 0..MAX_INTERIM {
            bound.within(session.read_response_header()).await?.map_err(|e| fault::upstream(&e))?;
            let status = session.response_header().map(|head| head.status);
            let status = status.ok_or_else(|| Fault::Internal("no response header".into()))?;
            if !status.is_informational() {
                return Ok(status);
            }
        }
        Err(Fault::UpstreamProtocol("too many interim responses".into()))
    }

    fn request(&self, ask: &Ask) -> Result<RequestHeader, Fault> {
        let Ask::Http { method, path, host, headers, .. } = ask else {
            return Err(Fault::Internal("a probe that asks nothing".into()));
        };
        let broken = |_| Fault::Internal("a probe that cannot be written".into());
        let mut req = RequestHeader::build(method.clone(), path.as_bytes(), Some(4 + headers.len())).map_err(broken)?;
        let host = host.clone().unwrap_or_else(|| self.endpoint.authority.clone());
        req.insert_header(header::HOST, host).map_err(broken)?;
        req.insert_header(header::USER_AGENT, AGENT).map_err(broken)?;
        req.insert_header(header::ACCEPT, HeaderValue::from_static("*/*")).map_err(broken)?;
        for (name, value) in headers {
            req.insert_header(name.clone(), value.clone()).map_err(broken)?;
        }
        Ok(req)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_longer_by_chance_and_never_shorter() {
        let second = Duration::from_secs(1);
        assert_eq!(after(second, 0.1, 0.0), second);
        assert_eq!(after(second, 0.5, 1.0), Duration::from_millis(1500));
        assert!((0.0..=1.0).contains(&by_chance()));
    }
}
