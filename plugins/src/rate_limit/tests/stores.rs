//! Policies in the store that gateways share, which answers as it is told.

use std::{
    collections::{HashSet, VecDeque},
    sync::Mutex,
};

use crossway_plugin_api::{NoStore, SharedScript, SharedStore};

use super::*;

type Call = (Vec<String>, Vec<u64>);

/// A server that answers what it is told to, and else that the request may pass.
#[derive(Debug, Default)]
struct Fake {
    answers: Mutex<VecDeque<Result<Vec<i64>, NoStore>>>,
    calls: Mutex<Vec<Call>>,
}

#[derive(Debug)]
struct Server(Arc<Fake>);

impl SharedStore for Server {
    fn script(&self, _: &'static str) -> Arc<dyn SharedScript> {
        Arc::<Fake>::clone(&self.0)
    }
}

#[async_trait]
impl SharedScript for Fake {
    async fn run(&self, keys: &[&[u8]], args: &[u64]) -> Result<Vec<i64>, NoStore> {
        let names = keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect();
        self.calls.lock().unwrap().push((names, args.to_vec()));
        let granted = || Ok(std::iter::once(1).chain([-1, 0, 0].repeat(keys.len())).collect());
        self.answers.lock().unwrap().pop_front().unwrap_or_else(granted)
    }
}

impl Fake {
    fn answer(&self, answers: impl IntoIterator<Item = Result<Vec<i64>, NoStore>>) {
        self.answers.lock().unwrap().extend(answers);
    }

    fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

fn world() -> (World, Arc<Fake>) {
    let (mut world, fake) = (World::new(), Arc::<Fake>::default());
    world.deps.shared = Some(Arc::new(Server(Arc::clone(&fake))));
    (world, fake)
}

const REFUSED: [i64; 4] = [0, 1_500_000_000, 3_000_000_000, 0];
const DOWN: Result<Vec<i64>, NoStore> = Err(NoStore::Down);

#[tokio::test]
async fn the_server_decides_about_all_of_a_request_at_once() {
    let (world, fake) = world();
    let plugin = world.build(
        "policies: [
            { name: a, key: [client], limit: 60, per: 1m, burst: 3, store: shared },
            { name: b, key: [client], limit: 5, per: 1h, algorithm: fixed_window, store: shared, mode: shadow },
            { name: c, key: [client], limit: 7, per: month, algorithm: fixed_window, cost: 2, store: shared,
              cost_from: { response_header: X-Cost, max: 4 } }]",
    );
    fake.answer([Ok(vec![1, -1, 1_000_000_000, 0, -1, 1, 40, -1, 2, 50])]);
    let mut ctx = ctx();
    assert_eq!(status(&plugin, &mut ctx).await, 200);
    let [(names, args)] = &fake.calls()[..] else { panic!("one exchange") };
    let second = 1_000_000_000;
    let rate = [0, 1_000, second, 3, 3, 1, second, 3];
    assert_eq!(args, &[rate, [1, 0, 3_600, 5, 5, 1, 0, 0], [0, 0, 0, 7, 11, 2, 0, 0]].concat());
    assert_eq!(names.len(), 3);
    let told = seen(&plugin, &mut ctx, &[]);
    assert_eq!(values(&told, "ratelimit"), "\"a\";r=2;t=1, \"c\";r=5;t=50", "nothing of a shadow");
    assert_eq!((world.count("shared"), world.count("local"), world.count("allowed")), (1, 0, 1));
}

#[tokio::test]
async fn a_refusal_of_the_server_says_how_long() {
    let (world, fake) = world();
    let plugin = world.build(&THREE.replace("burst: 3", "burst: 3, store: shared"));
    fake.answer([Ok(REFUSED.to_vec())]);
    let mut ctx = ctx();
    let reply = run(&plugin, &mut request("GET", &[]), &mut ctx).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply_values(&reply, "retry-after")), (429, "2".into()));
    assert_eq!(values(&seen(&plugin, &mut ctx, &[]), "ratelimit"), "\"a\";r=0;t=2");
    assert_eq!(world.count("refused"), 1);
}

const BOTH: &str = "policies: [
    { name: theirs, key: [client], limit: 60, per: 1m, burst: 3, store: shared },
    { name: own, key: [client], limit: 2, per: 1d, algorithm: fixed_window }]";

#[tokio::test]
async fn who_is_refused_in_one_store_uses_nothing_of_the_other() {
    for own in ["per: 1d, algorithm: fixed_window", "per: 1h"] {
        let (world, fake) = world();
        let plugin = world.build(&BOTH.replace("per: 1d, algorithm: fixed_window", own));
        fake.answer([Ok(REFUSED.to_vec()), Ok(REFUSED.to_vec()), Ok(REFUSED.to_vec())]);
        assert_eq!(statuses(&plugin, 3).await, [429; 3]);
        let mut ctx = ctx();
        fake.answer([Ok(REFUSED.to_vec())]);
        run(&plugin, &mut request("GET", &[]), &mut ctx).await.unwrap();
        assert!(values(&seen(&plugin, &mut ctx, &[]), "ratelimit").starts_with("\"own\";r=2;"), "given back");
        assert_eq!(statuses(&plugin, 2).await, [200; 2]);
        fake.calls();
        assert_eq!(statuses(&plugin, 2).await, [429; 2]);
        assert!(fake.calls().is_empty(), "the server is not asked for what is refused here");
    }
}

