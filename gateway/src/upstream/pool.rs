//! Endpoints and their state, which live as long as some configuration wants them.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::{Arc, Weak, atomic::AtomicBool},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use crossway_plugin_api::{Fault, Places};
use http::HeaderValue;
use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;
use tokio::sync::Notify;

use super::{
    budget::Budget,
    choice::{self, Current, Rule, Tried, Wish},
    dns::{Member, Place},
    exchange::Exchange,
    names::Names,
    peer::{self, Transport},
    rendezvous,
    state::{EndpointState, InFlight},
    sticky::Tags,
    watch::Watch,
};

/// The endpoints of one upstream.
pub struct Pool {
    pub(super) members: Vec<Member>,
    name: Arc<str>,
    settings: Settings,
    identity: u64,
    pub(super) current: ArcSwap<Current>,
    /// Places of each member, as last resolved.
    known: Mutex<Vec<Vec<Place>>>,
    /// Whether no pool of this name was there before: what it begins with is not new beside anything.
    is_first: bool,
    pub(super) registry: Weak<Registry>,
    pub(super) started: AtomicBool,
    pub(super) resolved: Notify,
    /// What is watched, once a configuration with this pool is put in force, and what makes connections for probes.
    pub(super) watched: ArcSwapOption<(Arc<Watch>, Arc<Exchange>)>,
}

/// How a pool speaks to its endpoints, and chooses among them.
#[derive(Clone)]
pub struct Settings {
    /// How endpoints are spoken to.
    pub transport: Transport,
    /// How one is chosen.
    pub rule: Rule,
    /// How long one that has just come gets less than its share.
    pub slow_start: Option<Duration>,
    /// Who is asked for their names.
    pub names: Names,
    /// What makes the names that clients come back with, if they do.
    pub tags: Option<Tags>,
}

