//! An identity provider that nobody here wrote (npm `oidc-provider`), in a process of its own.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tempfile::TempDir;

use super::{Response, client, eventually};

/// The provider; ended when dropped. It knows these clients, all of which may ask for client credentials and for the
/// scopes `orders.read`, `orders.write` and `orders.admin` of the audience `orders-api`:
///
/// | client | its access tokens |
/// |---|---|
/// | `orders`, `orders-ps`, `orders-es`, `orders-ed` | JWTs (RFC 9068), signed with RS256, PS256, ES256, `EdDSA` |
/// | `opaque` | opaque, for introspection |
/// | `gateway` | JWTs; meant as the client that asks at the introspection endpoint |
pub struct Idp {
    child: Option<Child>,
    url: String,
    folder: TempDir,
}

/// The secret of every client.
pub const CLIENT_SECRET: &str = "secret-of-the-tests-0123456789abcdef";

impl Idp {
    pub fn start() -> Self {
        let mut idp = Self { child: None, url: String::new(), folder: tempfile::tempdir().unwrap() };
        idp.run(&free_port().to_string());
        idp
    }

    /// The issuer, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where clients ask what a token is worth (RFC 7662).
    pub fn introspection_url(&self) -> String {
        format!("{}/token/introspection", self.url)
    }

    /// Where clients get tokens.
    pub fn token_url(&self) -> String {
        format!("{}/token", self.url)
    }

    /// Ends the process; its port stays free for it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again at the same address, with the same keys. Tokens that are not JWTs are forgotten.
    pub fn start_again(&mut self) {
        self.stop();
        let port = self.url.rsplit(':').next().unwrap().to_owned();
        self.run(&port);
    }

    /// Starts it again at the same address, with keys of other names; the old ones are gone.
    pub fn rotate(&mut self) {
        self.stop();
        std::fs::remove_file(self.keys()).unwrap();
        self.start_again();
    }

    /// An access token by the client credentials grant (RFC 6749, section 4.4).
    pub fn client_credentials(&self, client: &str, secret: &str, scope: &str) -> String {
        let answer = self.post("/token", client, secret, &format!("grant_type=client_credentials&scope={scope}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// Takes a token back (RFC 7009).
    pub fn revoke(&self, client: &str, secret: &str, token: &str) {
        let answer = self.post("/token/revocation", client, secret, &format!("token={token}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// What the provider says of a token (RFC 7662).
    pub fn introspect(&self, token: &str) -> Value {
        let path = self.introspection_url().replace(&self.url, "");
        let answer = self.post(&path, "gateway", CLIENT_SECRET, &format!("token={token}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// How often a path was asked for since the process began.
    pub fn asked(&self, path: &str) -> u64 {
        client::exchange(self.address(), "GET /asked", &[], b"").json()[path].as_u64().unwrap_or_default()
    }

    fn post(&self, path: &str, client: &str, secret: &str, form: &str) -> Response {
        let basic = format!("Basic {}", STANDARD.encode(format!("{client}:{secret}")));
        let headers = [("Authorization", basic.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
        client::exchange(self.address(), &format!("POST {path}"), &headers, form.as_bytes())
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    fn keys(&self) -> PathBuf {
        self.folder.path().join("keys.json")
    }

    fn run(&mut self, port: &str) {
        let (out, errors) = (self.folder.path().join("stdout"), self.folder.path().join("stderr"));
        let child = Command::new("node")
            .current_dir(installed())
            .args(["server.mjs", port])
            .arg(self.keys())
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("node: {error}"));
        let child = self.child.insert(child);
        self.url = eventually("the identity provider is ready", || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", std::fs::read_to_string(&errors).unwrap_or_default());
            }
            let said = std::fs::read_to_string(&out).unwrap_or_default();
            let issuer = said.lines().find(|line| line.starts_with("http://"));
            // The last line may not be whole yet.
            issuer.filter(|_| said.ends_with('\n')).map(str::to_owned)
        });
        let known: Value = client::exchange(self.address(), "GET /.well-known/openid-configuration", &[], b"").json();
        assert_eq!(known["issuer"], self.url.as_str());
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that stays free while the provider is down: below those that the system gives out by itself.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id() % 100 * 100;
    loop {
        let at = (first + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % 10_000;
        let port = 20_000 + u16::try_from(at).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The folder with the program and what it needs, installed where it is not there yet.
fn installed() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let install = root.join("tests/it/harness/idp/install");
        let output = Command::new(&install).stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{e}"));
        assert!(output.status.success(), "{}: {}", install.display(), String::from_utf8_lossy(&output.stderr));
        root.join("target/idp")
    })
}