#[tokio::test]
async fn without_the_server_each_gateway_counts_for_itself() {
    let (world, fake) = world();
    let plugin = world.build(BOTH);
    fake.answer([DOWN, Ok(vec![1])]);
    let mut first = ctx();
    assert_eq!(status(&plugin, &mut first).await, 200);
    let told = values(&seen(&plugin, &mut first, &[]), "ratelimit");
    assert!(told.contains("\"own\";r=1") && told.contains("\"theirs\";r=2;t=1"), "{told}");
    assert_eq!(statuses(&plugin, 2).await, [200, 429], "an answer that makes no sense is none");
    assert_eq!((world.count("unanswered"), world.count("allow_local")), (2, 2));
    // What the fallback refuses is given back too.
    let plugin = world.build_as("x", &BOTH.replace("limit: 2", "limit: 9"));
    fake.answer([Ok(vec![]), Err(NoStore::Failed), DOWN, DOWN, DOWN]);
    assert_eq!(statuses(&plugin, 5).await, [200, 200, 200, 429, 429]);
    let mut last = ctx();
    assert_eq!(status(&plugin, &mut last).await, 200, "the server is back, and knows nothing of this");
    assert!(values(&seen(&plugin, &mut last, &[]), "ratelimit").contains("\"own\";r=5"));
}

#[tokio::test]
async fn without_the_server_others_allow_or_deny() {
    let (world, fake) = world();
    let of = |entry: &str, rest: &str| world.build_as(entry, &format!("{BOTH}, on_store_error: {rest}"));
    let allow = of("a", "allow");
    fake.answer([DOWN, DOWN, DOWN]);
    let mut first = ctx();
    assert_eq!(status(&allow, &mut first).await, 200);
    assert!(values(&seen(&allow, &mut first, &[]), "ratelimit").starts_with("\"own\";r=1;"));
    assert_eq!(statuses(&allow, 2).await, [200, 429], "policies here hold");
    assert_eq!(world.count("allow"), 2);
    fake.calls();
    fake.answers.lock().unwrap().clear();

    let deny = of("d", "deny");
    fake.answer([DOWN, DOWN, DOWN]);
    let mut ctx = ctx();
    let reply = run(&deny, &mut request("GET", &[]), &mut ctx).await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.code()), (503, Some("rate_limit_unavailable")));
    assert_eq!(reply_values(&reply, "retry-after"), "1");
    assert!(ctx.refusal.is_some());
    assert!(seen(&deny, &mut ctx, &[]).is_empty());
    assert_eq!(statuses(&deny, 2).await, [503; 2]);
    assert_eq!((world.count("deny"), world.count("refused")), (3, 1));
    assert_eq!(statuses(&deny, 3).await, [200, 200, 429], "what was denied has used nothing");

    let shadow = BOTH.replace("burst: 3", "burst: 3, mode: shadow");
    let shadow = world.build_as("s", &format!("{shadow}, on_store_error: deny"));
    fake.answer([DOWN]);
    assert_eq!(statuses(&shadow, 1).await, [200], "a shadow refuses nobody");
}

#[tokio::test]
async fn what_a_response_has_cost_is_told_afterwards() {
    let (world, fake) = world();
    let from = "cost_from: { response_header: X-Cost, max: 30, max_debt: 20 }";
    let plugin = world.build(&format!(
        "policies: [{{ name: a, key: [client], limit: 10, per: 10s, {from}, store: shared }},
            {{ name: b, key: [client], limit: 10, per: 1d, algorithm: fixed_window, {from}, store: shared }}]"
    ));
    let second = 1_000_000_000;
    fake.answer([Ok(vec![1, -1, second, 0, -1, 1, 99]), Err(NoStore::Failed)]);
    let mut ctx = ctx();
    assert_eq!(status(&plugin, &mut ctx).await, 200);
    let (names, _) = fake.calls().remove(0);
    let told = values(&seen(&plugin, &mut ctx, &[("x-cost", "4")]), "ratelimit");
    assert_eq!(told, "\"a\";r=6;t=4, \"b\";r=6;t=99");
    while fake.calls.lock().unwrap().len() < 2 || world.count("unsettled") == 0 {
        tokio::task::yield_now().await;
    }
    let mut calls = fake.calls();
    calls.sort_by_key(|(_, args)| args[1]);
    let second = 1_000_000_000;
    let rate = vec![2, 1_000, second, 10, 30, 3, second, 30];
    let settled = [(vec![names[1].clone()], vec![2, 0, 86_400, 10, 30, 3, 0, 0]), (vec![names[0].clone()], rate)];
    assert_eq!(calls, settled);
    assert_eq!(world.count("unsettled"), 1, "one of them was lost, and is not tried again");
}

