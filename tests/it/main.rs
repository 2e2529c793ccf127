//! Integration tests: the real binary, real sockets, free ports, readiness by polling.
#![allow(unreachable_pub, missing_docs, reason = "a test binary has no users; its names say what they are")]

mod harness;

mod access_log;
mod admin;
mod bodies;
mod check;
mod cli;
mod demo;
mod drain;
mod faults;
mod framing;
mod plugins;
mod reload;
mod routing;
mod tidy;
mod ways;
