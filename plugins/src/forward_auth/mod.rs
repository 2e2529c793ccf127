//! Asks another service whether a request may go on.
//!
//! The service sees the request's line and some of its fields, never its body. An answer of 2xx lets the request pass;
//! 3xx and 4xx are the answer to the client; anything else, and none in time, is a fault: nobody passes because the
//! service is down.

mod decision;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use crossway_plugin_api::{
    Clock, ConsumerDirectory, Ctx, Decision, Deps, Fault, Fetch, InvalidConfig, Needs, Plugin, PluginConfig,
    config::{ByteSize, FieldName, HumanDuration},
};
use http::{HeaderName, Method, header};
use moka::sync::Cache;
use pingora_http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use self::decision::{Granted, Grants};
use crate::fields;
use crate::service;

/// Bytes that remembered decisions may take.
const REMEMBERED: u64 = 16 << 20;

/// Settings of `forward_auth`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the service is: an absolute URL, asked as it stands here.
    pub url: String,
    /// Method of the question. Default `GET`.
    #[serde(default)]
    pub method: Asking,
    /// Time for the whole answer. Default 3s.
    #[serde(default = "three_seconds")]
    pub timeout: HumanDuration,
    /// Fields of the request that the service sees. Default `Authorization` and `Cookie`. It always sees
    /// `X-Forwarded-Method`, `X-Forwarded-Proto`, `X-Forwarded-Host`, `X-Forwarded-Uri`, `X-Forwarded-For` and
    /// `X-Request-Id`, as the gateway knows them.
    #[serde(default = "credentials")]
    pub request_headers: Vec<FieldName>,
    /// Fields of an answer of 2xx that go to the upstream. The client's own copies are removed in any case. Default none.
    #[serde(default)]
    pub upstream_headers: Vec<FieldName>,
    /// Fields of any other answer that go to the client, beside its type. Default `Location`, `WWW-Authenticate`,
    /// `Set-Cookie`, `Retry-After` and `Cache-Control`.
    #[serde(default = "answering")]
    pub client_headers: Vec<FieldName>,
    /// Largest body of an answer. Default 64KiB.
    #[serde(default = "most_of_an_answer")]
    pub max_body: ByteSize,
    /// The field of an answer of 2xx that names the consumer: one of the configuration, or the request is refused. Default
    /// none.
    pub consumer_header: Option<FieldName>,
    /// Answers of 2xx that are remembered. Default none.
    #[serde(default)]
    pub cache: Remembering,
}

/// How answers of 2xx are remembered: for the same method, host, path, query, client address and fields, up to the next
/// reload. An answer with `Cache-Control: no-store` is not.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Remembering {
    /// For how long. Default 0s: not at all.
    pub ttl: HumanDuration,
    /// The fields of `request_headers` that the decision depends on. Default all of them.
    pub headers: Vec<FieldName>,
}

impl Default for Remembering {
    fn default() -> Self {
        Self { ttl: HumanDuration::from_secs(0), headers: Vec::new() }
    }
}

/// Method of the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
#[allow(missing_docs, reason = "with descriptions the schema would have alternatives; their names say all")]
pub enum Asking {
    #[default]
    Get,
    Head,
    Post,
}

fn three_seconds() -> HumanDuration {
    HumanDuration::from_secs(3)
}

fn most_of_an_answer() -> ByteSize {
    ByteSize::kib(64)
}

fn credentials() -> Vec<FieldName> {
    vec![FieldName(header::AUTHORIZATION), FieldName(header::COOKIE)]
}

fn answering() -> Vec<FieldName> {
    let names = [header::LOCATION, header::WWW_AUTHENTICATE, header::SET_COOKIE, header::RETRY_AFTER];
    names.into_iter().chain([header::CACHE_CONTROL]).map(FieldName).collect()
}

/// The names of a list, none of which may be one that only the gateway writes.
fn names(list: Vec<FieldName>, place: &str, is_request: bool) -> Result<Box<[HeaderName]>, InvalidConfig> {
    for (at, FieldName(name)) in list.iter().enumerate() {
        let place = format!("{place}/{at}");
        fields::check_framing(name, &place)?;
        if is_request && fields::is_identity(name) {
            return Err(fields::reserved(name, &place, "that only the gateway writes"));
        }
        if list[..at].iter().any(|other| other.0 == *name) {
            return Err(InvalidConfig::new(place, format!("names `{name}` a second time")));
        }
    }
    Ok(list.into_iter().map(|name| name.0).collect())
}

