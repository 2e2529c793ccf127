//! The configuration as users write it. The only place that reads files or the environment.

pub mod admin;
pub mod balance;
pub mod bulkhead;
mod check;
pub mod compression;
pub mod consumer;
mod document;
pub mod entry;
pub mod error;
mod excerpt;
mod explain;
pub mod fallback;
mod files;
pub mod health;
pub mod limits;
pub mod listener;
mod load;
pub mod memory;
mod merge;
mod node;
pub mod proxy_status;
mod read;
mod reference;
mod references;
mod render;
pub mod retry;
pub mod route;
pub mod runtime;
mod scalar;
mod schema;
mod sources;
pub mod split;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod upstream_auth;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub use entry::PluginEntry;
pub use load::{Loaded, admin_of, load, load_text};
pub use reference::reference;
pub use schema::schema;
pub use sources::Sources;

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
    /// Compression of responses; without it none is compressed.
    pub compression: Option<compression::Compression>,
    /// The process itself.
    pub runtime: runtime::Runtime,
    /// What the gateway says about itself.
    pub telemetry: telemetry::Telemetry,
    /// Where state is kept that outlives the process or is shared. Fixed at start.
    pub stores: store::Stores,
    /// API keys that are issued at run time. Without this section they are where `stores.local` is. Fixed at start.
    pub keys: Option<store::Keys>,
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

/// A name of the user's in backticks; cut where it is long.
fn quoted(name: &str) -> String {
    format!("`{}`", shown(name))
}

/// A text of the user's on one line; cut where it is long.
fn shown(name: &str) -> String {
    const LONGEST: usize = 80;
    let mut text: String =
        name.chars().take(LONGEST).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if name.chars().nth(LONGEST).is_some() {
        text.push_str("...");
    }
    text
}
