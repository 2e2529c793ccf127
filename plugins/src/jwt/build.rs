//! From the settings to what serves: everything that can be wrong with them is said here.

use std::{collections::HashMap, sync::Arc};

use crossway_plugin_api::{Deps, InvalidConfig, check_secure_url, config::FieldName};
use http::{HeaderName, header};

use super::{
    Algorithm,
    challenge::Challenges,
    claims::Demands,
    config::{Config, ConsumerRule, Forward, Issuer, Jwks, Place as PlaceConfig, Require},
    keys::{Key, KeySet},
    place::Place,
    policy::Policy,
    source::{Kept, Plan, Source},
    token::media_type,
};
use crate::fields;

const MAX_LEEWAY: u64 = 60;
const MAX_TOKEN: u64 = 64 << 10;
const MAX_TIMEOUT: u64 = 60;

/// An issuer, ready.
pub(super) struct Trusted {
    pub(super) name: String,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) demands: Demands,
    pub(super) consumer_claim: String,
    pub(super) source: Source,
}

type Checked<T> = Result<T, InvalidConfig>;

fn wrong<T>(field: impl Into<String>, reason: impl Into<String>) -> Checked<T> {
    Err(InvalidConfig::new(field, reason))
}

/// The issuers, in their order.
pub(super) fn issuers(written: Vec<Issuer>, deps: &Deps) -> Checked<Vec<Trusted>> {
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut issuers = Vec::with_capacity(written.len());
    for (at, issuer) in written.into_iter().enumerate() {
        let place = format!("issuers/{at}");
        if let Some(first) = names.insert(issuer.issuer.clone(), at) {
            return wrong(format!("{place}/issuer"), format!("is the issuer of entry {first} too"));
        }
        issuers.push(trusted(issuer, &place, deps)?);
    }
    if issuers.is_empty() { wrong("issuers", "names no issuer") } else { Ok(issuers) }
}

fn trusted(issuer: Issuer, place: &str, deps: &Deps) -> Checked<Trusted> {
    let below = |name: &str| format!("{place}/{name}");
    if issuer.audiences.is_empty() != issuer.any_audience {
        let reason = if issuer.any_audience {
            "stands beside `audiences`: one of the two goes"
        } else {
            "names no audience: say whom the tokens are for, or `any_audience: true`"
        };
        return wrong(below(if issuer.any_audience { "any_audience" } else { "audiences" }), reason);
    }
    let leeway = issuer.leeway.0.as_secs();
    if leeway > MAX_LEEWAY || issuer.leeway.0.subsec_nanos() > 0 {
        return wrong(below("leeway"), format!("is not a number of whole seconds up to {MAX_LEEWAY}"));
    }
    let source = source(&issuer, place, deps)?;
    let demands = Demands {
        audiences: (!issuer.any_audience).then_some(issuer.audiences),
        leeway,
        max_age: issuer.max_age.map(|age| age.0.as_secs()),
        typ: issuer.typ.as_deref().map(media_type),
    };
    let (name, algorithms, consumer_claim) = (issuer.issuer, issuer.algorithms, issuer.consumer_claim);
    Ok(Trusted { name, algorithms, demands, consumer_claim, source })
}

