//! How the gateway signs in at upstreams, checked.

use std::{net::IpAddr, sync::Arc, time::Duration};

use crossway_plugin_api::check_secure_url;
use crossway_plugins::is_framing;
use http::{HeaderName, header};

use super::Compiler;
use crate::{
    config::{
        upstream::Upstream as Config,
        upstream_auth::{ClientCredentials, FixedKey, UpstreamAuth},
    },
    request,
    upstream::auth::{Identity, Plan, Proof, Tokens},
};

/// Longest time for one request to a provider.
const LONGEST: Duration = Duration::from_mins(1);
impl Compiler<'_> {
    /// How the gateway signs in at an upstream; `None` if it does not, or if something is wrong, which is reported.
    pub(super) fn identity(&mut self, pointer: &str, name: &str, config: &Config) -> Option<Identity> {
        let auth = config.auth.as_ref()?;
        let pointer = format!("{pointer}/auth");
        if config.tls.is_none()
            && !config.endpoints.iter().all(|endpoint| endpoint.address.as_deref().is_some_and(is_local))
        {
            let help = "add `tls` to the upstream";
            let message = "is sent without TLS: who is on the way can read it";
            let diagnostic = self.loaded.sources.warning(&pointer, message).help(help);
            self.add(&pointer, diagnostic);
        }
        match auth {
            UpstreamAuth { oauth2_client_credentials: Some(config), bearer: None, basic: None, api_key: None } => {
                self.tokens(&format!("{pointer}/oauth2_client_credentials"), name, config)
            }
            UpstreamAuth { bearer: Some(config), oauth2_client_credentials: None, basic: None, api_key: None } => {
                let proof = Proof::bearer(config.token.expose());
                let wrong = "is not a bearer token (RFC 6750): letters, digits and `-._~+/`, with `=` at the end";
                self.fixed("bearer", proof, &format!("{pointer}/bearer/token"), wrong)
            }
            UpstreamAuth { basic: Some(config), oauth2_client_credentials: None, bearer: None, api_key: None } => {
                let proof = Proof::basic(&config.username, config.password.expose());
                self.fixed("basic", proof, &format!("{pointer}/basic/password"), "has control characters")
            }
            UpstreamAuth { api_key: Some(config), oauth2_client_credentials: None, bearer: None, basic: None } => {
                self.key(&format!("{pointer}/api_key"), config)
            }
            _ => {
                let message = "needs exactly one of `oauth2_client_credentials`, `bearer`, `basic` and `api_key`";
                self.error(&pointer, message);
                None
            }
        }
    }

    fn fixed(&mut self, kind: &'static str, proof: Option<Proof>, place: &str, wrong: &str) -> Option<Identity> {
        if proof.is_none() {
            self.error(place, wrong);
        }
        proof.map(|proof| Identity::Fixed(kind, Arc::new(proof)))
    }

    fn key(&mut self, pointer: &str, config: &FixedKey) -> Option<Identity> {
        let key = config.key.expose();
        match (&config.header, &config.query) {
            (Some(name), None) => {
                if is_reserved(&name.0) {
                    self.error(&format!("{pointer}/header"), "is a field that only the gateway writes");
                    return None;
                }
                let wrong = "has characters that no field can carry: visible ASCII, and spaces between";
                self.fixed("api_key", Proof::field(name.0.clone(), key), &format!("{pointer}/key"), wrong)
            }
            (None, Some(name)) => Some(Identity::Fixed("api_key", Arc::new(Proof::parameter(name, key)))),
            _ => {
                self.error(pointer, "needs exactly one of `header` and `query`");
                None
            }
        }
    }

    fn tokens(&mut self, pointer: &str, name: &str, config: &ClientCredentials) -> Option<Identity> {
        let before = self.found.len();
        if let Err(wrong) = check_secure_url(&config.token_url, config.plain_http) {
            self.error(&format!("{pointer}/token_url"), wrong);
        }
        for (at, scope) in config.scopes.iter().enumerate() {
            if !is_scope(scope) {
                let message = "is no scope: visible ASCII characters without spaces, quotes and backslashes";
                self.error(&format!("{pointer}/scopes/{at}"), message);
            }
        }
        let timeout = config.timeout.0;
        if timeout.is_zero() || timeout > LONGEST {
            self.error(&format!("{pointer}/timeout"), "must be more than zero and at most 60s");
        }
        let bounded = [
            ("max_lifetime", config.max_lifetime),
            ("default_lifetime", config.default_lifetime),
            ("cool_down", config.cool_down),
        ];
        for (key, length) in bounded {
            if length.0.as_secs() == 0 {
                self.error(&format!("{pointer}/{key}"), "must be at least 1s");
            }
        }
        if self.found.len() > before {
            return None;
        }
        let metrics = self.around.metrics.upstream_auth(name);
        Some(Identity::Tokens(Tokens::find(Plan::new(name, config), &self.deps, metrics)))
    }
}

/// Whether a field has another meaning that is the gateway's to give.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    is_framing(name) || *name == header::EXPECT || *name == header::VIA || request::is_claim(name.as_str())
}

/// A scope (RFC 6749, section 3.3).
fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, 0x21..=0x7e) && !matches!(b, b'"' | b'\\'))
}

/// Whether an endpoint is on this machine.
fn is_local(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
