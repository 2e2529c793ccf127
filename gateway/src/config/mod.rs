//! The configuration as users write it. The only place that reads files or the environment.

pub mod admin;
pub mod consumer;
pub mod entry;
pub mod limits;
pub mod listener;
pub mod route;
pub mod runtime;
pub mod telemetry;
pub mod upstream;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub use entry::PluginEntry;

/// The whole configuration.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Addresses that clients connect to.
    pub listeners: Vec<listener::Listener>,
    /// The listener for operators; without it there is none.
    pub admin: Option<admin::Admin>,
    /// Bounds on what clients may send.
    pub limits: limits::Limits,
    /// The process itself.
    pub runtime: runtime::Runtime,
    /// What the gateway says about itself.
    pub telemetry: telemetry::Telemetry,
    /// Named callers.
    pub consumers: Vec<consumer::Consumer>,
    /// Named pools of endpoints.
    pub upstreams: BTreeMap<String, upstream::Upstream>,
    /// Plugins that run first, on every route.
    pub plugins: Vec<PluginEntry>,
    /// Named lists of plugins that routes share.
    pub chains: BTreeMap<String, Vec<PluginEntry>>,
    /// What is served, and how.
    pub routes: Vec<route::Route>,
}
