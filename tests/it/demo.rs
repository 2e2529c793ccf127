//! The demo's lines work as printed.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

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

#[test]
fn every_printed_line_gives_the_printed_status() {
    let demo = Demo::start();
    let mut count = 0;
    for line in demo.text.lines().filter(|l| l.trim_start().starts_with("curl ")) {
        let (command, status) = line.rsplit_once('#').unwrap_or_else(|| panic!("no status: {line}"));
        let output = Command::new("sh")
            .args(["-c", &format!("{} --silent --show-error --max-time 20", command.trim())])
            .output()
            .unwrap();
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(answer.starts_with(&format!("HTTP/1.1 {} ", status.trim())), "{line}\n{answer}");
        count += 1;
    }
    assert!(count >= 12, "{}", demo.text);

    let crm = demo.received("CRM backend");
    assert!(crm.iter().any(|r| r["target"] == "/api/v2/clients/42"), "{crm:?}");
    assert!(
        crm.iter().all(|r| r["headers"]["x-request-id"].is_string() && r["headers"]["via"] == "1.1 crossway"),
        "{crm:?}"
    );
    let erp = demo.received("ERP backend");
    assert_eq!(erp.len(), 2, "a request without a key reaches nobody: {erp:?}");
    for request in &erp {
        assert_eq!(request["headers"]["x-consumer-name"], "acme-mobile", "{request}");
        assert_eq!(request["headers"]["x-consumer-groups"], "gold", "{request}");
        assert_eq!(request["headers"]["x-api-key"], Value::Null, "the key ends at the gateway: {request}");
    }
}
