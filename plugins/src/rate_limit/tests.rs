use std::{collections::BTreeMap, time::Duration};

use crossway_plugin_api::{Consumer, ConsumerDirectory, Content, SharedState};
use http::HeaderMap;
use prometheus::{IntCounterVec, Opts};

use super::*;
use crate::testing::{build, ctx, parse, refused, reply_values, request, response, run, values};

mod stores;

/// 2026-11-21T13:00:00Z.
const START: Duration = Duration::from_hours(498_685);

/// What plugins are built with, and what outlives them.
struct World {
    deps: Deps,
    events: IntCounterVec,
}

impl World {
    fn new() -> Self {
        let events = IntCounterVec::new(Opts::new("e", "e"), &["plugin", "event"]).unwrap();
        let mut consumers = ConsumerDirectory::default();
        for (name, groups) in [("alice", &["gold"][..]), ("bob", &["free", "silver"]), ("carol", &[])] {
            assert!(consumers.add(&consumer(name, groups)));
        }
        let deps = Deps {
            clock: Clock::fixed(START),
            consumers: Arc::new(consumers),
            metrics: MetricsScope::new(events.clone()),
            state: SharedState::default(),
            ..Deps::default()
        };
        Self { deps, events }
    }

    fn build(&self, settings: &str) -> Arc<dyn Plugin> {
        self.build_as("", settings)
    }

    fn build_as(&self, entry: &str, settings: &str) -> Arc<dyn Plugin> {
        let deps = Deps { entry: entry.into(), ..self.deps.clone() };
        let plugin = parse(&format!("rate_limit: {{ {settings} }}")).unwrap();
        plugin.build(&deps).unwrap()
    }

    fn pass(&self, millis: u64) {
        self.deps.clock.advance(Duration::from_millis(millis));
    }

    fn count(&self, event: &str) -> u64 {
        self.events.with_label_values(&["rate_limit", event]).get()
    }
}

fn consumer(name: &str, groups: &[&str]) -> Arc<Consumer> {
    let groups: Vec<String> = groups.iter().map(|&group| group.into()).collect();
    Arc::new(Consumer::new(name, &groups, BTreeMap::new()).unwrap())
}

fn by(name: &str, groups: &[&str]) -> Ctx {
    Ctx { consumer: Some(consumer(name, groups)), ..ctx() }
}

/// The status of a request of this caller: 200 where it goes on.
async fn status(plugin: &Arc<dyn Plugin>, ctx: &mut Ctx) -> u16 {
    run(plugin, &mut request("GET", &[]), ctx).await.map_or(200, |reply| reply.status.as_u16())
}

async fn statuses(plugin: &Arc<dyn Plugin>, count: usize) -> Vec<u16> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(status(plugin, &mut ctx()).await);
    }
    all
}

/// The fields that a client sees, after this answer of the upstream.
fn seen(plugin: &Arc<dyn Plugin>, ctx: &mut Ctx, fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut res = response(200, fields);
    plugin.on_response(&mut res, ctx).unwrap();
    res.headers.clone()
}

const THREE: &str = "policies: [{ name: a, key: [client], limit: 60, per: 1m, burst: 3 }]";

#[tokio::test]
async fn what_is_used_comes_back_evenly() {
    let world = World::new();
    let plugin = world.build(THREE);
    assert_eq!(statuses(&plugin, 4).await, [200, 200, 200, 429]);
    world.pass(999);
    assert_eq!(statuses(&plugin, 1).await, [429]);
    world.pass(1);
    assert_eq!(statuses(&plugin, 2).await, [200, 429]);
    assert_eq!((world.count("allowed"), world.count("refused")), (4, 3));
    assert_eq!(status(&plugin, &mut Ctx::new("192.0.2.8".parse().unwrap(), String::new(), "/".into())).await, 200);
}

