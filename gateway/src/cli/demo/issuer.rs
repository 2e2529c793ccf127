//! The demo's issuer of tokens: one client, which gets access tokens (RFC 9068) by its name and secret (RFC 6749, section
//! 4.4). Its key is made at start and lives in memory only; the secret is known to everybody, so that it must stay on
//! loopback.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use axum::{
    Form, Json, Router,
    extract::{DefaultBodyLimit, State, rejection::FormRejection},
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, PRAGMA, WWW_AUTHENTICATE},
    },
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64URL},
};
use percent_encoding::percent_decode_str;
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING as ES256, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

const CLIENT: &str = "acme-mobile";
const SECRET: &str = "demo-secret-acme-mobile";
/// What the client may ask for.
const SCOPES: [&str; 2] = ["orders.read", "orders.write"];
/// Whom the tokens are for.
const AUDIENCE: &str = "orders-api";
/// How long a token is good, in seconds.
const LIFETIME: u64 = 600;
/// Longest form that is read, in bytes.
const MAX_FORM: usize = 4 << 10;

struct Issuer {
    url: String,
    key: EcdsaKeyPair,
    key_id: String,
    random: SystemRandom,
}

/// Starts the issuer; returns its address.
pub(super) fn start() -> anyhow::Result<String> {
    super::serve::serve("issuer", |address| {
        let issuer = Arc::new(Issuer::new(&format!("http://{address}")).context("no key for the issuer")?);
        Ok(Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/jwks", get(keys))
            .route("/token", post(token))
            .layer(DefaultBodyLimit::max(MAX_FORM))
            .with_state(issuer))
    })
}

impl Issuer {
    /// With a fresh key; `None` without randomness.
    fn new(url: &str) -> Option<Self> {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ES256, &random).ok()?;
        let key = EcdsaKeyPair::from_pkcs8(&ES256, document.as_ref(), &random).ok()?;
        let mut issuer = Self { url: url.to_owned(), key, key_id: String::new(), random };
        // The thumbprint of RFC 7638 is made of these members, in this order, and no others.
        issuer.key_id = BASE64URL.encode(digest(&SHA256, issuer.public_key().to_string().as_bytes()));
        Some(issuer)
    }

    /// The members that make the public key (RFC 7518, section 6.2.1).
    fn public_key(&self) -> Value {
        // An uncompressed point: one byte that says so, then the two coordinates.
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        json!({ "crv": "P-256", "kty": "EC", "x": BASE64URL.encode(x), "y": BASE64URL.encode(y) })
    }

    /// An access token with these scopes (RFC 9068); `None` without randomness.
    fn token(&self, scope: &str) -> Option<String> {
        let mut id = [0; 16];
        self.random.fill(&mut id).ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.key_id });
        let claims = json!({
            "iss": self.url, "aud": AUDIENCE, "sub": CLIENT, "client_id": CLIENT, "scope": scope,
            "iat": now, "exp": now + LIFETIME, "jti": BASE64URL.encode(id),
        });
        let part = |value: Value| BASE64URL.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(&self.random, message.as_bytes()).ok()?;
        Some(format!("{message}.{}", BASE64URL.encode(signature)))
    }
}

async fn metadata(State(issuer): State<Arc<Issuer>>) -> Json<Value> {
    let url = &issuer.url;
    Json(json!({
        "issuer": url,
        "jwks_uri": format!("{url}/jwks"),
        "token_endpoint": format!("{url}/token"),
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        "scopes_supported": SCOPES,
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

async fn keys(State(issuer): State<Arc<Issuer>>) -> Json<Value> {
    let mut key = issuer.public_key();
    key["alg"] = json!("ES256");
    key["use"] = json!("sig");
    key["kid"] = json!(issuer.key_id);
    Json(json!({ "keys": [key] }))
}

/// Names and values of a form.
type Fields = Vec<(String, String)>;

/// The token endpoint (RFC 6749, sections 4.4.2, 5.1 and 5.2).
async fn token(
    State(issuer): State<Arc<Issuer>>,
    headers: HeaderMap,
    form: Result<Form<Fields>, FormRejection>,
) -> Response {
    if !is_client(&headers) {
        let challenge = [(WWW_AUTHENTICATE, "Basic realm=\"demo\"")];
        return (StatusCode::UNAUTHORIZED, challenge, Json(json!({ "error": "invalid_client" }))).into_response();
    }
    let scope = match form.map_err(|_| "invalid_request").and_then(|Form(fields)| granted(&fields)) {
        Ok(scope) => scope,
        Err(error) => return (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response(),
    };
    let Some(token) = issuer.token(&scope) else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let answer =
        json!({ "access_token": token, "token_type": "Bearer", "expires_in": LIFETIME, "scope": scope.as_str() });
    ([(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")], Json(answer)).into_response()
}

/// The scopes that a request gets: those it asks for, or all. Errors: the code of RFC 6749, section 5.2.
fn granted(fields: &Fields) -> Result<String, &'static str> {
    if only(fields, "grant_type")?.ok_or("invalid_request")? != "client_credentials" {
        return Err("unsupported_grant_type");
    }
    let Some(scope) = only(fields, "scope")? else { return Ok(SCOPES.join(" ")) };
    if scope.split(' ').all(|one| SCOPES.contains(&one)) { Ok(scope.to_owned()) } else { Err("invalid_scope") }
}

/// The value of a field, which may stand there once.
fn only<'f>(fields: &'f Fields, name: &str) -> Result<Option<&'f str>, &'static str> {
    let mut values = fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str());
    let first = values.next();
    if values.next().is_some() { Err("invalid_request") } else { Ok(first) }
}

/// Whether these are the client's name and secret (RFC 6749, section 2.3.1).
fn is_client(headers: &HeaderMap) -> bool {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|text| text.split_once(' '));
    let Some((_, pair)) = value.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")) else { return false };
    let Some(pair) = STANDARD.decode(pair).ok().and_then(|bytes| String::from_utf8(bytes).ok()) else { return false };
    let Some((name, secret)) = pair.split_once(':') else { return false };
    let plain = |text: &str| -> Vec<u8> { percent_decode_str(&text.replace('+', " ")).collect() };
    plain(name) == CLIENT.as_bytes() && bool::from(plain(secret).ct_eq(SECRET.as_bytes()))
}
