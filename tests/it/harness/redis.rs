//! A Redis server as a process.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{Folder, PATIENCE, eventually};

/// A server on a free port, which keeps what it is told on disk; ended when dropped.
pub struct Redis {
    child: Option<Child>,
    folder: TempDir,
    port: u16,
    more: Vec<String>,
}

impl Redis {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One that is a cluster of its own.
    pub fn cluster() -> Self {
        let redis = Self::with(&["--cluster-enabled", "yes"]);
        redis.ask("CLUSTER ADDSLOTSRANGE 0 16383");
        eventually("the cluster is well", || redis.ask("CLUSTER INFO").contains("cluster_state:ok").then_some(()));
        redis
    }

    /// One that speaks TLS at its port, with the certificate of this name.
    pub fn secure(certificates: &Folder, name: &str) -> (Self, u16) {
        let tls = free_port();
        let [cert, key] = ["pem", "key"].map(|e| certificates.file(name, e).display().to_string());
        let ca = certificates.file("ca", "pem").display().to_string();
        let redis = Self::with(&[
            "--tls-port",
            &tls.to_string(),
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &ca,
            "--tls-auth-clients",
            "no",
        ]);
        (redis, tls)
    }

    fn with(more: &[&str]) -> Self {
        let more = more.iter().map(|word| (*word).to_owned()).collect();
        let mut redis = Self { child: None, folder: tempfile::tempdir().unwrap(), port: free_port(), more };
        redis.start_again();
        redis
    }

    /// Starts it after it was stopped, with all that it knew.
    pub fn start_again(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(self.folder.path())
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
        eventually("redis answers", || self.try_ask("PING").filter(|answer| answer.starts_with("+PONG")));
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Keeps it from doing anything, and lets it go on. Connections stay open, and new ones are taken by the kernel.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The answer to a command, as it came.
    pub fn ask(&self, command: &str) -> String {
        self.try_ask(command).expect("redis answers")
    }

    fn try_ask(&self, command: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // QUIT ends the answer.
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
