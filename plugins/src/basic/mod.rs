//! Lets a request in by a user name and a password (RFC 7617).
//!
//! Passwords are kept as hashes of Argon2id, which cost milliseconds of computing to check: few are checked at a time, few
//! wait for it, and a password that was right is remembered for a moment. Who asks for a user that nobody knows waits
//! as long as who has the password wrong.

mod gate;
mod password;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crossway_plugin_api::{
    Clock, Consumer, ConsumerDirectory, Ctx, Decision, Deps, Fault, InvalidConfig, Needs, Plugin, PluginConfig, Reply,
    config::HumanDuration,
};
use http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use moka::future::Cache;
use pingora_http::RequestHeader;
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use schemars::JsonSchema;
use serde::Deserialize;

use self::{gate::Gate, password::Hash};
use crate::credentials::{self, Presented};

pub use password::{check_hash, hash_password};

/// Longest field value that is decoded, in bytes: a name of 128 and a password of 512, in base64.
const MAX_CREDENTIALS: usize = 1024;
/// Most passwords that are remembered.
const REMEMBERED: u64 = 10_000;

/// Settings of `basic`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What the credentials are for, as browsers show it (RFC 9110, section 11.5). Default `crossway`.
    #[schemars(length(min = 1, max = 128))]
    pub realm: String,
    /// Keep `Authorization` from later plugins and the upstream. Default true.
    pub hide: bool,
    /// Passwords that were right.
    pub cache: Remembering,
}

impl Default for Config {
    fn default() -> Self {
        Self { realm: "crossway".into(), hide: true, cache: Remembering::default() }
    }
}

/// How passwords that were right are remembered: by a keyed digest, in this process, up to the next reload.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Remembering {
    /// How long a password that was right is not checked again. Default 1m; 0s checks each time, which takes
    /// milliseconds of computing for each request.
    pub ttl: HumanDuration,
}

impl Default for Remembering {
    fn default() -> Self {
        Self { ttl: HumanDuration::from_secs(60) }
    }
}

impl PluginConfig for Config {
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        Ok(Arc::new(self.doorkeeper(deps)?))
    }
}

impl Config {
    fn doorkeeper(self, deps: &Deps) -> Result<Doorkeeper, InvalidConfig> {
        let quoted = self.realm.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'));
        let challenge = HeaderValue::from_str(&format!("Basic realm=\"{}\", charset=\"UTF-8\"", self.realm));
        let Some(challenge) = challenge.ok().filter(|_| quoted) else {
            return Err(InvalidConfig::new("realm", "holds quotes, backslashes or characters outside of ASCII"));
        };
        let ttl = self.cache.ttl.0;
        let mut bytes = [0; 32];
        let random = SystemRandom::new().fill(&mut bytes);
        random.map_err(|_| InvalidConfig::new("", "cannot be used: there is no randomness"))?;
        // It survives a reload: a name for which another decoy is checked than before would be one that nobody has.
        let key = deps.state.get_or_make("basic", || hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        Ok(Doorkeeper {
            challenge,
            hide: self.hide,
            ttl,
            key,
            right: Cache::builder().max_capacity(REMEMBERED).time_to_live(ttl.max(Duration::from_secs(1))).build(),
            decoys: decoys(&deps.consumers),
            gate: deps.state.get_or_make("basic", Gate::default),
            consumers: Arc::clone(&deps.consumers),
            clock: deps.clock.clone(),
            checked: deps.metrics.counter("basic", "checked"),
            busy: deps.metrics.counter("basic", "busy"),
        })
    }
}

/// A hash of nobody for each cost that the hashes of users have, the cheapest first.
fn decoys(consumers: &ConsumerDirectory) -> Box<[Hash]> {
    let hashes = consumers.password_hashes().filter_map(|text| password::read(text).ok());
    let by_cost: BTreeMap<u64, Hash> = hashes.map(|hash| (hash.cost(), hash.of_nobody())).collect();
    by_cost.into_values().collect()
}

struct Doorkeeper {
    challenge: HeaderValue,
    hide: bool,
    ttl: Duration,
    /// Makes digests of credentials that mean nothing to anybody else.
    key: Arc<hmac::Key>,
    right: Cache<[u8; 32], Known>,
    /// What is checked for users that nobody knows; empty where no user has a password.
    decoys: Box<[Hash]>,
    gate: Arc<Gate>,
    consumers: Arc<ConsumerDirectory>,
    clock: Clock,
    checked: prometheus::IntCounter,
    busy: prometheus::IntCounter,
}

/// Credentials that were right.
#[derive(Clone)]
struct Known {
    consumer: Arc<Consumer>,
    /// When they are checked again, after the epoch.
    until: Duration,
}

/// Why credentials were not found to be right.
enum Refusal {
    /// They are wrong.
    Wrong,
    /// They could not be checked now.
    Busy,
}

/// A user name and a password.
struct Credentials {
    text: String,
    colon: usize,
}

impl Credentials {
    /// Decodes `user-id ":" password` (RFC 7617, section 2).
    fn decode(base64: &str) -> Option<Self> {
        if base64.len() > MAX_CREDENTIALS {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(base64).ok()?).ok()?;
        let colon = text.find(':')?;
        let fits = text.len() - colon - 1 <= password::MAX_PASSWORD && !text.bytes().any(|b| b.is_ascii_control());
        fits.then_some(Self { text, colon })
    }

