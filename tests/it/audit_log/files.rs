//! Where the log goes, and how it begins and ends.

use std::{
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    process::Command,
};

use serde_json::json;

use super::{Place, has, of, records};
use crate::harness::{BINARY, Connection, Gateway, eventually};

#[test]
fn the_process_says_when_it_begins_reloads_and_ends() {
    let place = Place::new();
    let mut gateway = place.start("", "");
    let started = place.wait_for("process.started", 1);
    has(
        &started[0],
        &json!({
            "outcome": "success", "actor": "process", "target": "gateway", "pid": gateway.pid(), "generation": 1,
            "version": env!("CARGO_PKG_VERSION"), "config_hash": gateway.status()["config_hash"], "source": null,
        }),
    );
    let mode = std::fs::metadata(place.log()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    gateway.signal("HUP");
    let reloaded = place.wait_for("config.reloaded", 1);
    has(
        &reloaded[0],
        &json!({
            "outcome": "success", "actor": "signal:SIGHUP", "target": "configuration", "generation": 2, "errors": 0,
            "config_hash": gateway.status()["config_hash"], "reason": null,
        }),
    );
    assert_eq!(gateway.reload("oops: 1\nmore: 2\n").status, 422);
    let reloaded = place.wait_for("config.reloaded", 2);
    has(&reloaded[1], &json!({ "outcome": "failure", "actor": "admin", "source": "unix", "generation": 2 }));
    assert!(reloaded[1]["errors"].as_u64().unwrap() >= 2, "{}", reloaded[1]);
    gateway.write(&place.config("", ""));
    let by_command = Command::new(BINARY).args(["reload", "-c"]).arg(gateway.config()).output().unwrap();
    assert!(by_command.status.success(), "{by_command:?}");
    let reloaded = place.wait_for("config.reloaded", 3);
    has(
        &reloaded[2],
        &json!({ "outcome": "success", "actor": "admin", "source": "unix", "source_pid": reloaded[2]["source_pid"] }),
    );
    assert_ne!(reloaded[2]["source_pid"], std::process::id(), "the command's own");
    gateway.signal("TERM");
    gateway.wait();
    let last = place.records().pop().unwrap();
    has(
        &last,
        &json!({
            "event": "process.ended", "outcome": "success", "actor": "signal:SIGTERM", "reason": "drained",
            "pid": gateway.pid(), "generation": 3, "connections": 0,
        }),
    );
}

#[test]
fn an_interrupt_and_a_drain_that_is_cut_are_told_apart() {
    let place = Place::new();
    let mut gateway = place.start("", "");
    gateway.signal("INT");
    gateway.wait();
    has(
        &place.records().pop().unwrap(),
        &json!({ "event": "process.ended", "actor": "signal:SIGINT", "outcome": "success" }),
    );
    let place = Place::new();
    let mut gateway = place.start("", "runtime: { drain: { readiness_delay: 0s, deadline: 0s } }");
    let mut held = Connection::open(&gateway.address());
    held.send(b"POST /keyed/x HTTP/1.1\r\n");
    eventually("the connection is counted", || (gateway.status()["connections"] == 1).then_some(()));
    gateway.signal("TERM");
    gateway.wait();
    let last = place.records().pop().unwrap();
    has(&last, &json!({ "event": "process.ended", "outcome": "failure", "connections": 1 }));
}

#[test]
fn an_upgrade_is_recorded_by_both_processes() {
    let place = Place::new();
    let socket = place.0.path().join("upgrade.sock");
    let more = format!(
        "runtime: {{ threads: 2, drain: {{ readiness_delay: 0s, deadline: 20s }}, upgrade: {{ socket: \"{}\" }} }}",
        socket.display()
    );
    let mut old = place.start("", &more);
    let mut new = old.successor(&place.config("", &more));
    new.wait_in_charge();
    assert!(old.wait().success());
    let all = place.records();
    let pids = |event: &str| of(&all, event).iter().map(|r| r["pid"].as_u64().unwrap()).collect::<Vec<_>>();
    let (old, new) = (u64::from(old.pid()), u64::from(new.pid()));
    assert_eq!(pids("process.started"), [old, new]);
    assert_eq!(pids("process.taken_over"), [new]);
    assert_eq!(pids("process.handed_over"), [old]);
    assert_eq!(pids("process.ended"), [old]);
    has(&of(&all, "process.ended")[0], &json!({ "actor": "process", "outcome": "success" }));
}

#[test]
fn a_reload_opens_the_file_anew() {
    let place = Place::new();
    let gateway = place.start("", "");
    gateway.get("/near");
    place.wait_for("request.refused", 1);
    let rotated = place.0.path().join("audit.log.1");
    std::fs::rename(place.log(), &rotated).unwrap();
    gateway.signal("HUP");
    place.wait_for("config.reloaded", 1);
    gateway.get("/near");
    assert_eq!(place.wait_for("request.refused", 1).len(), 1);
    assert_eq!(of(&records(&rotated), "request.refused").len(), 1);
    let mode = std::fs::metadata(place.log()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_reload_that_moves_or_ends_the_log_is_its_last_word() {
    let (first, second) = (Place::new(), Place::new());
    let mut gateway = first.start("", "");
    assert_eq!(gateway.reload(&second.config("", "")).status, 200);
    let said = json!({ "outcome": "success", "actor": "admin", "generation": 2 });
    has(&first.wait_for("config.reloaded", 1)[0], &said);
    has(&second.wait_for("config.reloaded", 1)[0], &said);
    gateway.get("/near");
    second.wait_for("request.refused", 1);
    assert_eq!(gateway.reload(&second.config("", "").replace("audit_log", "access_log")).status, 200);
    has(&second.wait_for("config.reloaded", 2)[1], &json!({ "outcome": "success", "generation": 3 }));
    let before = first.records().len();
    gateway.get("/near");
    // The access log is there now.
    eventually("the line is there", || {
        std::fs::read_to_string(second.log()).unwrap().contains("\"code\":\"ip_denied\",\"detail\"").then_some(())
    });
    assert_eq!((first.records().len(), of(&second.records(), "request.refused").len()), (before, 1));
}

#[test]
fn a_target_that_cannot_be_had_refuses_the_reload_and_the_start() {
    let place = Place::new();
    let mut gateway = place.start("", "");
    let refused = |gateway: &mut Gateway, config: &str, says: &str| {
        let answer = gateway.reload(config);
        answer.assert_problem(422, "config_invalid");
        let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(says), "{message}");
        assert_eq!(gateway.generation(), 1);
    };
    let elsewhere = |path: &str| place.config("", "").replace(&place.log().display().to_string(), path);
    let nowhere = elsewhere("/nonexistent/folder/log");
    refused(&mut gateway, &nowhere, "cannot be opened");
    refused(&mut gateway, &elsewhere("/"), "cannot be opened");
    // A FIFO that nobody reads; opening it must not wait.
    let fifo = place.0.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    refused(&mut gateway, &elsewhere(fifo.to_str().unwrap()), "cannot be opened");
    // The access log under another name.
    let linked = place.0.path().join("linked.log");
    std::fs::hard_link(place.log(), &linked).unwrap();
    let both = place
        .config("", "")
        .replace("telemetry: {", &format!("telemetry: {{ access_log: {{ to: \"file:{}\" }}, ", linked.display()));
    refused(&mut gateway, &both, "names the file of `access_log`");
    // The same file, where it cannot be made again.
    std::fs::rename(place.log(), place.0.path().join("old.log")).unwrap();
    std::fs::create_dir(place.log()).unwrap();
    refused(&mut gateway, &place.config("", ""), "cannot be opened");
    gateway.get("/near");
    eventually("the old log is kept", || {
        (of(&records(&place.0.path().join("old.log")), "request.refused").len() == 1).then_some(())
    });
    let failed = of(&records(&place.0.path().join("old.log")), "config.reloaded");
    assert!(failed.len() == 5 && failed.iter().all(|r| r["outcome"] == "failure"), "{failed:#?}");
    let path = place.0.path().join("gateway.yaml");
    std::fs::write(&path, nowhere).unwrap();
    let output = Command::new(BINARY).args(["run", "-c"]).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("`to` cannot be opened") && said.contains("gateway.yaml:4:"), "{said}");
}

#[test]
fn a_target_that_takes_nothing_costs_records_and_no_request() {
    let place = Place::new();
    let fifo = place.log();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let reader = std::fs::File::options().read(true).custom_flags(nonblocking).open(&fifo).unwrap();
    let mut gateway = place.start("", "");
    // Each record has a long path: the queue of 16 MiB is full after some thousand of them.
    let path = format!("/keyed/{}", "x".repeat(4000));
    let ask = format!("GET {path} HTTP/1.1\r\nHost: t\r\n\r\n").repeat(50);
    let mut connection = Connection::open(&gateway.address());
    let dropped = || gateway.metric("crossway_audit_log_dropped_total");
    let mut asked = 0_u64;
    while dropped() == 0.0 {
        for _ in 0..10 {
            connection.send(ask.as_bytes());
            for _ in 0..50 {
                assert_eq!(connection.read("GET").unwrap().status, 401);
            }
            asked += 50;
            if asked.is_multiple_of(5000) {
                connection = Connection::open(&gateway.address());
            }
        }
        assert!(asked < 60_000, "the queue has no bound");
    }
    assert!(asked > 5_000, "the queue is generous: {asked}");
    eventually("it is told", || gateway.stderr().contains("lines of the audit log are lost").then_some(()));
    // Somebody reads again: what was lost is said in the log itself.
    let mut reader = std::io::BufReader::new(reader);
    let told = eventually("the loss is recorded", || {
        gateway.get("/near");
        let mut bytes = Vec::new();
        let _ = std::io::Read::read_to_end(&mut reader, &mut bytes);
        String::from_utf8_lossy(&bytes).lines().find(|l| l.contains("audit.records_lost")).map(str::to_owned)
    });
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    has(&told, &json!({ "outcome": "failure", "actor": "process", "target": "audit_log" }));
    assert!(told["records"].as_u64().unwrap() >= 1, "{told}");
    // And it ends, though nobody reads any more.
    connection = Connection::open(&gateway.address());
    for _ in 0..6 {
        connection.send(ask.as_bytes());
        for _ in 0..50 {
            assert_eq!(connection.read("GET").unwrap().status, 401);
        }
    }
    drop(connection);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
}

#[test]
fn both_logs_may_go_to_standard_output() {
    let place = Place::new();
    let config = place
        .config("", "")
        .replace(&format!("file:{}", place.log().display()), "stdout")
        .replace("telemetry: {", "telemetry: { access_log: { to: stdout }, ");
    let gateway = Gateway::start(&config);
    let mut connection = Connection::open(&gateway.address());
    for _ in 0..300 {
        connection.send(b"GET /near HTTP/1.1\r\nHost: t\r\n\r\n");
        assert_eq!(connection.read("GET").unwrap().status, 403);
    }
    eventually("all lines are there, and whole", || {
        let text = gateway.stdout();
        let lines: Vec<_> = text.lines().filter(|line| line.contains("ip_denied")).collect();
        (lines.len() == 600).then(|| {
            for line in lines {
                drop(serde_json::from_str::<serde_json::Value>(line).unwrap());
            }
        })
    });
}

#[test]
fn nothing_is_written_where_nothing_is_configured() {
    let place = Place::new();
    let config = place.config("", "").lines().filter(|l| !l.starts_with("telemetry")).collect::<Vec<_>>().join("\n");
    let gateway = Gateway::start(&(config + "\n"));
    assert_eq!(gateway.get("/near").status, 403);
    gateway.admin("GET /api/status");
    assert!(!place.log().exists() && gateway.stdout().is_empty());
    assert!(!gateway.stderr().contains("request.refused"));
}
