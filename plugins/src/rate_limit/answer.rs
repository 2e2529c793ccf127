//! What clients are told: how they stand, and why they are refused.

use std::fmt::Write as _;

use crossway_plugin_api::{Fault, Reply};
use http::{HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER};
use pingora_http::ResponseHeader;

use super::{config::Style, limit::Moment, local::Ask, policy::Policy};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STANDING: HeaderName = HeaderName::from_static("ratelimit");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const SECOND: u64 = 1_000_000_000;

/// Which fields are sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields {
    ietf: bool,
    legacy: bool,
}

impl Fields {
    pub(super) fn new(styles: &[Style]) -> Self {
        Self { ietf: styles.contains(&Style::Ietf), legacy: styles.contains(&Style::Legacy) }
    }

    pub(super) fn is_any(self) -> bool {
        self.ietf || self.legacy
    }

    /// Writes how the caller stands with these policies. `tightest` is the ask with the least left, of all plugins of this
    /// kind that the request has met.
    pub(super) fn write(
        self,
        res: &mut ResponseHeader,
        (policies, asks): (&[Policy], &[Ask]),
        tightest: Option<&Ask>,
        now: Moment,
    ) -> Result<(), Fault> {
        if self.ietf {
            let (mut limits, mut standings) = (String::with_capacity(64), String::with_capacity(64));
            for ask in asks.iter().filter(|ask| !ask.shadow) {
                let separator = if limits.is_empty() { "" } else { ", " };
                let name = policies.get(ask.policy).map_or("", |policy| policy.name.as_str());
                // Writing to a text cannot fail.
                let _ = write!(limits, "{separator}\"{name}\";q={};w={}", ask.limit.quota(), ask.limit.period(now));
                let _ = write!(standings, "{separator}\"{name}\";r={};t={}", ask.standing.remaining, reset(ask));
            }
            if !limits.is_empty() {
                append(res, POLICY, &limits)?;
                append(res, STANDING, &standings)?;
            }
        }
        if let Some(ask) = tightest.filter(|_| self.legacy) {
            insert(res, LIMIT, ask.limit.quota().into())?;
            insert(res, REMAINING, ask.standing.remaining.into())?;
            insert(res, RESET, reset(ask))?;
        }
        Ok(())
    }
}

/// Seconds until it is worth asking again, for who was refused; for others, until everything can be used again.
fn reset(ask: &Ask) -> u64 {
    ask.wait.map_or(ask.standing.reset, seconds)
}

/// Whole seconds that are not too short.
fn seconds(wait: u64) -> u64 {
    wait.div_ceil(SECOND).max(1)
}

fn append(res: &mut ResponseHeader, name: HeaderName, text: &str) -> Result<(), Fault> {
    let value = HeaderValue::from_str(text).map_err(|_| defect())?;
    res.append_header(name, value).map(drop).map_err(|_| defect())
}

fn insert(res: &mut ResponseHeader, name: HeaderName, number: u64) -> Result<(), Fault> {
    res.insert_header(name, HeaderValue::from(number)).map_err(|_| defect())
}

fn defect() -> Fault {
    Fault::Internal("a limit that no header field can carry".into())
}

/// 429, with the names of the policies that have refused, and the longest time to wait.
pub(super) fn refusal(policies: &[Policy], asks: &[Ask]) -> (Reply, String) {
    let refused = || asks.iter().filter(|ask| ask.wait.is_some() && !ask.shadow);
    let names: Vec<&str> = refused().filter_map(|ask| policies.get(ask.policy)).map(|p| p.name.as_str()).collect();
    let wait = seconds(refused().filter_map(|ask| ask.wait).max().unwrap_or_default());
    let unit = if wait == 1 { "second" } else { "seconds" };
    let (noun, listed) = (if names.len() == 1 { "policy" } else { "policies" }, names.join(", "));
    let detail = format!("The limit of the {noun} {listed} is reached. Try again in {wait} {unit}.");
    let reply = Reply::problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
        .member("violated-policies", names.into())
        .header(RETRY_AFTER, HeaderValue::from(wait));
    (reply, format!("limited by {listed}"))
}

/// 403 for a request that lacks a part of the key.
pub(super) fn missing_key() -> Reply {
    let detail = "The request lacks something that its limit is counted by.";
    Reply::problem(StatusCode::FORBIDDEN, "rate_limit_key_missing", detail)
}

/// 503 where limits cannot be asked for, and nothing may pass without.
pub(super) fn unknown() -> Reply {
    let detail = "The limits of this service cannot be checked at the moment. Try again later.";
    Reply::problem(StatusCode::SERVICE_UNAVAILABLE, "rate_limit_unavailable", detail)
        .header(RETRY_AFTER, HeaderValue::from_static("1"))
}
