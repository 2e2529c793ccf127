//! Limits that several gateways share.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::*;
use crate::harness::{Redis, pass};

/// The machine of the tests may be busy: where nothing fails, the time-out is longer than anybody would want.
pub(super) const PATIENT: &str = "10s";

fn stores(url: &str, timeout: &str) -> String {
    format!("stores: {{ shared: {{ redis: \"{url}\", timeout: {timeout} }} }}\n")
}

fn on(redis: &Redis, timeout: &str) -> String {
    stores(&redis.url(), timeout)
}

/// A day's limit, in the shared store.
fn day(limit: u32) -> String {
    format!("{{ name: day, key: [client], limit: {limit}, per: 1d, store: shared }}")
}

pub(super) fn events(gateway: &Gateway, event: &str) -> f64 {
    gateway.metric(&format!("crossway_plugin_events_total{{event=\"{event}\",plugin=\"rate_limit\"}}"))
}

/// How many requests of all clients of all gateways pass, at full load.
fn passed(gateways: &[Gateway], clients: usize, each: usize) -> usize {
    let addresses: Vec<String> = gateways.iter().map(Gateway::address).collect();
    let statuses: Vec<u16> = thread::scope(|scope| {
        let ask = |address: &String| {
            let address = address.clone();
            scope.spawn(move || ask_again_and_again(&address, each))
        };
        let clients: Vec<_> =
            addresses.iter().flat_map(|address| (0..clients).map(move |_| address)).map(ask).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

#[test]
fn three_gateways_let_through_no_more_than_one() {
    let (upstream, redis) = (Upstream::echo(), Redis::start());
    let month = "per: month, algorithm: fixed_window, store: shared";
    for (policies, limit) in [
        (day(100), 100),
        (format!("{{ name: month, key: [client], limit: 100, {month} }}"), 100),
        (format!("{}, {{ name: month, key: [client], limit: 70, {month} }}", day(90).replace("day", "days")), 70),
    ] {
        redis.ask("FLUSHALL");
        let text = on(&redis, PATIENT) + &open(&upstream, &format!("policies: [{policies}]"));
        let gateways = [(); 3].map(|()| Gateway::start(&text));
        assert_eq!(passed(&gateways, 4, 40), limit, "{policies}");
        let asked: f64 = gateways.iter().map(|gateway| events(gateway, "shared")).sum();
        assert_eq!(asked, 480.0);
        assert_eq!(gateways.iter().map(|gateway| events(gateway, "unanswered")).sum::<f64>(), 0.0);
    }
}

#[test]
fn a_cluster_decides_the_same() {
    let (upstream, cluster) = (Upstream::echo(), Redis::cluster());
    let stores = format!("stores: {{ shared: {{ cluster: [\"{}\"], timeout: {PATIENT} }} }}\n", cluster.url());
    // Two keys that have nothing in common are on one node all the same.
    let apart = "{ name: route, key: [route], limit: 40, per: month, algorithm: fixed_window, store: shared }";
    let text = stores + &open(&upstream, &format!("policies: [{}, {apart}]", day(50)));
    let gateways = [(); 3].map(|()| Gateway::start(&text));
    assert_eq!(passed(&gateways, 2, 40), 40);
}

/// Calls of a command, by its name in `INFO commandstats`; 0 where there are none.
fn calls(redis: &Redis, command: &str) -> u64 {
    let stats = redis.ask("INFO commandstats");
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn a_request_is_one_exchange_and_scripts_are_loaded_again() {
    let (upstream, redis) = (Upstream::echo(), Redis::start());
    let more = "{ name: two, key: [client], limit: 900, per: 1h, store: shared },
        { name: three, key: [route], limit: 900, per: 1d, algorithm: fixed_window, store: shared },
        { name: own, key: [client], limit: 900, per: 1h }";
    let text = on(&redis, PATIENT) + &open(&upstream, &format!("policies: [{}, {more}]", day(900)));
    let gateway = Gateway::start(&text);
    assert_eq!(statuses(&gateway, "/a/x", "", 1), [200]);
    redis.ask("CONFIG RESETSTAT");
    assert_eq!(statuses(&gateway, "/a/x", "", 20), [200; 20]);
    assert_eq!(calls(&redis, "evalsha"), 20);
    let stats = redis.ask("INFO commandstats");
    let others: Vec<&str> = stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next())
        .filter(|command| !["evalsha", "time", "mget", "set", "info", "quit", "config|resetstat"].contains(command))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!((calls(&redis, "time"), calls(&redis, "mget"), calls(&redis, "set")), (20, 20, 60));
    redis.ask("SCRIPT FLUSH");
    assert_eq!(statuses(&gateway, "/a/x", "", 2), [200; 2]);
    assert_eq!(events(&gateway, "unanswered"), 0.0);
    let keys = redis.ask("KEYS *");
    let names: Vec<&str> = keys.lines().filter(|line| line.contains(':')).collect();
    assert!(names.len() == 3 && names.iter().all(|name| name.starts_with("crossway:limits:{")), "{names:?}");
}

#[test]
fn what_a_response_has_cost_is_shared() {
    let (upstream, redis) = (Upstream::start(|_| Answer::new(200, &[("X-Cost", "6")], b"")), Redis::start());
    let from = "cost_from: { response_header: X-Cost, max: 50 }";
    let policy = format!("{{ name: work, key: [client], limit: 10, per: 1d, {from}, store: shared }}");
    let text = on(&redis, PATIENT) + &open(&upstream, &format!("policies: [{policy}]"));
    let [one, two] = [(); 2].map(|()| Gateway::start(&text));
    let first = one.get("/a/x");
    assert_eq!((first.status, parameter(&first, "ratelimit", "r")), (200, 4));
    eventually("the other knows", || redis.ask("INFO commandstats").contains("cmdstat_evalsha:calls=3").then_some(()));
    assert_eq!(parameter(&two.get("/a/x"), "ratelimit", "r"), 0);
    eventually("debts are known", || (one.get("/a/x").status == 429).then_some(()));
    assert_eq!(two.get("/a/x").status, 429);
}

#[test]
fn who_is_refused_by_the_one_store_uses_nothing_of_the_other() {
    let (upstream, redis) = (Upstream::echo(), Redis::start());
    let own = "{ name: own, key: [client], limit: 8, per: 1d, algorithm: fixed_window }";
    let text = on(&redis, PATIENT) + &open(&upstream, &format!("policies: [{own}, {}]", day(5)));
    let gateways = [(); 2].map(|()| Gateway::start(&text));
    assert_eq!(statuses(&gateways[0], "/a/x", "", 7), [200, 200, 200, 200, 200, 429, 429]);
    let standing = |answer: &Response, name: &str| {
        let items = answer.header("ratelimit").unwrap().to_owned();
        let item = items.split(", ").find(|item| item.starts_with(&format!("\"{name}\""))).map(ToOwned::to_owned);
        item.map(|item| item.split([';', '=']).nth(2).unwrap().parse::<u64>().unwrap())
    };
    let refused = gateways[1].get("/a/x");
    refused.assert_problem(429, "rate_limited");
    assert_eq!((standing(&refused, "own"), standing(&refused, "day")), (Some(8), Some(0)));
    // And what is refused in the process is not asked for.
    let text = on(&redis, PATIENT) + &open(&upstream, &format!("policies: [{}, {}]", own.replace('8', "2"), day(9)));
    let gateway = Gateway::start(&text);
    redis.ask("FLUSHALL");
    assert_eq!(statuses(&gateway, "/a/x", "", 5), [200, 200, 429, 429, 429]);
    assert_eq!(events(&gateway, "shared"), 2.0);
}

/// A port that leads to a server, or to nothing good; it can be changed at any time.
struct Switch {
    address: String,
    to: Arc<Mutex<To>>,
    ended: Arc<AtomicBool>,
}

#[derive(Clone)]
enum To {
    Server(String),
    /// Answers everything with this.
    Words(&'static [u8]),
    /// Takes everything and says nothing.
    Silence,
}

impl Switch {
    fn to(to: To) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let switch = Self {
            address: listener.local_addr().unwrap().to_string(),
            to: Arc::new(Mutex::new(to)),
            ended: Arc::default(),
        };
        let (to, ended) = (Arc::clone(&switch.to), Arc::clone(&switch.ended));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let to = to.lock().unwrap().clone();
                thread::spawn(move || lead(stream, to));
            }
        });
        switch
    }

    fn change(&self, to: To) {
        *self.to.lock().unwrap() = to;
    }

    fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

fn lead(mut stream: TcpStream, to: To) {
    let address = match to {
        To::Server(address) => address,
        To::Words(words) => {
            let mut buffer = [0; 1024];
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) && stream.write_all(words).is_ok() {}
            return;
        }
        To::Silence => {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
            return;
        }
    };
    let Ok(server) = TcpStream::connect(address) else { return };
    let (mut from, mut into) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
    let there = thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut into);
        let _ = into.shutdown(Shutdown::Both);
    });
    let (mut from, mut into) = (server, stream);
    let _ = std::io::copy(&mut from, &mut into);
    let _ = into.shutdown(Shutdown::Both);
    let _ = there.join();
}