fn source(issuer: &Issuer, place: &str, deps: &Deps) -> Checked<Source> {
    let below = |name: &str| format!("{place}/{name}");
    let Issuer { discovery, jwks_url, jwks_file, public_key, secret, .. } = issuer;
    let given = [*discovery, jwks_url.is_some(), jwks_file.is_some(), public_key.is_some(), secret.is_some()];
    if given.iter().filter(|is_given| **is_given).count() != 1 {
        return wrong(place, "needs exactly one of `discovery`, `jwks_url`, `jwks_file`, `public_key` and `secret`");
    }
    check_algorithms(issuer, place)?;
    let is_fetched = *discovery || jwks_url.is_some();
    if !is_fetched && issuer.jwks.is_some() {
        return wrong(below("jwks"), "has no effect: these keys are not fetched");
    }
    if !is_fetched && issuer.plain_http {
        return wrong(below("plain_http"), "has no effect: these keys are not fetched");
    }
    let fixed = |keys: KeySet, field: &str| {
        let unfit = issuer.algorithms.iter().position(|algorithm| !keys.fits(*algorithm));
        match unfit {
            Some(at) => wrong(format!("{place}/algorithms/{at}"), format!("fits no key in `{field}`")),
            None => Ok(Source::Fixed(Arc::new(keys))),
        }
    };
    if let Some(secret) = secret {
        return fixed(KeySet::single(Key::secret(secret.expose().as_bytes())), "secret");
    }
    if let Some(pem) = public_key {
        let key = Key::pem(pem).map_err(|reason| InvalidConfig::new(below("public_key"), reason))?;
        return fixed(KeySet::single(key), "public_key");
    }
    if let Some(file) = jwks_file {
        let reason = |reason| InvalidConfig::new(below("jwks_file"), format!("names a file that {reason}"));
        return fixed(KeySet::read(file.0.as_bytes()).map_err(reason)?, "jwks_file");
    }
    Ok(Source::Fetched(Kept::find(&plan(issuer, place)?, deps)))
}

/// Pinned algorithms go with the kind of key, so that a public key can never be taken for a secret.
fn check_algorithms(issuer: &Issuer, place: &str) -> Checked<()> {
    if issuer.algorithms.is_empty() {
        return wrong(format!("{place}/algorithms"), "names no algorithm");
    }
    for (at, algorithm) in issuer.algorithms.iter().enumerate() {
        let field = format!("{place}/algorithms/{at}");
        match (&issuer.secret, algorithm.least_secret()) {
            (None, Some(_)) => return wrong(field, "is for issuers with a `secret`"),
            (Some(_), None) => return wrong(field, "is for issuers with public keys, and this one has a `secret`"),
            (Some(secret), Some(least)) if secret.expose().len() < least => {
                let reason = format!("is too short for {algorithm:?}: at least {least} bytes (RFC 7518, section 3.2)");
                return wrong(format!("{place}/secret"), reason);
            }
            _ => {}
        }
    }
    Ok(())
}

fn plan(issuer: &Issuer, place: &str) -> Checked<Plan> {
    let (url, field) = match &issuer.jwks_url {
        Some(url) => (url, "jwks_url"),
        None => (&issuer.issuer, "issuer"),
    };
    check_secure_url(url, issuer.plain_http)
        .map_err(|reason| InvalidConfig::new(format!("{place}/{field}"), reason))?;
    let jwks = issuer.jwks.clone().unwrap_or_default();
    let Jwks { refresh, cool_down, max_stale, timeout } = jwks;
    let below = |name: &str| format!("{place}/jwks/{name}");
    if cool_down.0.as_secs() == 0 {
        return wrong(below("cool_down"), "is shorter than 1 s");
    }
    if refresh < cool_down {
        return wrong(below("refresh"), "is shorter than `cool_down`");
    }
    if max_stale < refresh {
        return wrong(below("max_stale"), "is shorter than `refresh`: keys would be gone before the next fetch");
    }
    if timeout.0.is_zero() || timeout.0.as_secs() > MAX_TIMEOUT {
        return wrong(below("timeout"), format!("is not between 1 ms and {MAX_TIMEOUT} s"));
    }
    Ok(Plan {
        issuer: issuer.issuer.clone(),
        jwks_url: issuer.jwks_url.clone(),
        plain_http: issuer.plain_http,
        refresh: refresh.0,
        cool_down: cool_down.0,
        max_stale: max_stale.0,
        timeout: timeout.0,
    })
}

