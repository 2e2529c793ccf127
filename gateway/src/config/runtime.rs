//! The process itself. Fixed at start: a reload that changes `threads` is refused.

use crossway_plugin_api::config::HumanDuration;
use schemars::JsonSchema;
use serde::Deserialize;

/// The process itself.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// Worker threads; 0 for one per core. Fixed at start.
    #[schemars(range(max = 1024))]
    pub threads: u32,
    /// How the process ends on SIGTERM.
    pub drain: Drain,
}

/// How the process ends on SIGTERM.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// How long `/readyz` says no before new connections are refused, so that load balancers can look away.
    pub readiness_delay: HumanDuration,
    /// How long requests in flight may take to finish after that.
    pub deadline: HumanDuration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { readiness_delay: HumanDuration::from_secs(5), deadline: HumanDuration::from_secs(30) }
    }
}
