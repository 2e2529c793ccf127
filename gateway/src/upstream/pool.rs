//! Endpoints and their state, which live as long as some configuration wants them.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::{Arc, Weak, atomic::AtomicBool},
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use crossway_plugin_api::Fault;
use http::HeaderValue;
use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::sync::Notify;

use super::{
    balance::RoundRobin,
    dns::Member,
    exchange::Exchange,
    peer::{self, Transport},
    state::{EndpointState, InFlight},
    watch::Watch,
};

/// The endpoints of one upstream.
pub struct Pool {
    pub(super) members: Vec<Member>,
    transport: Transport,
    identity: u64,
    pub(super) current: ArcSwap<Current>,
    /// Addresses of each member, as last resolved.
    known: Mutex<Vec<Vec<SocketAddr>>>,
    pub(super) registry: Weak<Registry>,
    pub(super) started: AtomicBool,
    pub(super) resolved: Notify,
    /// What is watched, once a configuration with this pool is put in force, and what makes connections for probes.
    pub(super) watched: ArcSwapOption<(Arc<Watch>, Arc<Exchange>)>,
}

/// The addresses known now, and whose turn it is.
#[derive(Default)]
pub(super) struct Current {
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    turns: RoundRobin,
}

/// One address of an upstream.
pub struct Endpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// What the request's `Host` says unless a rewrite says otherwise: host and port as configured.
    pub authority: HeaderValue,
    /// What Pingora needs to connect, without time-outs.
    pub peer: HttpPeer,
    /// Shared by every configuration that has this endpoint.
    pub state: Arc<EndpointState>,
}

impl Endpoint {
    /// Counts a request in, if the endpoint's circuit lets it through.
    pub fn enter(&self, now: Instant) -> Option<InFlight> {
        InFlight::enter(&self.state, now)
    }
}

impl Pool {
    /// The endpoint whose turn it is among those that can be used, avoiding `not` (the one that just failed) where there is
    /// another, and a place there for a request.
    pub fn enter(&self, not: Option<SocketAddr>, now: Instant) -> Result<(Arc<Endpoint>, InFlight), Fault> {
        /// Others may take the last place at an endpoint in between; not for ever.
        const TRIES: usize = 8;
        for _ in 0..TRIES {
            let Some(endpoint) = self.next(not, now) else { break };
            if let Some(place) = endpoint.enter(now) {
                return Ok((endpoint, place));
            }
        }
        Err(self.refusal(now))
    }

    /// The endpoint whose turn it is among those that can be used, avoiding `not` where there is another.
    pub fn next(&self, not: Option<SocketAddr>, now: Instant) -> Option<Arc<Endpoint>> {
        let current = self.current.load();
        let available = |state: &EndpointState| state.is_available(now);
        let chosen = current.choose(not, available);
        let chosen = chosen.or_else(|| current.choose(None, available));
        let permitted = |state: &EndpointState| state.is_permitted(now);
        // Which endpoints are well is of no account any more where none is, if the configuration says so.
        let use_all = || self.watched.load().as_ref().is_some_and(|watched| watched.0.use_all);
        let chosen = chosen.or_else(|| if use_all() { current.choose(not, permitted) } else { None });
        chosen.or_else(|| if use_all() { current.choose(None, permitted) } else { None })
    }

    /// Whether there is an endpoint to send to.
    pub fn is_resolved(&self) -> bool {
        !self.current.load().endpoints.is_empty()
    }

    /// The endpoints in use now.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.current.load().endpoints.clone()
    }

    /// Puts the addresses that a member has resolved to in use.
    pub(super) fn learn(&self, member: usize, addresses: Vec<SocketAddr>) {
        let mut known = self.known.lock();
        if let Some(place) = known.get_mut(member) {
            *place = addresses;
        }
        self.put(&known);
    }

    /// Puts addresses in use: one list for each member, in order. Nothing changes if they are the same.
    fn put(&self, addresses: &[Vec<SocketAddr>]) {
        let wanted = || self.members.iter().zip(addresses).flat_map(|(m, list)| list.iter().map(move |a| (m, *a)));
        let current = self.current.load();
        if current.endpoints.iter().map(|e| e.address).eq(wanted().map(|(_, a)| a)) {
            return;
        }
        let weights: Vec<u16> = wanted().map(|(m, _)| m.weight).collect();
        let endpoints = wanted().map(|(m, address)| Arc::new(self.endpoint(m, address))).collect();
        self.current.store(Arc::new(Current { endpoints, turns: RoundRobin::new(&weights) }));
        self.watch_all();
        self.resolved.notify_waiters();
    }

    fn endpoint(&self, member: &Member, address: SocketAddr) -> Endpoint {
        let state = self.registry.upgrade().map(|r| r.state(self.identity, address)).unwrap_or_default();
        let peer = peer::template(address, self.identity, &self.transport);
        // Host names and ports have no characters that a header value could not carry.
        let authority = HeaderValue::from_str(&member.authority).unwrap_or(HeaderValue::from_static(""));
        Endpoint { address, authority, peer, state }
    }
}

impl Current {
    /// The endpoint whose turn it is among those that fit, but not `not`.
    fn choose(&self, not: Option<SocketAddr>, fits: impl Fn(&EndpointState) -> bool) -> Option<Arc<Endpoint>> {
        let fits = |endpoint: &&Arc<Endpoint>| Some(endpoint.address) != not && fits(&endpoint.state);
        // By drawing again those that are left keep their shares; who has few turns is found by looking at each.
        let drawn = (0..=self.endpoints.len()).filter_map(|_| self.endpoints.get(self.turns.next()?)).find(fits);
        drawn.or_else(|| self.endpoints.iter().find(fits)).cloned()
    }
}

