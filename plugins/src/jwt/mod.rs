//! Lets a request in by the JSON Web Token it carries (RFC 7519, RFC 6750, RFC 8725).
//!
//! A token is read strictly, checked by the rules of the issuer that it names, and verified with that issuer's keys, which
//! are fetched in the background. What a token means on the route is worked out once and kept by the token's digest: a
//! token that comes again costs a hash and a look. The upstream gets claims in fields; the consumer is the one that the
//! configuration knows by issuer and subject.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use crossway_plugin_api::{
    Claims, Clock, ConsumerDirectory, Ctx, Decision, Deps, Fault, InvalidConfig, Needs, Plugin, PluginConfig,
};
use http::{HeaderName, HeaderValue, header::CACHE_CONTROL};
use pingora_http::{RequestHeader, ResponseHeader};
use prometheus::IntCounter;
use serde_json::Value;

mod algorithm;
mod build;
mod cache;
mod challenge;
mod claims;
mod config;
mod json;
mod keys;
mod place;
mod policy;
mod provider;
mod source;
mod token;

use build::Trusted;
use cache::Verifications;
use challenge::Challenges;
use place::{Found, Place};
use policy::{Policy, Verified};
use source::Numbered;
use token::{Reason, Unverified};

pub use algorithm::Algorithm;
pub use config::{Config, ConsumerRule, Forward, Issuer, Jwks, Place as PlaceConfig, Require, Scopes, TokenRule};

impl PluginConfig for Config {
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        Ok(Arc::new(self.guard(deps)?))
    }
}

impl Config {
    fn guard(self, deps: &Deps) -> Result<Guard, InvalidConfig> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        provider::install();
        let count = |event| deps.metrics.counter("jwt", event);
        Ok(Guard {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            places: build::places(&self.from)?,
            max_token: build::max_token(&self)?,
            challenges: build::challenges(&self)?,
            strip: self.forward.token == TokenRule::Strip,
            cache: Verifications::new(self.cache.0),
            issuers: build::issuers(self.issuers, deps)?,
            policy: build::policy(self.require, self.forward, self.consumer)?,
            consumers: Arc::clone(&deps.consumers),
            clock: deps.clock.clone(),
            verified: count("verified"),
            cached: count("cached"),
            refused: count("refused"),
        })
    }
}

struct Guard {
    /// Tells this plugin's state of a request from that of another on the same route.
    number: u64,
    places: Vec<Place>,
    max_token: usize,
    challenges: Challenges,
    strip: bool,
    cache: Verifications,
    issuers: Vec<Trusted>,
    policy: Policy,
    consumers: Arc<ConsumerDirectory>,
    clock: Clock,
    verified: IntCounter,
    cached: IntCounter,
    refused: IntCounter,
}

/// What the request phase leaves for the later ones: by the plugin's number, what it has verified, and whether the token
/// came in the query.
#[derive(Clone, Default)]
struct Seen(Vec<(u64, Arc<Verified>, bool)>);

/// Why a token does not open the route.
enum Wrong {
    Invalid(Reason),
    /// The issuer's keys are not there: nothing can be said of the token.
    NoKeys(String),
}

impl From<Reason> for Wrong {
    fn from(reason: Reason) -> Self {
        Self::Invalid(reason)
    }
}

impl Guard {
    /// What the token means: from the cache, or worked out now.
    async fn judge(&self, token: &str) -> Result<Arc<Verified>, Wrong> {
        if token.len() > self.max_token {
            return Err(Wrong::Invalid("too long"));
        }
        let print = cache::print(token);
        if let Some(known) = self.cache.get(&print) {
            let keys = self.issuers[known.issuer].source.number();
            if keys == Some(known.keys) && known.period.holds(self.clock.unix()) {
                self.cached.inc();
                return Ok(known);
            }
            self.cache.forget(&print);
        }
        let verified = Arc::new(self.verify(token).await?);
        self.verified.inc();
        self.cache.keep(print, token, &verified);
        Ok(verified)
    }

    /// All that can be said without a key comes first, so that only tokens that could be good wait for keys.
    async fn verify(&self, text: &str) -> Result<Verified, Wrong> {
        let token = token::read(text)?;
        let named = token.claims.get("iss").and_then(Value::as_str).ok_or("no `iss`")?;
        let at = self.issuers.iter().position(|issuer| issuer.name == named).ok_or("an unknown issuer")?;
        let issuer = &self.issuers[at];
        if !issuer.algorithms.contains(&token.algorithm) {
            return Err(Wrong::Invalid("signed in a way that its issuer does not use"));
        }
        let period = issuer.demands.check(token.typ.as_deref(), &token.claims)?;
        if !period.holds(self.clock.unix()) {
            return Err(Wrong::Invalid("expired, or not good yet"));
        }
        let keys = issuer.signed(&token).await?;
        let claims = Claims::new(token.claims);
        let consumer = Policy::consumer(&claims, &issuer.name, &issuer.consumer_claim, &self.consumers);
        let lacking = self.policy.lacking(&claims, consumer.as_ref());
        let fields = self.policy.fields(&claims);
        Ok(Verified { claims: Arc::new(claims), consumer, lacking, fields, period, issuer: at, keys })
    }

