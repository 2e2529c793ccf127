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
    /// Who is asked for the names of endpoints.
    pub dns: Dns,
    /// How the process ends on SIGTERM.
    pub drain: Drain,
    /// Replacing the program without losing a connection. Fixed at start.
    pub upgrade: Option<Upgrade>,
}

/// Who is asked for the names of endpoints.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// Name servers: an address, with a port where it is not 53, such as `10.0.0.2` or `127.0.0.1:5353`; up to 8. Default:
    /// those of the system (`/etc/resolv.conf`). The hosts file counts in any case.
    #[schemars(length(max = 8))]
    pub servers: Vec<String>,
}

/// Replacing the program without losing a connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    /// Absolute path of the Unix socket on which a new process (`crossway run --take-over`) takes over from this one. What
    /// only one process may hold is locked by a file beside it, whose name ends in `.lock`.
    #[schemars(length(min = 2, max = 100))]
    pub socket: String,
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
