//! Lets a request in by the signature that its sender has put on it with a shared secret (HMAC, RFC 2104): webhooks.
//!
//! The body is held until it is whole and its signature is known to be right. A signature with a time counts for a while
//! only, and once. The consumer is known after the request phase: plugins that decide by it there do not see it.

mod style;
mod window;

use std::{borrow::Cow, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use crossway_plugin_api::{
    BodyNeed, Clock, Consumer, Ctx, Decision, Deps, Fault, InvalidConfig, Needs, Plugin, PluginConfig, Reply,
    config::{ByteSize, FieldName, HumanDuration, Secret},
};
use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use pingora_http::RequestHeader;
use ring::{digest, hmac};
use schemars::JsonSchema;
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use self::{
    style::{Own, Presented, Scheme, Signed},
    window::{Novelty, Window},
};
use crate::fields;
use crate::hex;

pub use style::{Algorithm, Encoding, Style};

/// A 401 must have a challenge (RFC 9110, section 15.5.2), and none is registered for signatures of webhooks.
const CHALLENGE: HeaderValue = HeaderValue::from_static("HMAC realm=\"crossway\"");
const TOLERANCE: Duration = Duration::from_mins(5);

/// Settings of `hmac_signature`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How the sender signs. `standard_webhooks`: `webhook-id`, `webhook-timestamp` and `webhook-signature`, as
    /// standardwebhooks.com has it. `github`: `X-Hub-Signature-256`. `stripe`: `Stripe-Signature`. `generic`: the field
    /// `header`, over the body.
    pub style: Style,
    /// The secrets that the sender may sign with: two of them while it changes from one to the other. With
    /// `standard_webhooks` in base64, with or without `whsec_` before it.
    #[schemars(length(min = 1, max = 8))]
    pub secrets: Vec<Secret>,
    /// With `generic`: the field that carries the signature.
    pub header: Option<FieldName>,
    /// With `generic`: the hash below the HMAC. Default `sha256`.
    pub algorithm: Option<Algorithm>,
    /// With `generic`: how the signature is written. Default `hex`, in either case.
    pub encoding: Option<Encoding>,
    /// With `generic`: what stands before the signature, such as `sha256=`. Default nothing.
    pub prefix: Option<String>,
    /// With `standard_webhooks` and `stripe`: how far the sender's time may be from the gateway's, either way. Default 5m.
    /// The same signature is never taken twice in that time.
    pub tolerance: Option<HumanDuration>,
    /// With `github` and `generic`, whose signatures have no time: how long the same signature, that is the same body,
    /// is not taken again. Default: it is.
    pub replay_window: Option<HumanDuration>,
    /// Largest body that is taken. Default 1MiB; bounded by `limits.request.buffered_body` too.
    #[serde(default = "one_mebibyte")]
    pub max_body: ByteSize,
    /// The consumer that the sender is. Default: none.
    pub consumer: Option<String>,
}

fn one_mebibyte() -> ByteSize {
    ByteSize::mib(1)
}

