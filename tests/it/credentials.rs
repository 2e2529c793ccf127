//! What callers prove who they are with, from outside: certificates, passwords, signatures, and services that are asked.

mod certificates;
mod hmac;
mod introspection;
mod passwords;
mod services;

use crate::harness::{Gateway, Response, Upstream};

/// A gateway with these consumers and plugins before an upstream.
fn start(upstream: &Upstream, consumers: &str, plugins: &str) -> Gateway {
    Gateway::start(&config(upstream, consumers, plugins))
}

fn config(upstream: &Upstream, consumers: &str, plugins: &str) -> String {
    format!(
        "consumers: [{consumers}]
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, upstream: back, plugins: [{plugins}] }}]\n",
        upstream.address()
    )
}

/// The answer without what differs from request to request.
fn plain(answer: &Response) -> (u16, Vec<(String, String)>, serde_json::Value) {
    let mut body = answer.json();
    body.as_object_mut().unwrap().remove("request_id");
    let fields = answer.headers.iter().filter(|(name, _)| name != "date" && name != "x-request-id");
    (answer.status, fields.cloned().collect(), body)
}