    fn refuse(&self, reason: Reason, ctx: &mut Ctx) {
        self.refused.inc();
        ctx.refusal = Some(reason.into());
    }

    fn seen<'c>(&self, ctx: &'c Ctx) -> Option<&'c (u64, Arc<Verified>, bool)> {
        ctx.extensions.get::<Seen>()?.0.iter().find(|(number, ..)| *number == self.number)
    }

    fn looks_in_query(&self) -> bool {
        self.places.iter().any(|place| matches!(place, Place::Query(_)))
    }
}

impl Trusted {
    /// Whether one of the issuer's keys has signed the token; the number of the key set. A key that is not known is looked
    /// for at the issuer, as often as its cool-down permits.
    async fn signed(&self, token: &Unverified<'_>) -> Result<u64, Wrong> {
        let (mut number, mut keys) = self.keys().await?;
        if !keys.knows(token.kid.as_deref()) {
            self.source.renewed().await;
            (number, keys) = self.keys().await?;
        }
        let mut candidates = keys.candidates(token.algorithm, token.kid.as_deref()).peekable();
        if candidates.peek().is_none() {
            return Err(Wrong::Invalid("no such key"));
        }
        if candidates.any(|key| key.verifies(token.algorithm, token.message.as_bytes(), token.signature)) {
            return Ok(number);
        }
        Err(Wrong::Invalid("the signature does not verify"))
    }

    async fn keys(&self) -> Result<Numbered, Wrong> {
        if let Some(keys) = self.source.keys() {
            return Ok(keys);
        }
        self.source.first().await;
        self.source.keys().ok_or_else(|| Wrong::NoKeys(format!("there are no keys of the issuer {}", self.name)))
    }
}

#[async_trait]
impl Plugin for Guard {
    fn needs(&self) -> Needs {
        Needs {
            request: true,
            upstream_request: !self.policy.forward.is_empty(),
            response: self.looks_in_query(),
            authenticates: true,
            secret_query: self.places.iter().filter_map(Place::parameter).collect(),
            secret_headers: self.places.iter().filter_map(Place::field).collect(),
            ..Needs::default()
        }
    }

    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let (place, judged) = match place::find(&self.places, req) {
            Found::Nothing => {
                ctx.refusal = Some("no token".into());
                return Ok(Decision::Absent(self.challenges.missing()));
            }
            Found::Several => {
                self.refuse("more than one token", ctx);
                return Ok(Decision::Respond(self.challenges.several()));
            }
            Found::Garbage => (0, Err(Wrong::Invalid("malformed"))),
            Found::One(at, token) => (at, self.judge(token).await),
        };
        let verified = match judged {
            Ok(verified) => verified,
            Err(Wrong::Invalid(reason)) => {
                self.refuse(reason, ctx);
                return Ok(Decision::Respond(self.challenges.invalid()));
            }
            Err(Wrong::NoKeys(text)) => return Err(Fault::Dependency(text)),
        };
        if let Some(lacking) = verified.lacking {
            self.refuse(lacking.reason(), ctx);
            return Ok(Decision::Respond(self.challenges.insufficient(lacking)));
        }
        if let Some(consumer) = &verified.consumer {
            ctx.consumer = Some(Arc::clone(consumer));
        }
        ctx.claims = Some(Arc::clone(&verified.claims));
        let in_query = matches!(self.places[place], Place::Query(_));
        if self.strip {
            self.places[place].strip(req);
        }
        if !self.policy.forward.is_empty() || in_query {
            ctx.extensions.get_or_insert_default::<Seen>().0.push((self.number, verified, in_query));
        }
        Ok(Decision::Continue)
    }

    /// The client's own copies go, whether or not there is a token.
    fn on_upstream_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<(), Fault> {
        for (_, name) in &self.policy.forward {
            req.remove_header(name);
        }
        let fields: &[(HeaderName, HeaderValue)] = self.seen(ctx).map_or(&[], |(_, verified, _)| &verified.fields);
        for (name, value) in fields {
            let inserted = req.insert_header(name.clone(), value.clone());
            inserted.map_err(|error| Fault::Internal(format!("a claim's field: {error}")))?;
        }
        Ok(())
    }

    /// An answer to a request with a token in its URL is not for caches of many (RFC 6750, section 2.3).
    fn on_response(&self, res: &mut ResponseHeader, ctx: &mut Ctx) -> Result<(), Fault> {
        let in_query = self.seen(ctx).is_some_and(|(.., in_query)| *in_query);
        if in_query && !res.headers.contains_key(CACHE_CONTROL) {
            let inserted = res.insert_header(CACHE_CONTROL, HeaderValue::from_static("private"));
            inserted.map_err(|error| Fault::Internal(format!("a field: {error}")))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
