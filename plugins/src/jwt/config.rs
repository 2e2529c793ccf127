//! The settings that users write.

use std::collections::BTreeMap;

use crossway_plugin_api::config::{ByteSize, FieldName, FieldValue, FileText, Glob, HumanDuration, Secret};
use http::{HeaderValue, header::AUTHORIZATION};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Algorithm;

/// Settings of `jwt`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who may issue tokens. A token is checked by the rules of the issuer that its claim `iss` names, and no other.
    #[schemars(length(min = 1, max = 32))]
    pub issuers: Vec<Issuer>,
    /// Where the token may stand; a request with two is refused (RFC 6750, section 2). Default the field `Authorization`
    /// with the scheme `Bearer`.
    #[serde(default = "bearer")]
    #[schemars(length(min = 1, max = 8))]
    pub from: Vec<Place>,
    /// What a good token must say beside; one that does not is answered 403.
    #[serde(default)]
    pub require: Require,
    /// What the upstream gets of it.
    #[serde(default)]
    pub forward: Forward,
    /// What becomes of a good token that stands for no consumer: with `optional` the request goes on without one, with
    /// `required` it is answered 403. Default `optional`.
    #[serde(default)]
    pub consumer: ConsumerRule,
    /// The `realm` of challenges (RFC 9110, section 11.5). Default `crossway`.
    #[serde(default = "realm")]
    pub realm: FieldValue,
    /// Longest token; at most 64 KiB. Default 8 KiB.
    #[serde(default = "max_token")]
    pub max_token: ByteSize,
    /// Memory for tokens that were verified, about 5 KiB for each; one that is found there costs no cryptography. `0B` keeps
    /// none. Default 32 MiB.
    #[serde(default = "cache")]
    pub cache: ByteSize,
}

fn bearer() -> Vec<Place> {
    vec![Place { header: Some(FieldName(AUTHORIZATION)), scheme: Some("Bearer".into()), cookie: None, query: None }]
}

fn realm() -> FieldValue {
    FieldValue(HeaderValue::from_static("crossway"))
}

fn max_token() -> ByteSize {
    ByteSize::kib(8)
}

fn cache() -> ByteSize {
    ByteSize::mib(32)
}

/// One who issues tokens, and what these must say. Exactly one of `discovery`, `jwks_url`, `jwks_file`,
/// `public_key` and `secret` says where the issuer's keys are.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// Its name, exactly as the claim `iss` of its tokens has it.
    #[schemars(length(min = 1, max = 2048))]
    pub issuer: String,
    /// Fetch where its keys are from `<issuer>/.well-known/openid-configuration` (`OpenID` Connect Discovery 1.0). Default
    /// false.
    #[serde(default)]
    pub discovery: bool,
    /// URL of its key set (RFC 7517).
    pub jwks_url: Option<String>,
    /// Path of a file with its key set.
    pub jwks_file: Option<FileText>,
    /// Its public key in PEM: RSA, P-256, P-384 or Ed25519.
    pub public_key: Option<String>,
    /// A secret that is shared with it, for the algorithms HS256, HS384 and HS512: at least 32, 48 or 64 bytes long.
    pub secret: Option<Secret>,
    /// How its tokens may be signed; one that is signed in another way is refused, whatever it says itself. HS256, HS384 and
    /// HS512 go with `secret`, the others with keys.
    #[schemars(length(min = 1))]
    pub algorithms: Vec<Algorithm>,
    /// Its tokens must be for one of these (`aud`), exactly.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Take tokens for any audience, in place of `audiences`. Any other service that trusts this issuer can then use its
    /// callers' tokens here. Default false.
    #[serde(default)]
    pub any_audience: bool,
    /// By how much clocks may differ where times are compared (`exp`, `nbf`, `iat`); at most 60 s. Default 30 s.
    #[serde(default = "leeway")]
    pub leeway: HumanDuration,
    /// Oldest token, counted from `iat`, which it must then have. Default none: until `exp`, which every token must have.
    pub max_age: Option<HumanDuration>,
    /// The type that the token's header must name (`typ`). `at+jwt` demands an access token of RFC 9068, with the claims that
    /// it must have. Default any of `JWT`, `at+jwt` and none.
    #[schemars(length(min = 1, max = 255))]
    pub typ: Option<String>,
    /// The claim by which consumers are found, among those with a `token` of this issuer. Default `sub`.
    #[serde(default = "subject")]
    #[schemars(length(min = 1))]
    pub consumer_claim: String,
    /// How its keys are fetched.
    pub jwks: Option<Jwks>,
    /// Fetch keys without TLS. Who can change the answer on its way can then make tokens. Loopback addresses need no such
    /// leave. Default false.
    #[serde(default)]
    pub plain_http: bool,
}

