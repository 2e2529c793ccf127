//! What clients are told of faults.

use schemars::JsonSchema;
use serde::Deserialize;

/// `Proxy-Status` (RFC 9209) on the answers that the gateway makes to faults: its name, and the kind of the fault.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyStatus {
    /// Whether it is sent.
    pub enabled: bool,
    /// The gateway's name in it: a token of structured fields (RFC 9651, section 3.3.4), at most 64 characters.
    #[schemars(regex(pattern = "^[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]{0,63}$"))]
    pub name: String,
}

impl Default for ProxyStatus {
    fn default() -> Self {
        Self { enabled: true, name: "crossway".into() }
    }
}