/// Every pool and endpoint of the process, so that a reload finds those that it keeps.
#[derive(Default)]
pub struct Registry {
    pools: Mutex<HashMap<u64, Weak<Pool>>>,
    states: Mutex<HashMap<(u64, SocketAddr), Weak<EndpointState>>>,
    /// Held while an endpoint is ejected, so that two at once do not both find room.
    pub(super) ejecting: Mutex<()>,
}

impl Registry {
    /// The pool with this name and these settings: the one in use, if there is one, else a new one.
    pub fn pool(self: &Arc<Self>, name: &str, members: Vec<Member>, transport: Transport) -> Arc<Pool> {
        let mut hasher = DefaultHasher::new();
        (name, transport.identity()).hash(&mut hasher);
        let identity = hasher.finish();
        members.hash(&mut hasher);
        let key = hasher.finish();
        let mut pools = self.pools.lock();
        pools.retain(|_, pool| pool.strong_count() > 0);
        if let Some(pool) = pools.get(&key).and_then(Weak::upgrade) {
            return pool;
        }
        // What a pool of the same name has resolved already is a good beginning, above all while no resolver answers.
        let siblings: Vec<Arc<Pool>> =
            pools.values().filter_map(Weak::upgrade).filter(|pool| pool.identity == identity).collect();
        let known: Vec<Vec<SocketAddr>> = members.iter().map(|m| beginning(m, &siblings)).collect();
        let pool = Arc::new(Pool {
            members,
            transport,
            identity,
            current: ArcSwap::default(),
            known: Mutex::new(known),
            registry: Arc::downgrade(self),
            started: AtomicBool::new(false),
            resolved: Notify::new(),
            watched: ArcSwapOption::empty(),
        });
        let known = pool.known.lock();
        pool.put(&known);
        drop(known);
        pools.insert(key, Arc::downgrade(&pool));
        pool
    }

    fn state(&self, identity: u64, address: SocketAddr) -> Arc<EndpointState> {
        let mut states = self.states.lock();
        states.retain(|_, state| state.strong_count() > 0);
        if let Some(state) = states.get(&(identity, address)).and_then(Weak::upgrade) {
            return state;
        }
        let state = Arc::new(EndpointState::default());
        states.insert((identity, address), Arc::downgrade(&state));
        state
    }
}

/// The addresses a member begins with: its own, if it is one, else those that another pool knows of it.
fn beginning(member: &Member, siblings: &[Arc<Pool>]) -> Vec<SocketAddr> {
    let known = |pool: &Arc<Pool>| {
        let at = pool.members.iter().position(|m| m.is_same_place(member))?;
        pool.known.lock().get(at).cloned().filter(|addresses| !addresses.is_empty())
    };
    let literal = member.literal();
    if literal.is_empty() { siblings.iter().find_map(known).unwrap_or_default() } else { literal }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(list: &[&str]) -> Vec<Member> {
        list.iter().map(|a| Member::parse(a, 1, 80).unwrap()).collect()
    }

    fn plain() -> Transport {
        Transport { tls: None, http2: false }
    }

    fn in_flight(pool: &Pool) -> Vec<(SocketAddr, usize)> {
        pool.endpoints().iter().map(|endpoint| (endpoint.address, endpoint.state.in_flight())).collect()
    }

    #[test]
    fn what_a_reload_keeps_keeps_its_state() {
        let registry = Arc::new(Registry::default());
        let before = registry.pool("erp", members(&["127.0.0.1:1", "127.0.0.1:2"]), plain());
        let busy = before.next(None, Instant::now()).unwrap();
        let _guard = busy.enter(Instant::now()).unwrap();
        let same = registry.pool("erp", members(&["127.0.0.1:1", "127.0.0.1:2"]), plain());
        assert!(Arc::ptr_eq(&before, &same));
        let grown = registry.pool("erp", members(&["127.0.0.1:1", "127.0.0.1:3"]), plain());
        assert_eq!(in_flight(&grown), [("127.0.0.1:1".parse().unwrap(), 1), ("127.0.0.1:3".parse().unwrap(), 0)]);
        let versioned = registry.pool("erp", members(&["127.0.0.1:1"]), Transport { http2: true, ..plain() });
        assert_eq!(in_flight(&versioned)[0].1, 0, "endpoints of another protocol are others");
        let other = registry.pool("crm", members(&["127.0.0.1:1"]), plain());
        assert_eq!(in_flight(&other)[0].1, 0);
    }

    #[test]
    fn a_retry_goes_elsewhere_where_it_can() {
        let registry = Arc::new(Registry::default());
        let pool = registry.pool("erp", members(&["127.0.0.1:1", "127.0.0.1:2"]), plain());
        let failed: SocketAddr = "127.0.0.1:1".parse().unwrap();
        for _ in 0..4 {
            assert_ne!(pool.next(Some(failed), Instant::now()).unwrap().address, failed);
        }
        let alone = registry.pool("one", members(&["127.0.0.1:1"]), plain());
        assert_eq!(alone.next(Some(failed), Instant::now()).unwrap().address, failed);
    }
}
