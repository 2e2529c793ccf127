//! Integration tests: the real binary, real sockets, free ports, readiness by polling.
#![allow(unreachable_pub, missing_docs, reason = "a test binary has no users; its names say what they are")]
#![allow(clippy::unwrap_used, reason = "all of it is test code, which fails by panicking")]
#![allow(clippy::float_cmp, reason = "the metrics that are compared are whole numbers")]
#![allow(clippy::print_stderr, reason = "a test that fails shows the gateway's log")]

mod harness;

mod access_log;
mod admin;
mod audit_log;
mod authorize;
mod balance;
mod bodies;
mod bulkheads;
mod cached;
mod certificates;
mod check;
mod cli;
mod compression;
mod credentials;
mod deadlines;
mod demo;
mod dns;
mod drain;
mod fallback;
mod faults;
mod framing;
mod grpc;
mod health;
mod http2;
mod jwt;
mod keys;
mod limits;
mod plugins;
mod pressure;
mod proxy_protocol;
mod rate_limit;
mod readers;
mod reload;
mod retries;
mod routing;
mod shedding;
mod shown;
mod split;
mod tidy;
mod tls;
mod upgrade;
mod upstream_auth;
mod ways;
mod websocket;