#[tokio::test]
async fn a_refusal_names_the_policies_and_says_how_long() {
    let world = World::new();
    let plugin = world.build(
        "headers: [ietf, legacy], policies: [
            { name: a, key: [client], limit: 60, per: 1m, burst: 1 },
            { name: day, key: [client], limit: 1, per: 1d, algorithm: fixed_window },
            { name: c, key: [client], limit: 100, per: 1h }]",
    );
    let mut first = ctx();
    assert_eq!(status(&plugin, &mut first).await, 200);
    let told = seen(&plugin, &mut first, &[("ratelimit", "\"up\";r=1"), ("x-ratelimit-limit", "9")]);
    assert_eq!(values(&told, "ratelimit-policy"), "\"a\";q=60;w=60, \"day\";q=1;w=86400, \"c\";q=100;w=3600");
    assert_eq!(values(&told, "ratelimit"), "\"up\";r=1 | \"a\";r=0;t=1, \"day\";r=0;t=39600, \"c\";r=99;t=36");
    let legacy = |told: &HeaderMap| ["limit", "remaining", "reset"].map(|f| values(told, &format!("x-ratelimit-{f}")));
    assert_eq!(legacy(&told), ["1", "0", "39600"]);

    let mut second = ctx();
    let reply = run(&plugin, &mut request("GET", &[]), &mut second).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code()), (429, Some("rate_limited")));
    assert_eq!(reply_values(&reply, "retry-after"), "39600");
    let Content::Problem(problem) = &reply.content else { panic!("{reply:?}") };
    assert_eq!(problem.detail, "The limit of the policies a, day is reached. Try again in 39600 seconds.");
    assert_eq!(problem.members, [("violated-policies", serde_json::json!(["a", "day"]))]);
    assert_eq!(second.refusal.as_deref(), Some("limited by a, day"));
    let told = seen(&plugin, &mut second, &[]);
    assert_eq!(values(&told, "ratelimit"), "\"a\";r=0;t=1, \"day\";r=0;t=39600, \"c\";r=99;t=36", "c was not used");
    assert_eq!(legacy(&told), ["1", "0", "39600"]);

    let silent = world.build_as("s", &format!("headers: [], {THREE}"));
    assert!(!silent.needs().response);
}

#[tokio::test]
async fn two_plugins_on_a_route_tell_of_both() {
    let world = World::new();
    let legacy = |name: &str, burst: u32| {
        let policy = format!("{{ name: {name}, key: [client], limit: 60, per: 1m, burst: {burst} }}");
        world.build_as(name, &format!("headers: [ietf, legacy], policies: [{policy}]"))
    };
    let (outer, inner) = (legacy("outer", 3), legacy("inner", 5));
    let mut ctx = ctx();
    assert_eq!((status(&outer, &mut ctx).await, status(&inner, &mut ctx).await), (200, 200));
    let mut res = response(200, &[]);
    for plugin in [&inner, &outer] {
        plugin.on_response(&mut res, &mut ctx).unwrap();
    }
    assert_eq!(values(&res.headers, "ratelimit"), "\"inner\";r=4;t=1 | \"outer\";r=2;t=1");
    assert_eq!(values(&res.headers, "x-ratelimit-remaining"), "2");
}

#[tokio::test]
async fn windows_begin_at_the_hour() {
    let world = World::new();
    let plugin = world.build("policies: [{ name: a, key: [client], limit: 2, per: 1h, algorithm: fixed_window }]");
    world.pass(3_599_000);
    assert_eq!(statuses(&plugin, 3).await, [200, 200, 429]);
    world.pass(999);
    assert_eq!(statuses(&plugin, 1).await, [429]);
    world.pass(1);
    assert_eq!(statuses(&plugin, 3).await, [200, 200, 429]);
}

#[tokio::test]
async fn the_highest_tier_of_a_consumer_holds() {
    let world = World::new();
    let plugin = world.build(
        "policies: [{ name: a, key: [consumer], limit: 1, per: 1h, on_missing_key: allow,
            tiers: { gold: { limit: 4 }, silver: { limit: 3 }, free: { limit: 2, burst: 1 } } }]",
    );
    assert!(plugin.needs().caller);
    for (name, groups, passes) in [("alice", &["gold"][..], 4), ("bob", &["free", "silver"], 3), ("carol", &[], 1)] {
        for at in 0..=passes {
            let expected = if at < passes { 200 } else { 429 };
            assert_eq!(status(&plugin, &mut by(name, groups)).await, expected, "{name} {at}");
        }
    }
    let mut ctx = by("alice", &["gold"]);
    status(&plugin, &mut ctx).await;
    assert_eq!(values(&seen(&plugin, &mut ctx, &[]), "ratelimit-policy"), "\"a\";q=4;w=3600");
}

