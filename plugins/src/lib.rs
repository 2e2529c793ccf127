//! The built-in plugins: one folder each, registered here.

use std::sync::Arc;

use crossway_plugin_api::{Deps, InvalidConfig, Plugin, PluginConfig};
use schemars::JsonSchema;
use serde::Deserialize;

pub mod api_key;
pub mod body_limit;
pub mod cors;
pub mod headers;
pub mod ip_allow;
pub mod jwt;
pub mod request_id;
pub mod respond;

mod fields;

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
    /// Lets a request in by the API key it carries, and tells the upstream whose key it is.
    ApiKey = "api_key" in api_key,
    /// Bounds the size of request bodies, and can hold a body back until it is whole.
    BodyLimit = "body_limit" in body_limit,
    /// Lets pages of other origins read answers in a browser (Fetch standard, "CORS protocol").
    Cors = "cors" in cors,
    /// Sets, adds, removes and renames header fields of the request and the response.
    Headers = "headers" in headers,
    /// Lets requests in or keeps them out by the client's address.
    IpAllow = "ip_allow" in ip_allow,
    /// Lets a request in by the JSON Web Token it carries, and gives its claims to later plugins and the upstream.
    Jwt = "jwt" in jwt,
    /// Names each request, so that it can be found in the logs of every system it passes.
    RequestId = "request_id" in request_id,
    /// Gives a fixed answer, always or in place of certain answers of the upstream.
    Respond = "respond" in respond,
}

#[cfg(test)]
mod compliance;
#[cfg(test)]
mod testing;
