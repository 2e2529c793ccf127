//! Where state is kept that outlives the process or is shared with others.

use crossway_plugin_api::config::{ByteSize, HumanDuration, Secret};
use schemars::JsonSchema;
use serde::Deserialize;

/// Where state is kept that outlives the process, or that several gateways share. Fixed at start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Stores {
    /// A file on this machine, for one process.
    pub local: Option<Local>,
    /// A Redis or Valkey server, for all gateways that name it.
    pub shared: Option<Shared>,
}

/// A file on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Local {
    /// The file, which is made where there is none, for the gateway's user alone; its folder must be there. Relative to
    /// this configuration file.
    #[schemars(length(min = 1, max = 4096))]
    pub path: String,
    /// Largest size of the file, at least 8MiB. The file doubles as it grows; what would make it larger than this is
    /// refused.
    #[serde(default = "one_gib")]
    pub max_size: ByteSize,
}

fn one_gib() -> ByteSize {
    ByteSize::mib(1024)
}

/// A Redis or Valkey server. Exactly one of `redis` and `cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shared {
    /// URL of a single server: `redis://user:password@host:6379/0`, with TLS `rediss://`.
    pub redis: Option<Secret>,
    /// URLs of some servers of a cluster; the others are found from there.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub cluster: Vec<Secret>,
    /// PEM file with the certificate authorities to trust for `rediss://`, in place of the system's.
    pub ca: Option<String>,
    /// How long one exchange with the server may take.
    #[serde(default = "tenth_of_a_second")]
    pub timeout: HumanDuration,
}

fn tenth_of_a_second() -> HumanDuration {
    HumanDuration::from_millis(100)
}

/// API keys that are issued at run time. Fixed at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Where they are kept: `local` (`stores.local`) or `shared` (`stores.shared`). Default: `local` where there is such a
    /// store, else `shared`.
    pub store: Option<StoreKind>,
    /// Most keys that are kept, those that have ended included.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max: u32,
}

impl Default for Keys {
    fn default() -> Self {
        Self { store: None, max: 1_000_000 }
    }
}

/// One of the stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// `stores.local`.
    Local,
    /// `stores.shared`.
    Shared,
}
