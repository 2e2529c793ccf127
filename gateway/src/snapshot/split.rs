//! Where the requests of a route go: one upstream, or several.

use std::sync::Arc;

use crossway_plugin_api::Ctx;
use pingora_http::RequestHeader;

use super::{Compiler, routes::Upstreams};
use crate::{
    chain::Chain,
    config::{balance::On, route::Route as Config, split::Split as SplitConfig},
    upstream::{Upstream, rendezvous, value},
    when::Condition,
};

/// Where the requests of a route go.
pub enum Destination {
    /// To this upstream.
    One(Arc<Upstream>),
    /// To one of several.
    Split(Split),
}

/// Several upstreams, by shares and conditions.
pub struct Split {
    on: Option<On>,
    targets: Box<[Target]>,
}

/// One of the upstreams.
pub struct Target {
    /// Where it leads.
    pub upstream: Arc<Upstream>,
    /// Its share; `None` where it takes everything for which its condition holds.
    pub weight: Option<u16>,
    when: Option<Condition>,
    /// Stands for the upstream in hashes.
    place: u64,
}

impl Destination {
    /// The upstream of this request.
    pub fn choose(&self, req: &RequestHeader, ctx: &Ctx) -> &Arc<Upstream> {
        match self {
            Self::One(upstream) => upstream,
            Self::Split(split) => split.choose(req, ctx),
        }
    }

    /// Every upstream that requests may go to.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        let (one, several) = match self {
            Self::One(upstream) => (Some(upstream), &[][..]),
            Self::Split(split) => (None, &*split.targets),
        };
        one.into_iter().chain(several.iter().map(|target| &target.upstream))
    }

    /// The targets of a split; none where there is one upstream.
    pub fn targets(&self) -> &[Target] {
        match self {
            Self::One(_) => &[],
            Self::Split(split) => &split.targets,
        }
    }
}

impl Split {
    fn choose(&self, req: &RequestHeader, ctx: &Ctx) -> &Arc<Upstream> {
        let holds = |target: &&Target| target.when.as_ref().is_none_or(|when| when.holds(req, ctx));
        if let Some(whole) = self.targets.iter().filter(|target| target.weight.is_none()).find(holds) {
            return &whole.upstream;
        }
        let value = self.on.as_ref().and_then(|on| value::hash_of(on, req, ctx));
        let key = value.unwrap_or_else(|| fastrand::u64(..));
        let weighty = self.targets.iter().filter(|target| target.weight.is_some_and(|w| w > 0)).filter(holds);
        let places = weighty.map(|target| (target, target.place, f64::from(target.weight.unwrap_or(1))));
        let chosen = rendezvous::cheapest(key, places);
        // There is always one: at load a target with a weight and without a condition was asked for.
        chosen.map_or(&self.targets[0].upstream, |target| &target.upstream)
    }
}

impl Compiler<'_> {
    /// The destination of a route. `None` if it has none, or if something is wrong with it, which is reported.
    pub(super) fn destination(&mut self, pointer: &str, config: &Config, upstreams: &Upstreams) -> Option<Destination> {
        match (&config.upstream, &config.split) {
            (Some(_), Some(_)) => {
                self.error(&format!("{pointer}/split"), "stands beside an upstream: keep one of the two");
                None
            }
            (Some(name), None) => {
                self.upstream_named(&format!("{pointer}/upstream"), name, upstreams).map(Destination::One)
            }
            (None, Some(split)) => self.split(&format!("{pointer}/split"), split, upstreams).map(Destination::Split),
            (None, None) => None,
        }
    }

    fn upstream_named(&mut self, place: &str, name: &str, upstreams: &Upstreams) -> Option<Arc<Upstream>> {
        let known: Vec<&str> = self.loaded.config.upstreams.keys().map(String::as_str).collect();
        if !known.contains(&name) {
            self.unknown(place, "upstream", name, &known);
        }
        upstreams.get(name).cloned()
    }

    fn split(&mut self, pointer: &str, config: &SplitConfig, upstreams: &Upstreams) -> Option<Split> {
        let mut targets = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for (at, target) in config.to.iter().enumerate() {
            let pointer = format!("{pointer}/to/{at}");
            let when = target.when.as_ref().map(|when| self.condition(&format!("{pointer}/when"), when));
            let weight = target.weight.or(if when.is_some() { None } else { Some(1) });
            if weight.is_some() && seen.contains(&target.upstream.as_str()) {
                self.error(&format!("{pointer}/upstream"), "has a share already: give that more weight");
            }
            if weight.is_some() {
                seen.push(&target.upstream);
            }
            if let Some(upstream) = self.upstream_named(&format!("{pointer}/upstream"), &target.upstream, upstreams) {
                let place = rendezvous::hash(&[b"upstream", target.upstream.as_bytes()]);
                targets.push(Target { upstream, weight, when, place });
            }
        }
        let has_rest = config.to.iter().any(|target| target.when.is_none() && target.weight != Some(0));
        if !has_rest {
            let help = "give one target a weight of 1 or more, and no `when`";
            self.error_with_help(&format!("{pointer}/to"), "leaves requests that no target takes", help);
        }
        (has_rest && targets.len() == config.to.len()).then(|| Split { on: config.on.clone(), targets: targets.into() })
    }

    /// What a split looks at must be there.
    pub(super) fn check_split(&mut self, pointer: &str, config: &Config, params: &[Arc<str>], chain: &Chain) {
        let Some(split) = &config.split else { return };
        let help = "put a plugin such as `api_key` or `jwt` before it";
        let message = "looks at the caller, and no plugin of the route authenticates";
        if split.on.as_ref().is_some_and(On::needs_caller) && !chain.knows_callers {
            self.error_with_help(&format!("{pointer}/split/on"), message, help);
        }
        if let Some(On::Param(name)) = &split.on
            && !params.iter().any(|param| **param == **name)
        {
            let known: Vec<&str> = params.iter().map(AsRef::as_ref).collect();
            self.unknown(&format!("{pointer}/split/on"), "path parameter with the name", name, &known);
        }
        for (at, target) in split.to.iter().enumerate() {
            let looks = target.when.as_ref().is_some_and(|when| !when.groups.is_empty() || !when.claims.is_empty());
            if looks && !chain.knows_callers {
                self.error_with_help(&format!("{pointer}/split/to/{at}/when"), message, help);
            }
        }
    }
}