/// Names are an agreement among gateways: another form of them needs another number in `name.rs`.
#[tokio::test]
async fn names_are_the_same_everywhere() {
    let (world, fake) = world();
    let names = async |entry: &str, policies: &str, ctx: &mut Ctx| {
        let plugin = world.build_as(entry, &format!("policies: [{policies}]"));
        status(&plugin, ctx).await;
        fake.calls().pop().unwrap().0
    };
    let one = "{ name: a, key: [client], limit: 1, per: 1h, store: shared }";
    let first = names("e", one, &mut ctx()).await;
    assert_eq!(first, ["crossway:limits:{pzcL}:NX6B0Oht40H9oDdJ7uzXTQ"]);
    assert_eq!(names("e", &one.replace("limit: 1", "limit: 2, burst: 1"), &mut ctx()).await, first, "a changed limit");
    let mut all = HashSet::from([first[0].clone()]);
    for (entry, policy) in [
        ("f", one.to_owned()),
        ("e", one.replace("name: a", "name: b")),
        ("e", one.replace("[client]", "[client, route]")),
        ("e", one.replace("limit: 1", "limit: 1, algorithm: fixed_window")),
        ("e", one.replace("limit: 1, per: 1h", "limit: 1, algorithm: fixed_window, per: 1d")),
        ("e", one.replace("limit: 1, per: 1h", "limit: 1, algorithm: fixed_window, per: month")),
    ] {
        assert!(all.insert(names(entry, &policy, &mut ctx()).await.remove(0)), "{entry} {policy}");
    }
    let mut other = Ctx::new("192.0.2.8".parse().unwrap(), String::new(), "/".into());
    assert!(all.insert(names("e", one, &mut other).await.remove(0)));
}

#[tokio::test]
async fn what_a_request_asks_is_on_one_node() {
    let (world, fake) = world();
    let tag = |name: &String| name.split(['{', '}']).nth(1).unwrap().to_owned();
    let policy = |name: &str, key: &str| format!("{{ name: {name}, key: [{key}], limit: 9, per: 1h, store: shared }}");
    let tags = async |entry: &str, policies: &str, ctx: &mut Ctx| {
        let plugin = world.build_as(entry, &format!("policies: [{policies}]"));
        assert_eq!(status(&plugin, ctx).await, 200);
        let (names, _) = fake.calls().pop().unwrap();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        let tags: HashSet<_> = names.iter().map(tag).collect();
        assert_eq!(tags.len(), 1, "{names:?}");
        tags.into_iter().next().unwrap()
    };
    let people = async |entry: &str, policies: &str| {
        let mut all = HashSet::new();
        for (name, address) in [("alice", 1), ("bob", 2), ("carol", 3), ("alice", 4)] {
            let mut ctx = by(name, &[]);
            ctx.client = std::net::Ipv4Addr::new(192, 0, 2, address).into();
            all.insert(tags(entry, policies, &mut ctx).await);
        }
        all.len()
    };
    let consumers = [policy("a", "consumer"), policy("b", "route, consumer"), policy("c", "consumer, client")];
    assert_eq!(people("x", &consumers.join(", ")).await, 3, "one for each consumer");
    let apart = [policy("a", "consumer"), policy("b", "client")].join(", ");
    assert_eq!(people("y", &apart).await, 1, "one for all, for want of a part that both have");
    // Addresses that are one to some policy are on one node.
    let prefixes = "{ name: a, key: [client], limit: 9, per: 1h, store: shared, ipv6_prefix: 48 },
        { name: b, key: [client], limit: 9, per: 1h, store: shared }";
    let mut all = HashSet::new();
    for address in ["2001:db8:1:1::1", "2001:db8:1:2::1"] {
        all.insert(tags("z", prefixes, &mut Ctx::new(address.parse().unwrap(), String::new(), "/".into())).await);
    }
    assert_eq!(all.len(), 1);
}

#[test]
fn settings_of_stores_that_cannot_work_are_refused() {
    let one = "{ name: a, key: [client], limit: 1, per: 1s }";
    let shared = one.replace(" }", ", store: shared }");
    assert_eq!(
        refused(&format!("rate_limit: {{ policies: [{one}, {}] }}", shared.replace("name: a", "name: b"))),
        ("policies/1/store".into(), "needs `stores.shared`".into())
    );
    let (field, _) = refused(&format!("rate_limit: {{ policies: [{one}], on_store_error: deny }}"));
    assert_eq!(field, "on_store_error");
    assert!(parse(&format!("rate_limit: {{ policies: [{one}], on_store_error: ignore }}")).is_err());
    assert!(parse(&format!("rate_limit: {{ policies: [{}] }}", shared.replace("shared", "redis"))).is_err());
}
