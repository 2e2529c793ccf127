//! Lets a request in by a token that its issuer vouches for when asked (RFC 7662).
//!
//! What the issuer says is remembered for a while, and never past the token's end; those who come with the same token at
//! the same time wait for one answer. Without an answer nobody passes.

mod answer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use crossway_plugin_api::{
    Clock, ConsumerDirectory, Ctx, Decision, Deps, Fault, Fetch, InvalidConfig, Needs, Plugin, PluginConfig, Reply,
    config::{HumanDuration, Secret},
    oauth2::{Client, ClientAuth},
};
use http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use moka::future::Cache;
use pingora_http::RequestHeader;
use ring::digest::{SHA256, digest};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::Semaphore;

use self::answer::{Caller, Verdict};
use crate::bearer;
use crate::credentials::Presented;
use crate::service;

/// Longest token that the issuer is asked about, in bytes.
const MAX_TOKEN: usize = 8 << 10;
/// Bytes that remembered answers may take, about.
const REMEMBERED: u64 = 32 << 20;
/// Most questions at a time: a flood of tokens that nobody has issued must not become one of questions.
const QUESTIONS: usize = 64;

/// Settings of `oauth2_introspection`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The introspection endpoint: an absolute URL.
    pub url: String,
    /// The client that the gateway is to the issuer.
    #[schemars(length(min = 1))]
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// How the gateway shows its secret (RFC 6749, section 2.3.1): `basic`, or `post` in the body. Default `basic`.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Time for the whole answer. Default 3s.
    #[serde(default = "three_seconds")]
    pub timeout: HumanDuration,
    /// Who issues the tokens. An answer with another `iss` is refused; one without `iss` is taken as this issuer's. Default:
    /// any.
    pub issuer: Option<String>,
    /// Audiences, one of which a token must be for (`aud`). Default: `aud` does not matter.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// What a token must allow; otherwise 403.
    #[serde(default)]
    pub require: Require,
    /// The claim that consumers are found by, beside the issuer: the `subject` of their `token`. A name, or a path through
    /// objects such as `account.id`. Default `sub`.
    #[serde(default = "sub")]
    pub consumer_claim: String,
    /// Refuse a token that belongs to no consumer. Default false.
    #[serde(default)]
    pub require_consumer: bool,
    /// Keep the token from later plugins and the upstream. Default true.
    #[serde(default = "yes")]
    pub hide: bool,
    /// Answers that are remembered: by a digest of the whole token, up to the next reload.
    #[serde(default)]
    pub cache: Remembering,
}

/// What a token must allow.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Require {
    /// Scopes of the token (`scope`, RFC 6749, section 3.3).
    pub scopes: Scopes,
}

/// Scopes that a token must have. Case counts.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Scopes {
    /// One of these, if there are any.
    pub any: Vec<String>,
    /// Each of these.
    pub all: Vec<String>,
}

/// How long answers are remembered.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Remembering {
    /// Tokens that are good: so long may one be used after it was revoked. Never past `exp`. Default 30s; 0s asks each time.
    pub ttl: HumanDuration,
    /// Tokens that are not. Default 5s; 0s asks each time.
    pub negative_ttl: HumanDuration,
}

impl Default for Remembering {
    fn default() -> Self {
        Self { ttl: HumanDuration::from_secs(30), negative_ttl: HumanDuration::from_secs(5) }
    }
}

fn three_seconds() -> HumanDuration {
    HumanDuration::from_secs(3)
}

fn sub() -> String {
    "sub".into()
}

fn yes() -> bool {
    true
}

impl PluginConfig for Config {
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        Ok(Arc::new(self.introspector(deps, REMEMBERED)?))
    }
}

impl Config {
    /// The plugin, with so many bytes for what is remembered.
    fn introspector(self, deps: &Deps, remembered: u64) -> Result<Introspector, InvalidConfig> {
        service::check_url(&self.url, "url")?;
        if self.timeout.0.is_zero() {
            return Err(InvalidConfig::new("timeout", "must be more than zero"));
        }
        for (place, text) in [("client_id", &self.client_id), ("consumer_claim", &self.consumer_claim)] {
            if text.is_empty() {
                return Err(InvalidConfig::new(place, "is empty"));
            }
        }
        let Scopes { any, all } = &self.require.scopes;
        let challenge = |place: &str, scopes: &[String]| {
            let reason =
                "holds a text that is no scope: visible ASCII characters without spaces, quotes and backslashes";
            bearer::scope_challenge(scopes).ok_or_else(|| InvalidConfig::new(place, reason)).map(drop)
        };
        challenge("require/scopes/any", any)?;
        challenge("require/scopes/all", all)?;
        let scope_challenge = bearer::scope_challenge(all.iter().chain(any));
        let scope_challenge = scope_challenge.ok_or_else(|| InvalidConfig::new("require/scopes", "cannot be told"))?;
        let (ttl, negative_ttl) = (self.cache.ttl.0, self.cache.negative_ttl.0);
        let longest = ttl.max(negative_ttl).max(Duration::from_secs(1));
        let weigh = |_: &[u8; 32], verdict: &Verdict| verdict.weight;
        let count = |event| deps.metrics.counter("oauth2_introspection", event);
        Ok(Introspector {
            known: Cache::builder().max_capacity(remembered).weigher(weigh).time_to_live(longest).build(),
            questions: Semaphore::new(QUESTIONS),
            scope_challenge,
            client: Client::new(&self.client_id, &self.client_secret, self.client_auth),
            config: self,
            consumers: Arc::clone(&deps.consumers),
            fetch: Arc::clone(&deps.fetch),
            clock: deps.clock.clone(),
            counts: Counts {
                asked: count("asked"),
                remembered: count("remembered"),
                refused: count("refused"),
                failed: count("failed"),
            },
        })
    }
}

