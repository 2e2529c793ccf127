//! The command line.

use std::process::{Command, Output, Stdio};

use crate::harness::{BINARY, Upstream, closed_address, eventually, exchange};

fn crossway(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn help_names_every_command_and_exit_code() {
    let help = String::from_utf8(crossway(&["--help"]).stdout).unwrap();
    for word in [
        "run",
        "check",
        "schema",
        "reload",
        "keys",
        "hash-password",
        "demo",
        "Exit codes",
        "SIGHUP",
        "SIGTERM",
        "SIGINT",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    for command in ["run", "check", "schema", "reload", "keys", "hash-password", "demo"] {
        let output = crossway(&[command, "--help"]);
        assert!(output.status.success() && !output.stdout.is_empty(), "{command}");
    }
    assert_eq!(crossway(&["rum"]).status.code(), Some(2));
    assert_eq!(crossway(&["run"]).status.code(), Some(2));
    assert!(String::from_utf8(crossway(&["--version"]).stdout).unwrap().starts_with("crossway 0."));
}

#[test]
fn a_broken_configuration_ends_the_start_with_2_and_its_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.yaml");
    std::fs::write(&path, "listeners: [{ name: a, address: nowhere }]\nroutes:\n  - name: a\n    match: { path: x }\n    auth: none\n    upstream: erp\n").unwrap();
    for arguments in [["run", "-c", path.to_str().unwrap()].as_slice(), &["check", path.to_str().unwrap()]] {
        let output = crossway(arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        for place in ["broken.yaml:1:", "broken.yaml:4:", "broken.yaml:6:", "there is no upstream `erp`"] {
            assert!(said.contains(place), "{place}: {said}");
        }
        assert!(!said.contains('\u{1b}'), "no colours where there is no terminal");
    }
}

#[test]
fn a_taken_address_ends_the_start_with_its_place() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    let text = format!(
        "listeners:\n  - {{ name: a, address: \"{}\" }}\nroutes: [{{ name: a, match: {{ path: / }}, auth: none, plugins: [{{ respond: {{ status: 200 }} }}] }}]\n",
        taken.local_addr().unwrap()
    );
    std::fs::write(&path, text).unwrap();
    let output = crossway(&["run", "-c", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("c.yaml:2:") && stderr(&output).contains("cannot be bound"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_proxy_needs_no_file() {
    let upstream = Upstream::echo();
    let address = closed_address();
    let mut child = Command::new(BINARY)
        .args(["run", "--upstream", &format!("http://{}", upstream.address()), "--listen", &address])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("it listens", || std::net::TcpStream::connect(&address).is_ok().then_some(()));
    assert_eq!(exchange(&address, "GET /any/path?x=1", &[], b"").json()["target"], "/any/path?x=1");
    child.kill().unwrap();
    child.wait().unwrap();
    for wrong in ["ftp://x", "http://", "http://x/path", "nonsense", "http://x:99999"] {
        let output = crossway(&["run", "--upstream", wrong]);
        assert!(!output.status.success(), "{wrong}");
        assert!(!stderr(&output).contains("panicked"), "{wrong}: {}", stderr(&output));
    }
}

#[test]
fn reload_without_a_gateway_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    std::fs::write(&path, format!("admin: {{ address: \"{}\", token: 0123456789abcdef }}\n", closed_address()))
        .unwrap();
    let output = crossway(&["reload", "-c", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no gateway answers at"), "{}", stderr(&output));
}
