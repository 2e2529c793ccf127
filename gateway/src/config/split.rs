//! A route whose requests go to several upstreams.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{balance::On, route::When};

/// Several upstreams in place of one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// A value of the request that keeps its caller with one upstream, as long as the shares are the same. A request without
    /// it, or each one where this key is missing, is sent by chance.
    pub on: Option<On>,
    /// The upstreams, from 2 to 32.
    #[schemars(length(min = 2, max = 32))]
    pub to: Vec<SplitTarget>,
}

/// One of the upstreams.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitTarget {
    /// The upstream, by name.
    pub upstream: String,
    /// Its share of the requests that no target with `when` alone takes, relative to the other targets. Default 1, or none
    /// with `when`. With both, it has a share in the requests for which the condition holds.
    #[schemars(range(max = 65_535))]
    pub weight: Option<u16>,
    /// The requests that it takes. Without a `weight` it takes all of them; the first such target counts.
    pub when: Option<When>,
}
