//! From what users write to what is used.

use std::collections::BTreeSet;

use crossway_plugin_api::{Deps, InvalidConfig};
use http::HeaderName;

use super::{
    Counters, Limiter,
    answer::Fields,
    config::{self, Algorithm, Config, CostFrom, Mode, OnStoreError, StoreKind},
    limit::{Limit, MOST},
    local::{Local, MAX_ASKS},
    name::{Stem, common},
    period::Period,
    policy::{Cost, Identity, Notice, Policy, Side},
    shared::Shared,
    store::Store,
};
use crate::fields::below;
use crate::key::{DEFAULT_PREFIX, Parts};

/// Fewest and most keys that are remembered.
const ENTRIES: std::ops::RangeInclusive<u32> = 1_000..=50_000_000;
const MAX_NAME: usize = 64;

type Built<T> = Result<T, InvalidConfig>;

pub(super) fn limiter(config: Config, deps: &Deps) -> Built<Limiter> {
    if config.policies.is_empty() || config.policies.len() > MAX_ASKS {
        return Err(InvalidConfig::new("policies", format!("must name 1 to {MAX_ASKS} policies")));
    }
    if !ENTRIES.contains(&config.max_entries) {
        let reason = format!("must be {} to {}", ENTRIES.start(), ENTRIES.end());
        return Err(InvalidConfig::new("max_entries", reason));
    }
    let mut names = BTreeSet::new();
    let mut policies = Vec::with_capacity(config.policies.len());
    for (at, written) in config.policies.into_iter().enumerate() {
        let place = format!("policies/{at}");
        if !names.insert(written.name.clone()) {
            return Err(InvalidConfig::new(format!("{place}/name"), "names another policy of this list too"));
        }
        policies.push(policy(written, &place, deps)?);
    }
    let counters = Counters::new(&deps.metrics);
    let most = usize::try_from(config.max_entries).unwrap_or(usize::MAX);
    let local = deps.state.get_or_make(&format!("rate_limit {}", deps.entry), || Local::new(most));
    let shared = shared(&policies, config.on_store_error, deps)?;
    let store = Store { local, most, shared, events: counters.stores.clone() };
    let fields = Fields::new(&config.headers);
    Ok(Limiter { policies: policies.into(), fields, store, clock: deps.clock.clone(), counters })
}

/// The store that gateways share, if a policy counts there.
fn shared(policies: &[Policy], on_error: Option<OnStoreError>, deps: &Deps) -> Built<Option<Shared>> {
    let counted = || policies.iter().filter(|policy| policy.stem.is_some());
    let Some(at) = policies.iter().position(|policy| policy.stem.is_some()) else {
        return match on_error {
            None => Ok(None),
            Some(_) => {
                Err(InvalidConfig::new("on_store_error", "has no effect: no policy of this list has `store: shared`"))
            }
        };
    };
    let Some(server) = &deps.shared else {
        return Err(InvalidConfig::new(format!("policies/{at}/store"), "needs `stores.shared`"));
    };
    // Two addresses that are one to some policy must have one tag.
    let ipv6_prefix = counted().map(|policy| policy.parts.ipv6_prefix).min().unwrap_or(DEFAULT_PREFIX);
    let all = common(counted().map(|policy| policy.parts.all.clone()));
    let parts = Parts { all, ipv6_prefix, anonymous: true };
    Ok(Some(Shared::new(server.as_ref(), (Stem::of_entry(&deps.entry), parts), on_error.unwrap_or_default())))
}

fn policy(written: config::Policy, place: &str, deps: &Deps) -> Built<Policy> {
    let wrong = |key: &str, reason: String| InvalidConfig::new(format!("{place}/{key}"), reason);
    check_name(&written.name).map_err(|reason| wrong("name", reason))?;
    let cost = cost(&written, place)?;
    let limits = Limits { algorithm: written.algorithm, per: written.per, debt: debt(written.cost_from.as_ref()) };
    let least = if matches!(cost.from, Some((Side::Request, _))) { cost.max } else { cost.fixed };
    let limit = limits.one(written.limit, written.burst, least, place)?;
    let mut tiers = Vec::with_capacity(written.tiers.len());
    for (group, tier) in &written.tiers {
        let place = below(&format!("{place}/tiers"), group);
        check_group(group, &place, deps)?;
        tiers.push((group.clone(), limits.one(tier.limit, tier.burst, least, &place)?));
    }
    let all: Vec<Limit> = tiers.iter().map(|(_, limit)| *limit).chain([limit]).collect();
    let limit = limit.among(&all);
    for (_, tier) in &mut tiers {
        *tier = tier.among(&all);
    }
    tiers.sort_by_key(|(_, limit)| std::cmp::Reverse(limit.quota()));
    let window = limit.is_window().then_some(written.per);
    let identity = Identity { name: written.name.clone(), key: written.key.clone(), window };
    Ok(Policy {
        stem: (written.store == StoreKind::Shared).then(|| Stem::of_entry(&deps.entry).policy(&identity)),
        identity,
        parts: parts(&written, place)?,
        name: written.name,
        limit,
        tiers,
        cost,
        shadow: written.mode == Mode::Shadow,
        on_missing_key: written.on_missing_key.unwrap_or_default(),
        notice: Notice::default(),
    })
}