#[tokio::test]
async fn tiers_that_share_a_key_free_each_other_of_nothing() {
    let world = World::new();
    let policy =
        "policies: [{ name: a, key: [client], limit: 3, per: 1h, tiers: { gold: { limit: 3600, burst: 5 } } }]";
    let plugin = world.build(policy);
    let ask = async |name: &str, groups: &[&str]| status(&plugin, &mut by(name, groups)).await;
    for _ in 0..5 {
        assert_eq!(ask("alice", &["gold"]).await, 200);
    }
    // Who may have less meets what the other one has used, and takes nothing of it away.
    assert_eq!((ask("carol", &[]).await, ask("alice", &["gold"]).await), (429, 429));
    world.pass(1_000);
    assert_eq!((ask("carol", &[]).await, ask("alice", &["gold"]).await), (429, 200), "at the pace of the faster one");
    world.pass(3_000);
    assert_eq!((ask("carol", &[]).await, ask("carol", &[]).await), (200, 429));
}

#[tokio::test]
async fn who_lacks_the_key() {
    let world = World::new();
    let of = |entry: &str, more: &str| {
        world.build_as(entry, &format!("policies: [{{ name: a, key: [header:X-T], limit: 1, per: 1h, {more} }}]"))
    };
    let deny = of("a", "");
    let reply = run(&deny, &mut request("GET", &[]), &mut ctx()).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code()), (403, Some("rate_limit_key_missing")));
    assert!(run(&deny, &mut request("GET", &[("X-T", "1")]), &mut ctx()).await.is_none());
    assert_eq!(statuses(&of("b", "on_missing_key: allow"), 3).await, [200; 3]);
    let anonymous = of("c", "on_missing_key: anonymous");
    assert_eq!(statuses(&anonymous, 2).await, [200, 429]);
    assert!(run(&anonymous, &mut request("GET", &[("X-T", "1")]), &mut ctx()).await.is_none());
    let shadow = of("d", "mode: shadow");
    assert_eq!(statuses(&shadow, 2).await, [200; 2]);
    assert_eq!((world.count("keyless"), world.count("shadowed")), (6, 2));
    // Whom one policy denies uses nothing of another.
    let both = world.build_as(
        "e",
        "policies: [{ name: a, key: [client], limit: 2, per: 1h }, { name: b, key: [header:X-T], limit: 9, per: 1h }]",
    );
    assert_eq!(statuses(&both, 5).await, [403; 5]);
    for expected in [true, true, false] {
        assert_eq!(run(&both, &mut request("GET", &[("X-T", "1")]), &mut ctx()).await.is_none(), expected);
    }
}

#[tokio::test]
async fn a_shadow_reports_and_tells_clients_nothing() {
    let world = World::new();
    let plugin =
        world.build("headers: [ietf, legacy], policies: [{ name: s, key: [client], limit: 1, per: 1h, mode: shadow }]");
    assert_eq!(statuses(&plugin, 4).await, [200; 4]);
    assert_eq!((world.count("allowed"), world.count("shadowed")), (4, 3));
    let mut ctx = ctx();
    status(&plugin, &mut ctx).await;
    assert!(seen(&plugin, &mut ctx, &[]).is_empty());
}

#[test]
fn the_log_speaks_now_and_then() {
    let notice = policy::Notice::default();
    let at = |seconds: u64| Moment { steady: seconds * 1_000_000_000, wall: 0 };
    let said: Vec<_> = [0, 1, 9, 10, 11].into_iter().map(|seconds| notice.one_more(at(seconds))).collect();
    assert_eq!(said, [Some(1), None, None, Some(3), None]);
}

