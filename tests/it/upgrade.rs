//! Replacing the running program.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use crate::harness::{Answer, Connection, Finish, Gateway, Response, Upstream, eventually, exchange};

/// How many upgrades a test makes in a row: so many, or more by hand, with `CROSSWAY_TEST_UPGRADES=100`.
fn times(few: usize) -> usize {
    std::env::var_os("CROSSWAY_TEST_UPGRADES").and_then(|n| n.to_str()?.parse().ok()).unwrap_or(few)
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("upgrade.sock")
    }

    fn config(&self, who: usize) -> String {
        config(&self.socket(), who, "")
    }
}

fn config(socket: &Path, who: usize, routes: &str) -> String {
    format!(
        "runtime: {{ threads: 2, drain: {{ readiness_delay: 5s, deadline: 20s }}, upgrade: {{ socket: \"{}\" }} }}
routes:
  - {{ name: who, match: {{ path: /who }}, auth: none, plugins: [{{ respond: {{ status: 200, body: \"{who}\" }} }}] }}
{routes}",
        socket.display()
    )
}

fn whose(connection: &mut Connection) -> Option<usize> {
    connection.try_send(b"GET /who HTTP/1.1\r\nHost: t\r\n\r\n").ok()?;
    let answer = connection.read("GET")?;
    assert_eq!(answer.status, 200);
    answer.text().parse().ok()
}

/// Whether the connection ends with its last answer.
fn asks(address: &str, connection: &mut Option<Connection>) -> Result<usize, String> {
    let open = connection.get_or_insert_with(|| Connection::open(address));
    open.try_send(b"GET /who HTTP/1.1\r\nHost: t\r\n\r\n").map_err(|error| format!("not sent: {error}"))?;
    let answer = open.read("GET").ok_or("closed without an answer")?;
    if answer.status != 200 || !answer.complete {
        return Err(format!("{answer:?}"));
    }
    if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
        *connection = None;
    }
    answer.text().parse().map_err(|_| answer.text())
}

/// Asks until it is done, on one connection or on a new one each time; counts the answers.
fn ask_on(address: &str, keeps: bool, done: &AtomicBool, lost: &Mutex<Vec<String>>) -> usize {
    let (mut connection, mut served) = (None, 0);
    while !done.load(Ordering::SeqCst) {
        connection = connection.filter(|_| keeps);
        if let Err(what) = asks(address, &mut connection) {
            lost.lock().unwrap().push(what);
            connection = None;
        } else {
            served += 1;
        }
    }
    served
}

#[test]
fn upgrades_under_load_lose_nothing() {
    let times = times(10);
    let place = Place::new();
    let mut running = Gateway::start(&place.config(0));
    let address = running.address();
    let (done, lost) = (AtomicBool::new(false), Mutex::new(Vec::<String>::new()));
    let mut old = Vec::new();
    let served: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = [false, true, false, true]
            .map(|keeps| {
                let (done, lost, address) = (&done, &lost, &address);
                scope.spawn(move || ask_on(address, keeps, done, lost))
            })
            .into();
        let finish = Finish(&done);
        for who in 1..=times {
            let mut next = running.successor(&place.config(who));
            next.wait_in_charge();
            old.push(std::mem::replace(&mut running, next));
        }
        let mut last = Connection::open(&address);
        assert_eq!(whose(&mut last), Some(times));
        drop(finish);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert_eq!(*lost.lock().unwrap(), Vec::<String>::new(), "of {served} and more");
    assert!(served > times * 10, "{served}");
    for mut process in old {
        assert!(process.wait().success());
    }
    println!("{times} upgrades, {served} requests, none lost");
}

#[test]
fn what_the_old_process_has_begun_it_finishes() {
    let place = Place::new();
    let (go, wait) = mpsc::sync_channel::<()>(1);
    let wait = Mutex::new(wait);
    let upstream = Upstream::start(move |_| {
        let _ = wait.lock().unwrap().recv();
        Answer::ok("late")
    });
    let routes = format!(
        "  - {{ name: slow, match: {{ path: /slow }}, auth: none, upstream: back }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}\n",
        upstream.address()
    );
    let mut old = Gateway::start(&config(&place.socket(), 0, &routes));
    let mut slow = Connection::open(&old.address());
    slow.send(b"GET /slow HTTP/1.1\r\nHost: t\r\n\r\n");
    eventually("the request is at the upstream", || {
        (old.status()["upstreams"][0]["endpoints"][0]["in_flight"] == 1).then_some(())
    });
    let mut new = old.successor(&config(&place.socket(), 1, &routes));
    new.wait_in_charge();
    assert!(old.ended().is_none(), "something is in flight");
    let mut other = Connection::open(&new.address());
    assert_eq!(whose(&mut other), Some(1));
    go.send(()).unwrap();
    assert_eq!(slow.read("GET").unwrap().text(), "late");
    assert!(old.wait().success());
    assert_eq!(new.admin("POST /api/reload").status, 200);
}

#[test]
fn a_new_process_that_fails_changes_nothing() {
    let place = Place::new();
    let mut old = Gateway::start(&place.config(0));
    let still_there = |old: &Gateway| {
        let mut connection = Connection::open(&old.address());
        assert_eq!(whose(&mut connection), Some(0));
        assert_eq!(old.status()["pid"], old.pid());
    };
    let mut broken = old.successor("listeners: [{ name: public }]\n");
    assert_eq!(broken.wait().code(), Some(2));
    still_there(&old);
    // One that cannot bind what it has besides.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut broken = old.successor(&format!(
        "{}listeners: [{{ name: public, address: \"127.0.0.1:0\" }}, {{ name: other, address: \"{}\" }}]\n",
        place.config(1),
        taken.local_addr().unwrap()
    ));
    assert_eq!(broken.wait().code(), Some(2), "{}", broken.stderr());
    eventually("the upgrade is over", || (old.status()["handing_over"] == false).then_some(()));
    still_there(&old);
    // The stand-in for what only one may hold is taken back.
    let lock = std::fs::File::open(place.0.path().join("upgrade.sock.lock")).unwrap();
    assert!(lock.try_lock().is_err(), "the old process holds it");
    assert_eq!(old.reload(&place.config(0)).status, 200);
    let mut new = old.successor(&place.config(2));
    new.wait_in_charge();
    assert!(old.wait().success());
}

#[test]
fn nonsense_on_the_socket_is_sent_away_and_only_one_upgrade_at_a_time() {
    let place = Place::new();
    let old = Gateway::start(&place.config(0));
    for nonsense in [&b"hello\n"[..], &[b'x'; 10_000], b"crossway-upgrade 2\n", b""] {
        let mut stream = UnixStream::connect(place.socket()).unwrap();
        let _ = stream.write_all(nonsense);
    }
    // One that has begun and then says nothing.
    let mut first = UnixStream::connect(place.socket()).unwrap();
    first.write_all(b"crossway-upgrade 1\n").unwrap();
    eventually("an upgrade is under way", || (old.status()["handing_over"] == true).then_some(()));
    let mut second = old.successor(&place.config(1));
    assert_eq!(second.wait().code(), Some(1));
    assert!(second.stderr().contains("an upgrade is under way"), "{}", second.stderr());
    let refused = old.admin("POST /api/reload");
    assert_eq!(refused.status, 422, "{}", refused.text());
    drop(first);
    eventually("it is over", || (old.status()["handing_over"] == false).then_some(()));
    let mut third = old.successor(&place.config(3));
    third.wait_in_charge();
}

#[test]
fn the_socket_is_looked_at_before_it_is_used() {
    let place = Place::new();
    // Nobody runs: an ordinary start, and a socket that was left behind is replaced.
    drop(std::os::unix::net::UnixListener::bind(place.socket()).unwrap());
    let first = Gateway::start(&place.config(0));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(place.socket()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // One runs: a second one without --take-over does not start.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    let text = format!("listeners: [{{ name: public, address: \"127.0.0.1:0\" }}]\n{}", place.config(1));
    std::fs::write(&path, text).unwrap();
    let run = |path: &Path| std::process::Command::new(crate::harness::BINARY).args(["run", "-c"]).arg(path).output();
    let output = run(&path).unwrap();
    assert_eq!(output.status.code(), Some(1));
    drop(first);
    // A file that is no socket is not touched.
    let file = folder.path().join("file.sock");
    std::fs::write(&file, "mine").unwrap();
    let text = config(&file, 1, "");
    std::fs::write(&path, format!("listeners: [{{ name: public, address: \"127.0.0.1:0\" }}]\n{text}")).unwrap();
    assert_eq!(run(&path).unwrap().status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

/// A route that wants a key, and a store for keys in the folder.
fn keyed(place: &Place, upstream: &Upstream, who: usize) -> String {
    let more = format!(
        "  - {{ name: keyed, match: {{ path: /keyed }}, upstream: back, plugins: [{{ api_key: {{}} }}] }}
stores: {{ local: {{ path: \"{}\" }} }}
consumers: [{{ name: acme }}]
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}\n",
        place.0.path().join("store.redb").display(),
        upstream.address()
    );
    config(&place.socket(), who, &more)
}

const WANTED: &str = r#"{"consumer": "acme"}"#;

/// A new key: its id and its text.
fn make_key(gateway: &Gateway) -> (String, String) {
    let made = gateway.admin_send("POST /api/keys", WANTED);
    assert_eq!(made.status, 201, "{}", made.text());
    let made = made.json();
    (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned())
}

fn with_key(address: &str, key: &str) -> Response {
    exchange(address, "GET /keyed", &[("X-API-Key", key)], b"")
}

/// Uses a key until it is done: how often, and what was not answered 200.
fn use_key(address: &str, key: &str, done: &AtomicBool) -> (usize, Vec<String>) {
    let (mut used, mut refused) = (0, Vec::new());
    while !done.load(Ordering::SeqCst) {
        let answer = with_key(address, key);
        used += 1;
        refused.extend((answer.status != 200).then(|| answer.text()));
    }
    (used, refused)
}

#[test]
fn keys_are_good_throughout_and_can_be_changed_after() {
    let (upstream, place) = (Upstream::echo(), Place::new());
    let mut running = Gateway::start(&keyed(&place, &upstream, 0));
    let address = running.address();
    let (_, key) = make_key(&running);
    let done = AtomicBool::new(false);
    let mut old = Vec::new();
    let times = times(3);
    let (used, refused) = std::thread::scope(|scope| {
        let client = scope.spawn(|| use_key(&address, &key, &done));
        let finish = Finish(&done);
        let mut earlier: Option<(String, String)> = None;
        for who in 1..=times {
            let mut next = running.successor(&keyed(&place, &upstream, who));
            next.wait_in_charge();
            // The new process has the file: what was made is there, and what is changed stays.
            let made = make_key(&next);
            eventually("the old process is gone", || (with_key(&address, &made.1).status == 200).then_some(()));
            if let Some((id, text)) = earlier.replace(made) {
                assert_eq!(next.admin(&format!("DELETE /api/keys/{id}")).status, 200);
                eventually("it is taken back", || (with_key(&address, &text).status == 401).then_some(()));
            }
            old.push(std::mem::replace(&mut running, next));
        }
        drop(finish);
        client.join().unwrap()
    });
    assert_eq!(refused, Vec::<String>::new(), "of {used}");
    assert!(used > times * 3, "{used}");
    println!("{times} upgrades, {used} requests with a key, none refused");
    for mut process in old {
        assert!(process.wait().success());
    }
}

#[test]
fn a_new_process_that_fails_gives_the_store_back() {
    let (upstream, place) = (Upstream::echo(), Place::new());
    let gateway = Gateway::start(&keyed(&place, &upstream, 0));
    let (_, key) = make_key(&gateway);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut broken = gateway.successor(&format!(
        "{}listeners: [{{ name: public, address: \"127.0.0.1:0\" }}, {{ name: other, address: \"{}\" }}]\n",
        keyed(&place, &upstream, 1),
        taken.local_addr().unwrap()
    ));
    assert_eq!(broken.wait().code(), Some(2), "{}", broken.stderr());
    eventually("the upgrade is over", || (gateway.status()["handing_over"] == false).then_some(()));
    let (_, next) = make_key(&gateway);
    for key in [key, next] {
        assert_eq!(with_key(&gateway.address(), &key).status, 200);
    }
}

#[test]
fn between_two_processes_keys_are_good_and_cannot_be_changed() {
    let (upstream, place) = (Upstream::echo(), Place::new());
    let gateway = Gateway::start(&keyed(&place, &upstream, 0));
    let (_, key) = make_key(&gateway);
    // Somebody who takes everything and then says nothing.
    let stream = UnixStream::connect(place.socket()).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let say = |line: &str| (&stream).write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut hear = || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    say("crossway-upgrade 1");
    while hear() != "end" {
        say("next");
    }
    say("release");
    assert_eq!(hear(), "released");
    let refused = gateway.admin_send("POST /api/keys", WANTED);
    refused.assert_problem(503, "store_unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(with_key(&gateway.address(), &key).status, 200);
    assert_eq!(gateway.admin("GET /api/keys").json()["keys"].as_array().unwrap().len(), 1);
    drop((stream, lines));
    eventually("the store is back", || (gateway.admin_send("POST /api/keys", WANTED).status == 201).then_some(()));
    assert_eq!(with_key(&gateway.address(), &key).status, 200);
}