struct Introspector {
    config: Config,
    /// What the gateway is to the issuer.
    client: Client,
    scope_challenge: HeaderValue,
    known: Cache<[u8; 32], Verdict>,
    questions: Semaphore,
    consumers: Arc<ConsumerDirectory>,
    fetch: Arc<dyn Fetch>,
    clock: Clock,
    counts: Counts,
}

struct Counts {
    asked: prometheus::IntCounter,
    remembered: prometheus::IntCounter,
    refused: prometheus::IntCounter,
    failed: prometheus::IntCounter,
}

impl Introspector {
    /// What the issuer says of a token, from memory or asked.
    async fn verdict(&self, token: &str) -> Result<Verdict, Fault> {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(known) = self.known.get(&key).await {
            if self.clock.since_epoch() < known.until {
                self.counts.remembered.inc();
                return Ok(known);
            }
            self.known.invalidate(&key).await;
        }
        self.known.try_get_with(key, self.ask(token)).await.map_err(|fault| Fault::clone(&fault))
    }

    /// Asks, when there is room for one more question, all within the time-out.
    async fn ask(&self, token: &str) -> Result<Verdict, Fault> {
        let failed = |why: &str| {
            self.counts.failed.inc();
            Fault::Dependency(format!("oauth2_introspection: {why}"))
        };
        let room = tokio::time::timeout(self.config.timeout.0, self.questions.acquire()).await;
        let Ok(Ok(_room)) = room else { return Err(failed("too many questions at a time")) };
        self.counts.asked.inc();
        let told = self.fetch.fetch(self.question(token)).await.map_err(|error| failed(&error.to_string()))?;
        self.judge(&told).map_err(failed)
    }

    fn refuse(&self, ctx: &mut Ctx, why: &'static str) -> Decision {
        self.counts.refused.inc();
        ctx.refusal = Some(why.into());
        Decision::Respond(bearer::invalid("introspection_token_invalid", "This token is not valid."))
    }

    fn admit(&self, caller: &Caller, req: &mut RequestHeader, ctx: &mut Ctx) -> Decision {
        if !caller.has_scopes {
            self.counts.refused.inc();
            ctx.refusal = Some("the token lacks a scope".into());
            let detail = "This token does not allow this request.";
            let reply = Reply::problem(StatusCode::FORBIDDEN, "introspection_scope_missing", detail);
            return Decision::Respond(reply.header(WWW_AUTHENTICATE, self.scope_challenge.clone()));
        }
        ctx.claims = Some(Arc::clone(&caller.claims));
        if let Some(consumer) = &caller.consumer {
            ctx.consumer = Some(Arc::clone(consumer));
        }
        if self.config.hide {
            req.remove_header(&AUTHORIZATION);
        }
        Decision::Continue
    }
}

#[async_trait]
impl Plugin for Introspector {
    fn needs(&self) -> Needs {
        Needs { request: true, authenticates: true, ..Needs::default() }
    }

    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let token = match bearer::presented(req) {
            Presented::Nothing => {
                ctx.refusal = Some("no token".into());
                let reply = bearer::missing("introspection_token_missing", "This request needs a token.");
                return Ok(Decision::Absent(reply));
            }
            Presented::Several => {
                self.counts.refused.inc();
                ctx.refusal = Some("more than one token".into());
                let detail = "This request carries more than one token.";
                return Ok(Decision::Respond(bearer::several("introspection_token_several", detail)));
            }
            Presented::Garbage => return Ok(self.refuse(ctx, "the token is malformed")),
            Presented::Text(token) if token.len() > MAX_TOKEN => return Ok(self.refuse(ctx, "the token is too long")),
            Presented::Text(token) => token,
        };
        let verdict = self.verdict(token).await?;
        Ok(match &verdict.caller {
            Ok(caller) => self.admit(caller, req, ctx),
            Err(why) => self.refuse(ctx, why),
        })
    }
}

#[cfg(test)]
mod tests;
