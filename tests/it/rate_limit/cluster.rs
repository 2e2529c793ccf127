//! Limits that several gateways share by a cluster of three nodes.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{
    shared::{PATIENT, events},
    *,
};
use crate::harness::{Finish, Redis, eventually};

const TENANTS: usize = 12;

fn tenants() -> Vec<String> {
    (0..TENANTS).map(|at| format!("tenant-{at}")).collect()
}

/// Two limits for each tenant, on whichever node that is. The gateway is told of the first node only.
fn config_of(upstream: &Upstream, nodes: &[Redis; 3], timeout: &str, more: &str) -> String {
    let stores = format!("stores: {{ shared: {{ cluster: [\"{}\"], timeout: {timeout} }} }}\n", nodes[0].url());
    let day = "{ name: day, key: [\"header:X-Tenant\"], limit: 20, per: 1d, store: shared }";
    let route = "{ name: route, key: [\"header:X-Tenant\", route], limit: 16, per: month, algorithm: fixed_window, store: shared }";
    stores + &open(upstream, &format!("policies: [{day}, {route}]{more}"))
}

fn ask(gateway: &Gateway, tenant: &str) -> u16 {
    gateway.send("GET /a/x", &[("X-Tenant", tenant)], b"").status
}

/// The counters on a node: tag and name.
fn counters(node: &Redis) -> Vec<(String, String)> {
    let keys = node.ask("KEYS crossway:limits:*");
    let parts = |line: &str| {
        let (tag, name) = line.strip_prefix("crossway:limits:{")?.split_once("}:")?;
        Some((tag.to_owned(), name.to_owned()))
    };
    keys.lines().filter_map(parts).collect()
}

fn sum(gateways: &[Gateway], event: &str) -> f64 {
    gateways.iter().map(|gateway| events(gateway, event)).sum()
}