fn leeway() -> HumanDuration {
    HumanDuration::from_secs(30)
}

fn subject() -> String {
    "sub".into()
}

/// How an issuer's keys are fetched: in the background, at start and then again and again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Jwks {
    /// Longest time between two fetches: a key that the issuer has taken back is refused after it. A shorter `max-age` of its
    /// answer is obeyed, down to `cool_down`. Default 5 min.
    pub refresh: HumanDuration,
    /// Shortest time between two fetches, however many tokens with unknown keys come; at least 1 s. Default 10 s.
    pub cool_down: HumanDuration,
    /// How long the last keys are used while the issuer does not answer; then its tokens are answered 503. Default 24 h.
    pub max_stale: HumanDuration,
    /// Time for one request to the issuer, at most 60 s. Default 5 s.
    pub timeout: HumanDuration,
}

impl Default for Jwks {
    fn default() -> Self {
        Self {
            refresh: HumanDuration::from_secs(5 * 60),
            cool_down: HumanDuration::from_secs(10),
            max_stale: HumanDuration::from_secs(24 * 60 * 60),
            timeout: HumanDuration::from_secs(5),
        }
    }
}

/// A place for the token. Exactly one of `header`, `cookie` and `query`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Place {
    /// A field of the header by its name.
    pub header: Option<FieldName>,
    /// What stands before the token in the field, such as `Bearer`; without it the whole value is the token.
    #[schemars(regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,32}$"))]
    pub scheme: Option<String>,
    /// A cookie by its name.
    #[schemars(regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$"))]
    pub cookie: Option<String>,
    /// A parameter of the query, such as `access_token`. URLs end up in logs and histories: for clients that cannot do
    /// otherwise.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._~-]{1,128}$"))]
    pub query: Option<String>,
}

/// What a good token must say beside.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Require {
    /// Scopes that it must have (`scope`, or the list `scp`).
    pub scopes: Scopes,
    /// Claims by their name, or a path such as `realm_access.roles`, and the values of which each must have one; `*` stands
    /// for any characters. Of a claim that is a list, one item must.
    pub claims: BTreeMap<String, Vec<Glob>>,
}

/// Scopes (RFC 6749, section 3.3).
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Scopes {
    /// One of these.
    pub any: Vec<String>,
    /// All of these.
    pub all: Vec<String>,
}

/// What the upstream gets of a token.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Forward {
    /// Claims, by name or path, and the fields that carry them to the upstream. What the client says in these fields is
    /// dropped. Characters that are not visible ASCII, and `%`, are percent-encoded; the items of a list have commas between
    /// them.
    pub claims: BTreeMap<String, FieldName>,
    /// Whether the token goes on to later plugins and the upstream: `strip` or `keep`. Default `strip`.
    pub token: TokenRule,
}

/// Whether the token goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "described where it is used, so that its schema stays a list of words")]
pub enum TokenRule {
    #[default]
    Strip,
    Keep,
}

/// What becomes of a token that stands for no consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "described where it is used, so that its schema stays a list of words")]
pub enum ConsumerRule {
    #[default]
    Optional,
    Required,
}