impl PluginConfig for Config {
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        service::check_url(&self.url, "url")?;
        if self.timeout.0.is_zero() {
            return Err(InvalidConfig::new("timeout", "must be more than zero"));
        }
        let request_headers = names(self.request_headers, "request_headers", true)?;
        let ttl = self.cache.ttl.0;
        let narrowed = names(self.cache.headers, "cache/headers", true)?;
        if let Some(at) = narrowed.iter().position(|name| !request_headers.contains(name)) {
            let reason = format!("names `{}`, which the service does not see", narrowed[at]);
            return Err(InvalidConfig::new(format!("cache/headers/{at}"), reason));
        }
        if ttl.is_zero() && !narrowed.is_empty() {
            return Err(InvalidConfig::new("cache/headers", "has no effect without `ttl`"));
        }
        let weigh = |_: &[u8; 32], grant: &Remembered| grant.granted.weight();
        let remembered = Cache::builder().max_capacity(REMEMBERED).weigher(weigh).time_to_live(ttl);
        let count = |event| deps.metrics.counter("forward_auth", event);
        Ok(Arc::new(Asker {
            url: self.url,
            method: match self.method {
                Asking::Get => Method::GET,
                Asking::Head => Method::HEAD,
                Asking::Post => Method::POST,
            },
            timeout: self.timeout.0,
            max_body: usize::try_from(self.max_body.0).unwrap_or(usize::MAX),
            keyed: if narrowed.is_empty() { request_headers.clone() } else { narrowed },
            request_headers,
            upstream_headers: names(self.upstream_headers, "upstream_headers", true)?,
            client_headers: names(self.client_headers, "client_headers", false)?,
            consumer_header: self.consumer_header.map(|name| name.0),
            ttl,
            remembered: (!ttl.is_zero()).then(|| remembered.build()),
            consumers: Arc::clone(&deps.consumers),
            fetch: Arc::clone(&deps.fetch),
            clock: deps.clock.clone(),
            counts: Counts {
                allowed: count("allowed"),
                denied: count("denied"),
                failed: count("failed"),
                remembered: count("remembered"),
            },
        }))
    }
}

struct Asker {
    url: String,
    method: Method,
    timeout: Duration,
    max_body: usize,
    request_headers: Box<[HeaderName]>,
    /// Those of them that a remembered decision is found by.
    keyed: Box<[HeaderName]>,
    upstream_headers: Box<[HeaderName]>,
    client_headers: Box<[HeaderName]>,
    consumer_header: Option<HeaderName>,
    ttl: Duration,
    remembered: Option<Cache<[u8; 32], Remembered>>,
    consumers: Arc<ConsumerDirectory>,
    fetch: Arc<dyn Fetch>,
    clock: Clock,
    counts: Counts,
}

struct Counts {
    allowed: prometheus::IntCounter,
    denied: prometheus::IntCounter,
    failed: prometheus::IntCounter,
    remembered: prometheus::IntCounter,
}

/// A decision to let pass.
#[derive(Clone)]
struct Remembered {
    granted: Arc<Granted>,
    /// When the service is asked again, after the epoch.
    until: Duration,
}

impl Asker {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn recall(&self, key: &[u8; 32]) -> Option<Arc<Granted>> {
        let remembered = self.remembered.as_ref()?.get(key)?;
        (self.clock.since_epoch() < remembered.until).then_some(remembered.granted)
    }

    fn pass(&self, granted: Arc<Granted>, ctx: &mut Ctx) -> Decision {
        if let Some(consumer) = &granted.consumer {
            ctx.consumer = Some(Arc::clone(consumer));
        }
        ctx.extensions.get_or_insert_default::<Grants>().put(self.address(), granted);
        Decision::Continue
    }

    /// Asks, or remembers what the service has said.
    async fn decide(&self, req: &RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let key = self.remembered.as_ref().map(|_| self.key(req, ctx));
        if let Some(granted) = key.and_then(|key| self.recall(&key)) {
            self.counts.remembered.inc();
            return Ok(self.pass(granted, ctx));
        }
        let told = self.fetch.fetch(self.question(req, ctx)).await.map_err(|error| {
            self.counts.failed.inc();
            Fault::Dependency(format!("forward_auth: {error}"))
        })?;
        if told.status.is_success() {
            let granted = match self.granted(&told) {
                Ok(granted) => Arc::new(granted),
                Err(reply) => {
                    self.counts.denied.inc();
                    ctx.refusal = Some("the service names no consumer of the configuration".into());
                    return Ok(Decision::Respond(reply));
                }
            };
            self.counts.allowed.inc();
            if let (Some(cache), Some(key)) = (&self.remembered, key)
                && !decision::is_private(&told.headers)
            {
                let until = self.clock.since_epoch() + self.ttl;
                cache.insert(key, Remembered { granted: Arc::clone(&granted), until });
            }
            return Ok(self.pass(granted, ctx));
        }
        if told.status.is_redirection() || told.status.is_client_error() {
            self.counts.denied.inc();
            ctx.refusal = Some(format!("the service answered {}", told.status.as_u16()).into());
            return Ok(Decision::Respond(self.denied(told)));
        }
        self.counts.failed.inc();
        Err(Fault::Dependency(format!("forward_auth: the service answered {}", told.status.as_u16())))
    }
}

#[async_trait]
impl Plugin for Asker {
    fn needs(&self) -> Needs {
        let upstream_request = !self.upstream_headers.is_empty();
        Needs { request: true, upstream_request, authenticates: true, ..Needs::default() }
    }

    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        let decided = self.decide(req, ctx).await;
        // Whatever comes of it, and though a fault may be tolerated: what the service would say is not the client's to say.
        for name in &self.upstream_headers {
            req.remove_header(name);
        }
        decided
    }

    fn on_upstream_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<(), Fault> {
        for name in &self.upstream_headers {
            req.remove_header(name);
        }
        let granted = ctx.extensions.get::<Grants>().and_then(|grants| grants.of(self.address()));
        for (name, value) in granted.iter().flat_map(|granted| &granted.headers) {
            req.append_header(name.clone(), value.clone()).map_err(|error| Fault::Internal(error.to_string()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
