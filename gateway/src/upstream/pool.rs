//! Endpoints and their state, which live as long as some configuration wants them.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::sync::Notify;

use super::{
    balance::RoundRobin,
    budget::Budget,
    dns::Member,
    peer::{self, Transport},
};

/// The endpoints of one upstream.
pub struct Pool {
    pub(super) members: Vec<Member>,
    transport: Transport,
    identity: u64,
    current: ArcSwap<Current>,
    /// Addresses of each member, as last resolved.
    known: Mutex<Vec<Vec<SocketAddr>>>,
    registry: Weak<Registry>,
    pub(super) started: AtomicBool,
    pub(super) resolved: Notify,
}

/// The addresses known now, and whose turn it is.
#[derive(Default)]
struct Current {
    endpoints: Vec<Arc<Endpoint>>,
    turns: RoundRobin,
}

/// The endpoints that have failed one request. Takes no memory until there is one.
#[derive(Debug, Default)]
pub struct Tried(Vec<SocketAddr>);

impl Tried {
    /// Notes one.
    pub fn note(&mut self, endpoint: SocketAddr) {
        self.0.push(endpoint);
    }

    fn has(&self, endpoint: SocketAddr) -> bool {
        self.0.contains(&endpoint)
    }

    fn last(&self) -> Option<SocketAddr> {
        self.0.last().copied()
    }
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

/// What is known about an endpoint, across reloads.
#[derive(Debug, Default)]
pub struct EndpointState {
    in_flight: AtomicUsize,
}

impl EndpointState {
    /// Requests at this endpoint now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// A request at an endpoint; ends when dropped, however the request ends.
pub struct InFlight(Arc<EndpointState>);

impl Endpoint {
    /// Counts a request in.
    pub fn enter(&self) -> InFlight {
        self.state.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(&self.state))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// The endpoint whose turn it is, or the next one that was not tried; where all were, any but the last.
    pub fn next(&self, tried: &Tried) -> Option<Arc<Endpoint>> {
        let current = self.current.load();
        let first = current.turns.next()?;
        let (before, after) = current.endpoints.split_at_checked(first)?;
        let in_turn = || after.iter().chain(before);
        let untried = in_turn().find(|endpoint| !tried.has(endpoint.address));
        let another = || in_turn().find(|endpoint| Some(endpoint.address) != tried.last());
        untried.or_else(another).or_else(|| after.first()).cloned()
    }

    /// Whether there is an endpoint that was not tried.
    pub fn has_another(&self, tried: &Tried) -> bool {
        self.current.load().endpoints.iter().any(|endpoint| !tried.has(endpoint.address))
    }

    /// Whether there is an endpoint to send to.
    pub fn is_resolved(&self) -> bool {
        !self.current.load().endpoints.is_empty()
    }

    /// The addresses in use now with the requests at each.
    pub fn endpoints(&self) -> Vec<(SocketAddr, usize)> {
        self.current.load().endpoints.iter().map(|e| (e.address, e.state.in_flight())).collect()
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

/// Every pool and endpoint of the process, so that a reload finds those that it keeps.
#[derive(Default)]
pub struct Registry {
    pools: Mutex<HashMap<u64, Weak<Pool>>>,
    states: Mutex<HashMap<(u64, SocketAddr), Weak<EndpointState>>>,
    budgets: Mutex<HashMap<String, Weak<Budget>>>,
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
        });
        let known = pool.known.lock();
        pool.put(&known);
        drop(known);
        pools.insert(key, Arc::downgrade(&pool));
        pool
    }

    /// The budget of the upstream with this name, whatever its settings.
    pub fn budget(&self, name: &str) -> Arc<Budget> {
        let mut budgets = self.budgets.lock();
        budgets.retain(|_, budget| budget.strong_count() > 0);
        if let Some(budget) = budgets.get(name).and_then(Weak::upgrade) {
            return budget;
        }
        let budget = Arc::new(Budget::new(Instant::now()));
        budgets.insert(name.to_owned(), Arc::downgrade(&budget));
        budget
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

    #[test]
    fn what_a_reload_keeps_keeps_its_state() {
        let registry = Arc::new(Registry::default());
        let before = registry.pool("erp", members(&["127.0.0.1:1", "127.0.0.1:2"]), plain());
        let busy = before.next(&Tried::default()).unwrap();
        let _guard = busy.enter();
        let same = registry.pool("erp", members(&["127.0.0.1:1", "127.0.0.1:2"]), plain());
        assert!(Arc::ptr_eq(&before, &same));
        let grown = registry.pool("erp", members(&["127.0.0.1:1", "127.0.0.1:3"]), plain());
        assert_eq!(grown.endpoints(), [("127.0.0.1:1".parse().unwrap(), 1), ("127.0.0.1:3".parse().unwrap(), 0)]);
        let versioned = registry.pool("erp", members(&["127.0.0.1:1"]), Transport { http2: true, ..plain() });
        assert_eq!(versioned.endpoints()[0].1, 0, "endpoints of another protocol are others");
        let other = registry.pool("crm", members(&["127.0.0.1:1"]), plain());
        assert_eq!(other.endpoints()[0].1, 0);
    }

    #[test]
    fn a_retry_goes_elsewhere_where_it_can() {
        let registry = Arc::new(Registry::default());
        let addresses = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"];
        let pool = registry.pool("erp", members(&addresses), plain());
        let ports = |tried: &Tried| {
            let mut ports: Vec<u16> = (0..30).map(|_| pool.next(tried).unwrap().address.port()).collect();
            ports.sort_unstable();
            ports.dedup();
            ports
        };
        let mut tried = Tried::default();
        let mut rounds = Vec::new();
        for address in addresses {
            rounds.push((ports(&tried), pool.has_another(&tried)));
            tried.note(address.parse().unwrap());
        }
        rounds.push((ports(&tried), pool.has_another(&tried)));
        let expected = [(vec![1, 2, 3], true), (vec![2, 3], true), (vec![3], true), (vec![1, 2], false)];
        assert_eq!(rounds, expected);
        let alone = registry.pool("one", members(&["127.0.0.1:1"]), plain());
        assert_eq!(alone.next(&tried).unwrap().address.port(), 1);
        let mut only = Tried::default();
        only.note("127.0.0.1:1".parse().unwrap());
        assert_eq!((alone.next(&only).unwrap().address.port(), alone.has_another(&only)), (1, false));
    }

    #[test]
    fn a_budget_belongs_to_a_name() {
        let registry = Registry::default();
        let budget = registry.budget("erp");
        assert!(Arc::ptr_eq(&budget, &registry.budget("erp")) && !Arc::ptr_eq(&budget, &registry.budget("crm")));
    }
}