/// One gateway for each way to go on without the store, with a limit of 3 a day.
struct Ways {
    local: Gateway,
    allow: Gateway,
    deny: Gateway,
}

impl Ways {
    fn start(upstream: &Upstream, url: &str) -> Self {
        let of = |on_error: &str| {
            let settings = format!("policies: [{}]{on_error}", day(3));
            Gateway::start(&(stores(url, "1s") + &open(upstream, &settings)))
        };
        Self { local: of(""), allow: of(", on_store_error: allow"), deny: of(", on_store_error: deny") }
    }

    fn all(&self) -> [&Gateway; 3] {
        [&self.local, &self.allow, &self.deny]
    }

    /// Each does what it says, though nothing answers; and soon without waiting for it.
    fn assert_without(&self) {
        let wait_down = |gateway: &Gateway| {
            eventually("the store is known to be down", || {
                let began = Instant::now();
                gateway.get("/a/x");
                assert!(began.elapsed() < Duration::from_secs(15), "nobody waits for long");
                (gateway.metric("crossway_store_up{store=\"shared\"}") == 0.0).then_some(())
            });
        };
        thread::scope(|scope| self.all().map(|gateway| scope.spawn(move || wait_down(gateway))).map(drop));
        let failed = self.all().map(|gateway| gateway.metric("crossway_store_errors_total{store=\"shared\"}"));
        assert_eq!(statuses(&self.local, "/a/x", "", 9)[3..], [429; 6], "this one counts for itself");
        let refused = self.local.get("/a/x");
        assert!(refused.header("ratelimit").unwrap().contains("r=0"));
        let allowed = self.allow.get("/a/x");
        assert_eq!((allowed.status, allowed.header("ratelimit")), (200, None));
        assert_eq!(statuses(&self.allow, "/a/x", "", 9), [200; 9]);
        let denied = self.deny.get("/a/x");
        denied.assert_problem(503, "rate_limit_unavailable");
        assert_eq!(denied.header("retry-after"), Some("1"));
        assert_eq!(statuses(&self.deny, "/a/x", "", 9), [503; 9]);
        let fallbacks = [("allow_local", &self.local), ("allow", &self.allow), ("deny", &self.deny)];
        for (event, gateway) in fallbacks {
            assert!(events(gateway, event) >= 10.0, "{event}");
            assert!(events(gateway, "unanswered") >= 10.0);
        }
        // None of these has asked: only who follows the server does, and what it asks is no exchange.
        assert_eq!(failed, self.all().map(|gateway| gateway.metric("crossway_store_errors_total{store=\"shared\"}")));
    }

