//! How the gateway itself signs in at an upstream.

mod fixed;
mod real;
mod tokens;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::harness::{Answer, Gateway, Received, Upstream, eventually, pass};

/// The two ways: the same route, with and without a plugin that wants the whole response body.
const WAYS: [(&str, &str); 2] =
    [("stream", ""), ("exchange", "{ respond: { instead_of: [418], status: 200, body: replaced } }")];

/// A gateway in front of this upstream, where it signs in like this. `/other` needs no upstream.
fn config(upstream: &str, settings: &str, auth: &str, plugins: &str) -> String {
    format!(
        "telemetry: {{ access_log: {{ to: stdout }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{upstream}\" }}], {settings} auth: {{ {auth} }} }} }}
routes:
  - {{ name: other, match: {{ path: /other }}, auth: none, plugins: [{{ respond: {{ status: 200, body: other }} }}] }}
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back, websocket: {{}}, plugins: [{plugins}] }}\n"
    )
}

const SECRET: &str = "s3cret-of-the-gateway";

/// Gives the tokens `token-1`, `token-2` and so on, as long as it is up.
struct Provider {
    server: Upstream,
    issued: Arc<AtomicUsize>,
    up: Arc<AtomicBool>,
}

impl Provider {
    /// `more` are further members of its answers, such as `"expires_in":60`.
    fn start(more: &str) -> Self {
        let (issued, up) = (Arc::<AtomicUsize>::default(), Arc::new(AtomicBool::new(true)));
        let (counted, answers, more) = (Arc::clone(&issued), Arc::clone(&up), more.to_owned());
        let server = Upstream::start(move |_| {
            if !answers.load(Ordering::SeqCst) {
                return Answer::new(503, &[], b"down");
            }
            let number = counted.fetch_add(1, Ordering::SeqCst) + 1;
            Answer::json(&format!("{{\"access_token\":\"token-{number}\",\"token_type\":\"Bearer\"{more}}}"))
        });
        Self { server, issued, up }
    }

    fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
    }

    fn issued(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }

    fn asked(&self) -> usize {
        self.server.received().len()
    }

    /// The settings that ask it.
    fn auth(&self, more: &str) -> String {
        oauth2(&format!("http://{}/token", self.server.address()), "gw", SECRET, more)
    }
}

fn oauth2(url: &str, id: &str, secret: &str, more: &str) -> String {
    format!("oauth2_client_credentials: {{ token_url: \"{url}\", client_id: {id}, client_secret: {secret}, {more} }}")
}

/// An upstream that takes tokens from a number on, and the number.
fn choosy() -> (Upstream, Arc<AtomicUsize>) {
    let least = Arc::new(AtomicUsize::new(0));
    let taken = Arc::clone(&least);
    let upstream = Upstream::start(move |request| match number(request) {
        Some(number) if number >= taken.load(Ordering::SeqCst) => Answer::ok("taken"),
        _ => Answer::new(401, &[("WWW-Authenticate", "Bearer error=\"invalid_token\"")], b"refused"),
    });
    (upstream, least)
}

/// The number of the token that a request shows.
fn number(request: &Received) -> Option<usize> {
    request.header("authorization")?.strip_prefix("Bearer token-")?.parse().ok()
}

/// Waits until the token in hand, with a `cool_down` of 1 s, can be replaced because the upstream refuses it.
fn cool_down(gateway: &Gateway) {
    let seconds = || gateway.status()["upstreams"][0]["auth"]["token_seconds"].as_u64();
    eventually("there is a token", || seconds().map(drop));
    rest();
}

/// Longer than a `cool_down` of 1 s.
fn rest() {
    pass(std::time::Duration::from_millis(1300));
}

fn counted(gateway: &Gateway, event: &str) -> f64 {
    gateway.metric(&format!("crossway_upstream_auth_total{{event=\"{event}\",upstream=\"back\"}}"))
}