fn check_name(name: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let begins_well = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if begins_well && name.len() <= MAX_NAME && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!("must be 1 to {MAX_NAME} letters, digits and `. _ -`, and begin with a letter or a digit"))
}

/// A group that nobody can be of is a slip.
fn check_group(group: &str, place: &str, deps: &Deps) -> Built<()> {
    let known = || deps.consumers.consumers().flat_map(|consumer| consumer.groups()).map(String::as_str);
    if known().any(|known| known == group) {
        return Ok(());
    }
    Err(InvalidConfig::unknown(place, "is a group that no consumer has", group, known()))
}

fn parts(written: &config::Policy, place: &str) -> Built<Parts> {
    Parts::new(&written.key, written.ipv6_prefix, written.on_missing_key)
        .map_err(|wrong| InvalidConfig::new(format!("{place}/{}", wrong.field), wrong.reason))
}

fn cost(written: &config::Policy, place: &str) -> Built<Cost> {
    let wrong = |key: &str, reason: &str| Err(InvalidConfig::new(format!("{place}/{key}"), reason));
    let from = match &written.cost_from {
        None => None,
        Some(from) => Some(side(from).map_err(|reason| InvalidConfig::new(format!("{place}/cost_from"), reason))?),
    };
    let afterwards = matches!(from, Some((Side::Response, _)));
    if written.cost == 0 && !afterwards {
        return wrong("cost", "must be at least 1, because the cost stands in no response");
    }
    let Some(CostFrom { max, max_debt, .. }) = written.cost_from else {
        return Ok(Cost { fixed: written.cost, from, max: written.cost });
    };
    if max == 0 || max > MOST {
        return wrong("cost_from/max", &format!("must be 1 to {MOST}"));
    }
    if written.cost > max {
        return wrong("cost", "is more than `cost_from.max`");
    }
    if max_debt.is_some() && !afterwards {
        return wrong("cost_from/max_debt", "has no effect: only what costs afterwards leads into debt");
    }
    Ok(Cost { fixed: written.cost, from, max })
}

fn side(from: &CostFrom) -> Result<(Side, HeaderName), &'static str> {
    match (&from.request_header, &from.response_header) {
        (Some(name), None) => Ok((Side::Request, name.0.clone())),
        (None, Some(name)) => Ok((Side::Response, name.0.clone())),
        _ => Err("needs exactly one of `request_header` and `response_header`"),
    }
}

fn debt(from: Option<&CostFrom>) -> u32 {
    from.filter(|from| from.response_header.is_some()).map_or(0, |from| from.max_debt.unwrap_or(from.max))
}

/// What the limits of a policy and its tiers have in common.
struct Limits {
    algorithm: Algorithm,
    per: Period,
    debt: u32,
}

impl Limits {
    /// A limit that can pay what a request costs.
    fn one(&self, limit: u32, burst: Option<u32>, cost: u32, place: &str) -> Built<Limit> {
        let wrong = |key: &str, reason: String| InvalidConfig::new(format!("{place}/{key}"), reason);
        let at_once = burst.unwrap_or(limit);
        let made = match self.algorithm {
            Algorithm::Gcra if self.per == Period::Month => {
                return Err(self.wrong_per(place, "months are for `algorithm: fixed_window`"));
            }
            Algorithm::Gcra => Limit::rate(limit, self.per, at_once, self.debt),
            Algorithm::FixedWindow if burst.is_some() => {
                return Err(wrong("burst", "has no effect on a fixed window".into()));
            }
            Algorithm::FixedWindow if !self.per.fits_a_day() => {
                return Err(self.wrong_per(
                    place,
                    "must fit into a day a whole number of times: a fixed window begins with the day",
                ));
            }
            Algorithm::FixedWindow => Limit::window(limit, self.per, self.debt),
        };
        let key = if burst.is_some() && limit > 0 { "burst" } else { "limit" };
        let made = made.map_err(|reason| wrong(key, reason))?;
        if cost > at_once {
            let reason = format!("is less than the {cost} that one request can cost: it could never pass");
            return Err(wrong(key, reason));
        }
        Ok(made)
    }

    /// `per` stands in the policy, also for tiers.
    fn wrong_per(&self, place: &str, reason: &str) -> InvalidConfig {
        let policy = place.split("/tiers/").next().unwrap_or(place);
        let wrong = match self.per {
            Period::Seconds(_) => reason.to_owned(),
            Period::Month => format!("cannot be a month: {reason}"),
        };
        InvalidConfig::new(format!("{policy}/per"), wrong)
    }
}
