//! The settings that users write.

use std::collections::BTreeMap;

use crossway_plugin_api::config::FieldName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::period::Period;
use crate::key::{OnMissingKey, Part};

/// Settings of `rate_limit`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The limits. A request passes if all of them have room, and then uses units of each; where one refuses, none is used.
    #[schemars(length(min = 1, max = 8))]
    pub policies: Vec<Policy>,
    /// Which fields tell clients how they stand: `ietf` is `RateLimit-Policy` and `RateLimit`
    /// (draft-ietf-httpapi-ratelimit-headers-10), `legacy` is `X-RateLimit-Limit`, `X-RateLimit-Remaining` and
    /// `X-RateLimit-Reset` (seconds from now) of the policy with the least left. `Retry-After` is sent with every 429.
    /// Default `[ietf]`.
    #[serde(default = "headers")]
    pub headers: Vec<Style>,
    /// Most keys that are remembered, of all policies together, at about 36 bytes each; 1000 to 50000000. When there are
    /// more, those are forgotten first that are full again, then those that have the least to wait. Default 100000.
    #[serde(default = "max_entries")]
    #[schemars(range(min = 1_000, max = 50_000_000))]
    pub max_entries: u32,
    /// What becomes of a request while the shared store does not answer: `allow_local` counts in this process, so that each
    /// gateway lets through as much as the limit says; `allow` passes it by the policies that count there; `deny` answers
    /// 503, unless all of those are in shadow mode. Policies that count in this process hold in any case. Only with a
    /// policy that has `store: shared`. Default `allow_local`.
    pub on_store_error: Option<OnStoreError>,
}

fn headers() -> Vec<Style> {
    vec![Style::Ietf]
}

fn max_entries() -> u32 {
    100_000
}

/// Which fields tell clients how they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "described where it is used, so that its schema stays a list of words")]
pub enum Style {
    Ietf,
    Legacy,
}

/// One limit.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Its name, to clients too: 1 to 64 letters, digits and `. _ -`. Unique in the list.
    #[schemars(regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub name: String,
    /// What tells callers apart, all of it together: `client` (the address), `consumer`, `group` (the consumer's first),
    /// `route`, `claim:NAME` (a text, number or boolean in its token), `header:NAME`, `param:NAME` (a path parameter).
    #[schemars(length(min = 1, max = 8))]
    pub key: Vec<Part>,
    /// Units in each `per`; at least 1, and at most 1000000 a second.
    #[schemars(range(min = 1))]
    pub limit: u32,
    /// The time that `limit` is for: 1s to 31d, or `month`. A fixed window is a part of a day, such as 15m, 1h or 1d, or a
    /// month of the calendar, and begins with it in UTC.
    pub per: Period,
    /// Units that can be used at once, with `gcra`. Default as many as `limit`.
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
    /// How units come back: with `gcra` evenly, one in each `per / limit`; with `fixed_window` all at once when the next
    /// window of the calendar begins. Default `gcra`.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Units that a request uses. 0 only with `cost_from.response_header`. Default 1.
    #[serde(default = "cost")]
    pub cost: u32,
    /// Where the cost of a single request stands; where it stands nowhere, `cost` counts.
    pub cost_from: Option<CostFrom>,
    /// Other limits for consumers of these groups. Of several, the highest limit holds.
    #[serde(default)]
    pub tiers: BTreeMap<String, Tier>,
    /// `enforce` refuses with 429; `shadow` counts and reports what it would have refused, and refuses nobody. Default
    /// `enforce`.
    #[serde(default)]
    pub mode: Mode,
    /// Where it is kept what was used: `local` is this process, `shared` the server of `stores.shared`, for all gateways
    /// that name it and have this policy in an entry of the same name. Default `local`.
    #[serde(default)]
    pub store: StoreKind,
    /// What becomes of a request that lacks a part of the key: `deny` answers 403, `allow` passes it by this policy,
    /// `anonymous` counts it with all others that lack the same. Default `deny`.
    pub on_missing_key: Option<OnMissingKey>,
    /// Bits of an IPv6 address that count for `client`: 16 to 128. Default 64, what one subscriber has.
    #[schemars(range(min = 16, max = 128))]
    pub ipv6_prefix: Option<u8>,
}

fn cost() -> u32 {
    1
}

/// How units come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "described where it is used, so that its schema stays a list of words")]
pub enum Algorithm {
    #[default]
    Gcra,
    FixedWindow,
}

/// Whether a policy refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "described where it is used, so that its schema stays a list of words")]
pub enum Mode {
    #[default]
    Enforce,
    Shadow,
}

/// Where it is kept what was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "described where it is used, so that its schema stays a list of words")]
pub enum StoreKind {
    #[default]
    Local,
    Shared,
}

/// What becomes of a request while the shared store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "described where it is used, so that its schema stays a list of words")]
pub enum OnStoreError {
    #[default]
    AllowLocal,
    Allow,
    Deny,
}

/// Where the cost of a single request stands. Exactly one of `request_header` and `response_header`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CostFrom {
    /// A field of the request: a whole number from 1 to `max`. Anything else counts as `max`, so that nobody gains by it.
    /// Whoever sends the request sets its cost: for clients that are trusted to, or behind what sets the field.
    pub request_header: Option<FieldName>,
    /// A field of the response: a whole number, all that the request has cost. What it is above `cost` is used afterwards,
    /// and may lead into debt. More than `max`, and what is no number, counts as `max`.
    pub response_header: Option<FieldName>,
    /// Most that a single request can cost.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max: u32,
    /// Most units that a key can owe, with `response_header`. Default as many as `max`.
    #[schemars(range(max = 1_000_000_000))]
    pub max_debt: Option<u32>,
}

/// The limit of a group, for the same time and key.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Units in each `per`.
    #[schemars(range(min = 1))]
    pub limit: u32,
    /// Units that can be used at once. Default as many as `limit`.
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
}
