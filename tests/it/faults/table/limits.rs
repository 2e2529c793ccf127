//! The server that limits are shared by fails.

use super::*;

/// A limit of thirty a day for each route, which is passed by on one and enforced on the other while the server is away;
/// and one on a third that counts for itself then.
fn config_of(upstream: &Wild, redis: &Redis) -> String {
    let route = |name: &str, on_error: &str| {
        format!(
            "  - name: {name}
    match: {{ path: \"/{name}/{{rest...}}\" }}
    auth: none
    plugins:
      - rate_limit:
          policies: [{{ name: day, key: [route], limit: 30, per: month, algorithm: fixed_window, store: shared }}]
          on_store_error: {on_error}
    upstream: back\n"
        )
    };
    format!(
        "stores: {{ shared: {{ redis: \"{}\", timeout: 1s }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes:\n{}{}{}",
        redis.url(),
        upstream.address(),
        route("open", "allow"),
        route("closed", "deny"),
        route("own", "allow_local")
    )
}

fn is_up(gateway: &Gateway) -> bool {
    gateway.metric("crossway_store_up{store=\"shared\"}") == 1.0
}

fn median(done: &[Done]) -> Duration {
    let mut times: Vec<Duration> = done.iter().map(|one| one.took).collect();
    times.sort();
    times[times.len() / 2]
}

/// While the server is away: what is configured holds, and nobody waits.
fn without(row: &mut Row, gateway: &Gateway, what: &str) {
    let address = gateway.address();
    eventually("the server is known to be away", || {
        row.send(&address, "GET", "/open", 1);
        (!is_up(gateway)).then_some(())
    });
    let open = row.send(&address, "GET", "/open", 60);
    let (fine, took) = (statuses(open, 200), median(open));
    row.check(fine == 60, || format!("{what}: {fine} of 60 passed where the limit may be passed by"));
    row.check(took < Duration::from_millis(500), || format!("{what}: a request takes {took:?}"));
    let closed = statuses(row.send(&address, "GET", "/closed", 60), 503);
    row.check(closed == 60, || format!("{what}: {closed} of 60 were refused where it may not"));
    let own = row.send(&address, "GET", "/own", 60);
    let (fine, refused) = (statuses(own, 200), statuses(own, 429));
    row.check(fine <= 30 && fine + refused == 60, || format!("{what}: {fine} passed one gateway's own limit of 30"));
    row.note(format!("{what}: 60 of 60 passed by, {closed} of 60 refused, {} us each", took.as_micros()));
}

/// It is back: what was used is used, and no more passes than the limit says.
fn with(row: &mut Row, gateway: &Gateway, used: usize) {
    eventually("the server is back", || is_up(gateway).then_some(()));
    for path in ["/open", "/closed", "/own"] {
        let done = row.send(&gateway.address(), "GET", path, 40);
        let (fine, refused) = (statuses(done, 200), statuses(done, 429));
        row.check(fine <= 30 - used && fine + refused == 40, || format!("{path}: {fine} passed, {used} were used"));
        let exact = fine == 30 - used || path == "/own";
        row.check(exact, || format!("{path}: only {fine} passed, {used} were used"));
    }
}

#[test]
fn x17_the_server_of_limits_fails() {
    let mut row = Row::new("X17", "the server of shared limits is killed, falls silent, becomes a replica");
    let (upstream, mut redis) = (good(), Redis::start());
    let gateway = Gateway::start(&config_of(&upstream, &redis));
    for path in ["/open", "/closed", "/own"] {
        let fine = statuses(row.send(&gateway.address(), "GET", path, 10), 200);
        row.check(fine == 10, || format!("{path}: {fine} of 10"));
    }
    redis.stop();
    without(&mut row, &gateway, "killed");
    redis.start_again();
    with(&mut row, &gateway, 10);
    redis.pause();
    without(&mut row, &gateway, "silent");
    redis.resume();
    with(&mut row, &gateway, 30);
    // As after a failover that the gateway has not heard of: it takes no writes. A request that is refused writes nothing,
    // and would go on being refused.
    redis.ask("FLUSHALL");
    redis.ask("REPLICAOF 127.0.0.1 1");
    without(&mut row, &gateway, "a replica");
    redis.ask("REPLICAOF NO ONE");
    with(&mut row, &gateway, 0);
    let lines = gateway.stderr().lines().filter(|line| line.contains("the shared store fails")).count();
    row.check(lines <= 60, || format!("{lines} lines of log"));
    row.note(format!("{lines} lines of log"));
    row.must_take(Duration::from_secs(3) + SLACK);
    row.must_be_once("GET", &upstream.seen());
    row.end();
}
