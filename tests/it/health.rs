//! Probes, ejections and circuits, as clients and servers see them.

mod circuit;
mod cut;
mod ejected;
mod probed;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, Ordering},
};

use serde_json::Value;

use crate::harness::{Answer, Gateway, Received, Upstream, eventually};

/// What a [`Server`] does with requests.
#[derive(Clone, Copy, PartialEq)]
#[repr(u8)]
enum Mood {
    Well,
    /// 503.
    Sorry,
    /// 500.
    Defective,
    /// Closes the connection without an answer.
    Dead,
    /// Never answers.
    Hung,
    /// Answers when it is released.
    Held,
    /// Answers after 300 ms.
    Slow,
    /// Fine, but for the page that probes ask for.
    Ill,
    /// Closes the connection within its answer.
    Cut,
    /// The same with an answer in chunks.
    CutChunks,
    /// Begins an answer in chunks, and goes on with something else.
    Garbled,
    /// Falls silent within its answer.
    Stuck,
}

/// A server that changes its mood, and can be killed and come back on its address.
struct Server {
    upstream: Option<Upstream>,
    address: String,
    mood: Arc<AtomicU8>,
    /// A request is being held, until `released`.
    held: Arc<AtomicBool>,
    released: Arc<AtomicBool>,
}

const MOODS: [Mood; 12] = [
    Mood::Well,
    Mood::Sorry,
    Mood::Defective,
    Mood::Dead,
    Mood::Hung,
    Mood::Held,
    Mood::Slow,
    Mood::Ill,
    Mood::Cut,
    Mood::CutChunks,
    Mood::Garbled,
    Mood::Stuck,
];

const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf";
const HALF_OF_CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";

impl Server {
    fn start() -> Self {
        let mut server = Self {
            upstream: None,
            address: "127.0.0.1:0".into(),
            mood: Arc::default(),
            held: Arc::default(),
            released: Arc::default(),
        };
        server.come_back();
        server
    }

    fn come_back(&mut self) {
        self.be(Mood::Well);
        let (mood, held, released) = (Arc::clone(&self.mood), Arc::clone(&self.held), Arc::clone(&self.released));
        let answer = move |request: &Received| match MOODS[usize::from(mood.load(Ordering::SeqCst))] {
            Mood::Sorry => Answer::new(503, &[], b""),
            Mood::Ill if request.target == "/healthz" => Answer::new(500, &[], b""),
            Mood::Well | Mood::Ill => Answer::ok("well"),
            Mood::Defective => Answer::new(500, &[], b""),
            Mood::Dead => Answer::raw(""),
            Mood::Hung => Answer::silence(),
            Mood::Cut => Answer::raw(HALF),
            Mood::CutChunks => Answer::raw(HALF_OF_CHUNKS),
            Mood::Garbled => Answer::raw(format!("{HALF_OF_CHUNKS}what is this\r\n")),
            Mood::Stuck => Answer::stuck(HALF_OF_CHUNKS),
            Mood::Held => {
                held.store(true, Ordering::SeqCst);
                eventually("the answer is released", || released.load(Ordering::SeqCst).then_some(()));
                Answer::ok("released")
            }
            Mood::Slow => {
                crate::harness::pass(std::time::Duration::from_millis(300));
                Answer::ok("slow")
            }
        };
        let upstream = Upstream::start_on(&self.address, answer);
        upstream.address().clone_into(&mut self.address);
        self.upstream = Some(upstream);
    }

    fn be(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// Takes no connections any more, and breaks those that are kept.
    fn die(&mut self) {
        self.be(Mood::Dead);
        self.upstream = None;
    }

    /// Requests that were no probes.
    fn served(&self) -> usize {
        let all = self.upstream.as_ref().map(Upstream::received).unwrap_or_default();
        all.iter().filter(|request| request.target != "/healthz").count()
    }

    fn probes(&self) -> usize {
        let all = self.upstream.as_ref().map(Upstream::received).unwrap_or_default();
        all.iter().filter(|request| request.target == "/healthz").count()
    }
}

/// A configuration with these servers and settings.
fn config(servers: &[&str], settings: &str) -> String {
    let list: Vec<_> = servers.iter().map(|server| format!("{{ address: \"{server}\" }}")).collect();
    format!(
        "upstreams: {{ back: {{ endpoints: [{}], {settings} }} }}
routes:
  - {{ name: stream, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}
  - name: exchange
    match: {{ path: \"/held/{{rest...}}\" }}
    auth: none
    plugins: [{{ respond: {{ instead_of: [418], status: 200 }} }}]
    upstream: back
",
        list.join(", ")
    )
}

fn start(servers: &[&Server], settings: &str) -> Gateway {
    Gateway::start(&config(&addresses(servers), settings))
}

fn addresses<'a>(servers: &[&'a Server]) -> Vec<&'a str> {
    servers.iter().map(|server| server.address.as_str()).collect()
}

/// What the page of the status shows of an endpoint.
fn endpoint(gateway: &Gateway, address: &str) -> Value {
    let status = gateway.status();
    let all = status["upstreams"][0]["endpoints"].as_array().unwrap();
    all.iter().find(|endpoint| endpoint["address"] == address).unwrap_or_else(|| panic!("{status}")).clone()
}

fn wait_health(gateway: &Gateway, server: &Server, state: &str) -> Value {
    eventually(&format!("{} is {state}", server.address), || {
        let shown = endpoint(gateway, &server.address);
        (shown["health"]["state"] == state).then_some(shown)
    })
}

fn is_ejected(gateway: &Gateway, server: &Server) -> bool {
    endpoint(gateway, &server.address)["ejected"].is_object()
}

fn circuit(gateway: &Gateway) -> Value {
    gateway.status()["upstreams"][0]["circuit"].clone()
}

fn event(gateway: &Gateway, name: &str) -> f64 {
    gateway.metric(&format!("crossway_endpoint_events_total{{event=\"{name}\",upstream=\"back\"}}"))
}
