//! The demo's lines work as printed.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::harness::{BINARY, exchange};

struct Demo {
    child: Child,
    text: String,
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(BINARY)
            .args(["demo", "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut text = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            text.push_str(&line);
            text.push('\n');
            if line.contains("/metrics") {
                break;
            }
        }
        Self { child, text }
    }

    /// Host and port of a part, from the printed list.
    fn address(&self, part: &str) -> String {
        let line = self
            .text
            .lines()
            .find(|l| l.trim_start().starts_with(part))
            .unwrap_or_else(|| panic!("{part}: {}", self.text));
        line.split("http://").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
    }

    fn received(&self, backend: &str) -> Vec<Value> {
        exchange(&self.address(backend), "GET /received", &[], b"").json().as_array().unwrap().clone()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a line as `sh` does; what it prints.
fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_printed_line_gives_the_printed_status() {
    let demo = Demo::start();
    let (mut count, mut token, mut challenges) = (0, String::new(), Vec::new());
    for line in demo.text.lines().map(str::trim) {
        if line.starts_with("TOKEN=") {
            // As it stays in the shell in which the lines are typed.
            token = format!("TOKEN={}", shell(&format!("{line}; echo \"$TOKEN\"")).trim_end());
            assert_eq!(token.split('.').count(), 3, "{token}");
            continue;
        }
        if !line.starts_with("curl ") {
            continue;
        }
        let (command, status) = line.rsplit_once('#').unwrap_or_else(|| panic!("no status: {line}"));
        let answer = shell(&format!("{token}\n{} --silent --show-error --max-time 60", command.trim()));
        assert!(answer.starts_with(&format!("HTTP/1.1 {} ", status.trim())), "{line}\n{answer}");
        let field = |line: &str| line.to_ascii_lowercase().starts_with("www-authenticate:").then(|| line.to_owned());
        challenges.extend(answer.lines().filter_map(field).map(|f| f.split_once(": ").unwrap().1.to_owned()));
        count += 1;
    }
    assert!(count >= 19, "{}", demo.text);
    let expected = [
        "Key realm=\"crossway\"",
        "Bearer realm=\"crossway\"",
        "Bearer realm=\"crossway\", error=\"invalid_token\"",
        "Bearer realm=\"crossway\", error=\"insufficient_scope\"",
    ];
    assert_eq!(challenges, expected);

    let crm = demo.received("CRM backend");
    assert!(crm.iter().any(|r| r["target"] == "/api/v2/clients/42"), "{crm:?}");
    assert!(
        crm.iter().all(|r| r["headers"]["x-request-id"].is_string() && r["headers"]["via"] == "1.1 crossway"),
        "{crm:?}"
    );
    let erp = demo.received("ERP backend");
    let seen: Vec<_> =
        erp.iter().rev().map(|r| (r["method"].as_str().unwrap(), r["target"].as_str().unwrap())).collect();
    let expected =
        [("GET", "/invoices?client=42"), ("POST", "/invoices/clients"), ("GET", "/orders"), ("POST", "/orders")];
    assert_eq!(seen, expected, "a request that is refused reaches nobody");
    for request in &erp {
        let headers = &request["headers"];
        assert_eq!(headers["x-consumer-name"], "acme-mobile", "{request}");
        assert_eq!(headers["x-consumer-groups"], "gold", "{request}");
        let by_token = request["target"] == "/orders";
        assert_eq!(headers["x-client-id"], if by_token { "acme-mobile".into() } else { Value::Null }, "{request}");
        for secret in ["x-api-key", "authorization"] {
            assert_eq!(headers[secret], Value::Null, "it ends at the gateway: {request}");
        }
    }
}

#[test]
fn the_issuer_gives_tokens_to_its_client_only() {
    let demo = Demo::start();
    let issuer = demo.address("issuer");
    let known = exchange(&issuer, "GET /.well-known/openid-configuration", &[], b"").json();
    assert_eq!(
        (&known["issuer"], &known["token_endpoint"]),
        (&json!(format!("http://{issuer}")), &json!(format!("http://{issuer}/token")))
    );
    let key = exchange(&issuer, "GET /jwks", &[], b"").json()["keys"][0].clone();
    assert_eq!((&key["crv"], &key["d"]), (&json!("P-256"), &Value::Null), "the public half");
    let ask = |pair: &str, form: &str| {
        let basic = format!("Basic {}", STANDARD.encode(pair));
        let fields = [("Authorization", basic.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
        exchange(&issuer, "POST /token", &fields, form.as_bytes())
    };
    let good = "acme-mobile:demo-secret-acme-mobile";
    let answer = ask(good, "grant_type=client_credentials");
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    assert_eq!(answer.json()["scope"], "orders.read orders.write");
    assert_eq!(answer.json()["token_type"], "Bearer");
    assert_eq!(ask("acme%2Dmobile:demo-secret-acme-mobile", "grant_type=client_credentials").status, 200);
    for (pair, form, status, error) in [
        ("acme-mobile:wrong", "grant_type=client_credentials", 401, "invalid_client"),
        ("other:demo-secret-acme-mobile", "grant_type=client_credentials", 401, "invalid_client"),
        ("acme-mobile", "grant_type=client_credentials", 401, "invalid_client"),
        (good, "", 400, "invalid_request"),
        (good, "grant_type=client_credentials&grant_type=client_credentials", 400, "invalid_request"),
        (good, "grant_type=password", 400, "unsupported_grant_type"),
        (good, "grant_type=client_credentials&scope=orders.read+admin", 400, "invalid_scope"),
        (good, "grant_type=client_credentials&scope=", 400, "invalid_scope"),
    ] {
        let refused = ask(pair, form);
        assert_eq!((refused.status, &refused.json()["error"]), (status, &json!(error)), "{pair} {form}");
        let challenge = (status == 401).then_some("Basic realm=\"demo\"");
        assert_eq!(refused.header("www-authenticate"), challenge);
    }
    assert_eq!(exchange(&issuer, "POST /token", &[], b"grant_type=client_credentials").status, 401);
    assert_eq!(ask(good, &"x".repeat(100_000)).status, 400, "a long form is not read");
}