impl Config {
    /// The way to sign; a setting that means nothing in this style is refused.
    fn scheme(&self) -> Result<Scheme, InvalidConfig> {
        let generic = [
            ("header", self.header.is_some()),
            ("algorithm", self.algorithm.is_some()),
            ("encoding", self.encoding.is_some()),
            ("prefix", self.prefix.is_some()),
        ];
        let scheme = match self.style {
            Style::StandardWebhooks => Scheme::StandardWebhooks,
            Style::Github => Scheme::Github,
            Style::Stripe => Scheme::Stripe,
            Style::Generic => {
                let header = self.header.clone().ok_or_else(|| {
                    InvalidConfig::new(
                        "style",
                        "is `generic`, which needs `header`: the field that carries the signature",
                    )
                })?;
                return Ok(Scheme::Generic(Own {
                    header: header.0,
                    algorithm: self.algorithm.unwrap_or(Algorithm::Sha256),
                    encoding: self.encoding.unwrap_or(Encoding::Hex),
                    prefix: self.prefix.clone().unwrap_or_default(),
                }));
            }
        };
        match generic.iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) => Err(InvalidConfig::new(*name, "has no effect: it belongs to the style `generic`")),
            None => Ok(scheme),
        }
    }

    /// How far times may be off, and how long signatures are remembered, if at all.
    fn times(&self, scheme: &Scheme) -> Result<(Duration, Option<Duration>), InvalidConfig> {
        const POSITIVE: &str = "must be more than zero";
        let given = |time: Option<HumanDuration>| time.map(|time| time.0);
        match (scheme.is_timed(), given(self.tolerance), given(self.replay_window)) {
            (true, _, Some(_)) => Err(InvalidConfig::new(
                "replay_window",
                "has no effect: the signatures of this style have a time, and `tolerance` bounds it",
            )),
            (false, Some(_), _) => {
                Err(InvalidConfig::new("tolerance", "has no effect: the signatures of this style have no time"))
            }
            (true, Some(Duration::ZERO), _) => Err(InvalidConfig::new("tolerance", POSITIVE)),
            (false, _, Some(Duration::ZERO)) => Err(InvalidConfig::new("replay_window", POSITIVE)),
            (true, tolerance, None) => {
                let tolerance = tolerance.unwrap_or(TOLERANCE);
                // From the earliest moment at which a time is good to the last, to the second.
                Ok((tolerance, Some(tolerance * 2 + Duration::from_secs(2))))
            }
            (false, None, window) => Ok((TOLERANCE, window)),
        }
    }
}

impl PluginConfig for Config {
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        let scheme = self.scheme()?;
        if let Scheme::Generic(own) = &scheme {
            fields::check_framing(&own.header, "header")?;
        }
        let (tolerance, keep) = self.times(&scheme)?;
        if self.max_body.0 == 0 {
            return Err(InvalidConfig::new("max_body", "must be more than zero"));
        }
        if self.secrets.is_empty() {
            return Err(InvalidConfig::new("secrets", "is empty: no signature could be right"));
        }
        let mut secrets = Vec::with_capacity(self.secrets.len());
        for (at, secret) in self.secrets.iter().enumerate() {
            let key = scheme.key(secret.expose()).ok_or_else(|| {
                InvalidConfig::new(
                    format!("secrets/{at}"),
                    "is not a secret of Standard Webhooks: 16 to 128 bytes in base64",
                )
            })?;
            // One window for each secret, whatever route asks: a message is taken once.
            let name = format!("hmac_signature/{}", hex::lower(digest::digest(&digest::SHA256, &key).as_ref()));
            secrets.push((hmac::Key::new(scheme.algorithm(), &key), deps.state.get_or_make(&name, Window::default)));
        }
        let consumer = match &self.consumer {
            None => None,
            Some(name) => Some(deps.consumers.named(name).cloned().ok_or_else(|| {
                InvalidConfig::new("consumer", format!("names `{name}`, and there is no such consumer"))
            })?),
        };
        let clock = deps.clock.clone();
        Ok(Arc::new(Verifier {
            scheme,
            secrets: secrets.into(),
            tolerance,
            keep,
            max_body: self.max_body.0,
            consumer,
            clock,
        }))
    }
}

struct Verifier {
    scheme: Scheme,
    secrets: Box<[(hmac::Key, Arc<Window>)]>,
    tolerance: Duration,
    /// How long signatures are remembered.
    keep: Option<Duration>,
    max_body: u64,
    consumer: Option<Arc<Consumer>>,
    clock: Clock,
}

/// The verifiers that a request has passed, by their addresses.
#[derive(Clone, Default)]
struct Passed(Vec<usize>);

impl Verifier {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn pass(&self, ctx: &mut Ctx) {
        ctx.extensions.get_or_insert_default::<Passed>().0.push(self.address());
    }

    fn absent(ctx: &mut Ctx) -> Decision {
        ctx.refusal = Some("no signature".into());
        Decision::Absent(unauthorized("signature_missing", "This request needs a signature."))
    }

    fn refuse(ctx: &mut Ctx, why: impl Into<Cow<'static, str>>) -> Decision {
        ctx.refusal = Some(why.into());
        Decision::Respond(unauthorized("signature_invalid", "This signature is not valid."))
    }

