//! The gateway as a process.

use std::{
    ffi::OsString,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{LONG_PATIENCE, PATIENCE, Response, client, eventually, eventually_within};

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_crossway");
/// Another program to put to the tests, by its path.
const PROGRAM: &str = "CROSSWAY_TEST_PROGRAM";
const TOKEN: &str = "token-of-the-tests-0123";

/// A running gateway; ended when dropped.
pub struct Gateway {
    child: Child,
    folder: Arc<TempDir>,
    /// How many processes came before this one.
    age: usize,
    listeners: Vec<(String, SocketAddr)>,
}

impl Gateway {
    /// Starts with this configuration, to which an admin listener is added, and a listener `public` where it names none.
    pub fn start(config: &str) -> Self {
        Self::start_as(Command::new(program()), config)
    }

    /// The same, with no more open files than this.
    pub fn start_with_files(files: u32, config: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]).arg(program());
        Self::start_as(shell, config)
    }

    fn start_as(program: Command, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.yaml");
        std::fs::write(&path, complete(config, folder.path())).unwrap();
        let child = spawn(program, folder.path(), 0, &[]);
        let mut gateway = Self { child, folder: Arc::new(folder), age: 0, listeners: Vec::new() };
        eventually("the gateway is ready", || gateway.is_ready().then_some(()));
        gateway.refresh();
        gateway
    }

    /// Starts another process that takes over from this one, with this configuration.
    pub fn successor(&self, config: &str) -> Self {
        self.write(config);
        let age = self.age + 1;
        let child = spawn(Command::new(program()), self.folder.path(), age, &["--take-over"]);
        Self { child, folder: Arc::clone(&self.folder), age, listeners: self.listeners.clone() }
    }

    /// Waits until this process alone serves.
    pub fn wait_in_charge(&mut self) {
        eventually("the process is in charge", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the gateway ended with {status}: {}", self.stderr());
            }
            let status = self.try_admin("GET /api/status")?.json();
            (status["pid"] == self.pid() && status["ready"] == true).then_some(())
        });
        // Both accept for a moment.
        let old = self.log_of(self.age - 1);
        eventually("the old process accepts nothing more", || {
            let said = std::fs::read_to_string(&old).unwrap_or_default();
            said.contains("the listeners are closed").then_some(())
        });
        self.refresh();
    }

    fn is_ready(&mut self) -> bool {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the gateway ended with {status}: {}", self.stderr());
        }
        UnixStream::connect(self.socket()).is_ok() && self.admin("GET /readyz").status == 200
    }

    /// Learns the listeners' addresses anew.
    pub fn refresh(&mut self) {
        let status = self.status();
        let shown = |l: &Value| {
            (l["name"].as_str().unwrap_or_default().to_owned(), l["local"].as_str().unwrap().parse().unwrap())
        };
        self.listeners = status["listeners"].as_array().unwrap().iter().map(shown).collect();
    }

    /// Address of the listener `public`.
    pub fn address(&self) -> String {
        self.listener("public").expect("a listener named public")
    }

    /// Address of a listener, if there is one of this name.
    pub fn listener(&self, name: &str) -> Option<String> {
        self.listeners.iter().find(|(n, _)| n == name).map(|(_, address)| address.to_string())
    }

    pub fn get(&self, target: &str) -> Response {
        self.send(&format!("GET {target}"), &[], b"")
    }

    /// `request` is `METHOD /target`.
    pub fn send(&self, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        client::exchange(&self.address(), request, headers, body)
    }

    /// Ends the process as a crash would, and starts it again.
    pub fn crash_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.start_again();
    }

    /// Starts it again after it has ended.
    pub fn start_again(&mut self) {
        self.child = spawn(Command::new(program()), self.folder.path(), self.age, &[]);
        eventually_within(LONG_PATIENCE, "the gateway is ready", || self.is_ready().then_some(()));
        self.refresh();
    }

    /// The folder of the configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Asks the admin listener, with the token and a body.
    pub fn admin_send(&self, request: &str, body: &str) -> Response {
        let (token, length) = (format!("Bearer {TOKEN}"), body.len().to_string());
        let headers = [("Authorization", token.as_str()), ("Content-Length", &length)];
        self.try_admin_send(request, &headers, body).expect("the admin listener answers")
    }

    /// Asks the admin listener, with the token.
    pub fn admin(&self, request: &str) -> Response {
        self.admin_with(request, &[("Authorization", &format!("Bearer {TOKEN}"))])
    }

    /// Asks the admin listener.
    pub fn admin_with(&self, request: &str, headers: &[(&str, &str)]) -> Response {
        self.try_admin_with(request, headers).expect("the admin listener answers")
    }

    fn try_admin(&self, request: &str) -> Option<Response> {
        self.try_admin_with(request, &[("Authorization", &format!("Bearer {TOKEN}"))])
    }

    fn try_admin_with(&self, request: &str, headers: &[(&str, &str)]) -> Option<Response> {
        self.try_admin_send(request, headers, "")
    }

    fn try_admin_send(&self, request: &str, headers: &[(&str, &str)], body: &str) -> Option<Response> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = format!("{request} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
            text.push_str("Host: localhost\r\n");
        }
        for (name, value) in headers {
            text.extend([*name, ": ", *value, "\r\n"]);
        }
        text.push_str("\r\n");
        text.push_str(body);
        stream.write_all(text.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        if answer.is_empty() { None } else { Some(parse(&answer)) }
    }

    pub fn status(&self) -> Value {
        self.admin("GET /api/status").json()
    }

    pub fn generation(&self) -> u64 {
        self.status()["generation"].as_u64().unwrap()
    }

    /// The value of a metric, by its line's beginning; 0 where there is no such line.
    pub fn metric(&self, line: &str) -> f64 {
        let text = self.admin("GET /metrics").text();
        let found = text.lines().find_map(|l| l.strip_prefix(line).and_then(|v| v.trim().parse().ok()));
        found.unwrap_or_default()
    }

    /// Replaces the configuration on disk, without telling the gateway.
    pub fn write(&self, config: &str) {
        std::fs::write(self.config(), complete(config, self.folder.path())).unwrap();
    }

    /// Replaces the configuration and reloads through the admin listener.
    pub fn reload(&mut self, config: &str) -> Response {
        self.write(config);
        let answer = self.admin("POST /api/reload");
        self.refresh();
        answer
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("gateway.yaml")
    }

    /// What the access log has, where it goes to standard output.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("stdout{}", self.age))).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.log_of(self.age)).unwrap_or_default()
    }

    fn log_of(&self, age: usize) -> PathBuf {
        self.folder.path().join(format!("stderr{age}"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, such as `HUP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Whether the process has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the gateway ends", || self.child.try_wait().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log\n{}", self.stderr());
        }
    }
}

fn program() -> OsString {
    std::env::var_os(PROGRAM).unwrap_or_else(|| BINARY.into())
}

fn spawn(mut program: Command, folder: &Path, age: usize, more: &[&str]) -> Child {
    let file = |name: &str| std::fs::File::create(folder.join(format!("{name}{age}"))).unwrap();
    program
        .args(["run", "-c"])
        .arg(folder.join("gateway.yaml"))
        .args(more)
        .stdin(Stdio::null())
        .stdout(file("stdout"))
        .stderr(file("stderr"))
        .spawn()
        .unwrap()
}

fn complete(config: &str, folder: &Path) -> String {
    let mut text = format!("admin: {{ address: \"unix:{}/admin.sock\", token: {TOKEN} }}\n", folder.display());
    if !config.contains("listeners:") {
        text.push_str("listeners: [{ name: public, address: \"127.0.0.1:0\" }]\n");
    }
    if !config.contains("runtime:") {
        text.push_str("runtime: { threads: 2, drain: { readiness_delay: 0s, deadline: 10s } }\n");
    }
    text + config
}

pub(super) fn parse(bytes: &[u8]) -> Response {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok()).unwrap_or_default();
    let header = |l: &str| l.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()));
    Response { status, headers: lines.filter_map(header).collect(), body: body.as_bytes().to_vec(), complete: true }
}
