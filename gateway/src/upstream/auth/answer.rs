//! What a token endpoint is asked, and what its answers mean (RFC 6749, sections 4.4 and 5).

use std::time::Duration;

use crossway_plugin_api::{
    Ask, Told,
    oauth2::{Client, form_encoded},
};
use http::StatusCode;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value};

use super::Proof;
use crate::config::upstream_auth::ClientCredentials;

/// Largest answer, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// Shortest life of a token: the unit of `expires_in`.
const SHORTEST: f64 = 1.0;
/// What a provider may call the cause of a refusal (RFC 6749, section 5.2; RFC 8707, section 2). Anything else is not
/// logged: it could be anything.
const CAUSES: [&str; 8] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
    "temporarily_unavailable",
];

/// How the gateway gets a token.
pub struct Plan {
    /// The upstream that it is for.
    pub(super) upstream: String,
    /// Says which plan this is: another one for each other setting.
    pub(super) identity: String,
    url: String,
    client: Client,
    form: String,
    timeout: Duration,
    max_lifetime: Duration,
    default_lifetime: Duration,
    pub(super) refresh_before: Duration,
    pub(super) cool_down: Duration,
}

impl Plan {
    /// From settings that were checked.
    pub fn new(upstream: &str, config: &ClientCredentials) -> Self {
        let mut form = "grant_type=client_credentials".to_owned();
        let scope = config.scopes.join(" ");
        let audience = config.audience.as_deref().unwrap_or_default();
        for (name, value) in [("scope", scope.as_str()), ("audience", audience)] {
            if !value.is_empty() {
                form = format!("{form}&{name}={}", form_encoded(value));
            }
        }
        // `Debug` tells all settings but the secret.
        let text = format!("{upstream:?} {config:?} {:?}", config.client_secret.expose());
        let identity = digest(&SHA256, text.as_bytes());
        Self {
            upstream: upstream.to_owned(),
            identity: format!("upstream token {identity:?}"),
            url: config.token_url.clone(),
            client: Client::new(&config.client_id, &config.client_secret, config.client_auth),
            form,
            timeout: config.timeout.0,
            max_lifetime: config.max_lifetime.0,
            default_lifetime: config.default_lifetime.0,
            refresh_before: config.refresh_before.0,
            cool_down: config.cool_down.0,
        }
    }

    /// The question.
    pub(super) fn ask(&self) -> Ask {
        Ask { timeout: self.timeout, max_body: MAX_ANSWER, ..self.client.ask(&self.url, &self.form) }
    }

