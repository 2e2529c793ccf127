//! The built-in plugins: one folder each, registered here.

use std::sync::Arc;

use crossway_plugin_api::{Deps, InvalidConfig, Plugin, PluginConfig};
use schemars::JsonSchema;
use serde::Deserialize;

pub mod all_of;
pub mod any_of;
pub mod api_key;
pub mod authorize;
pub mod basic;
pub mod body_limit;
pub mod client_certificate;
pub mod concurrency;
pub mod cors;
pub mod forward_auth;
pub mod headers;
pub mod hmac_signature;
pub mod ip_allow;
pub mod jwt;
pub mod oauth2_introspection;
pub mod rate_limit;
pub mod request_id;
pub mod respond;

mod bearer;
mod credentials;
mod entries;
mod fields;
mod hex;
mod key;
mod service;

pub use fields::is_framing;

/// The registry: a variant for each plugin, with its name in the configuration and its folder.
macro_rules! registry {
    ($($(#[$doc:meta])* $variant:ident = $name:literal in $folder:ident,)*) => {
        /// One entry of a list of plugins: the plugin's name, and its settings.
        #[derive(Debug, Clone, Deserialize, JsonSchema)]
        pub enum AnyPlugin {
            $($(#[$doc])* #[serde(rename = $name)] $variant($folder::Config),)*
        }

        impl AnyPlugin {
            /// The names of all plugins, in alphabetical order.
            pub const NAMES: &'static [&'static str] = &[$($name),*];

            /// The plugin's name in the configuration.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }
        }

        impl PluginConfig for AnyPlugin {
            fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
                match self {
                    $(Self::$variant(config) => config.build(deps),)*
                }
            }
        }
    };
}

registry! {
    /// Lets a caller in that each of several plugins knows.
    AllOf = "all_of" in all_of,
    /// Lets a caller in that one of several plugins knows.
    AnyOf = "any_of" in any_of,
    /// Lets a request in by the API key it carries, and tells the upstream whose key it is.
    ApiKey = "api_key" in api_key,
    /// Lets a caller in by what is known of it and of its request: scopes, claims, groups, networks, an expression.
    Authorize = "authorize" in authorize,
    /// Lets a request in by a user name and a password (RFC 7617).
    Basic = "basic" in basic,
    /// Bounds the size of request bodies, and can hold a body back until it is whole.
    BodyLimit = "body_limit" in body_limit,
    /// Lets a request in by the certificate that its client has shown in the TLS handshake.
    ClientCertificate = "client_certificate" in client_certificate,
    /// Bounds how many requests callers may have in flight at a time.
    Concurrency = "concurrency" in concurrency,
    /// Lets pages of other origins read answers in a browser (Fetch standard, "CORS protocol").
    Cors = "cors" in cors,
    /// Asks another service whether a request may go on.
    ForwardAuth = "forward_auth" in forward_auth,
    /// Sets, adds, removes and renames header fields of the request and the response.
    Headers = "headers" in headers,
    /// Lets a request in by the signature that its sender has put on it with a shared secret: webhooks.
    HmacSignature = "hmac_signature" in hmac_signature,
    /// Lets requests in or keeps them out by the client's address.
    IpAllow = "ip_allow" in ip_allow,
    /// Lets a request in by the JSON Web Token it carries, and gives its claims to later plugins and the upstream.
    Jwt = "jwt" in jwt,
    /// Lets a request in by a token that its issuer vouches for when asked (RFC 7662).
    OAuth2Introspection = "oauth2_introspection" in oauth2_introspection,
    /// Bounds how much callers may ask for in a time: rates and quotas.
    RateLimit = "rate_limit" in rate_limit,
    /// Names each request, so that it can be found in the logs of every system it passes.
    RequestId = "request_id" in request_id,
    /// Gives a fixed answer, always or in place of certain answers of the upstream.
    Respond = "respond" in respond,
}

#[cfg(test)]
mod compliance;
#[cfg(test)]
mod testing;
