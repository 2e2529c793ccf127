use std::{collections::BTreeMap, time::Duration};

use crossway_plugin_api::{Consumer, SharedState};
use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use super::*;
use crate::testing::{build, ctx, parse, refused, reply_values, request, run};

struct World {
    deps: Deps,
    events: IntCounterVec,
    levels: IntGaugeVec,
}

impl World {
    fn new() -> Self {
        let events = IntCounterVec::new(Opts::new("e", "e"), &["plugin", "event"]).unwrap();
        let levels = IntGaugeVec::new(Opts::new("l", "l"), &["plugin", "level"]).unwrap();
        let metrics = MetricsScope::new(events.clone()).with_levels(levels.clone());
        let deps = Deps { metrics, state: SharedState::default(), entry: "one".into(), ..Deps::default() };
        Self { deps, events, levels }
    }

    fn build(&self, settings: &str) -> Arc<dyn Plugin> {
        parse(&format!("concurrency: {{ {settings} }}")).unwrap().build(&self.deps).unwrap()
    }

    fn count(&self, event: &str) -> u64 {
        self.events.with_label_values(&["concurrency", event]).get()
    }

    fn level(&self, level: &str) -> i64 {
        self.levels.with_label_values(&["concurrency", level]).get()
    }
}

fn by(name: &str) -> Ctx {
    Ctx { consumer: Some(Arc::new(Consumer::new(name, &[], BTreeMap::new()).unwrap())), ..ctx() }
}

/// The status of a request: 200 where it goes on.
async fn status(plugin: &Arc<dyn Plugin>, ctx: &mut Ctx) -> u16 {
    run(plugin, &mut request("GET", &[]), ctx).await.map_or(200, |reply| reply.status.as_u16())
}

#[tokio::test]
async fn each_caller_has_places_of_its_own_and_gets_them_back() {
    let world = World::new();
    let plugin = world.build("key: [consumer], max_in_flight: 2");
    let mut alice: Vec<Ctx> = (0..3).map(|_| by("alice")).collect();
    assert_eq!(status(&plugin, &mut alice[0]).await, 200);
    assert_eq!(status(&plugin, &mut alice[1]).await, 200);
    let reply = run(&plugin, &mut request("GET", &[]), &mut alice[2]).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code()), (429, Some("concurrency_limited")));
    assert_eq!(reply_values(&reply, "retry-after"), "1");
    assert_eq!(status(&plugin, &mut by("bob")).await, 200);
    assert_eq!((world.level("held"), world.count("full")), (2, 1));
    alice.remove(0);
    assert_eq!(status(&plugin, &mut alice[1]).await, 200);
    drop(alice);
    assert_eq!(world.level("held"), 0);
}