impl Settings {
    /// Stands for the settings in keys of pools; the transport has a key of its own.
    fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.rule, self.slow_start, &self.names, self.tags.as_ref().map(Tags::identity)).hash(&mut hasher);
        hasher.finish()
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
    /// Its share among endpoints of the same priority; 0 while it is drained.
    pub weight: u32,
    /// Lower is used first: what the configuration says, then what the name's record says.
    pub priority: (u8, u16),
    /// Stands for the address in hashes.
    pub place: u64,
    /// Its name towards clients that come back to it.
    pub tag: Option<u64>,
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
    /// An endpoint for the next attempt, and a place there for a request.
    pub fn enter(&self, wish: &Wish, tried: &Tried, now: Instant) -> Result<(Arc<Endpoint>, InFlight), Fault> {
        /// Others may take the last place at an endpoint in between; not for ever.
        const TRIES: usize = 8;
        for _ in 0..TRIES {
            let Some(endpoint) = self.choose(wish, tried, now) else { break };
            if let Some(place) = endpoint.enter(now) {
                return Ok((endpoint, place));
            }
        }
        Err(self.refusal(now))
    }

    /// The endpoint for the next attempt: one that is available, and has not been tried if there is another such. `None`
    /// if none is available.
    pub fn choose(&self, wish: &Wish, tried: &Tried, now: Instant) -> Option<Arc<Endpoint>> {
        let available = |e: &Endpoint| e.state.is_available(now);
        let permitted = |e: &Endpoint| e.state.is_permitted(now);
        // Which endpoints are well is of no account any more where none is, if the configuration says so.
        let use_all = || self.watched.load().as_ref().is_some_and(|watched| watched.0.use_all);
        let chosen = self.choose_of((wish, tried, now), &available);
        chosen.or_else(|| if use_all() { self.choose_of((wish, tried, now), &permitted) } else { None })
    }

    /// One of those that may be used; one that has not been tried, if there is such; where all were, any but the last.
    fn choose_of(
        &self,
        (wish, tried, now): (&Wish, &Tried, Instant),
        may: &impl Fn(&Endpoint) -> bool,
    ) -> Option<Arc<Endpoint>> {
        let current = self.current.load();
        let share = choice::share_of(self.settings.slow_start, now);
        let rule = self.settings.rule;
        let chosen = current.choose(rule, wish, &share, &|e| !tried.has(e.address) && may(e));
        let another = || current.choose(rule, wish, &share, &|e| tried.last() != Some(e.address) && may(e));
        let again = || current.choose(rule, wish, &share, may);
        if tried.is_empty() { chosen.cloned() } else { chosen.or_else(another).or_else(again).cloned() }
    }

    /// Whether there is an endpoint that may be used and was not tried.
    pub fn has_another(&self, tried: &Tried, now: Instant) -> bool {
        let current = self.current.load();
        current.endpoints.iter().any(|e| e.weight > 0 && !tried.has(e.address) && e.state.is_available(now))
    }

    /// Whether there is an endpoint to send to.
    pub fn is_resolved(&self) -> bool {
        !self.current.load().endpoints.is_empty()
    }

    /// The endpoints in use now.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.current.load().endpoints.clone()
    }

    /// How long an endpoint that has just come gets less than its share.
    pub fn slow_start(&self) -> Option<Duration> {
        self.settings.slow_start
    }

    pub(super) fn names(&self) -> &Names {
        &self.settings.names
    }

    /// The last places of a member.
    pub(super) fn known(&self, member: usize) -> Vec<Place> {
        self.known.lock().get(member).cloned().unwrap_or_default()
    }

    /// Puts the places that a member has resolved to in use.
    pub(super) fn learn(&self, member: usize, places: Vec<Place>) {
        let mut known = self.known.lock();
        let mut is_new = true;
        if let Some(place) = known.get_mut(member) {
            is_new = !(self.is_first && place.is_empty());
            *place = places;
        }
        self.put(&known, is_new);
    }

    /// Puts places in use: one list for each member, in order. Nothing changes if they are the same. `is_new` says that
    /// endpoints which nobody knows yet begin slowly.
    fn put(&self, places: &[Vec<Place>], is_new: bool) {
        let wanted = || self.members.iter().zip(places).flat_map(|(m, list)| list.iter().map(move |p| (m, p)));
        let current = self.current.load();
        let is_same = |(old, (member, place)): (&Arc<Endpoint>, (&Member, &Place))| {
            (old.address, old.weight, old.priority)
                == (place.address, member.weight_of(place), member.priority_of(place))
                && old.authority.as_bytes() == member.authority_of(place).as_bytes()
        };
        if current.endpoints.len() == wanted().count() && current.endpoints.iter().zip(wanted()).all(is_same) {
            return;
        }
        let endpoints = wanted().map(|(m, place)| Arc::new(self.endpoint(m, place, is_new))).collect();
        self.current.store(Arc::new(Current::new(endpoints)));
        self.watch_all();
        self.resolved.notify_waiters();
    }

    fn endpoint(&self, member: &Member, place: &Place, is_new: bool) -> Endpoint {
        let address = place.address;
        let state = self.registry.upgrade().map(|r| r.state(self.identity, address, is_new)).unwrap_or_default();
        let peer = peer::template(address, self.identity, &self.settings.transport);
        // Host names and ports have no characters that a header value could not carry.
        let authority = HeaderValue::from_str(member.authority_of(place)).unwrap_or(HeaderValue::from_static(""));
        Endpoint {
            address,
            authority,
            peer,
            weight: member.weight_of(place),
            priority: member.priority_of(place),
            place: rendezvous::hash(&[address.to_string().as_bytes()]),
            tag: self.settings.tags.as_ref().map(|tags| tags.tag(&self.name, address)),
            state,
        }
    }
}

