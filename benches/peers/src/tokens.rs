//! Bearer tokens for the comparison: JWTs signed with RS256.

use std::{
    io::Write as _,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    rsa::{KeyPair, PublicKeyComponents},
    signature::RSA_PKCS1_SHA256,
};
use serde_json::{Value, json};

/// Name of the key, in the key set and in the tokens.
const KEY_ID: &str = "bench";
/// How long a token is good.
const LIFE: Duration = Duration::from_hours(1);

/// Which tokens, and where to.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// The private key: RSA, PKCS #8, DER.
    #[arg(long)]
    key: PathBuf,
    /// Number of the first token; it stands in the token, so that no two are the same.
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// How many.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Writes the key set (RFC 7517) to this file too.
    #[arg(long)]
    jwks: Option<PathBuf>,
}

/// Prints the tokens, one in a line, all of the same length.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let key = KeyPair::from_pkcs8(&std::fs::read(&settings.key)?).map_err(|error| anyhow!("the key: {error}"))?;
    if let Some(path) = &settings.jwks {
        std::fs::write(path, key_set(&key).to_string())?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let last = settings.first.checked_add(settings.count).context("too many tokens")?;
    let mut out = std::io::stdout().lock();
    for number in settings.first..last {
        writeln!(out, "{}", token(&key, number, now)?)?;
    }
    Ok(out.flush()?)
}

fn token(key: &KeyPair, number: u32, now: u64) -> anyhow::Result<String> {
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": KEY_ID});
    let claims = json!({
        "iss": "https://idp.example.com/", "aud": "api", "sub": "customer-1", "scope": "orders.read orders.write",
        "iat": now, "exp": now + LIFE.as_secs(), "jti": format!("{number:010}"),
    });
    let signed = format!("{}.{}", part(&header), part(&claims));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| anyhow!("the key does not sign"))?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn key_set(key: &KeyPair) -> Value {
    let PublicKeyComponents { n, e }: PublicKeyComponents<Vec<u8>> = key.public().into();
    let number = |bytes: Vec<u8>| URL_SAFE_NO_PAD.encode(bytes);
    json!({"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID, "n": number(n), "e": number(e)}]})
}
