//! The cryptography of the library `jsonwebtoken`, on ring: the process has one crypto library, and it is that of TLS.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result},
    jwk::{EllipticCurve, ThumbprintHash},
};
use ring::{
    digest, hmac,
    rand::SystemRandom,
    signature::{self as rs, KeyPair as _},
};
use signature::{Error as Failed, Signer, Verifier};

use super::keys;

/// Makes ring the library's cryptography, for the whole process. Costs nothing when it is so already.
pub(super) fn install() {
    static PROVIDER: CryptoProvider =
        CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KEY_UTILS };
    // It fails only if one is installed already, and nothing else in the process installs one.
    let _ = PROVIDER.install_default();
}

const KEY_UTILS: KeyUtils = KeyUtils {
    rsa_pub_components_from_private_key: |der| {
        let parts = rs::RsaPublicKeyComponents::<Vec<u8>>::from(rsa(der)?.public());
        Ok((parts.n, parts.e))
    },
    rsa_pub_components_from_public_key: |der| {
        keys::rsa_parts(der).ok_or_else(|| ErrorKind::InvalidRsaKey("no modulus and exponent".into()).into())
    },
    ec_pub_components_from_private_key: |der, algorithm| {
        let (pair, curve) = (ecdsa(algorithm, der)?, curve(algorithm)?);
        let point = pair.public_key().as_ref();
        let (x, y) = point[1..].split_at((point.len() - 1) / 2);
        Ok((curve, x.to_vec(), y.to_vec()))
    },
    ed_pub_components_from_private_key: |der, _| Ok(ed25519(der)?.public_key().as_ref().to_vec()),
    compute_digest: |data, hash| {
        let algorithm = match hash {
            ThumbprintHash::SHA384 => &digest::SHA384,
            ThumbprintHash::SHA512 => &digest::SHA512,
            _ => &digest::SHA256,
        };
        Ok(digest::digest(algorithm, data).as_ref().to_vec())
    },
};

fn curve(algorithm: Algorithm) -> Result<EllipticCurve> {
    match algorithm {
        Algorithm::ES256 => Ok(EllipticCurve::P256),
        Algorithm::ES384 => Ok(EllipticCurve::P384),
        _ => Err(ErrorKind::InvalidEcdsaKey.into()),
    }
}

