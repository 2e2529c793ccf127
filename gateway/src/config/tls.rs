//! TLS on listeners, and certificates with their keys.

use std::borrow::Cow;

use crossway_plugin_api::config::Secret;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// TLS on a listener; all its connections are https.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Oldest version of TLS that is spoken.
    #[serde(default)]
    pub min_version: MinVersion,
    /// Cipher suites to use, the preferred first, by their IANA names. Default: all that rustls has, in the order that
    /// the client prefers.
    #[schemars(length(min = 1, max = 9))]
    pub ciphers: Option<Vec<CipherSuite>>,
    /// Certificates, chosen by the name that the client asks for (SNI). The first one also serves clients that ask for no
    /// name, and unless `unknown_names` says otherwise those that ask for a name no certificate has.
    #[schemars(length(min = 1, max = 1024))]
    pub certificates: Vec<KeyPair>,
    /// What a client gets that asks for a name no certificate has.
    #[serde(default)]
    pub unknown_names: UnknownNames,
    /// Whether clients may resume sessions (RFC 8446, section 2.2); `false` turns off tickets and session ids alike.
    #[serde(default = "yes")]
    pub session_tickets: bool,
    /// Certificates of clients. Default: none is asked for.
    pub client_auth: Option<ClientAuth>,
    /// Names with a client authentication of their own, in place of the listener's.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub hosts: Vec<TlsHost>,
}

fn yes() -> bool {
    true
}

/// A certificate and its private key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    /// PEM file with the certificate, and after it those of the authorities between it and the root.
    #[schemars(length(min = 1))]
    pub cert: String,
    /// The private key of the certificate as a PEM text, not encrypted: a reference such as `${file:tls/api.key}`.
    pub key: Secret,
}

/// How clients prove who they are in the handshake (mTLS).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAuth {
    /// PEM file with the authorities whose certificates are accepted.
    #[schemars(length(min = 1))]
    pub ca: String,
    /// Whether a client may come without a certificate.
    pub mode: ClientAuthMode,
}

/// Whether a client may come without a certificate. One that is presented must be valid either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMode {
    /// No handshake without a certificate.
    Required,
    /// A client may come without one.
    Optional,
}

/// Names with a client authentication of their own.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsHost {
    /// Host names, such as `api.example.com`, or `*.example.com` for every name of one label more. An exact name goes
    /// before a `*`.
    #[schemars(length(min = 1, max = 256))]
    pub names: Vec<String>,
    /// Certificates of clients of these names. Default: none is asked for.
    pub client_auth: Option<ClientAuth>,
}

/// Oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246) and TLS 1.3.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446) only.
    #[serde(rename = "1.3")]
    Tls13,
}

/// What a client gets that asks for a name no certificate has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownNames {
    /// The first certificate.
    #[default]
    ServeDefault,
    /// The alert `unrecognized_name` (RFC 6066, section 3).
    Refuse,
}

/// A cipher suite, by its number in the IANA registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CipherSuite(pub u16);

impl CipherSuite {
    /// IANA names and numbers of the suites that rustls has with ring; those of TLS 1.3 also by the names that rustls
    /// gives them.
    const NAMES: [(&'static str, u16); 12] = [
        ("TLS_AES_256_GCM_SHA384", 0x1302),
        ("TLS_AES_128_GCM_SHA256", 0x1301),
        ("TLS_CHACHA20_POLY1305_SHA256", 0x1303),
        ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0xc02c),
        ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xc02b),
        ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca9),
        ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0xc030),
        ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xc02f),
        ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca8),
        ("TLS13_AES_256_GCM_SHA384", 0x1302),
        ("TLS13_AES_128_GCM_SHA256", 0x1301),
        ("TLS13_CHACHA20_POLY1305_SHA256", 0x1303),
    ];
}

impl<'de> Deserialize<'de> for CipherSuite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <Cow<'de, str>>::deserialize(deserializer)?;
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, number)| Self(*number)).ok_or_else(|| D::Error::custom("is not a cipher suite that there is"))
    }
}

impl JsonSchema for CipherSuite {
    fn schema_name() -> Cow<'static, str> {
        "CipherSuite".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names = Self::NAMES.map(|(name, _)| name);
        json_schema!({ "type": "string", "enum": names, "description": "A cipher suite, by its IANA name." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_suites_there_are() {
        let mut ours: Vec<u16> = CipherSuite::NAMES.iter().map(|(_, number)| *number).collect();
        ours.sort_unstable();
        ours.dedup();
        let known = rustls::crypto::ring::ALL_CIPHER_SUITES;
        let mut theirs: Vec<u16> = known.iter().map(|suite| u16::from(suite.suite())).collect();
        theirs.sort_unstable();
        assert_eq!(ours, theirs);
        for suite in known {
            let name = format!("{:?}", suite.suite());
            let named = CipherSuite::NAMES.iter().find(|(known, _)| *known == name);
            assert_eq!(named.map(|(_, number)| *number), Some(u16::from(suite.suite())), "{name}");
        }
    }
}