    /// All of them count together again: three pass, whichever is asked.
    fn assert_together(&self, redis: &Redis) {
        for gateway in self.all() {
            eventually("the store is back", || {
                (gateway.metric("crossway_store_up{store=\"shared\"}") == 1.0).then_some(())
            });
            assert!(gateway.stderr().contains("the shared store answers again"));
        }
        redis.ask("FLUSHALL");
        let asked = |event: &str| self.all().map(|gateway| events(gateway, event)).iter().sum::<f64>();
        let before = (asked("shared"), asked("unanswered"));
        let seen = self.all().map(|gateway| statuses(gateway, "/a/x", "", 2)).concat();
        assert_eq!(seen, [200, 200, 200, 429, 429, 429]);
        assert_eq!((asked("shared"), asked("unanswered")), (before.0 + 6.0, before.1));
    }
}

#[test]
fn a_server_that_is_stopped_and_started_again() {
    let (upstream, mut redis) = (Upstream::echo(), Redis::start());
    let ways = Ways::start(&upstream, &redis.url());
    assert_eq!(ways.all().map(|gateway| gateway.get("/a/x").status), [200; 3]);
    redis.stop();
    ways.assert_without();
    redis.start_again();
    ways.assert_together(&redis);
}

#[test]
fn a_server_that_stops_to_answer() {
    let (upstream, redis) = (Upstream::echo(), Redis::start());
    let ways = Ways::start(&upstream, &redis.url());
    assert_eq!(ways.all().map(|gateway| gateway.get("/a/x").status), [200; 3]);
    redis.pause();
    ways.assert_without();
    // Long enough for a new connection, which hangs too.
    pass(Duration::from_secs(4));
    redis.resume();
    ways.assert_together(&redis);
}

