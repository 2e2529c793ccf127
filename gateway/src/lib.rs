//! Crossway, an API gateway on Pingora. `ARCHITECTURE.md` has the map of this crate.

pub mod admin;
pub mod certificate;
pub mod chain;
pub mod cli;
pub mod coding;
pub mod config;
pub mod drain;
pub mod fetch;
pub mod flow;
pub mod front;
pub mod gateway;
pub mod keys;
pub mod proxy;
pub mod proxy_status;
pub mod reload;
pub mod request;
pub mod respond;
pub mod router;
pub mod server;
pub mod snapshot;
pub mod store;
pub mod telemetry;
pub mod upgrade;
pub mod upstream;
pub mod when;