#[tokio::test]
async fn a_request_can_say_what_it_costs() {
    let world = World::new();
    let plugin = world.build(
        "policies: [{ name: a, key: [client], limit: 10, per: 1h, cost: 2, cost_from: { request_header: X-Cost, max: 5 } }]",
    );
    let left = async |fields: &[(&'static str, &str)]| {
        let world = World::new();
        let plugin = world.build(
            "policies: [{ name: a, key: [client], limit: 10, per: 1h, cost: 2, cost_from: { request_header: X-Cost, max: 5 } }]",
        );
        let mut ctx = ctx();
        assert!(run(&plugin, &mut request("GET", fields), &mut ctx).await.is_none());
        let told = values(&seen(&plugin, &mut ctx, &[("x-cost", "5")]), "ratelimit");
        (told.split(';').nth(1).unwrap().to_owned(), world.count("mispriced"))
    };
    assert_eq!(left(&[]).await, ("r=8".into(), 0));
    assert_eq!(left(&[("X-Cost", "1")]).await, ("r=9".into(), 0));
    assert_eq!(left(&[("X-Cost", "5")]).await, ("r=5".into(), 0));
    for bad in ["0", "6", "-1", "+1", "1.5", "", "x", "99999999999999999999"] {
        assert_eq!(left(&[("X-Cost", bad)]).await, ("r=5".into(), 1), "{bad}");
    }
    assert_eq!(left(&[("X-Cost", "1"), ("X-Cost", "1")]).await, ("r=5".into(), 1));
    for expected in [200, 200, 429] {
        let reply = run(&plugin, &mut request("GET", &[("X-Cost", "5")]), &mut ctx()).await;
        assert_eq!(reply.map_or(200, |reply| reply.status.as_u16()), expected);
    }
}

#[tokio::test]
async fn a_response_can_say_what_it_has_cost() {
    let world = World::new();
    let of = |entry: &str, cost: u32| {
        let from = "cost_from: { response_header: X-Cost, max: 30, max_debt: 20 }";
        world.build_as(
            entry,
            &format!("policies: [{{ name: a, key: [client], limit: 10, per: 10s, cost: {cost}, {from} }}]"),
        )
    };
    let plugin = of("a", 1);
    let left = async |plugin: &Arc<dyn Plugin>, cost: &str| {
        let mut ctx = ctx();
        let fields: &[_] = if cost.is_empty() { &[] } else { &[("x-cost", cost)] };
        match status(plugin, &mut ctx).await {
            200 => values(&seen(plugin, &mut ctx, fields), "ratelimit").split(';').nth(1).unwrap().to_owned(),
            status => status.to_string(),
        }
    };
    assert_eq!(left(&plugin, "").await, "r=9");
    assert_eq!(left(&plugin, "0").await, "r=8", "what was used is not given back");
    assert_eq!(left(&plugin, "4").await, "r=4");
    assert_eq!(left(&plugin, "999").await, "r=0", "more than the most counts as the most");
    assert_eq!(left(&plugin, "1").await, "429");
    world.pass(20_000);
    assert_eq!(left(&plugin, "1").await, "429", "the debt is paid, and nothing is left");
    world.pass(1_000);
    assert_eq!(left(&plugin, "1").await, "r=0");
    assert_eq!(world.count("mispriced"), 1);

    let afterwards = of("b", 0);
    assert_eq!(left(&afterwards, "").await, "r=10");
    assert_eq!(left(&afterwards, "10").await, "r=0");
    assert_eq!(left(&afterwards, "0").await, "429", "somebody who has nothing left gets nothing");
    assert!(of("c", 1).needs().response);
}

#[tokio::test]
async fn counters_outlive_the_plugin_and_new_limits_hold_at_once() {
    let world = World::new();
    let limit = |limit: u32| format!("policies: [{{ name: a, key: [client], limit: {limit}, per: 1h }}]");
    let old = world.build_as("x", &limit(3));
    assert_eq!(statuses(&old, 4).await, [200, 200, 200, 429]);
    let other = world.build_as("y", &limit(3));
    let new = world.build_as("x", &limit(3));
    drop(old);
    assert_eq!(statuses(&new, 1).await, [429], "the same entry");
    assert_eq!(statuses(&other, 1).await, [200], "another one");
    let faster = world.build_as("x", &limit(3_600).replace("per: 1h", "per: 1h, burst: 3"));
    drop(new);
    assert_eq!(statuses(&faster, 1).await, [429]);
    world.pass(1_000);
    assert_eq!(statuses(&faster, 2).await, [200, 429], "the new rate");
    let more = world.build_as("x", &limit(6));
    assert_eq!(statuses(&more, 4).await, [200, 200, 200, 429], "what was used is used, and no more than that");
    let less = world.build_as("x", &limit(2));
    assert_eq!(statuses(&less, 1).await, [429]);
    world.pass(1_800_000);
    assert_eq!(statuses(&less, 2).await, [200, 429], "nobody waits for more than the new limit has");
    let renamed = world.build_as("x", "policies: [{ name: b, key: [client], limit: 3, per: 1h }]");
    assert_eq!(statuses(&renamed, 1).await, [200]);
    let keyed = world.build_as("x", "policies: [{ name: a, key: [client, route], limit: 3, per: 1h }]");
    assert_eq!(statuses(&keyed, 1).await, [200]);
}

#[tokio::test]
async fn fewer_limits_hold_at_once_in_windows_too() {
    let world = World::new();
    let limit = |limit: u32| {
        format!("policies: [{{ name: a, key: [client], limit: {limit}, per: 1d, algorithm: fixed_window }}]")
    };
    let old = world.build(&limit(5));
    assert_eq!(statuses(&old, 3).await, [200; 3]);
    let less = world.build(&limit(3));
    assert_eq!(statuses(&less, 1).await, [429]);
    let more = world.build(&limit(4));
    assert_eq!(statuses(&more, 2).await, [200, 429]);
}

#[test]
fn what_needs_a_caller_or_a_parameter_says_so() {
    let of =
        |key: &str| build(&format!("rate_limit: {{ policies: [{{ name: a, key: [{key}], limit: 1, per: 1s }}] }}"));
    let needs = |key: &str| of(key).unwrap().needs();
    assert!(needs("consumer").caller && needs("client, claim:sub").caller && needs("group").caller);
    assert!(!needs("client, route, header:X-A, param:id").caller);
    let param = NeededParam { name: "id".into(), field: "policies/0/key/1".into() };
    assert_eq!(needs("client, param:id").params, [param]);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let policy = |more: &str| format!("rate_limit: {{ policies: [{{ name: a, limit: 10, per: 1m, {more} }}] }}");
    for (more, field) in [
        ("key: [client], burst: 0", "policies/0/burst"),
        ("key: [client], burst: 2, cost: 3", "policies/0/burst"),
        ("key: [client], cost: 11", "policies/0/limit"),
        ("key: [client], cost: 0", "policies/0/cost"),
        ("key: [client], burst: 4000000000", "policies/0/burst"),
        ("key: [client], algorithm: fixed_window, burst: 2", "policies/0/burst"),
        ("key: [client, route, client]", "policies/0/key/2"),
        ("key: []", "policies/0/key"),
        ("key: [client], on_missing_key: allow", "policies/0/on_missing_key"),
        ("key: [route], ipv6_prefix: 64", "policies/0/ipv6_prefix"),
        ("key: [client], ipv6_prefix: 8", "policies/0/ipv6_prefix"),
        ("key: [client], tiers: { nobody: { limit: 1 } }", "policies/0/tiers/nobody"),
        ("key: [client], cost_from: { max: 5 }", "policies/0/cost_from"),
        ("key: [client], cost_from: { request_header: A, response_header: B, max: 5 }", "policies/0/cost_from"),
        ("key: [client], cost_from: { request_header: A, max: 0 }", "policies/0/cost_from/max"),
        ("key: [client], cost_from: { request_header: A, max: 11 }", "policies/0/limit"),
        ("key: [client], cost: 3, cost_from: { request_header: A, max: 2 }", "policies/0/cost"),
        ("key: [client], cost_from: { request_header: A, max: 2, max_debt: 1 }", "policies/0/cost_from/max_debt"),
    ] {
        assert_eq!(refused(&policy(more)).0, field, "{more}");
    }
    let whole = |policies: &str, more: &str| format!("rate_limit: {{ policies: [{policies}] {more} }}");
    let named = |name: &str, limit: &str| format!("{{ name: \"{name}\", key: [client], {limit} }}");
    let (one, month) = ("limit: 1, per: 1s", "limit: 1, per: month");
    for (settings, field) in [
        (whole("", ""), "policies"),
        (whole(&vec![named("a", one); 9].join(", "), ""), "policies"),
        (whole(&[named("a", one), named("a", one)].join(", "), ""), "policies/1/name"),
        (whole(&named("", one), ""), "policies/0/name"),
        (whole(&named("a\\\"b", one), ""), "policies/0/name"),
        (whole(&named("a", "limit: 0, per: 1s"), ""), "policies/0/limit"),
        (whole(&named("a", "limit: 1000001, per: 1s"), ""), "policies/0/limit"),
        (whole(&named("a", month), ""), "policies/0/per"),
        (whole(&named("a", "limit: 1, per: 7h, algorithm: fixed_window"), ""), "policies/0/per"),
        (whole(&named("a", "limit: 2000000000, per: 1d, algorithm: fixed_window"), ""), "policies/0/limit"),
        (whole(&named("a", one), ", max_entries: 999"), "max_entries"),
    ] {
        assert_eq!(refused(&settings).0, field, "{settings}");
    }
    for bad in ["limit: -1, per: 1s", "limit: 1, per: 0s", "limit: 1, per: 500ms", "limit: 1, per: 2w", "limit: 1"] {
        assert!(parse(&whole(&named("a", bad), "")).is_err(), "{bad}");
    }
    assert!(parse(&whole("{ name: a, key: [cookie:x], limit: 1, per: 1s }", "")).is_err());
}
