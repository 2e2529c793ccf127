//! Scopes of a token.

use crossway_plugin_api::{Claims, InvalidConfig};
use schemars::JsonSchema;
use serde::Deserialize;

use super::roles::EMPTY;

/// Most scopes in one list: each has a bit while a token's scopes are gone through.
const MAX_SCOPES: usize = 64;

/// Scopes that a token must have.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Scopes {
    /// One of these is enough.
    #[schemars(with = "Vec<String>", length(min = 1, max = MAX_SCOPES))]
    pub any: Option<Vec<String>>,
    /// Each of these is needed.
    #[schemars(with = "Vec<String>", length(min = 1, max = MAX_SCOPES))]
    pub all: Option<Vec<String>>,
}

impl Scopes {
    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        if self.any.is_none() && self.all.is_none() {
            return Err(InvalidConfig::new("scopes", "names no scope: give `any`, `all` or both"));
        }
        for (list, place) in [(&self.any, "scopes/any"), (&self.all, "scopes/all")] {
            let Some(list) = list else { continue };
            if list.is_empty() {
                return Err(InvalidConfig::new(place, EMPTY));
            }
            if list.len() > MAX_SCOPES {
                return Err(InvalidConfig::new(place, format!("has more than {MAX_SCOPES} scopes")));
            }
            if let Some(at) = list.iter().position(|scope| !is_scope(scope)) {
                let reason = "is not a scope: visible ASCII characters without spaces, quotes and backslashes";
                return Err(InvalidConfig::new(format!("{place}/{at}"), reason));
            }
        }
        Ok(())
    }

    /// Goes through the token's scopes once.
    pub(super) fn hold(&self, claims: &Claims) -> bool {
        let all = self.all.as_deref().unwrap_or_default();
        let mut missing = u64::MAX.checked_shr(64 - u32::try_from(all.len()).unwrap_or(64)).unwrap_or(0);
        let mut some = self.any.is_none();
        for scope in claims.scopes() {
            some = some || self.any.as_ref().is_some_and(|any| any.iter().any(|wanted| wanted == scope));
            for (at, _) in all.iter().enumerate().filter(|(_, wanted)| *wanted == scope) {
                missing &= !(1 << at);
            }
            if some && missing == 0 {
                return true;
            }
        }
        some && missing == 0
    }
}

/// A scope token (RFC 6749, section 3.3).
fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}