fn secret(algorithm: Algorithm, bytes: &[u8]) -> Result<hmac::Key> {
    let hash = match algorithm {
        Algorithm::HS256 => hmac::HMAC_SHA256,
        Algorithm::HS384 => hmac::HMAC_SHA384,
        Algorithm::HS512 => hmac::HMAC_SHA512,
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    Ok(hmac::Key::new(hash, bytes))
}

/// What verifies, with the key.
enum Check {
    Hmac(hmac::Key),
    Rsa(&'static rs::RsaParameters, DecodingKey),
    Plain(&'static dyn rs::VerificationAlgorithm, DecodingKey),
}

struct Verifying(Algorithm, Check);

impl JwtVerifier for Verifying {
    fn algorithm(&self) -> Algorithm {
        self.0
    }
}

impl Verifier<Vec<u8>> for Verifying {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Failed> {
        let verified = match &self.1 {
            Check::Hmac(key) => hmac::verify(key, message, signature),
            Check::Rsa(parameters, key) => match key.kind() {
                DecodingKeyKind::SecretOrDer(der) => {
                    rs::UnparsedPublicKey::new(*parameters, der).verify(message, signature)
                }
                DecodingKeyKind::RsaModulusExponent { n, e } => {
                    rs::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
                }
            },
            Check::Plain(algorithm, key) => {
                let bytes = key.try_get_as_bytes().map_err(Failed::from_source)?;
                rs::UnparsedPublicKey::new(*algorithm, bytes).verify(message, signature)
            }
        };
        verified.map_err(|_| Failed::new())
    }
}

/// The family of the key must be that of the algorithm: else an RSA key in PEM would do as the secret of an HMAC.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the library's signature")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    let check = match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
            Check::Hmac(secret(*algorithm, key.try_get_as_bytes()?)?)
        }
        Algorithm::RS256 => Check::Rsa(&rs::RSA_PKCS1_2048_8192_SHA256, key.clone()),
        Algorithm::RS384 => Check::Rsa(&rs::RSA_PKCS1_2048_8192_SHA384, key.clone()),
        Algorithm::RS512 => Check::Rsa(&rs::RSA_PKCS1_2048_8192_SHA512, key.clone()),
        Algorithm::PS256 => Check::Rsa(&rs::RSA_PSS_2048_8192_SHA256, key.clone()),
        Algorithm::PS384 => Check::Rsa(&rs::RSA_PSS_2048_8192_SHA384, key.clone()),
        Algorithm::PS512 => Check::Rsa(&rs::RSA_PSS_2048_8192_SHA512, key.clone()),
        Algorithm::ES256 => Check::Plain(&rs::ECDSA_P256_SHA256_FIXED, key.clone()),
        Algorithm::ES384 => Check::Plain(&rs::ECDSA_P384_SHA384_FIXED, key.clone()),
        Algorithm::EdDSA => Check::Plain(&rs::ED25519, key.clone()),
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    Ok(Box::new(Verifying(*algorithm, check)))
}

/// What signs.
enum Pen {
    Hmac(hmac::Key),
    Rsa(&'static dyn rs::RsaEncoding, rs::RsaKeyPair),
    Ecdsa(rs::EcdsaKeyPair),
    Ed25519(rs::Ed25519KeyPair),
}

struct Signing(Algorithm, Pen);

impl JwtSigner for Signing {
    fn algorithm(&self) -> Algorithm {
        self.0
    }
}

impl Signer<Vec<u8>> for Signing {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Failed> {
        let random = SystemRandom::new();
        Ok(match &self.1 {
            Pen::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Pen::Rsa(encoding, pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).map_err(|_| Failed::new())?;
                signature
            }
            Pen::Ecdsa(pair) => pair.sign(&random, message).map_err(|_| Failed::new())?.as_ref().to_vec(),
            Pen::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the library's signature")]
fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    let bytes = key.as_bytes();
    let pen = match algorithm.family() {
        AlgorithmFamily::Hmac => Pen::Hmac(secret(*algorithm, bytes)?),
        AlgorithmFamily::Rsa => Pen::Rsa(encoding(*algorithm)?, rsa(bytes)?),
        AlgorithmFamily::Ec => Pen::Ecdsa(ecdsa(*algorithm, bytes)?),
        AlgorithmFamily::Ed => Pen::Ed25519(ed25519(bytes)?),
    };
    Ok(Box::new(Signing(*algorithm, pen)))
}

fn encoding(algorithm: Algorithm) -> Result<&'static dyn rs::RsaEncoding> {
    Ok(match algorithm {
        Algorithm::RS256 => &rs::RSA_PKCS1_SHA256,
        Algorithm::RS384 => &rs::RSA_PKCS1_SHA384,
        Algorithm::RS512 => &rs::RSA_PKCS1_SHA512,
        Algorithm::PS256 => &rs::RSA_PSS_SHA256,
        Algorithm::PS384 => &rs::RSA_PSS_SHA384,
        Algorithm::PS512 => &rs::RSA_PSS_SHA512,
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    })
}

fn rsa(der: &[u8]) -> Result<rs::RsaKeyPair> {
    let pair = rs::RsaKeyPair::from_der(der).or_else(|_| rs::RsaKeyPair::from_pkcs8(der));
    pair.map_err(|rejected| ErrorKind::InvalidRsaKey(rejected.to_string()).into())
}

fn ecdsa(algorithm: Algorithm, der: &[u8]) -> Result<rs::EcdsaKeyPair> {
    let signing = match algorithm {
        Algorithm::ES256 => &rs::ECDSA_P256_SHA256_FIXED_SIGNING,
        Algorithm::ES384 => &rs::ECDSA_P384_SHA384_FIXED_SIGNING,
        _ => return Err(ErrorKind::InvalidEcdsaKey.into()),
    };
    rs::EcdsaKeyPair::from_pkcs8(signing, der, &SystemRandom::new()).map_err(|_| ErrorKind::InvalidEcdsaKey.into())
}

fn ed25519(der: &[u8]) -> Result<rs::Ed25519KeyPair> {
    rs::Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| ErrorKind::InvalidEddsaKey.into())
}
