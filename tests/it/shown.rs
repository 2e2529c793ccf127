//! What is shown of a fault: `Proxy-Status` to clients, flags to operators.

use serde_json::Value;

use crate::harness::{Answer, Connection, Gateway, Upstream, closed_address, eventually};

fn upstream() -> Upstream {
    let count = std::sync::atomic::AtomicUsize::new(0);
    Upstream::start(move |request| match request.target.as_str() {
        "/silent" => Answer::silence(),
        "/reset" => Answer::raw(""),
        "/nonsense" => Answer::raw("HTTP/9 nonsense\r\n\r\n"),
        "/cut" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
        "/500" => Answer::new(500, &[("Proxy-Status", "origin.example; error=proxy_internal_error")], b"mine"),
        "/again" if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => Answer::raw(""),
        _ => Answer::ok("fine"),
    })
}

fn start(telemetry: &str, upstream: &str) -> Gateway {
    Gateway::start(&format!(
        "telemetry: {{ access_log: {{ to: stdout }}, {telemetry} }}
upstreams:
  back: {{ endpoints: [{{ address: \"{upstream}\" }}], timeouts: {{ first_byte: 300ms }}, retry: {{ attempts: 1, on: [reset] }} }}
  slow: {{ endpoints: [{{ address: \"{upstream}\" }}], timeouts: {{ total: 300ms }}, retry: {{ attempts: 0 }} }}
  gone: {{ endpoints: [{{ address: \"{}\" }}], retry: {{ attempts: 1 }} }}
  none: {{ endpoints: [{{ address: \"does-not-exist.invalid:80\" }}] }}
routes:
  - {{ name: gone, match: {{ path: /gone }}, auth: none, upstream: gone }}
  - {{ name: none, match: {{ path: /none }}, auth: none, upstream: none }}
  - {{ name: slow, match: {{ path: /slow }}, auth: none, upstream: slow, rewrite: {{ path: /silent }} }}
  - {{ name: denied, match: {{ path: /denied }}, auth: none, plugins: [{{ ip_allow: {{ allow: [192.0.2.1] }} }}], upstream: back }}
  - {{ name: all, match: {{ path: \"/{{file}}\" }}, auth: none, upstream: back }}\n",
        closed_address()
    ))
}

/// The flags of the only request for a path.
fn flags(gateway: &Gateway, path: &str) -> Vec<String> {
    let lines = || gateway.stdout();
    let line: Value = eventually("the request is logged", || {
        let text = lines();
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|line| line["path"] == path)
    });
    let words = line["flags"].as_array().into_iter().flatten();
    words.map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_fault_is_named_to_clients_and_operators() {
    let upstream = upstream();
    let gateway = start("", upstream.address());
    for (path, status, error, words) in [
        ("/gone", 502, Some("connection_refused"), &["connect_failed", "retried"][..]),
        ("/none", 503, Some("destination_unavailable"), &["no_endpoint"]),
        ("/silent", 504, Some("http_response_timeout"), &["timeout"]),
        ("/slow", 504, Some("http_response_timeout"), &["deadline"]),
        ("/reset", 502, Some("connection_terminated"), &["reset", "retried"]),
        ("/nonsense", 502, Some("http_protocol_error"), &["protocol"]),
        ("/again", 200, None, &["retried"]),
        ("/denied", 403, None, &["refused"]),
        ("/no/route", 404, None, &["no_route"]),
        ("/fine", 200, None, &[]),
    ] {
        let answer = gateway.get(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let expected = error.map(|error| format!("crossway; error={error}"));
        assert_eq!(answer.header("proxy-status"), expected.as_deref(), "{path}");
        assert_eq!(flags(&gateway, path), words, "{path}");
    }
}

#[test]
fn what_the_upstream_says_of_itself_stays() {
    let upstream = upstream();
    let gateway = start("", upstream.address());
    let answer = gateway.get("/500");
    assert_eq!((answer.status, answer.text().as_str()), (500, "mine"));
    assert_eq!(answer.header("proxy-status"), Some("origin.example; error=proxy_internal_error"));
    assert_eq!(flags(&gateway, "/500"), ["upstream_error"]);
}

#[test]
fn an_answer_that_is_cut_short_and_a_client_that_leaves_are_flagged() {
    let upstream = upstream();
    let gateway = start("", upstream.address());
    assert!(!gateway.get("/cut").complete);
    assert_eq!(flags(&gateway, "/cut"), ["cut", "reset"]);
    let mut leaves = Connection::open(&gateway.address());
    leaves.send(b"POST /late HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf");
    drop(leaves);
    assert_eq!(flags(&gateway, "/late"), ["client_gone"]);
}

#[test]
fn the_name_is_the_operators_and_it_can_be_turned_off() {
    let upstream = upstream();
    let mut gateway = start("proxy_status: { name: edge-1.example }", upstream.address());
    assert_eq!(gateway.get("/gone").header("proxy-status"), Some("edge-1.example; error=connection_refused"));
    let config = std::fs::read_to_string(gateway.config()).unwrap();
    let rest = config.split_once("telemetry:").unwrap().1.replace("name: edge-1.example", "enabled: false");
    assert_eq!(gateway.reload(&format!("telemetry:{rest}")).status, 200);
    let answer = gateway.get("/gone");
    assert_eq!((answer.status, answer.header("proxy-status")), (502, None));
}
