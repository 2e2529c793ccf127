//! Keys that verify signatures, and which of them may verify what.

use jsonwebtoken::{
    DecodingKey, DecodingKeyKind, crypto,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use ring::digest::{SHA256, digest};
use serde_json::Value;
use x509_parser::{prelude::FromDer as _, public_key::RSAPublicKey};

use super::algorithm::Algorithm;

/// Most keys that a set may have.
const MAX_KEYS: usize = 100;
/// Most keys that are tried where a token does not name its key: each costs as much as a whole token.
const MAX_TRIED: usize = 4;
/// Sizes of RSA keys in bits; below, a key can be broken, above, it costs too much (RFC 7518, section 3.3).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    kid: Option<String>,
    /// What it may verify: the algorithms of its type, or the one that its issuer says.
    algorithms: Vec<Algorithm>,
    inner: DecodingKey,
}

impl Key {
    /// Whether it may verify signatures of this algorithm.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether it has made this signature, which is in base64url. Whether it may is [`Key::fits`]'s to say.
    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        matches!(crypto::verify(signature, message, &self.inner, algorithm.of_library()), Ok(true))
    }

    /// A secret. Its length is the caller's to check.
    pub(super) fn secret(secret: &[u8]) -> Self {
        use Algorithm::{HS256, HS384, HS512};
        let inner = DecodingKey::from_secret(secret);
        Self { kid: None, algorithms: vec![HS256, HS384, HS512], inner }
    }

    /// A public key in PEM (`PUBLIC KEY`, `RSA PUBLIC KEY`). The error is the rest of a sentence about it.
    pub(super) fn pem(text: &str) -> Result<Self, String> {
        let pem = text.trim().as_bytes();
        if text.contains("PRIVATE KEY") {
            return Err("is a private key: give the public key of the pair".into());
        }
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            let parts = key.try_get_as_bytes().ok().and_then(rsa_parts);
            let (n, e) = parts.ok_or("is no RSA key that can be read")?;
            return Self::made(None, DecodingKey::from_rsa_raw_components(&n, &e)).map_err(str::to_owned);
        }
        let key = DecodingKey::from_ec_pem(pem).or_else(|_| DecodingKey::from_ed_pem(pem));
        match key {
            Ok(key) => Self::made(None, key).map_err(str::to_owned),
            Err(_) => {
                Err("is no public key in PEM: RSA, EC (P-256, P-384) or Ed25519, `-----BEGIN PUBLIC KEY-----`".into())
            }
        }
    }

    /// A JSON Web Key (RFC 7517), if it is one that may verify signatures. The error says why it may not.
    fn jwk(value: &Value) -> Result<Self, &'static str> {
        if value.get("d").is_some() || value.get("k").is_some() {
            return Err("is no public key");
        }
        let jwk: Jwk = serde_json::from_value(value.clone()).map_err(|_| "cannot be read")?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return Err("is not for signatures");
        }
        if jwk.common.key_operations.as_ref().is_some_and(|all| !all.contains(&KeyOperations::Verify)) {
            return Err("is not for verifying");
        }
        match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => {}
            AlgorithmParameters::EllipticCurve(key) if key.curve != EllipticCurve::Ed25519 => {}
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {}
            _ => return Err("is of a type that is not used"),
        }
        let inner = DecodingKey::from_jwk(&jwk).map_err(|_| "cannot be read")?;
        let mut key = Self::made(jwk.common.key_id, inner)?;
        if let Some(only) = value.get("alg") {
            let only = only.as_str().and_then(Algorithm::named);
            key.algorithms.retain(|algorithm| Some(*algorithm) == only);
        }
        if key.algorithms.is_empty() { Err("is for an algorithm that is not used") } else { Ok(key) }
    }

    /// A public key with the algorithms that fit it.
    fn made(kid: Option<String>, inner: DecodingKey) -> Result<Self, &'static str> {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let algorithms = match (inner.family(), inner.kind()) {
            (_, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                check_rsa(n, e)?;
                vec![RS256, RS384, RS512, PS256, PS384, PS512]
            }
            (jsonwebtoken::AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => match point.as_slice() {
                [4, point @ ..] if point.len() == 64 => vec![ES256],
                [4, point @ ..] if point.len() == 96 => vec![ES384],
                _ => return Err("is on a curve that is not used: P-256 and P-384 are"),
            },
            (jsonwebtoken::AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) => {
                if point.len() != 32 || is_of_small_order(point) {
                    return Err("is no sound Ed25519 key");
                }
                vec![EdDSA]
            }
            _ => return Err("is of a type that is not used"),
        };
        // ring wants numbers without leading zeros, which some issuers write.
        let inner = match inner.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                DecodingKey::from_rsa_raw_components(without_zeros(n), without_zeros(e))
            }
            DecodingKeyKind::SecretOrDer(_) => inner,
        };
        Ok(Self { kid, algorithms, inner })
    }

    /// All that makes it another key.
    fn print(&self) -> String {
        let parts = match self.inner.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => vec![bytes],
            DecodingKeyKind::RsaModulusExponent { n, e } => vec![n, e],
        };
        format!("{:?} {:?} {parts:?}", self.kid, self.algorithms)
    }
}

