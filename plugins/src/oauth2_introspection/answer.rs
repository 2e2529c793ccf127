//! What the issuer is asked, and what its answers mean (RFC 7662, section 2).

use std::{sync::Arc, time::Duration};

use crossway_plugin_api::{Ask, Claims, Consumer, Credential, Told, oauth2::form_encoded};
use http::StatusCode;
use serde_json::Value;

use super::{Introspector, Scopes};

/// Largest answer, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// What it takes to remember that a token is not good, in bytes: about 410 were measured.
pub(super) const BARE: u32 = 512;

/// What the issuer has said of a token.
#[derive(Clone)]
pub(super) struct Verdict {
    /// Who calls; or why the token is not good, for the log.
    pub(super) caller: Result<Arc<Caller>, &'static str>,
    /// When the issuer is asked again, after the epoch.
    pub(super) until: Duration,
    /// Bytes that this takes, about.
    pub(super) weight: u32,
}

/// Who calls with a good token.
pub(super) struct Caller {
    pub(super) claims: Arc<Claims>,
    pub(super) consumer: Option<Arc<Consumer>>,
    pub(super) has_scopes: bool,
}

impl Scopes {
    fn are_in(&self, claims: &Claims) -> bool {
        let has = |scope: &String| claims.scopes().any(|found| found == scope);
        self.all.iter().all(has) && (self.any.is_empty() || self.any.iter().any(has))
    }
}

impl Introspector {
    /// The question about a token.
    pub(super) fn question(&self, token: &str) -> Ask {
        let form = format!("token={}&token_type_hint=access_token", form_encoded(token));
        let ask = self.client.ask(&self.config.url, &form);
        Ask { timeout: self.config.timeout.0, max_body: MAX_ANSWER, ..ask }
    }

    /// What an answer means. Errors: it is none; a token is never good for want of an answer.
    pub(super) fn judge(&self, told: &Told) -> Result<Verdict, &'static str> {
        if told.status != StatusCode::OK {
            return Err("the issuer's answer has a status other than 200");
        }
        let Ok(Value::Object(members)) = serde_json::from_slice(&told.body) else {
            return Err("the issuer's answer is not a JSON object");
        };
        let now = self.clock.since_epoch();
        let claims = Claims::new(members);
        let caller = match claims.members().get("active") {
            Some(Value::Bool(true)) => self.caller(claims, now),
            Some(Value::Bool(false)) => Err("the issuer says that the token is not active"),
            _ => return Err("the issuer's answer does not say `active`"),
        };
        let cache = &self.config.cache;
        let until = match &caller {
            // Never past its end.
            Ok(caller) => {
                (now + cache.ttl.0).min(moment(&caller.claims, "exp").ok().flatten().unwrap_or(Duration::MAX))
            }
            Err(_) => now + cache.negative_ttl.0,
        };
        // Values in memory take a few times what their text does.
        let claims = if caller.is_ok() { 4 * told.body.len() } else { 0 };
        let weight = BARE.saturating_add(u32::try_from(claims).unwrap_or(u32::MAX));
        Ok(Verdict { caller: caller.map(Arc::new), until, weight })
    }

    /// Who calls with a token that the issuer calls active, if all else about it fits.
    fn caller(&self, claims: Claims, now: Duration) -> Result<Caller, &'static str> {
        if moment(&claims, "exp")?.is_some_and(|end| end <= now) {
            return Err("the token has expired");
        }
        if moment(&claims, "nbf")?.is_some_and(|start| start > now) {
            return Err("the token is not valid yet");
        }
        let config = &self.config;
        let issuer = match (claims.members().get("iss"), &config.issuer) {
            (None, expected) => expected.as_deref(),
            (Some(Value::String(issuer)), None) => Some(issuer.as_str()),
            (Some(Value::String(issuer)), Some(expected)) if issuer == expected => Some(issuer.as_str()),
            _ => return Err("the token is of another issuer"),
        };
        if !config.audiences.is_empty() && !is_for(claims.members().get("aud"), &config.audiences) {
            return Err("the token is for another audience");
        }
        // A token that is bound to a key is not good in anybody's hands (RFC 6749, section 7.1; RFC 9449; RFC 8705).
        let kind = claims.members().get("token_type");
        let is_bearer = kind.is_none_or(|kind| kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")));
        if !is_bearer || claims.members().contains_key("cnf") {
            return Err("the token is not a bearer token");
        }
        let subject = claims.text(&config.consumer_claim);
        let consumer = issuer.zip(subject).and_then(|(issuer, subject)| {
            let credential = Credential::Token { issuer: issuer.to_owned(), subject: subject.to_owned() };
            self.consumers.holder(&credential).cloned()
        });
        if consumer.is_none() && config.require_consumer {
            return Err("the token belongs to no consumer");
        }
        let has_scopes = config.require.scopes.are_in(&claims);
        Ok(Caller { claims: Arc::new(claims), consumer, has_scopes })
    }
}

/// A moment after the epoch (`NumericDate`, RFC 7519, section 2). Errors: something else stands there.
fn moment(claims: &Claims, name: &str) -> Result<Option<Duration>, &'static str> {
    match claims.members().get(name) {
        None => Ok(None),
        Some(value) => {
            let seconds = value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            seconds.map(Some).ok_or("a time of the token cannot be read")
        }
    }
}

/// Whether `aud`, a text or a list of texts, names one of these.
fn is_for(aud: Option<&Value>, audiences: &[String]) -> bool {
    let named = |value: &Value| value.as_str().is_some_and(|name| audiences.iter().any(|audience| audience == name));
    match aud {
        Some(Value::Array(all)) => all.iter().any(named),
        Some(one) => named(one),
        None => false,
    }
}
