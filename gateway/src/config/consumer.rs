//! Named callers.

use std::collections::BTreeMap;

use crossway_plugin_api::config::{Secret, Sha256Hex};
use schemars::JsonSchema;
use serde::Deserialize;

/// A named caller.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    /// Unique name, sent to the upstream as `X-Consumer-Name`: letters, digits and `. _ @ -`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._@-]{1,128}$"))]
    pub name: String,
    /// Groups the consumer belongs to, sent to the upstream as `X-Consumer-Groups`.
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"^[A-Za-z0-9._@-]{1,128}$")))]
    pub groups: Vec<String>,
    /// Notes on the consumer, for expressions of `authorize`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// What the consumer presents to prove who it is.
    #[serde(default)]
    pub credentials: Vec<Credential>,
}

/// What a consumer presents. Exactly one kind an entry.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Credential {
    /// An API key.
    pub api_key: Option<ApiKey>,
    /// A user name and a password.
    pub basic: Option<Basic>,
    /// A client certificate that the listener has verified.
    pub client_certificate: Option<ClientCertificate>,
    /// A token about this subject, verified by `jwt` or `oauth2_introspection`.
    pub token: Option<Token>,
}

/// An API key, by its digest: the key itself is never written down.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// SHA-256 of the key's text: `printf %s "$KEY" | sha256sum`.
    pub sha256: Sha256Hex,
}

/// A user name and a password (RFC 7617).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// The user name; no colon.
    #[schemars(regex(pattern = r"^[^:\x00-\x1f\x7f]{1,128}$"))]
    pub username: String,
    /// Argon2id hash of the password in the PHC string format: `$argon2id$v=19$m=...`.
    pub password_hash: Secret,
}

/// A client certificate, by one of its names.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientCertificate {
    /// The distinguished name of its subject (RFC 4514), such as `CN=acme-mobile,O=Acme`.
    pub subject: Option<String>,
    /// A DNS name among its alternative names.
    pub dns: Option<String>,
    /// A URI among its alternative names.
    pub uri: Option<String>,
    /// A mail address among its alternative names.
    pub email: Option<String>,
    /// SHA-256 of its DER encoding, as `openssl x509 -fingerprint -sha256` prints it, without colons.
    pub sha256: Option<Sha256Hex>,
}

/// A token, by whom it is about.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The issuer, exactly as its tokens name it.
    pub issuer: String,
    /// The subject, exactly as tokens name it.
    pub subject: String,
}
