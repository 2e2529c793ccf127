//! What the claims of a token must say.

use serde_json::{Map, Value};

use super::token::Reason;

/// The type of JWT access tokens (RFC 9068, section 2.1).
pub(super) const ACCESS_TOKEN: &str = "at+jwt";

/// What an issuer's tokens must say.
#[derive(Debug)]
pub(super) struct Demands {
    /// The token is for one of these; `None`: for anybody.
    pub(super) audiences: Option<Vec<String>>,
    /// Seconds by which clocks may differ.
    pub(super) leeway: u64,
    /// Oldest token in seconds.
    pub(super) max_age: Option<u64>,
    /// The type that the header must name.
    pub(super) typ: Option<String>,
}

/// When a token is good, in seconds since the epoch: from the first to before the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    from: u64,
    until: u64,
}

impl Period {
    pub(super) fn holds(self, now: u64) -> bool {
        (self.from..self.until).contains(&now)
    }
}

impl Demands {
    /// Checks type and claims (RFC 7519, section 4.1; RFC 9068, section 4). Whether the token is good at this time is the
    /// period's to say.
    pub(super) fn check(&self, typ: Option<&str>, claims: &Map<String, Value>) -> Result<Period, Reason> {
        match (self.typ.as_deref(), typ) {
            (Some(wanted), typ) if typ != Some(wanted) => return Err("another type of token"),
            // Without a demand, what says of itself that it is something else still is.
            (None, Some(typ)) if !matches!(typ, "jwt" | ACCESS_TOKEN) => return Err("a token of a type of its own"),
            _ => {}
        }
        if claims.get("sub").is_some_and(|sub| !sub.is_string()) {
            return Err("`sub` is no text");
        }
        self.audience(claims)?;
        let issued = date(claims, "iat", f64::floor)?;
        if self.typ.as_deref() == Some(ACCESS_TOKEN) {
            let there = |name: &str| claims.get(name).is_some_and(Value::is_string);
            if issued.is_none() || !["sub", "client_id", "jti"].iter().all(|name| there(name)) {
                return Err("a claim that access tokens must have is not there");
            }
        }
        self.period(claims, issued)
    }

    fn audience(&self, claims: &Map<String, Value>) -> Result<(), Reason> {
        let named: Vec<&str> = match claims.get("aud") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => {
                list.iter().map(Value::as_str).collect::<Option<_>>().ok_or("`aud` names something that is no text")?
            }
            Some(_) => return Err("`aud` is neither a text nor a list"),
        };
        match &self.audiences {
            Some(ours) if !named.iter().any(|name| ours.iter().any(|our| our == name)) => Err("for another audience"),
            _ => Ok(()),
        }
    }

    fn period(&self, claims: &Map<String, Value>, issued: Option<u64>) -> Result<Period, Reason> {
        let expires = date(claims, "exp", f64::floor)?.ok_or("no `exp`")?;
        let not_before = date(claims, "nbf", f64::ceil)?.unwrap_or_default();
        let mut period =
            Period { from: not_before.saturating_sub(self.leeway), until: expires.saturating_add(self.leeway) };
        if let Some(max_age) = self.max_age {
            let issued = issued.ok_or("no `iat`, so that its age is not known")?;
            period.from = period.from.max(issued.saturating_sub(self.leeway));
            period.until = period.until.min(issued.saturating_add(max_age).saturating_add(self.leeway));
        }
        Ok(period)
    }
}

/// A number of seconds since the epoch (RFC 7519, section 2, `NumericDate`); a part of a second is rounded.
fn date(claims: &Map<String, Value>, name: &str, round: fn(f64) -> f64) -> Result<Option<u64>, Reason> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(whole) = value.as_u64() {
        return Ok(Some(whole));
    }
    // Beyond this, a number of seconds says nothing of a day.
    let sound = value.as_f64().filter(|seconds| (0.0..1e15).contains(seconds));
    let rounded = sound.ok_or("a date is no number of seconds")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 and 1e15, and whole")]
    Ok(Some(round(rounded) as u64))
}
