//! How the gateway signs in at an upstream.

use crossway_plugin_api::{
    config::{FieldName, HumanDuration, Secret},
    oauth2::ClientAuth,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// How the gateway signs in at an upstream. Exactly one kind. A client certificate is `tls.client`, and may stand beside it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamAuth {
    /// By a token that the gateway gets for itself (RFC 6749, section 4.4).
    pub oauth2_client_credentials: Option<ClientCredentials>,
    /// By a token that is always the same (RFC 6750).
    pub bearer: Option<FixedBearer>,
    /// By a user name and a password (RFC 7617).
    pub basic: Option<FixedBasic>,
    /// By a key in a field of the header, or in the query.
    pub api_key: Option<FixedKey>,
}

/// A token that the gateway gets for itself: it asks at the start, ahead of the token's end, and when the upstream does
/// not take a token any more.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCredentials {
    /// The token endpoint: a URL of https.
    #[schemars(length(min = 1, max = 2048))]
    pub token_url: String,
    /// The client that the gateway is.
    #[schemars(length(min = 1, max = 1024))]
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// How the gateway shows its secret (RFC 6749, section 2.3.1): `basic`, or `post` in the body. Default `basic`.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// The scopes that are asked for (RFC 6749, section 3.3). Default: what the provider gives by itself.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub scopes: Vec<String>,
    /// The audience that is asked for, where the provider wants one (`audience`). Default: none.
    #[schemars(length(min = 1, max = 2048))]
    pub audience: Option<String>,
    /// Time for one request to the provider, at most 60 s. Default 5 s.
    #[serde(default = "five_seconds")]
    pub timeout: HumanDuration,
    /// Longest time that a token is used, whatever the provider says; at least 1 s. Default 1 h.
    #[serde(default = "an_hour")]
    pub max_lifetime: HumanDuration,
    /// How long a token is used if the provider does not say (`expires_in`); at least 1 s, and never longer than
    /// `max_lifetime`. Default 5 min.
    #[serde(default = "five_minutes")]
    pub default_lifetime: HumanDuration,
    /// How long before its end a token is replaced by a new one, at most half of its time. Up to a quarter of this is taken
    /// away by chance, so that several gateways do not ask at once. Default 1 min.
    #[serde(default = "a_minute")]
    pub refresh_before: HumanDuration,
    /// Shortest time between the last request to the provider and one that is made because it failed, or because the
    /// upstream does not take the token; at least 1 s. Default 5 s.
    #[serde(default = "five_seconds")]
    pub cool_down: HumanDuration,
    /// Ask without TLS. Who is on the way can then read the secret. Loopback addresses need no such leave. Default false.
    #[serde(default)]
    pub plain_http: bool,
}

fn five_seconds() -> HumanDuration {
    HumanDuration::from_secs(5)
}

fn a_minute() -> HumanDuration {
    HumanDuration::from_secs(60)
}

fn five_minutes() -> HumanDuration {
    HumanDuration::from_secs(5 * 60)
}

fn an_hour() -> HumanDuration {
    HumanDuration::from_secs(60 * 60)
}

/// A token that is always the same.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedBearer {
    /// The token, without the word `Bearer`.
    pub token: Secret,
}

/// A user name and a password.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedBasic {
    /// The user name; no colon.
    #[schemars(regex(pattern = r"^[^:\x00-\x1f\x7f]{1,128}$"))]
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// A key. Exactly one of `header` and `query`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedKey {
    /// The field that carries the key, such as `X-API-Key`.
    pub header: Option<FieldName>,
    /// The parameter of the query that carries it. URLs end up in logs: for upstreams that take it in no other way.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._~-]{1,128}$"))]
    pub query: Option<String>,
    /// The key, with all that must stand before it in the field.
    pub key: Secret,
}