/// Modulus and exponent of an RSA public key in DER (RFC 8017, appendix A.1.1), without leading zeros.
pub(super) fn rsa_parts(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (rest, key) = RSAPublicKey::from_der(der).ok()?;
    let parts = (without_zeros(key.modulus).to_vec(), without_zeros(key.exponent).to_vec());
    rest.is_empty().then_some(parts)
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), &'static str> {
    let (n, e) = (without_zeros(n), without_zeros(e));
    let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
    if !RSA_BITS.contains(&bits) {
        return Err("is an RSA key of fewer than 2048 or more than 8192 bits");
    }
    // With the exponent 1 a signature is the message itself.
    if matches!(e, [] | [1]) || e.len() > 4 || e.last().is_some_and(|last| last % 2 == 0) {
        return Err("is an RSA key with an exponent that is not sound");
    }
    Ok(())
}

/// Points of Ed25519 whose multiples are few: with one as key, a signature can be made without any secret. The encodings of
/// the y coordinates, the two that are not reduced included; the sign bit does not count.
fn is_of_small_order(point: &[u8]) -> bool {
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
            0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
            0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let mut y = [0; 32];
    y.copy_from_slice(point);
    y[31] &= 0x7f;
    // 0 and 1; and p - 1, p and p + 1, which all end in these bytes.
    let near_zero = y[0] <= 1 && y[1..].iter().all(|byte| *byte == 0);
    let near_p = matches!(y[0], 0xec..=0xee) && y[1..31].iter().all(|byte| *byte == 0xff) && y[31] == 0x7f;
    near_zero || near_p || ORDER_8.contains(&y)
}

/// The keys of an issuer.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// Whether a token that names a key means the one of that name.
    is_named: bool,
    print: [u8; 32],
}

impl KeySet {
    /// One key, whatever tokens call it.
    pub(super) fn single(key: Key) -> Self {
        Self { keys: vec![key], is_named: false, print: [0; 32] }
    }

    /// A set in JSON (RFC 7517, section 5), without those of its keys that must not verify signatures. The error is the rest
    /// of a sentence about the set.
    pub(super) fn read(json: &[u8]) -> Result<Self, String> {
        let set: Value = serde_json::from_slice(json).map_err(|_| "is not JSON")?;
        let listed =
            set.get("keys").and_then(Value::as_array).ok_or("is no JSON Web Key Set: there is no list `keys`")?;
        if listed.len() > MAX_KEYS {
            return Err(format!("has more than {MAX_KEYS} keys"));
        }
        let mut reasons = Vec::new();
        let mut keys: Vec<Key> = Vec::new();
        for value in listed {
            match Key::jwk(value) {
                Ok(key) => keys.push(key),
                Err(reason) => reasons.push(reason),
            }
        }
        drop_ambiguous(&mut keys);
        if keys.is_empty() {
            reasons.dedup();
            let why = if reasons.is_empty() { String::new() } else { format!(": each {}", reasons.join(", or ")) };
            return Err(format!("has no key that may verify signatures{why}"));
        }
        let mut prints: Vec<String> = keys.iter().map(Key::print).collect();
        prints.sort();
        let mut print = [0; 32];
        print.copy_from_slice(digest(&SHA256, prints.join("\n").as_bytes()).as_ref());
        Ok(Self { keys, is_named: true, print })
    }

    /// Whether the other set has the same keys.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.print == other.print && self.keys.len() == other.keys.len()
    }

    /// The keys that may have signed a token of this algorithm which calls its key `kid`.
    pub(super) fn candidates(&self, algorithm: Algorithm, kid: Option<&str>) -> impl Iterator<Item = &Key> {
        let named = kid.filter(|_| self.is_named);
        let fits = move |key: &&Key| key.fits(algorithm) && (named.is_none() || key.kid.as_deref() == named);
        self.keys.iter().filter(fits).take(MAX_TRIED)
    }

    /// Whether there is a key of this name, of whatever kind; yes where names mean nothing.
    pub(super) fn knows(&self, kid: Option<&str>) -> bool {
        !self.is_named || kid.is_none() || self.keys.iter().any(|key| key.kid.as_deref() == kid)
    }

    /// Whether some key may verify signatures of this algorithm.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|key| key.fits(algorithm))
    }
}

/// Takes out keys that share a name with one of another kind: which of them is meant would be the token's to say.
fn drop_ambiguous(keys: &mut Vec<Key>) {
    let kinds: Vec<_> = keys.iter().map(|key| (key.kid.clone(), key.inner.family())).collect();
    let clashes = |kid: &Option<String>, family| {
        kid.is_some() && kinds.iter().any(|(other, kind)| other == kid && *kind != family)
    };
    keys.retain(|key| !clashes(&key.kid, key.inner.family()));
}
