//! Certificates made for the tests, and what is read of them.

use std::sync::Arc;

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, DnValue, IsCa, KeyPair as Key, KeyUsagePurpose,
    SanType, date_time_ymd,
};

use super::*;

/// An authority.
pub(crate) struct Authority(CertifiedIssuer<'static, Key>);

/// A certificate with its key, as PEM.
pub(crate) struct Made {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Made {
    pub(crate) fn pair(&self) -> KeyPair {
        KeyPair::read(self.cert.as_bytes(), &self.key).unwrap()
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, Key::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn trusted(&self) -> Authorities {
        Authorities::read(self.pem().as_bytes()).unwrap()
    }

    /// A certificate for these names; none of them for a client.
    pub(crate) fn sign(&self, names: &[&str]) -> Made {
        self.sign_with(names, |_| {})
    }

    pub(crate) fn sign_with(&self, names: &[&str], change: impl Fn(&mut CertificateParams)) -> Made {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = Key::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Made { cert: cert.pem(), key: key.serialize_pem() }
    }
}

#[test]
fn a_certificate_and_its_key_are_read() {
    let authority = Authority::new("ca");
    let made = authority.sign(&["API.example.com", "*.example.com", "192.0.2.7", "2001:db8::1"]);
    let pair = KeyPair::read((made.cert.clone() + &authority.pem()).as_bytes(), &made.key).unwrap();
    assert_eq!(pair.chain().len(), 2);
    assert_eq!(pair.facts.dns, ["api.example.com", "*.example.com"]);
    assert_eq!(pair.facts.addresses, ["192.0.2.7".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
    assert_eq!(pair.facts.label(), "api.example.com");
    assert_eq!(authority.sign(&["192.0.2.7"]).pair().facts.label(), "192.0.2.7");
    assert_eq!(pair.facts.validity.objection(now()), None);
    assert!(pair == KeyPair::read((made.cert.clone() + &authority.pem()).as_bytes(), &made.key).unwrap());
    assert!(pair != made.pair(), "another chain");
    let shown = format!("{pair:?}");
    assert!(!shown.contains("key") && !shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let authority = Authority::new("ca");
    let (one, two) = (authority.sign(&["a.test"]), authority.sign(&["b.test"]));
    let key = |cert: &str, key: &str| match KeyPair::read(cert.as_bytes(), key) {
        Err(Wrong::Key(wrong)) => wrong,
        other => panic!("{other:?}"),
    };
    assert_eq!(key(&one.cert, &two.key), "is not the key of this certificate");
    assert_eq!(key(&one.cert, "tls/api.key"), "holds no private key in PEM");
    assert_eq!(key(&one.cert, &one.cert), "holds no private key in PEM");
    assert_eq!(key(&one.cert, &(one.key.clone() + &two.key)), "holds more than one private key");
    assert_eq!(key(&one.cert, &one.key.replace('\n', "\n!")), "is not a private key in PEM");
    for head in ["BEGIN ENCRYPTED PRIVATE KEY", "BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"] {
        assert!(key(&one.cert, &one.key.replace("BEGIN PRIVATE KEY", head)).starts_with("is encrypted"));
    }
    let garbage = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert!(key(&one.cert, garbage).starts_with("is of a kind"));
    let certificate = |cert: &str| match KeyPair::read(cert.as_bytes(), &one.key) {
        Err(Wrong::Certificate(wrong)) => wrong,
        other => panic!("{other:?}"),
    };
    assert_eq!(certificate(""), "holds no certificate");
    assert_eq!(certificate(&one.key), "holds no certificate");
    assert_eq!(certificate(&one.cert.replace('\n', "\n!")), "is not a PEM file of certificates");
    assert_eq!(certificate(&one.cert[..one.cert.len() / 2]), "is not a PEM file of certificates");
    let garbage = garbage.replace("PRIVATE KEY", "CERTIFICATE");
    assert_eq!(certificate(&garbage), "holds a certificate that cannot be read");
    assert_eq!(certificate(&(one.cert.clone() + &garbage)), "holds a certificate that cannot be read");
}

#[test]
fn the_time_of_a_certificate_is_told() {
    let made = Authority::new("ca").sign_with(&["a.test"], |params| {
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    let validity = made.pair().facts.validity;
    assert_eq!(validity, Validity { from: 1_546_300_800, to: 1_577_836_800 });
    assert_eq!(validity.objection(validity.to), None);
    assert_eq!(validity.objection(validity.to + 1).unwrap(), "expired on 2020-01-01T00:00:00Z");
    assert_eq!(validity.objection(validity.from - 1).unwrap(), "is not valid before 2019-01-01T00:00:00Z");
    assert_eq!((shown(i64::MIN).as_str(), shown(i64::MAX).as_str()), ("1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z"));
}

#[test]
fn authorities_are_authorities() {
    let authority = Authority::new("Acme, Inc.");
    assert_eq!(authority.trusted().roots().unwrap().len(), 1);
    assert!(authority.trusted().objections(now()).is_empty());
    assert_eq!(authority.trusted().objections(i64::MAX).len(), 1);
    assert!(authority.trusted().objections(i64::MAX)[0].starts_with(r"CN=Acme\, Inc., which expired on "));
    let refused = |pem: &str| Authorities::read(pem.as_bytes()).unwrap_err();
    assert_eq!(refused(""), "holds no certificate");
    let leaf = authority.sign_with(&["a.test"], |params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "leaf");
    });
    let not_one = "holds a certificate that is not one of an authority: CN=leaf";
    assert_eq!(refused(&leaf.cert), not_one);
    assert_eq!(refused(&(authority.pem() + &leaf.cert)), not_one, "one wrong is enough");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let signs_nothing = CertifiedIssuer::self_signed(params, Key::generate().unwrap()).unwrap();
    assert!(refused(&signs_nothing.pem()).starts_with("holds a certificate that is not one of an authority"));
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn a_client_is_known_by_its_certificate() {
    let made = Authority::new("ca").sign_with(&["device-7.example.com"], |params| {
        params.subject_alt_names.push(SanType::URI("spiffe://example.com/device/7".try_into().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("seven@example.com".try_into().unwrap()));
        let mut name = rcgen::DistinguishedName::new();
        name.push(DnType::CountryName, "DE");
        name.push(DnType::OrganizationName, "Acme, Inc.");
        name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), DnValue::PrintableString("0042".try_into().unwrap()));
        name.push(DnType::CustomDnType(vec![1, 2, 3, 4]), DnValue::Utf8String("x".into()));
        name.push(DnType::CommonName, "device 7");
        params.distinguished_name = name;
        params.not_after = date_time_ymd(2040, 1, 1);
    });
    let certificate = der(&made.cert);
    let client = super::client(&certificate).unwrap();
    assert_eq!(client.subject, r"CN=device 7,1.2.3.4=#0c0178,serialNumber=0042,O=Acme\, Inc.,C=DE");
    assert_eq!(client.dns, ["device-7.example.com"]);
    assert_eq!(client.uris, ["spiffe://example.com/device/7"]);
    assert_eq!(client.emails, ["seven@example.com"]);
    let digest = ring::digest::digest(&ring::digest::SHA256, &certificate);
    assert_eq!(client.sha256.0, digest.as_ref());
    assert!(!client.issuer.is_empty() && !client.serial.is_empty());
    assert_eq!(hex(&[0, 10, 255]), "000aff");
}

#[test]
fn names_that_could_be_read_in_two_ways_are_not_read() {
    for name in ["a\nb", "a b", "a\0b"] {
        let made = Authority::new("ca").sign_with(&[], |params| {
            params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        });
        assert!(super::client(&der(&made.cert)).is_err(), "{name:?}");
    }
    let mut longer = der(&Authority::new("ca").sign(&["a.test"]).cert).to_vec();
    longer.push(0);
    assert!(super::client(&longer.into()).is_err(), "bytes after its end");
}

proptest! {
    #[test]
    fn no_bytes_crash_the_reader(at in 0_usize..400, byte: u8, noise in proptest::collection::vec(any::<u8>(), 0..64)) {
        static MADE: std::sync::LazyLock<Arc<Vec<u8>>> =
            std::sync::LazyLock::new(|| Arc::new(der(&Authority::new("ca").sign(&["a.test", "192.0.2.1"]).cert).to_vec()));
        let mut changed = MADE.to_vec();
        let at = at % changed.len();
        changed[at] = byte;
        let _ = super::client(&changed.clone().into());
        changed.splice(at.., noise.iter().copied());
        let _ = super::client(&changed.into());
        let _ = super::client(&noise.clone().into());
        let text = String::from_utf8_lossy(&noise).into_owned();
        let _ = KeyPair::read(&noise, &text);
        let _ = Authorities::read(&noise);
    }
}
