//! Probes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::harness::{Finish, H2Upstream, TLS_NAME, closed_address};

const CHECK: &str = "health_check: { http: { path: /healthz }, interval: 100ms, unhealthy_after: 2, healthy_after: 2 }";

#[test]
fn an_unhealthy_endpoint_gets_nothing_until_it_recovers() {
    let (good, ill) = (Server::start(), Server::start());
    let gateway = start(&[&good, &ill], CHECK);
    wait_health(&gateway, &ill, "healthy");
    ill.be(Mood::Ill);
    let shown = wait_health(&gateway, &ill, "unhealthy");
    assert_eq!((shown["available"].as_bool(), shown["health"]["why"].as_str()), (Some(false), Some("status 500")));
    assert!(shown["health"]["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{shown}");
    let before = ill.served();
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!(ill.served(), before);
    let gauge = |server: &Server| {
        gateway.metric(&format!("crossway_endpoint_healthy{{endpoint=\"{}\",upstream=\"back\"}}", server.address))
    };
    assert_eq!((gauge(&good), gauge(&ill)), (1.0, 0.0));
    assert_eq!((event(&gateway, "unhealthy"), event(&gateway, "healthy")), (1.0, 0.0));
    assert!(gateway.stderr().contains("an endpoint is unhealthy"), "{}", gateway.stderr());
    assert_eq!(gateway.admin("GET /readyz").status, 200, "the gateway itself is well");
    ill.be(Mood::Well);
    wait_health(&gateway, &ill, "healthy");
    eventually("it is used again", || {
        gateway.get("/");
        (ill.served() > before).then_some(())
    });
    assert_eq!((event(&gateway, "healthy"), gauge(&ill)), (1.0, 1.0));
    assert!(gateway.metric("crossway_health_probes_total{result=\"failed\",upstream=\"back\"}") >= 2.0);
}

#[test]
fn a_probe_is_what_the_settings_say_and_goes_past_the_plugins() {
    let server = Upstream::start(|request| {
        let good = request.target == "/up?deep=1" && request.method == "HEAD";
        Answer::new(if good { 204 } else { 404 }, &[], b"")
    });
    let check = "health_check: { http: { path: \"/up?deep=1\", method: HEAD, host: \"check.test:81\", headers: { X-Probe: \"yes\" }, expect: [204, 3xx] }, interval: 100ms, unhealthy_after: 1 }";
    let settings = format!("auth: {{ bearer: {{ token: a-secret-token }} }}, {check}");
    let gateway = Gateway::start(&format!(
        "plugins: [{{ headers: {{ request: {{ set: {{ X-Plugin: seen }} }} }} }}]\n{}",
        config(&[server.address()], &settings)
    ));
    let probe = eventually("a probe", || server.received().into_iter().next());
    assert_eq!((probe.header("host"), probe.header("x-probe")), (Some("check.test:81"), Some("yes")));
    assert_eq!((probe.header("user-agent"), probe.header("via")), (Some("crossway-health-check"), None));
    assert_eq!((probe.header("x-plugin"), probe.header("authorization")), (None, None));
    eventually("more probes, each on a connection of its own", || {
        let seen = server.received();
        assert!(seen.iter().enumerate().all(|(at, probe)| probe.connection == at), "{seen:?}");
        (seen.len() >= 3).then_some(())
    });
    assert_eq!(endpoint(&gateway, server.address())["health"]["state"], "healthy");
    assert_eq!(gateway.metric("crossway_requests_total{class=\"2xx\",route=\"stream\"}"), 0.0);
}

#[test]
fn a_new_endpoint_is_used_until_it_is_found_unhealthy() {
    let server = Server::start();
    server.be(Mood::Ill);
    let check = "health_check: { http: { path: /healthz }, interval: 300ms, unhealthy_after: 3 }";
    let gateway = start(&[&server], check);
    assert_eq!(gateway.get("/").status, 200);
    wait_health(&gateway, &server, "unhealthy");
    assert!(server.probes() >= 3);
    gateway.get("/").assert_problem(503, "no_endpoint");
}

#[test]
fn where_none_is_healthy_requests_are_refused_or_go_to_all() {
    let check = CHECK.replace("unhealthy_after: 2", "unhealthy_after: 1");
    for (panic, status) in [("refuse", 503), ("use_all", 200)] {
        let (one, other) = (Server::start(), Server::start());
        one.be(Mood::Ill);
        other.be(Mood::Ill);
        let gateway = start(&[&one, &other], &format!("{check}, panic: {panic}"));
        wait_health(&gateway, &one, "unhealthy");
        wait_health(&gateway, &other, "unhealthy");
        for _ in 0..4 {
            assert_eq!(gateway.get("/").status, status);
        }
        assert_eq!((one.served(), other.served()), if status == 200 { (2, 2) } else { (0, 0) });
    }
}

#[test]
fn a_hung_endpoint_and_one_that_is_not_there_are_unhealthy() {
    let (hung, gone) = (Server::start(), closed_address());
    hung.be(Mood::Hung);
    let check = "health_check: { http: { path: /healthz }, interval: 200ms, timeout: 100ms, unhealthy_after: 2 }";
    let gateway = Gateway::start(&config(&[&hung.address, &gone], check));
    let shown = wait_health(&gateway, &hung, "unhealthy");
    assert_eq!(shown["health"]["why"], "no answer within 100ms");
    eventually("the other is unhealthy too", || {
        let shown = endpoint(&gateway, &gone);
        (shown["health"]["state"] == "unhealthy").then_some(())
    });
}

#[test]
fn connections_are_probed_too() {
    let mut server = Server::start();
    let gateway = start(&[&server], "health_check: { tcp: {}, interval: 100ms, unhealthy_after: 2, healthy_after: 1 }");
    wait_health(&gateway, &server, "healthy");
    server.be(Mood::Sorry);
    assert_eq!(gateway.get("/").status, 503);
    wait_health(&gateway, &server, "healthy");
    server.die();
    wait_health(&gateway, &server, "unhealthy");
    server.come_back();
    wait_health(&gateway, &server, "healthy");
    assert_eq!(server.served(), 0, "nothing is sent");
}

#[test]
fn probes_speak_as_the_upstream_does() {
    for (secure, path, state) in [(false, "/up", "healthy"), (true, "/up", "healthy"), (true, "/page", "unhealthy")] {
        let server = if secure { H2Upstream::tls(&["h2"]) } else { H2Upstream::plain() };
        let tls = format!("tls: {{ ca: \"{}\", server_name: {TLS_NAME} }},", server.ca().display());
        let tls = if secure { tls.as_str() } else { "" };
        let check = format!("health_check: {{ http: {{ path: {path} }}, interval: 100ms, unhealthy_after: 1 }}");
        let gateway = Gateway::start(&config(&[server.address()], &format!("http2: true, {tls} {check}")));
        let seen = eventually("a probe", || server.seen().into_iter().next());
        assert_eq!((&*seen.scheme, &*seen.path), (if secure { "https" } else { "http" }, path));
        eventually(state, || (endpoint(&gateway, server.address())["health"]["state"] == state).then_some(()));
        eventually("connections of probes are closed", || {
            (server.connections() > 3 && server.open() <= 1).then_some(())
        });
    }
}

#[test]
fn a_certificate_that_is_not_trusted_is_unhealthy() {
    let server = H2Upstream::tls(&["h2"]);
    for check in ["http: { path: /up }", "tcp: {}"] {
        let settings = format!("http2: true, tls: {{ ca: \"{}\", server_name: other.test }}", server.ca().display());
        let settings = format!("{settings}, health_check: {{ {check}, interval: 100ms, unhealthy_after: 1 }}");
        let gateway = Gateway::start(&config(&[server.address()], &settings));
        eventually("it is unhealthy", || {
            (endpoint(&gateway, server.address())["health"]["state"] == "unhealthy").then_some(())
        });
    }
    assert_eq!(server.begun(), 0);
}

#[test]
fn another_port_can_be_probed() {
    let (server, sidecar) = (Server::start(), Server::start());
    let port = sidecar.address.rsplit_once(':').unwrap().1;
    let check =
        format!("health_check: {{ http: {{ path: /healthz }}, port: {port}, interval: 100ms, unhealthy_after: 1 }}");
    let gateway = start(&[&server], &check);
    wait_health(&gateway, &server, "healthy");
    sidecar.be(Mood::Ill);
    wait_health(&gateway, &server, "unhealthy");
    assert_eq!(server.probes(), 0);
}

#[test]
fn one_that_fails_now_and_then_stays_in_use() {
    let count = Arc::new(AtomicUsize::new(0));
    let probes = Arc::clone(&count);
    let server = Upstream::start(move |_| {
        let at = probes.fetch_add(1, Ordering::SeqCst);
        if at % 3 == 2 { Answer::ok("") } else { Answer::new(500, &[], b"") }
    });
    let check = "health_check: { http: { path: /healthz }, interval: 100ms, unhealthy_after: 3, healthy_after: 2 }";
    let gateway = Gateway::start(&config(&[server.address()], check));
    eventually("many probes", || (count.load(Ordering::SeqCst) >= 15).then_some(()));
    assert_eq!((event(&gateway, "unhealthy"), event(&gateway, "healthy")), (0.0, 0.0));
}

#[test]
fn a_reload_keeps_what_is_known() {
    let (good, ill) = (Server::start(), Server::start());
    let servers = [&good, &ill];
    ill.be(Mood::Ill);
    let mut gateway = start(&servers, CHECK);
    let before = wait_health(&gateway, &ill, "unhealthy");
    let slower = CHECK.replace("interval: 100ms", "interval: 1h");
    assert_eq!(gateway.reload(&config(&addresses(&servers), &slower)).status, 200);
    assert_eq!(endpoint(&gateway, &ill.address)["health"], before["health"], "changed settings");
    // The first probe by the new settings comes at once, the second in an hour.
    let third = Server::start();
    let grown = [addresses(&servers), vec![third.address.as_str()]].concat();
    assert_eq!(gateway.reload(&config(&grown, &slower)).status, 200);
    assert_eq!(endpoint(&gateway, &ill.address)["health"], before["health"], "another list");
    wait_health(&gateway, &third, "healthy");
    assert_eq!(gateway.reload(&config(&addresses(&servers), "")).status, 200);
    let shown = endpoint(&gateway, &ill.address);
    assert_eq!((shown["available"].as_bool(), &shown["health"]), (Some(true), &Value::Null), "nobody probes");
    let probes = ill.probes();
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!((ill.probes(), ill.served()), (probes, 2));
    assert_eq!(gateway.metric(&format!("crossway_endpoint_healthy{{endpoint=\"{}\"", good.address)), 0.0);
}

#[test]
fn a_refused_reload_changes_no_probe() {
    let ill = Server::start();
    ill.be(Mood::Ill);
    let mut gateway = start(&[&ill], CHECK);
    wait_health(&gateway, &ill, "unhealthy");
    let broken = config(&[&ill.address], "").replace("upstream: back", "upstream: nowhere");
    assert_eq!(gateway.reload(&broken).status, 422);
    assert_eq!(endpoint(&gateway, &ill.address)["health"]["state"], "unhealthy");
    let probes = ill.probes();
    eventually("probes go on", || (ill.probes() > probes + 2).then_some(()));
}

/// One of three is killed under load, and comes back: nobody notices.
#[test]
fn an_endpoint_is_killed_and_back_under_load() {
    let (one, two, mut victim) = (Server::start(), Server::start(), Server::start());
    let settings = format!("{CHECK}, outlier: {{ consecutive_failures: 3, eject_for: 1s }}");
    let gateway = start(&[&one, &two, &victim], &settings);
    let (done, asked, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let _finish = Finish(&done);
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Ordering::SeqCst) {
                    let status = gateway.get("/").status;
                    asked.fetch_add(1, Ordering::SeqCst);
                    failed.fetch_add(usize::from(status != 200), Ordering::SeqCst);
                }
            });
        }
        for _ in 0..2 {
            eventually("it is used", || (victim.served() > 10).then_some(()));
            victim.die();
            eventually("it is out of use", || {
                let shown = endpoint(&gateway, &victim.address);
                (shown["available"] == false).then_some(())
            });
            wait_health(&gateway, &victim, "unhealthy");
            let before = asked.load(Ordering::SeqCst);
            eventually("the others serve", || (asked.load(Ordering::SeqCst) > before + 50).then_some(()));
            victim.come_back();
            wait_health(&gateway, &victim, "healthy");
        }
        eventually("it is used again", || (victim.served() > 10).then_some(()));
    });
    let (asked, failed) = (asked.into_inner(), failed.into_inner());
    assert_eq!(failed, 0, "of {asked}");
    let wanted = gateway.metric("crossway_upstream_attempts_total{result=\"retried\",upstream=\"back\"}");
    assert!(wanted <= 40.0, "a dead endpoint is soon left alone: {wanted} of {asked} tried again");
}