    /// What is wrong with the time that was signed, if anything.
    fn untimely(&self, signed: &Signed) -> Option<&'static str> {
        let (time, now) = (signed.time?, self.clock.unix());
        (time.abs_diff(now) > self.tolerance.as_secs()).then_some("the time of the signature is too far from now")
    }

    /// The secret that one of the signatures was made with, and that signature. All comparing is in constant time, and each
    /// secret is tried whether or not one has fitted: the time tells nothing of them.
    fn signer<'s>(&'s self, signed: &'s Signed, body: &[u8]) -> Option<(&'s Window, &'s [u8])> {
        let mut found = None;
        for (key, window) in &self.secrets {
            let right = signature(key, &signed.prefix, body);
            for one in &signed.signatures {
                if bool::from(one.ct_eq(right.as_ref())) {
                    found = found.or(Some((&**window, one.as_slice())));
                }
            }
        }
        found
    }
}

/// The right signature.
fn signature(key: &hmac::Key, prefix: &[u8], body: &[u8]) -> hmac::Tag {
    #[cfg(test)]
    tests::COMPUTED.with(|computed| computed.set(computed.get() + 1));
    let mut context = hmac::Context::with_key(key);
    context.update(prefix);
    context.update(body);
    context.sign()
}

#[async_trait]
impl Plugin for Verifier {
    fn needs(&self) -> Needs {
        Needs {
            request: true,
            request_body: Some(BodyNeed::any(self.max_body)),
            upstream_request: true,
            authenticates: true,
            authenticates_late: true,
            ..Needs::default()
        }
    }

    /// Refuses what can be refused before the body is read: by what everybody can see, whatever the secrets are.
    async fn on_request(&self, req: &mut RequestHeader, ctx: &mut Ctx) -> Result<Decision, Fault> {
        Ok(match self.scheme.presented(&req.headers) {
            Presented::Nothing => Self::absent(ctx),
            Presented::Garbage => Self::refuse(ctx, "the signature cannot be read"),
            Presented::Signed(signed) => match self.untimely(&signed) {
                Some(why) => Self::refuse(ctx, why),
                None => Decision::Continue,
            },
        })
    }

    async fn on_request_body(
        &self,
        body: &mut Bytes,
        req: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> Result<Decision, Fault> {
        let signed = match self.scheme.presented(&req.headers) {
            Presented::Nothing => {
                // Where the caller may stay anonymous, this is as far as it gets.
                self.pass(ctx);
                return Ok(Self::absent(ctx));
            }
            Presented::Garbage => return Ok(Self::refuse(ctx, "the signature cannot be read")),
            Presented::Signed(signed) => signed,
        };
        let signer = self.signer(&signed, body);
        if let Some(why) = self.untimely(&signed) {
            return Ok(Self::refuse(ctx, why));
        }
        let Some((window, signature)) = signer else {
            return Ok(Self::refuse(ctx, "the signature is not of these bytes by one of the secrets"));
        };
        let novelty = self.keep.map(|keep| window.note(signature, self.clock.since_epoch(), keep));
        match novelty {
            None | Some(Novelty::New) => {}
            Some(Novelty::Seen) => return Ok(Self::refuse(ctx, "the signature has been seen before")),
            Some(Novelty::Full) => {
                ctx.refusal = Some("too many signatures to remember".into());
                let detail = "Too many signed requests at a time; try again later.";
                let reply = Reply::problem(StatusCode::SERVICE_UNAVAILABLE, "signature_window_full", detail);
                return Ok(Decision::Respond(reply));
            }
        }
        if let Some(consumer) = &self.consumer {
            ctx.consumer = Some(Arc::clone(consumer));
        }
        self.pass(ctx);
        Ok(Decision::Continue)
    }

    /// Nothing goes upstream whose body has not been seen, whatever else changes bodies on this route.
    fn on_upstream_request(&self, _req: &mut RequestHeader, ctx: &mut Ctx) -> Result<(), Fault> {
        let passed = ctx.extensions.get::<Passed>().is_some_and(|passed| passed.0.contains(&self.address()));
        if passed { Ok(()) } else { Err(Fault::Internal("a request whose signature was not checked".into())) }
    }
}

fn unauthorized(code: &'static str, detail: &str) -> Reply {
    Reply::problem(StatusCode::UNAUTHORIZED, code, detail).header(WWW_AUTHENTICATE, CHALLENGE)
}

#[cfg(test)]
mod tests;
