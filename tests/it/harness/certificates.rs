//! Certificates for tests.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// A folder of certificates, signed by an authority of its own (`ca.pem`).
pub struct Folder {
    folder: tempfile::TempDir,
    pub authority: CertifiedIssuer<'static, KeyPair>,
}

impl Folder {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        Self { folder, authority }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes `<file>.pem` and `<file>.key`, valid to the first day of a year, and gives the certificate back (DER).
    pub fn make(&self, file: &str, names: &[&str], year: i32) -> Vec<u8> {
        self.make_with(file, names, |params| params.not_after = rcgen::date_time_ymd(year, 1, 1))
    }

    /// The same with anything else about it changed.
    pub fn make_with(&self, file: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = rcgen::date_time_ymd(2015, 1, 1);
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.authority).unwrap();
        std::fs::write(self.file(file, "pem"), made.pem()).unwrap();
        std::fs::write(self.file(file, "key"), key.serialize_pem()).unwrap();
        made.der().to_vec()
    }

    pub fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.folder.path().join(name).with_extension(extension)
    }

    /// A certificate and its key as a configuration names them.
    pub fn pair(&self, name: &str) -> String {
        let (cert, key) = (self.file(name, "pem"), self.file(name, "key"));
        format!("{{ cert: \"{}\", key: \"${{file:{}}}\" }}", cert.display(), key.display())
    }
}
