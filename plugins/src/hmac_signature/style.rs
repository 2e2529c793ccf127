//! The ways in which senders sign: where the signature is, what it covers, how it is written.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderName};
use ring::hmac;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::hex;

/// Most signatures that one request may carry: a sender that changes its secret sends two.
const MAX_SIGNATURES: usize = 8;
/// Longest field that is read, in bytes.
const MAX_FIELD: usize = 2048;
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const GITHUB_SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
const STRIPE_SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");

/// Standard base64; some senders leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a sender signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
#[allow(missing_docs, reason = "with descriptions the schema would have alternatives; the setting describes them")]
pub enum Style {
    StandardWebhooks,
    Github,
    Stripe,
    Generic,
}

/// The hash below the HMAC (RFC 2104).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
#[allow(missing_docs, reason = "their names say all")]
pub enum Algorithm {
    Sha256,
    Sha512,
}

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
#[allow(missing_docs, reason = "their names say all")]
pub enum Encoding {
    Hex,
    Base64,
}

/// A way to sign, compiled.
#[derive(Debug, Clone)]
pub(super) enum Scheme {
    /// `webhook-id`, `webhook-timestamp` and `webhook-signature` (standardwebhooks.com).
    StandardWebhooks,
    /// `X-Hub-Signature-256: sha256=<hex>` over the body.
    Github,
    /// `Stripe-Signature: t=<unix>,v1=<hex>` over time and body.
    Stripe,
    /// A field of one's own over the body.
    Generic(Own),
}

/// The field of the style `generic`.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) header: HeaderName,
    pub(super) algorithm: Algorithm,
    pub(super) encoding: Encoding,
    pub(super) prefix: String,
}

/// What a request carries.
#[derive(Debug)]
pub(super) enum Presented {
    /// None of the fields of this style.
    Nothing,
    /// Signatures that may be right.
    Signed(Signed),
    /// Something else in their place.
    Garbage,
}

/// Signatures, and what they cover before the body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) prefix: Vec<u8>,
    /// Seconds since the epoch, where the style has a time.
    pub(super) time: Option<u64>,
    pub(super) signatures: Vec<Vec<u8>>,
}

impl Scheme {
    pub(super) fn algorithm(&self) -> hmac::Algorithm {
        match self {
            Self::Generic(Own { algorithm: Algorithm::Sha512, .. }) => hmac::HMAC_SHA512,
            _ => hmac::HMAC_SHA256,
        }
    }

    /// Whether what is signed says when.
    pub(super) fn is_timed(&self) -> bool {
        matches!(self, Self::StandardWebhooks | Self::Stripe)
    }

    /// The key that a secret stands for; `None` if it is none in this style.
    pub(super) fn key(&self, secret: &str) -> Option<Vec<u8>> {
        match self {
            // The prefix says what it is and may be missing.
            Self::StandardWebhooks => {
                let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).ok()?;
                (16..=128).contains(&key.len()).then_some(key)
            }
            _ => Some(secret.as_bytes().to_vec()),
        }
    }

    /// Reads what a request carries.
    pub(super) fn presented(&self, headers: &HeaderMap) -> Presented {
        let field = match self {
            Self::StandardWebhooks => &WEBHOOK_SIGNATURE,
            Self::Github => &GITHUB_SIGNATURE,
            Self::Stripe => &STRIPE_SIGNATURE,
            Self::Generic(own) => &own.header,
        };
        if !headers.contains_key(field) {
            return Presented::Nothing;
        }
        let signed = only(headers, field).and_then(|text| match self {
            Self::StandardWebhooks => standard_webhooks(headers, text),
            Self::Github => plain("sha256=", Encoding::Hex, text),
            Self::Stripe => stripe(text),
            Self::Generic(own) => plain(&own.prefix, own.encoding, text),
        });
        match signed {
            Some(signed) if (1..=MAX_SIGNATURES).contains(&signed.signatures.len()) => Presented::Signed(signed),
            _ => Presented::Garbage,
        }
    }
}

/// The value of a field that stands there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|value| value.len() <= MAX_FIELD)?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Digits only: no sign, no spaces.
fn seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 12 && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Signed is `<id>.<timestamp>.<body>`; signatures of other versions than `v1` are passed over.
fn standard_webhooks(headers: &HeaderMap, signatures: &str) -> Option<Signed> {
    let (id, timestamp) = (only(headers, &WEBHOOK_ID)?, only(headers, &WEBHOOK_TIMESTAMP)?);
    let time = seconds(timestamp)?;
    // With a dot in the id, the same bytes could be another id with another time.
    if id.is_empty() || id.contains('.') {
        return None;
    }
    let found = signatures.split(' ').filter_map(|one| one.strip_prefix("v1,"));
    let signatures = found.map(|one| BASE64.decode(one).ok()).collect::<Option<_>>()?;
    Some(Signed { prefix: format!("{id}.{timestamp}.").into(), time: Some(time), signatures })
}

/// Signed is `<t>.<body>`; signatures of other schemes than `v1` are passed over.
fn stripe(text: &str) -> Option<Signed> {
    let mut timestamp = None;
    let mut signatures = Vec::new();
    for (key, value) in text.split(',').map(|part| part.trim().split_once('=')).collect::<Option<Vec<_>>>()? {
        match key {
            "t" if timestamp.is_none() => timestamp = Some(value),
            "t" => return None,
            "v1" => signatures.push(hex::read(value)?),
            _ => {}
        }
    }
    let timestamp = timestamp?;
    Some(Signed { prefix: format!("{timestamp}.").into(), time: Some(seconds(timestamp)?), signatures })
}

/// Signed is the body.
fn plain(prefix: &str, encoding: Encoding, text: &str) -> Option<Signed> {
    let text = text.strip_prefix(prefix)?;
    let signature = match encoding {
        Encoding::Hex => hex::read(text)?,
        Encoding::Base64 => BASE64.decode(text).ok()?,
    };
    Some(Signed { prefix: Vec::new(), time: None, signatures: vec![signature] })
}