    fn user(&self) -> &str {
        &self.text[..self.colon]
    }

    fn password(&self) -> &str {
        &self.text[self.colon + 1..]
    }
}

impl Doorkeeper {
    /// The consumer of these credentials, from memory or by checking them. Those who come with the same at the same time
    /// wait for one check.
    async fn consumer(&self, credentials: Credentials, ctx: &Ctx) -> Result<Arc<Consumer>, Refusal> {
        // The first colon ends the user name, so that no two pairs have the same text.
        let mut digest = [0; 32];
        digest.copy_from_slice(hmac::sign(&self.key, credentials.text.as_bytes()).as_ref());
        if let Some(known) = self.right.get(&digest).await {
            if self.clock.since_epoch() < known.until {
                return Ok(known.consumer);
            }
            self.right.invalidate(&digest).await;
        }
        let known = self.right.try_get_with(digest, self.check(credentials, ctx)).await;
        known.map(|known| known.consumer).map_err(|refusal| match *refusal {
            Refusal::Wrong => Refusal::Wrong,
            Refusal::Busy => Refusal::Busy,
        })
    }

    /// The hash that is checked for a user that nobody knows, as costly as that of some user, and always the same one.
    fn decoy(&self, user: &str) -> Option<&Hash> {
        let digest = hmac::sign(&self.key, user.as_bytes());
        let number = digest.as_ref().first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        self.decoys.get(usize::try_from(number).ok()?.checked_rem(self.decoys.len())?)
    }

    async fn check(&self, credentials: Credentials, ctx: &Ctx) -> Result<Known, Refusal> {
        let found = self.consumers.by_username(credentials.user());
        let found = found.and_then(|(consumer, hash)| Some((Arc::clone(consumer), password::read(hash).ok()?)));
        let (consumer, hash) = found.map_or((None, None), |(consumer, hash)| (Some(consumer), Some(hash)));
        let hash = hash.or_else(|| self.decoy(credentials.user()).cloned()).ok_or(Refusal::Wrong)?;
        self.checked.inc();
        let check = move || hash.fits(credentials.password().as_bytes());
        match (self.gate.run(ctx.client, check).await, consumer) {
            (Ok(true), Some(consumer)) => Ok(Known { consumer, until: self.clock.since_epoch() + self.ttl }),
            (Ok(_), _) => Err(Refusal::Wrong),
            (Err(gate::Full), _) => Err(Refusal::Busy),
        }
    }

    /// 401 with the challenge of RFC 7617, section 2.
    fn unauthorized(&self, code: &'static str, detail: &str) -> Reply {
        let reply = Reply::problem(StatusCode::UNAUTHORIZED, code, detail);
        reply.header(WWW_AUTHENTICATE, self.challenge.clone())
    }
}

#[async_trait]
impl Plugin for Doorkeeper {
    fn needs(&self) -> Needs {
        Needs { request: true, authenticates: true, ..Needs::default() }
    }

    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let credentials = match credentials::of_scheme(&req.headers, &AUTHORIZATION, "basic") {
            Presented::Nothing => {
                ctx.refusal = Some("no user name and password".into());
                let detail = "This request needs a user name and a password.";
                return Ok(Decision::Absent(self.unauthorized("basic_missing", detail)));
            }
            Presented::Text(text) => Credentials::decode(text),
            Presented::Garbage | Presented::Several => None,
        };
        let outcome = match credentials {
            Some(credentials) => self.consumer(credentials, ctx).await,
            None => Err(Refusal::Wrong),
        };
        match outcome {
            Ok(consumer) => {
                ctx.consumer = Some(consumer);
                if self.hide {
                    req.remove_header(&AUTHORIZATION);
                }
                Ok(Decision::Continue)
            }
            Err(Refusal::Wrong) => {
                ctx.refusal = Some("user name and password are malformed or wrong".into());
                let detail = "This user name and password are not valid.";
                Ok(Decision::Respond(self.unauthorized("basic_invalid", detail)))
            }
            Err(Refusal::Busy) => {
                self.busy.inc();
                ctx.refusal = Some("too many passwords wait to be checked".into());
                let detail = "Too many passwords are being checked; try again.";
                let reply = Reply::problem(StatusCode::SERVICE_UNAVAILABLE, "basic_busy", detail);
                Ok(Decision::Respond(reply.header(RETRY_AFTER, HeaderValue::from_static("1"))))
            }
        }
    }
}

#[cfg(test)]
mod tests;
