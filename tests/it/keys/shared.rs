//! Keys in a server that gateways share.

use super::*;

const WANTED: &str = r#"{"consumer": "acme"}"#;

fn on(redis: &Redis) -> String {
    // The machine of the tests may be busy: the time-out is longer than anybody would want.
    format!("{{ shared: {{ redis: \"{}\", timeout: 2s }} }}", redis.url())
}

fn config_of(upstream: &Upstream, stores: &str) -> String {
    format!("{}keys: {{ store: shared }}\n", config(upstream, stores))
}

/// How long until a request with this key is answered so.
fn until(gateway: &Gateway, key: &str, status: u16) -> Duration {
    let began = Instant::now();
    eventually("the gateways agree", || (with_key(gateway, key).status == status).then_some(()));
    began.elapsed()
}

#[test]
fn two_gateways_agree_within_a_second() {
    let (upstream, redis) = (Upstream::echo(), Redis::start());
    let text = config_of(&upstream, &on(&redis));
    let [one, two] = [(); 2].map(|()| Gateway::start(&text));
    let second = Duration::from_secs(1);
    let (id, key) = create(&one, r#"{"consumer": "acme"}"#);
    assert_eq!(with_key(&one, &key).status, 200);
    assert!(until(&two, &key, 200) < second);
    // Whoever changes a key has the newest there is.
    let (fresh, _) = create(&one, r#"{"consumer": "lone"}"#);
    assert_eq!(two.admin_send(&format!("POST /api/keys/{fresh}/rotate"), "").status, 201);
    let rotated = two.admin_send(&format!("POST /api/keys/{id}/rotate"), r#"{"overlap": "1h"}"#);
    let (_, next) = text_of(&rotated);
    assert!(until(&one, &next, 200) < second);
    assert_eq!(two.admin(&format!("DELETE /api/keys/{id}")).status, 200);
    with_key(&two, &key).assert_problem(401, "api_key_invalid");
    assert!(until(&one, &key, 401) < second);
    one.admin_send(&format!("POST /api/keys/{id}/rotate"), "").assert_problem(409, "key_ended");
    // What the one has seen of a key, the other one shows.
    let (used, used_key) = create(&one, r#"{"consumer": "lone"}"#);
    assert_eq!(with_key(&one, &used_key).status, 200);
    eventually("the last use is known everywhere", || {
        listed(&two).iter().any(|key| key["id"] == used.as_str() && key["last_used"].is_string()).then_some(())
    });
    let raw = redis.ask("HGETALL crossway:{keys}:records");
    assert!(raw.contains(&id) && !raw.contains("cw_"), "only digests are kept: {raw}");
}

#[test]
fn without_the_server_known_keys_are_good_and_nothing_changes() {
    let (upstream, mut redis) = (Upstream::echo(), Redis::start());
    let text = config_of(&upstream, &on(&redis));
    let mut gateway = Gateway::start(&text);
    let (id, key) = create(&gateway, r#"{"consumer": "acme"}"#);
    redis.stop();
    let down = Instant::now();
    for _ in 0..20 {
        assert_eq!(with_key(&gateway, &key).status, 200);
    }
    let delete = format!("DELETE /api/keys/{id}");
    for request in ["POST /api/keys", &delete, &format!("POST /api/keys/{id}/rotate")] {
        let body = if request == "POST /api/keys" { r#"{"consumer": "acme"}"# } else { "" };
        let refused = gateway.admin_send(request, body);
        refused.assert_problem(503, "store_unavailable");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    assert_eq!(listed(&gateway).len(), 1, "what is known is shown");
    eventually("it is logged", || gateway.stderr().contains("the shared store fails").then_some(()));
    crate::harness::pass(Duration::from_secs(3).saturating_sub(down.elapsed()));
    let logged = gateway.stderr().matches("the shared store fails").count();
    assert!(logged as u64 <= down.elapsed().as_secs() + 1, "{logged} lines in {:?}", down.elapsed());
    assert!(gateway.metric("crossway_store_errors_total{store=\"shared\"}") >= 3.0);
    redis.start_again();
    eventually("the server is used again", || (gateway.admin(&delete).status == 200).then_some(()));
    with_key(&gateway, &key).assert_problem(401, "api_key_invalid");
    eventually("it is logged", || gateway.stderr().contains("the shared store answers again").then_some(()));
    // A gateway that starts without it knows no key: it cannot say which are wrong.
    let (_, key) = create(&gateway, r#"{"consumer": "acme"}"#);
    redis.stop();
    gateway.crash_and_start();
    with_key(&gateway, &key).assert_problem(503, "dependency_failed");
    with_key(&gateway, "wrong").assert_problem(401, "api_key_invalid");
    redis.start_again();
    assert!(until(&gateway, &key, 200) < Duration::from_secs(5));
}

#[test]
fn only_one_of_two_gateways_replaces_a_key() {
    let (upstream, redis) = (Upstream::echo(), Redis::start());
    let text = config_of(&upstream, &on(&redis));
    let gateways = [(); 2].map(|()| Gateway::start(&text));
    for round in 0..40 {
        let (id, _) = create(&gateways[0], WANTED);
        let together = std::sync::Barrier::new(gateways.len());
        let rotate = format!("POST /api/keys/{id}/rotate");
        let ask = |gateway: &Gateway| {
            together.wait();
            gateway.admin_send(&rotate, "").status
        };
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let asked: Vec<_> = gateways.iter().map(|gateway| scope.spawn(|| ask(gateway))).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        let made = statuses.iter().filter(|status| **status == 201).count();
        assert!(made == 1 && statuses.contains(&409), "round {round}: {statuses:?}");
    }
}

#[test]
fn gateways_share_the_bound_on_keys() {
    let (upstream, redis) = (Upstream::echo(), Redis::start());
    let text = format!("{}keys: {{ store: shared, max: 2 }}\n", config(&upstream, &on(&redis)));
    let [one, two] = [(); 2].map(|()| Gateway::start(&text));
    create(&one, WANTED);
    create(&two, WANTED);
    one.admin_send("POST /api/keys", WANTED).assert_problem(507, "keys_full");
}

#[test]
fn a_server_that_has_lost_its_keys_has_none() {
    let (upstream, redis) = (Upstream::echo(), Redis::start());
    let gateway = Gateway::start(&config_of(&upstream, &on(&redis)));
    let (_, key) = create(&gateway, r#"{"consumer": "acme"}"#);
    redis.ask("FLUSHALL");
    until(&gateway, &key, 401);
    let (_, next) = create(&gateway, r#"{"consumer": "acme"}"#);
    assert_eq!(with_key(&gateway, &next).status, 200);
    assert_eq!(listed(&gateway).len(), 1);
}

#[test]
fn a_cluster_and_tls_will_do_too() {
    let upstream = Upstream::echo();
    let cluster = Redis::cluster();
    let certificates = Folder::new();
    certificates.make("redis", &["localhost"], 2040);
    let (_redis, tls) = Redis::secure(&certificates, "redis");
    let ca = certificates.file("ca", "pem").display().to_string();
    let of_cluster = format!("{{ shared: {{ cluster: [\"{}\"], timeout: 2s }} }}", cluster.url());
    let of_tls = format!("{{ shared: {{ redis: \"rediss://localhost:{tls}\", ca: \"{ca}\", timeout: 2s }} }}");
    for stores in [of_cluster, of_tls] {
        let text = config_of(&upstream, &stores);
        let [one, two] = [(); 2].map(|()| Gateway::start(&text));
        let (id, key) = create(&one, r#"{"consumer": "acme"}"#);
        until(&two, &key, 200);
        assert_eq!(two.admin(&format!("DELETE /api/keys/{id}")).status, 200);
        until(&one, &key, 401);
    }
    // A certificate that nobody vouches for.
    let strange = format!("{{ shared: {{ redis: \"rediss://localhost:{tls}\", timeout: 2s }} }}");
    let gateway = Gateway::start(&config_of(&upstream, &strange));
    gateway.admin_send("POST /api/keys", r#"{"consumer": "acme"}"#).assert_problem(503, "store_unavailable");
}
