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
        let (redis, _) = Self::node();
        redis.ask("CLUSTER ADDSLOTSRANGE 0 16383");
        redis.wait_well(1);
        redis
    }

    /// Three that are a cluster, each with a third of the slots.
    pub fn cluster_of_three() -> [Self; 3] {
        let nodes = [(); 3].map(|()| Self::node());
        for ((node, _), range) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
            assert!(node.ask(&format!("CLUSTER ADDSLOTSRANGE {range}")).starts_with("+OK"));
        }
        for (node, bus) in &nodes[1..] {
            assert!(nodes[0].0.ask(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port)).starts_with("+OK"));
        }
        let nodes = nodes.map(|(node, _)| node);
        for node in &nodes {
            node.wait_well(3);
        }
        nodes
    }

    /// A node of a cluster, and the port at which nodes talk to each other.
    fn node() -> (Self, u16) {
        let bus = free_port();
        let more = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus.to_string()];
        (Self::with(&more), bus)
    }

    /// Waits until a node knows so many, and where all slots are.
    pub fn wait_well(&self, nodes: usize) {
        let size = format!("cluster_size:{nodes}");
        eventually("the cluster is well", || {
            let info = self.ask("CLUSTER INFO");
            let known = ["cluster_state:ok", "cluster_slots_ok:16384", &size].iter().all(|text| info.contains(text));
            known.then_some(())
        });
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
