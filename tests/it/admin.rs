//! The listener for operators.

use crate::harness::{Gateway, Killed, closed_address, exchange};

const CONFIG: &str = "routes: [{ name: all, match: { path: \"/{rest...}\" }, auth: none, plugins: [{ respond: { status: 200, body: data } }] }]\n";

#[test]
fn everything_but_probes_wants_the_token() {
    let gateway = Gateway::start(CONFIG);
    for page in ["GET /metrics", "GET /api/status", "POST /api/reload"] {
        for headers in [
            &[][..],
            &[("Authorization", "Bearer wrong")],
            &[("Authorization", "Basic dG9rZW4=")],
            &[("Authorization", "Bearer ")],
        ] {
            let refused = gateway.admin_with(page, headers);
            refused.assert_problem(401, "token_required");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        }
        assert_eq!(gateway.admin(page).status, 200, "{page}");
    }
    for page in ["GET /healthz", "GET /readyz"] {
        assert_eq!(gateway.admin_with(page, &[]).status, 200, "{page}");
    }
    assert_eq!(gateway.generation(), 2, "only the reload with the token happened");
}

#[test]
fn pages_of_other_sites_are_refused() {
    let gateway = Gateway::start(CONFIG);
    let token = ("Authorization", "Bearer token-of-the-tests-0123");
    gateway.admin_with("GET /api/status", &[token, ("Host", "evil.example")]).assert_problem(421, "bad_host");
    gateway
        .admin_with("GET /api/status", &[token, ("Origin", "http://evil.example")])
        .assert_problem(403, "cross_origin");
    gateway.admin("GET /nothing").assert_problem(404, "not_found");
    gateway.admin("DELETE /api/status").assert_problem(405, "method_not_allowed");
}

#[test]
fn the_data_plane_has_none_of_these_pages() {
    let gateway = Gateway::start(CONFIG);
    for page in ["/metrics", "/healthz", "/readyz", "/api/status", "/api/reload"] {
        assert_eq!(gateway.get(page).text(), "data", "{page}");
    }
}

#[test]
fn probes_have_an_address_of_their_own() {
    for (metrics, status) in [(true, 200), (false, 404)] {
        let address = closed_address();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("own.sock");
        let text = format!(
            "listeners: [{{ name: public, address: \"127.0.0.1:0\" }}]\nadmin: {{ address: \"unix:{}\", token: 0123456789abcdef, probes: {{ address: \"{address}\", metrics: {metrics} }} }}\n{CONFIG}",
            socket.display()
        );
        let path = folder.path().join("c.yaml");
        std::fs::write(&path, text).unwrap();
        let child = std::process::Command::new(crate::harness::BINARY)
            .args(["run", "-c"])
            .arg(&path)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let _killed = Killed(child);
        crate::harness::eventually("probes answer", || std::net::TcpStream::connect(&address).is_ok().then_some(()));
        // The probes answer before the gateway is ready.
        crate::harness::eventually("the gateway is ready", || {
            (exchange(&address, "GET /readyz", &[], b"").status == 200).then_some(())
        });
        assert_eq!(exchange(&address, "GET /healthz", &[], b"").status, 200);
        assert_eq!(exchange(&address, "GET /metrics", &[], b"").status, status);
        assert_eq!(exchange(&address, "GET /api/status", &[], b"").status, 404);
    }
}

#[test]
fn names_that_are_gone_leave_no_series() {
    let config = |name: &str| {
        format!(
            "listeners: [{{ name: public, address: \"127.0.0.1:0\" }}, {{ name: {name}, address: \"127.0.0.2:0\" }}]\nupstreams: {{ {name}: {{ endpoints: [{{ address: \"127.0.0.1:9\" }}] }} }}\nroutes: [{{ name: {name}, match: {{ path: /x }}, auth: none, upstream: {name} }}]\n"
        )
    };
    let mut gateway = Gateway::start(&config("first"));
    let text = gateway.admin("GET /metrics").text();
    assert!(
        text.contains("route=\"first\"") && text.contains("upstream=\"first\"") && text.contains("listener=\"first\"")
    );
    assert_eq!(gateway.reload(&config("second")).status, 200);
    assert_eq!(gateway.reload(&(config("third") + "oops: 1\n")).status, 422);
    assert_eq!(gateway.reload(&config("fourth").replace("127.0.0.2:0", "203.0.113.1:1")).status, 422);
    let text = gateway.admin("GET /metrics").text();
    for gone in ["first", "third", "fourth"] {
        assert!(!text.contains(&format!("\"{gone}\"")), "{gone} is still there");
    }
    assert!(text.contains("route=\"second\""));
}

#[test]
fn metrics_have_bounded_labels() {
    let gateway = Gateway::start(CONFIG);
    let series = || gateway.admin("GET /metrics").text().lines().filter(|l| !l.starts_with('#')).count();
    gateway.get("/warm");
    gateway.send("POST /warm", &[("Host", "warm.test")], b"");
    let before = series();
    for at in 0..50 {
        gateway.send(
            &format!("GET /path-{at}"),
            &[("Host", &format!("host-{at}.test")), ("User-Agent", &format!("agent-{at}"))],
            b"",
        );
    }
    assert_eq!(series(), before);
    assert!(gateway.metric("crossway_requests_total{class=\"2xx\",route=\"all\"}") == 52.0);
    assert!(gateway.metric("crossway_request_duration_seconds_count{class=\"2xx\",route=\"all\"}") == 52.0);
    assert!(gateway.metric("crossway_gateway_duration_seconds_count{route=\"all\"}") == 52.0);
    assert!(gateway.metric("crossway_requests_in_flight") == 0.0);
}