#[test]
fn three_nodes_let_through_no_more_than_one() {
    let (upstream, nodes) = (Upstream::echo(), Redis::cluster_of_three());
    let text = config_of(&upstream, &nodes, PATIENT, "");
    let gateways = [(); 2].map(|()| Gateway::start(&text));
    let passed: Vec<HashMap<String, usize>> = thread::scope(|scope| {
        let clients: Vec<_> = gateways
            .iter()
            .flat_map(|gateway| [gateway; 2])
            .map(|gateway| {
                scope.spawn(move || {
                    let mut passed = HashMap::new();
                    for tenant in (0..10).flat_map(|_| tenants()) {
                        match ask(gateway, &tenant) {
                            200 => *passed.entry(tenant).or_default() += 1,
                            status => assert_eq!(status, 429),
                        }
                    }
                    passed
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for tenant in tenants() {
        let all: usize = passed.iter().filter_map(|of_one| of_one.get(&tenant)).sum();
        assert_eq!(all, 16, "{tenant}");
    }
    assert_eq!((sum(&gateways, "shared"), sum(&gateways, "unanswered")), (480.0, 0.0));
    // Each node has some of the tenants, and both counters of each.
    let of_nodes = nodes.each_ref().map(counters);
    assert!(of_nodes.iter().all(|of_one| !of_one.is_empty()), "{of_nodes:?}");
    let tags = |of_one: &Vec<(String, String)>| of_one.iter().map(|(tag, _)| tag.clone()).collect::<HashSet<_>>();
    for of_one in &of_nodes {
        assert_eq!(of_one.len(), 2 * tags(of_one).len(), "{of_one:?}");
    }
    assert_eq!(of_nodes.iter().map(|of_one| tags(of_one).len()).sum::<usize>(), TENANTS);
}

/// Moves a slot with all that is in it, as the documentation of Redis says.
fn move_slot(slot: u64, from: &Redis, to: &Redis, all: &[Redis; 3]) {
    let id = |node: &Redis| node.ask("CLUSTER MYID").lines().nth(1).unwrap().to_owned();
    let (source, target) = (id(from), id(to));
    assert!(to.ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}")).starts_with("+OK"));
    assert!(from.ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}")).starts_with("+OK"));
    let keys = from.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
    let (host, port) = to.address().split_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).unwrap();
    for key in keys.lines().filter(|line| line.starts_with("crossway:")) {
        let moved = from.ask(&format!("MIGRATE {host} {port} {key} 0 5000"));
        assert!(moved.starts_with("+OK"), "{moved}");
    }
    for node in [to, from].into_iter().chain(all) {
        assert!(node.ask(&format!("CLUSTER SETSLOT {slot} NODE {target}")).starts_with("+OK"));
    }
}

/// Where the counters of a tenant are, and in which slot: what is new when it has asked.
fn home<'a>(nodes: &'a [Redis; 3], gateway: &Gateway, tenant: &str) -> (&'a Redis, u64) {
    let before = nodes.each_ref().map(counters).concat();
    assert_eq!(ask(gateway, tenant), 200);
    let has_new = |node: &&Redis| counters(node).iter().any(|counter| !before.contains(counter));
    let node = nodes.iter().find(has_new).expect("a node has the counter");
    let (tag, name) = counters(node).into_iter().find(|counter| !before.contains(counter)).unwrap();
    let slot = node.ask(&format!("CLUSTER KEYSLOT crossway:limits:{{{tag}}}:{name}"));
    (node, slot.lines().next().unwrap().trim_start_matches(':').parse().unwrap())
}

#[test]
fn a_slot_that_moves_takes_its_counters_along() {
    let (upstream, nodes) = (Upstream::echo(), Redis::cluster_of_three());
    let text = config_of(&upstream, &nodes, PATIENT, "");
    let gateways = [(); 2].map(|()| Gateway::start(&text));
    let (from, slot) = home(&nodes, &gateways[0], "mover");
    let to = nodes.iter().find(|node| node.address() != from.address()).unwrap();
    let passed = AtomicUsize::new(1);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _finish = Finish(&over);
        for gateway in &gateways {
            let (passed, over) = (&passed, &over);
            scope.spawn(move || {
                for _ in 0..5 {
                    passed.fetch_add(usize::from(ask(gateway, "mover") == 200), Ordering::SeqCst);
                }
                // Others, which the move does not touch, while it goes on.
                while !over.load(Ordering::SeqCst) {
                    assert!(matches!(ask(gateway, "other"), 200 | 429));
                }
            });
        }
        eventually("some have passed", || (passed.load(Ordering::SeqCst) == 11).then_some(()));
        move_slot(slot, from, to, &nodes);
    });
    let more = gateways.iter().flat_map(|gateway| (0..10).map(|_| ask(gateway, "mover")));
    assert_eq!(more.filter(|status| *status == 200).count(), 5, "sixteen in all");
    assert_eq!(sum(&gateways, "unanswered"), 0.0);
    assert!(counters(to).len() >= 2 && from.ask(&format!("CLUSTER COUNTKEYSINSLOT {slot}")).starts_with(":0"));
}

/// While a node is down, the whole store is: what is configured for that holds, and no request waits for long.
#[test]
fn a_node_that_fails_and_comes_back() {
    let (upstream, mut nodes) = (Upstream::echo(), Redis::cluster_of_three());
    let of = |on_error: &str| Gateway::start(&config_of(&upstream, &nodes, "1s", on_error));
    let [local, allow, deny] = ["", ", on_store_error: allow", ", on_store_error: deny"].map(of);
    let (node, _) = home(&nodes, &local, "victim");
    let at = nodes.iter().position(|other| other.address() == node.address()).unwrap();
    nodes[at].stop();
    let asked = |gateway: &Gateway| (0..18).map(|_| ask(gateway, "victim")).collect::<Vec<_>>();
    for gateway in [&local, &allow, &deny] {
        eventually("the store is known to be down", || {
            ask(gateway, "victim");
            (gateway.metric("crossway_store_up{store=\"shared\"}") == 0.0).then_some(())
        });
    }
    assert_eq!(asked(&allow), [200; 18]);
    assert_eq!(asked(&deny), [503; 18]);
    let counted = asked(&local);
    assert!(counted.ends_with(&[429; 2]) && counted.iter().all(|s| matches!(s, 200 | 429)), "{counted:?}");
    nodes[at].start_again();
    for node in &nodes {
        node.wait_well(3);
    }
    for gateway in [&local, &allow, &deny] {
        eventually("the store is back", || {
            (gateway.metric("crossway_store_up{store=\"shared\"}") == 1.0).then_some(())
        });
    }
    // One counter for all of them again, which has outlived the node.
    let passed = [&local, &allow, &deny].map(|gateway| (0..10).filter(|_| ask(gateway, "victim") == 200).count());
    assert!(passed.iter().sum::<usize>() <= 15, "{passed:?}");
    let before = [&local, &allow, &deny].map(|gateway| events(gateway, "unanswered"));
    for gateway in [&local, &allow, &deny] {
        assert_eq!(ask(gateway, "victim"), 429);
        for tenant in tenants() {
            assert_eq!(ask(gateway, &tenant), 200);
        }
    }
    assert_eq!(before, [&local, &allow, &deny].map(|gateway| events(gateway, "unanswered")));
}
