//! One JSON line for each request.

use serde_json::Value;

use crate::harness::{Gateway, Upstream, eventually};

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn wait_for(path: &std::path::Path, count: usize) -> Vec<Value> {
    eventually("the lines are written", || Some(lines(path)).filter(|l| l.len() >= count))
}

fn config(path: &std::path::Path, upstream: &Upstream) -> String {
    format!(
        "telemetry: {{ access_log: {{ to: \"file:{}\", headers: [X-Tenant, X-Pin], redact: {{ query: [pin], headers: [X-Pin] }} }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: /x }}, auth: none, upstream: back }}]\n",
        path.display(),
        upstream.address()
    )
}

#[test]
fn every_request_has_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&config(&path, &upstream));
    let headers =
        [("X-Tenant", "acme"), ("X-Pin", "1234"), ("User-Agent", "te\"st"), ("Authorization", "Bearer s3cret")];
    gateway.send("POST /x?a=1&pin=1234&token=s3cret", &headers, b"hello");
    gateway.get("/nowhere");
    crate::harness::raw(&gateway.address(), b"HEAD /x HTTP/1.0\r\nHost: t\r\n\r\n", std::time::Duration::from_secs(5));
    crate::harness::raw(&gateway.address(), b"GARBAGE\r\n\r\n", std::time::Duration::from_secs(5));
    let all = wait_for(&path, 4);
    let first = all.iter().find(|l| l["method"] == "POST").unwrap();
    for (key, value) in [
        ("method", "POST".into()),
        ("path", "/x".into()),
        ("query", "a=1&pin=***&token=***".into()),
        ("status", 200.into()),
        ("route", "all".into()),
        ("listener", "public".into()),
        ("host", "gateway.test".into()),
        ("client", "127.0.0.1".into()),
        ("upstream", "back".into()),
        ("attempts", 1.into()),
        ("request_bytes", 5.into()),
        ("protocol", "HTTP/1.1".into()),
    ] as [(&str, Value); 12]
    {
        assert_eq!(first[key], value, "{key}: {first}");
    }
    assert_eq!(first["headers"], serde_json::json!({"user-agent": "te\"st", "x-tenant": "acme", "x-pin": "***"}));
    assert!(first["duration_ms"].as_f64().unwrap() >= first["upstream_ms"].as_f64().unwrap(), "{first}");
    let of = |status: u64| all.iter().find(|l| l["status"] == status).unwrap_or_else(|| panic!("{status}: {all:?}"));
    assert_eq!((&of(404)["code"], &of(404)["route"]), (&"no_route".into(), &"-".into()));
    assert_eq!((&of(400)["code"], &of(400)["protocol"]), (&"bad_request_line".into(), &"-".into()));
    let old = all.iter().find(|l| l["method"] == "HEAD").unwrap();
    assert_eq!((&old["protocol"], &old["status"]), (&"HTTP/1.0".into(), &200.into()));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("s3cret") && !text.contains("1234"), "{text}");
}

#[test]
fn a_reload_opens_the_file_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let upstream = Upstream::echo();
    let mut gateway = Gateway::start(&config(&path, &upstream));
    gateway.get("/x");
    wait_for(&path, 1);
    std::fs::rename(&path, &rotated).unwrap();
    assert_eq!(gateway.reload(&config(&path, &upstream)).status, 200);
    eventually("the new file is there", || path.exists().then_some(()));
    gateway.get("/x");
    wait_for(&path, 1);
    assert_eq!(lines(&rotated).len(), 1);
}

#[test]
fn lines_are_written_before_the_process_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let upstream = Upstream::echo();
    let mut gateway = Gateway::start(&config(&path, &upstream));
    for _ in 0..20 {
        gateway.get("/x");
    }
    gateway.signal("TERM");
    gateway.wait();
    assert_eq!(lines(&path).len(), 20);
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_with_its_place() {
    let mut gateway = Gateway::start(
        "routes: [{ name: a, match: { path: / }, auth: none, plugins: [{ respond: { status: 200 } }] }]\n",
    );
    let refused = gateway.reload("telemetry: { access_log: { to: \"file:/nonexistent/folder/log\" } }\nroutes: [{ name: a, match: { path: / }, auth: none, plugins: [{ respond: { status: 200 } }] }]\n");
    refused.assert_problem(422, "config_invalid");
    assert!(refused.json()["errors"][0]["message"].as_str().unwrap().contains("cannot be opened"));
}