#[tokio::test]
async fn a_route_that_is_full_is_nobodys_fault() {
    let plugin = World::new().build("key: [route], max_in_flight: 1");
    let (mut one, mut two) = (ctx(), ctx());
    (one.route, two.route) = (Some("a".into()), Some("a".into()));
    assert_eq!(status(&plugin, &mut one).await, 200);
    let reply = run(&plugin, &mut request("GET", &[]), &mut two).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code()), (503, Some("concurrency_full")));
    assert_eq!(two.refusal.as_deref(), Some("there is no place in the queue"));
    two.route = Some("b".into());
    assert_eq!(status(&plugin, &mut two).await, 200);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_in_length_and_time() {
    let world = World::new();
    let plugin = world.build("key: [client], max_in_flight: 1, queue: 1, queue_timeout: 200ms");
    let mut first = ctx();
    assert_eq!(status(&plugin, &mut first).await, 200);
    let waits = {
        let plugin = Arc::clone(&plugin);
        tokio::spawn(async move {
            let mut second = ctx();
            (status(&plugin, &mut second).await, second)
        })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((world.level("waiting"), status(&plugin, &mut ctx()).await), (1, 429));
    drop(first);
    let (got, second) = waits.await.unwrap();
    assert_eq!((got, world.count("queued"), world.level("waiting")), (200, 1, 0));
    let began = tokio::time::Instant::now();
    assert_eq!(status(&plugin, &mut ctx()).await, 429);
    assert_eq!((began.elapsed().as_millis(), world.count("late"), world.count("full")), (200, 1, 1));
    drop(second);
}

#[tokio::test]
async fn a_reload_keeps_what_is_taken_and_its_bounds_hold_at_once() {
    let world = World::new();
    let old = world.build("key: [client], max_in_flight: 1");
    let mut held = ctx();
    assert_eq!(status(&old, &mut held).await, 200);
    drop(old);
    let more = world.build("key: [client], max_in_flight: 2");
    let mut second = ctx();
    assert_eq!(status(&more, &mut second).await, 200);
    let fewer = world.build("key: [client], max_in_flight: 1");
    drop(held);
    assert_eq!(status(&fewer, &mut ctx()).await, 429);
    let other = world.build("key: [client, route], max_in_flight: 1");
    assert_eq!(status(&other, &mut ctx()).await, 200, "another key is another bound");
}

#[tokio::test]
async fn who_cannot_be_counted_is_refused_let_by_or_anonymous() {
    let world = World::new();
    let deny = world.build("key: [header:X-Tenant], max_in_flight: 1");
    let reply = run(&deny, &mut request("GET", &[]), &mut ctx()).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code()), (403, Some("concurrency_key_missing")));
    let allow = world.build("key: [header:X-Tenant], max_in_flight: 1, on_missing_key: allow");
    let (mut one, mut two) = (ctx(), ctx());
    assert_eq!((status(&allow, &mut one).await, status(&allow, &mut two).await), (200, 200));
    let anonymous = world.build("key: [header:X-Tenant], max_in_flight: 1, on_missing_key: anonymous");
    assert_eq!((status(&anonymous, &mut one).await, status(&anonymous, &mut two).await), (200, 429));
    assert_eq!(world.count("keyless"), 3);
}

#[tokio::test]
async fn there_are_never_more_keys_than_may_be() {
    let world = World::new();
    let plugin = world.build("key: [client], max_in_flight: 1, max_keys: 1000");
    let from = |at: u32| Ctx::new(std::net::Ipv4Addr::from(at).into(), String::new(), "/".into());
    let mut held: Vec<Ctx> = (0..1000).map(from).collect();
    for one in &mut held {
        assert_eq!(status(&plugin, one).await, 200);
    }
    assert_eq!((status(&plugin, &mut from(5000)).await, world.count("crowded")), (503, 1));
    assert_eq!(status(&plugin, &mut from(5)).await, 429, "a known key goes by its own bound");
    held.pop();
    assert_eq!(status(&plugin, &mut from(5000)).await, 200);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for (settings, field) in [
        ("key: [client], max_in_flight: 0", "max_in_flight"),
        ("key: [client], max_in_flight: 2000000", "max_in_flight"),
        ("key: [], max_in_flight: 1", "key"),
        ("key: [client, client], max_in_flight: 1", "key/1"),
        ("key: [client], max_in_flight: 1, queue: 2000000", "queue"),
        ("key: [client], max_in_flight: 1, queue_timeout: 1s", "queue_timeout"),
        ("key: [client], max_in_flight: 1, queue: 1, queue_timeout: 0s", "queue_timeout"),
        ("key: [client], max_in_flight: 1, queue: 1, queue_timeout: 11m", "queue_timeout"),
        ("key: [client], max_in_flight: 1, on_missing_key: allow", "on_missing_key"),
        ("key: [route], max_in_flight: 1, ipv6_prefix: 64", "ipv6_prefix"),
        ("key: [client], max_in_flight: 1, ipv6_prefix: 8", "ipv6_prefix"),
        ("key: [client], max_in_flight: 1, max_keys: 10", "max_keys"),
    ] {
        assert_eq!(refused(&format!("concurrency: {{ {settings} }}")).0, field, "{settings}");
    }
    assert!(build("concurrency: { key: [client], max_in_flight: 1 }").is_ok());
    assert!(parse("concurrency: { max_in_flight: 1 }").is_err(), "a key is needed");
}

#[test]
fn it_asks_for_what_its_key_needs() {
    let needs = build("concurrency: { key: [\"param:id\", consumer], max_in_flight: 1 }").unwrap().needs();
    assert!(needs.caller && needs.request && !needs.authenticates);
    assert_eq!(needs.params, [NeededParam { name: "id".into(), field: "key/0".into() }]);
}