    /// The token of an answer, and how long it may be used from when it was asked for. The error is for the log, and holds
    /// nothing of the answer that could be a secret.
    pub(super) fn judge(&self, told: &Told) -> Result<(Proof, Duration), String> {
        let members = serde_json::from_slice::<Map<String, Value>>(&told.body);
        if told.status != StatusCode::OK {
            let said = members.as_ref().ok().and_then(|members| members.get("error")?.as_str());
            let cause = CAUSES.iter().find(|cause| Some(**cause) == said);
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            return Err(format!("the provider answers with status {}{cause}", told.status.as_u16()));
        }
        let members = members.map_err(|_| "the provider's answer is not a JSON object")?;
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        if !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
            return Err("the provider's token is not a bearer token".into());
        }
        let token = text("access_token").ok_or("there is no token in the provider's answer")?;
        let proof = Proof::bearer(token).ok_or("the provider's token has characters that no token has, or too many")?;
        Ok((proof, self.life(members.get("expires_in"))?))
    }

    /// How long a token lives for which the provider says this (`expires_in`, in seconds).
    fn life(&self, said: Option<&Value>) -> Result<Duration, &'static str> {
        let seconds = match said {
            None | Some(Value::Null) => return Ok(self.default_lifetime.min(self.max_lifetime)),
            Some(Value::Number(number)) => number.as_f64(),
            // Some providers put the number in quotes.
            Some(Value::String(text)) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            Some(_) => None,
        };
        match seconds {
            None => Err("the provider's `expires_in` is not a number"),
            Some(seconds) if seconds >= SHORTEST => {
                let life = Duration::try_from_secs_f64(seconds).unwrap_or(self.max_lifetime);
                Ok(life.min(self.max_lifetime))
            }
            Some(_) => Err("the provider's token is over as soon as it is there"),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use serde_json::json;

    use super::*;

    fn config(more: &Value) -> ClientCredentials {
        let mut all = json!({"token_url": "https://idp.test/token", "client_id": "gw", "client_secret": "s3cret"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn plan(more: &Value) -> Plan {
        Plan::new("erp", &config(more))
    }

    fn told(status: u16, body: impl Into<Bytes>) -> Told {
        Told { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body: body.into() }
    }

    #[test]
    fn the_question_has_what_is_configured() {
        let bare = plan(&json!({})).ask();
        assert_eq!(
            (bare.body.as_ref(), bare.url.as_str()),
            (&b"grant_type=client_credentials"[..], "https://idp.test/token")
        );
        let more = json!({"scopes": ["a:b", "c"], "audience": "https://erp", "client_auth": "post", "timeout": "2s"});
        let full = plan(&more).ask();
        let expected = "grant_type=client_credentials&scope=a%3Ab%20c&audience=https%3A%2F%2Ferp&client_id=gw&client_secret=s3cret";
        assert_eq!((full.body.as_ref(), full.timeout), (expected.as_bytes(), Duration::from_secs(2)));
    }

    #[test]
    fn another_setting_is_another_plan_and_no_plan_shows_its_secret() {
        let same = plan(&json!({})).identity;
        assert_eq!(plan(&json!({})).identity, same);
        assert_ne!(Plan::new("crm", &config(&json!({}))).identity, same);
        for more in [
            json!({"client_secret": "other"}),
            json!({"client_id": "other"}),
            json!({"token_url": "https://idp.test/other"}),
            json!({"client_auth": "post"}),
            json!({"scopes": ["a"]}),
            json!({"audience": "a"}),
            json!({"max_lifetime": "2s"}),
            json!({"cool_down": "2s"}),
        ] {
            assert_ne!(plan(&more).identity, same, "{more}");
        }
        assert!(!same.contains("s3cret"));
    }

    #[test]
    fn the_life_of_a_token_is_what_is_said_within_bounds() {
        let plan = plan(&json!({"max_lifetime": "1h", "default_lifetime": "2m"}));
        for (said, seconds) in [
            (json!(600), Some(600)),
            (json!(1), Some(1)),
            (json!("600"), Some(600)),
            (json!(null), Some(120)),
            (json!(3601), Some(3600)),
            (json!(u64::MAX), Some(3600)),
            (json!(1e300), Some(3600)),
            (json!("9".repeat(400)), Some(3600)),
            (json!(0), None),
            (json!(0.5), None),
            (json!(-600), None),
            (json!(""), None),
            (json!("-1"), None),
            (json!("soon"), None),
            (json!("NaN"), None),
            (json!(true), None),
            (json!([600]), None),
        ] {
            assert_eq!(plan.life(Some(&said)).ok(), seconds.map(Duration::from_secs), "{said}");
        }
        assert_eq!(plan.life(None), Ok(Duration::from_mins(2)));
    }

    #[test]
    fn only_a_bearer_token_in_a_whole_answer_is_taken() {
        let plan = plan(&json!({}));
        let good = json!({"access_token": "abc.def", "token_type": "bEARER", "expires_in": 60});
        let (proof, life) = plan.judge(&told(200, good.to_string())).unwrap();
        assert!(proof == Proof::bearer("abc.def").unwrap() && life == Duration::from_mins(1));
        for (name, value) in [
            ("access_token", json!(null)),
            ("access_token", json!("")),
            ("access_token", json!("a b")),
            ("access_token", json!("a\r\nX-Evil: 1")),
            ("access_token", json!(7)),
            ("token_type", json!(null)),
            ("token_type", json!("DPoP")),
            ("token_type", json!("mac")),
        ] {
            let mut bad = good.clone();
            bad[name] = value.clone();
            let why = plan.judge(&told(200, bad.to_string())).err().unwrap();
            assert!(!why.contains("abc") && !why.contains("Evil"), "{name} {value}: {why}");
        }
        for (status, body, why) in [
            (200, "[]", "the provider's answer is not a JSON object"),
            (200, "", "the provider's answer is not a JSON object"),
            (302, "", "the provider answers with status 302"),
            (401, r#"{"error":"invalid_client"}"#, "the provider answers with status 401: invalid_client"),
            (400, r#"{"error":"s3cret"}"#, "the provider answers with status 400"),
            (500, "s3cret", "the provider answers with status 500"),
        ] {
            assert_eq!(plan.judge(&told(status, body)).err().as_deref(), Some(why));
        }
    }
}