#[test]
fn a_port_that_talks_nonsense_and_one_that_says_nothing() {
    let (upstream, redis) = (Upstream::echo(), Redis::start());
    for to in [
        To::Words(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        To::Words(b"+OK\r\n"),
        To::Words(b"*4\r\n:1\r\n:x\r\n"),
        To::Words(b"\xff\x00\xff"),
        To::Silence,
    ] {
        let switch = Switch::to(to);
        let ways = Ways::start(&upstream, &switch.url());
        ways.assert_without();
        switch.change(To::Server(redis.address()));
        ways.assert_together(&redis);
    }
}

#[test]
fn a_failover() {
    let (upstream, mut old, new) = (Upstream::echo(), Redis::start(), Redis::start());
    let follow = |redis: &Redis, of: &Redis| {
        let (host, port) = of.address().split_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).unwrap();
        redis.ask(&format!("REPLICAOF {host} {port}"));
        let linked = || redis.ask("INFO replication").contains("master_link_status:up").then_some(());
        eventually("the replica has everything", linked);
    };
    follow(&new, &old);
    let switch = Switch::to(To::Server(old.address()));
    let ways = Ways::start(&upstream, &switch.url());
    assert_eq!(ways.all().map(|gateway| gateway.get("/a/x").status), [200; 3]);
    // The old one is alive, and writes no more: the connections to it must be given up.
    new.ask("REPLICAOF NO ONE");
    follow(&old, &new);
    // What is refused writes nothing: it would go on being refused there.
    new.ask("FLUSHALL");
    eventually("the replica has nothing", || old.ask("DBSIZE").starts_with(":0").then_some(()));
    ways.assert_without();
    switch.change(To::Server(new.address()));
    ways.assert_together(&new);
    // And back, after a crash.
    follow(&old, &new);
    drop(new);
    ways.assert_without();
    old.ask("REPLICAOF NO ONE");
    switch.change(To::Server(old.address()));
    ways.assert_together(&old);
    old.stop();
}

/// Nobody waits for longer than the time-out, and once the store is known to be down nobody waits at all.
#[test]
fn a_silent_server_costs_few_requests_a_wait() {
    let (upstream, redis) = (Upstream::echo(), Redis::start());
    let text = on(&redis, "2s") + &open(&upstream, &format!("policies: [{}], on_store_error: allow", day(3)));
    let gateway = Gateway::start(&text);
    assert_eq!(gateway.get("/a/x").status, 200);
    redis.pause();
    let took: Vec<Duration> = (0..20)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(gateway.get("/a/x").status, 200);
            began.elapsed()
        })
        .collect();
    let slow = took.iter().filter(|took| **took >= Duration::from_millis(1_900)).count();
    assert_eq!(slow, 3, "{took:?}");
    assert_eq!(gateway.metric("crossway_store_errors_total{store=\"shared\"}"), 3.0);
    redis.resume();
}

#[test]
fn counters_outlive_gateways_and_reloads() {
    let (upstream, redis) = (Upstream::echo(), Redis::start());
    let of = |policy: &str| on(&redis, PATIENT) + &open(&upstream, &format!("policies: [{policy}]"));
    let month = |limit: u32| day(limit).replace("1d", "month, algorithm: fixed_window");
    let mut gateway = Gateway::start(&of(&month(2)));
    assert_eq!(statuses(&gateway, "/a/x", "", 3), [200, 200, 429]);
    gateway.crash_and_start();
    assert_eq!(statuses(&gateway, "/a/x", "", 1), [429]);
    assert_eq!(gateway.reload(&of(&month(3))).status, 200);
    assert_eq!(statuses(&gateway, "/a/x", "", 2), [200, 429], "a changed limit holds at once");
    assert_eq!(gateway.reload(&of(&month(2).replace(", store: shared", ""))).status, 200);
    assert_eq!(statuses(&gateway, "/a/x", "", 3), [200, 200, 429], "in the process it counts anew");
    assert_eq!(gateway.reload(&of(&month(3))).status, 200);
    assert_eq!(statuses(&gateway, "/a/x", "", 1), [429]);
}

#[test]
fn a_changed_rate_holds_at_once_for_all_gateways() {
    let (upstream, redis) = (Upstream::echo(), Redis::start());
    let of = |policy: &str| {
        on(&redis, PATIENT)
            + &open(&upstream, &format!("policies: [{{ name: rate, key: [client], {policy}, store: shared }}]"))
    };
    let mut gateways = [(); 2].map(|()| Gateway::start(&of(RATES[0].0)));
    assert_eq!(passed(&gateways, 1, 10), 10);
    for (policy, expected) in &RATES[1..] {
        for gateway in &mut gateways {
            assert_eq!(gateway.reload(&of(policy)).status, 200);
        }
        assert_eq!(passed(&gateways, 1, 20), *expected, "{policy}");
    }
    assert_soon(&mut gateways[0], &of(SOON));
}