/// The places of the token, in their order.
pub(super) fn places(written: &[PlaceConfig]) -> Checked<Vec<Place>> {
    let mut places: Vec<Place> = Vec::with_capacity(written.len());
    for (at, entry) in written.iter().enumerate() {
        let field = format!("from/{at}");
        let place = match (&entry.header, &entry.cookie, &entry.query) {
            (Some(FieldName(name)), None, None) => {
                let place = format!("{field}/header");
                fields::check_framing(name, &place)?;
                if fields::is_identity(name) || *name == header::COOKIE {
                    return Err(fields::reserved(name, &place, "that carries no token of its own"));
                }
                Place::Header(name.clone(), entry.scheme.clone())
            }
            (None, Some(_), None) | (None, None, Some(_)) if entry.scheme.is_some() => {
                return wrong(format!("{field}/scheme"), "goes with `header` only");
            }
            (None, Some(name), None) => Place::Cookie(name.clone()),
            (None, None, Some(name)) => Place::Query(name.clone()),
            _ => return wrong(field, "needs exactly one of `header`, `cookie` and `query`"),
        };
        let same = |other: &Place| match (other, &place) {
            (Place::Header(a, _), Place::Header(b, _)) => a == b,
            (a, b) => a == b,
        };
        if places.iter().any(same) {
            return wrong(field, "is a place that stands here already");
        }
        places.push(place);
    }
    if places.is_empty() { wrong("from", "names no place for the token") } else { Ok(places) }
}

/// What good tokens must have, and what the upstream gets.
pub(super) fn policy(require: Require, forward: Forward, consumer: ConsumerRule) -> Checked<Policy> {
    let Require { scopes, claims } = require;
    for (list, name) in [(&scopes.any, "any"), (&scopes.all, "all")] {
        if let Some(at) = list.iter().position(|scope| !is_scope(scope)) {
            let reason = "is no scope: visible ASCII without spaces, quotes and backslashes";
            return wrong(format!("require/scopes/{name}/{at}"), reason);
        }
    }
    for (name, values) in &claims {
        if values.is_empty() {
            return wrong(fields::below("require/claims", name), "lists no value, so that no token could have one");
        }
    }
    let mut fields_of: Vec<(String, HeaderName)> = Vec::new();
    for (claim, FieldName(name)) in forward.claims {
        let place = fields::below("forward/claims", &claim);
        check_forwarded(&name, &place)?;
        if fields_of.iter().any(|(_, known)| *known == name) {
            return wrong(place, format!("names `{name}`, which carries another claim already"));
        }
        fields_of.push((claim, name));
    }
    Ok(Policy {
        any_scope: scopes.any,
        all_scopes: scopes.all,
        claims: claims.into_iter().collect(),
        needs_consumer: consumer == ConsumerRule::Required,
        forward: fields_of,
    })
}

fn check_forwarded(name: &HeaderName, place: &str) -> Checked<()> {
    /// Fields with a meaning of their own to every server.
    const TAKEN: [HeaderName; 6] = [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::EXPECT,
    ];
    fields::check_framing(name, place)?;
    if fields::is_identity(name) {
        return Err(fields::reserved(name, place, "that only the gateway writes"));
    }
    if TAKEN.contains(name) {
        return Err(fields::reserved(name, place, "with a meaning of its own"));
    }
    Ok(())
}

/// RFC 6749, section 3.3, `scope-token`.
fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'!' | b'#'..=b'[' | b']'..=b'~'))
}

/// The challenges, with the realm and the scopes in them.
pub(super) fn challenges(config: &Config) -> Checked<Challenges> {
    let scopes = &config.require.scopes;
    let scopes: Vec<&str> = scopes.all.iter().chain(&scopes.any).map(String::as_str).collect();
    let made = config.realm.0.to_str().ok().and_then(|realm| Challenges::new(realm, &scopes));
    made.ok_or_else(|| InvalidConfig::new("realm", "has a quote or a backslash"))
}

/// Longest token in bytes.
pub(super) fn max_token(config: &Config) -> Checked<usize> {
    let max = config.max_token.0;
    if !(1..=MAX_TOKEN).contains(&max) {
        return wrong("max_token", "is not between 1 B and 64 KiB");
    }
    Ok(usize::try_from(max).unwrap_or(usize::MAX))
}