/// Every pool and endpoint of the process, so that a reload finds those that it keeps.
#[derive(Default)]
pub struct Registry {
    pools: Mutex<HashMap<u64, Weak<Pool>>>,
    states: Mutex<HashMap<(u64, SocketAddr), Weak<EndpointState>>>,
    /// Held while an endpoint is ejected, so that two at once do not both find room.
    pub(super) ejecting: Mutex<()>,
    places: Mutex<HashMap<String, Weak<Places>>>,
    budgets: Mutex<HashMap<String, Weak<Budget>>>,
}

impl Registry {
    /// The pool with this name and these settings: the one in use, if there is one, else a new one.
    pub fn pool(self: &Arc<Self>, name: &str, members: Vec<Member>, settings: Settings) -> Arc<Pool> {
        let mut hasher = DefaultHasher::new();
        (name, settings.transport.identity()).hash(&mut hasher);
        let identity = hasher.finish();
        (&members, settings.identity()).hash(&mut hasher);
        let key = hasher.finish();
        let mut pools = self.pools.lock();
        pools.retain(|_, pool| pool.strong_count() > 0);
        if let Some(pool) = pools.get(&key).and_then(Weak::upgrade) {
            return pool;
        }
        // What a pool of the same name has resolved already is a good beginning, above all while no resolver answers.
        let siblings: Vec<Arc<Pool>> =
            pools.values().filter_map(Weak::upgrade).filter(|pool| pool.identity == identity).collect();
        let known: Vec<Vec<Place>> = members.iter().map(|m| beginning(m, &siblings)).collect();
        let is_first = siblings.is_empty();
        let pool = Arc::new(Pool {
            members,
            name: name.into(),
            settings,
            identity,
            current: ArcSwap::default(),
            known: Mutex::new(known),
            is_first,
            registry: Arc::downgrade(self),
            started: AtomicBool::new(false),
            resolved: Notify::new(),
            watched: ArcSwapOption::empty(),
        });
        let known = pool.known.lock();
        pool.put(&known, !is_first);
        drop(known);
        pools.insert(key, Arc::downgrade(&pool));
        pool
    }

    /// What is taken of the places of the upstream with this name.
    pub fn places(&self, name: &str) -> Arc<Places> {
        of_name(&self.places, name, Places::default)
    }

    /// The budget of the upstream with this name, whatever its settings.
    pub fn budget(&self, name: &str) -> Arc<Budget> {
        of_name(&self.budgets, name, || Budget::new(Instant::now()))
    }

    fn state(&self, identity: u64, address: SocketAddr, is_new: bool) -> Arc<EndpointState> {
        let mut states = self.states.lock();
        states.retain(|_, state| state.strong_count() > 0);
        if let Some(state) = states.get(&(identity, address)).and_then(Weak::upgrade) {
            return state;
        }
        let state = Arc::new(EndpointState::default());
        if is_new {
            state.warmth.begin(Instant::now());
        }
        states.insert((identity, address), Arc::downgrade(&state));
        state
    }
}

/// What is kept of a name, for as long as somebody holds it.
fn of_name<T>(all: &Mutex<HashMap<String, Weak<T>>>, name: &str, new: impl FnOnce() -> T) -> Arc<T> {
    let mut all = all.lock();
    all.retain(|_, kept| kept.strong_count() > 0);
    if let Some(kept) = all.get(name).and_then(Weak::upgrade) {
        return kept;
    }
    let made = Arc::new(new());
    all.insert(name.to_owned(), Arc::downgrade(&made));
    made
}

/// The addresses a member begins with: its own, if it is one, else those that another pool knows of it.
fn beginning(member: &Member, siblings: &[Arc<Pool>]) -> Vec<Place> {
    let known = |pool: &Arc<Pool>| {
        let at = pool.members.iter().position(|m| m.is_same_place(member))?;
        pool.known.lock().get(at).cloned().filter(|places| !places.is_empty())
    };
    let literal = member.literal();
    if literal.is_empty() { siblings.iter().find_map(known).unwrap_or_default() } else { literal }
}

#[cfg(test)]
mod tests;
