//! More clients than there is room for, and clients that take all the time there is: each is bounded and counted, and an
//! honest client is served all the while.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::harness::{
    Answer, Connection, Folder, Gateway, Secure, Silent, Trust, Upstream, connect_from, eventually,
    frames::{END_HEADERS, END_STREAM, HEADERS, Http2, block, frame, request},
    pass, raw,
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n";
const TICK: Duration = Duration::from_millis(100);

/// A gateway in front of this upstream.
fn start(upstream: &str, limits: &str) -> Gateway {
    Gateway::start(&config(upstream, limits))
}

fn config(upstream: &str, limits: &str) -> String {
    format!(
        "limits: {{ {limits} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{upstream}\" }}], retry: {{ attempts: 0 }} }} }}
routes:
  - {{ name: own, match: {{ path: /own }}, auth: none, plugins: [{{ respond: {{ status: 200, body: here }} }}] }}
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}\n"
    )
}

fn refused(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("crossway_connections_refused_total{{listener=\"public\",reason=\"{reason}\"}}"))
}

/// A connection that has had an answer and stays; nothing where it was closed at once.
fn admitted(mut connection: Connection) -> Option<Connection> {
    connection.try_send(REQUEST).ok()?;
    let answer = connection.read("GET")?;
    assert_eq!(answer.status, 200);
    Some(connection)
}

fn open(gateway: &Gateway) -> Option<Connection> {
    admitted(Connection::open(&gateway.address()))
}

fn open_from(source: &str, gateway: &Gateway) -> Option<Connection> {
    admitted(Connection::over(connect_from(source, 65_536, &gateway.address())))
}

/// An honest client gets its answer, and soon.
#[track_caller]
fn serves_others(gateway: &Gateway) {
    let began = Instant::now();
    let answer = gateway.get("/own");
    assert_eq!((answer.status, answer.text().as_str()), (200, "here"));
    assert!(began.elapsed() < Duration::from_secs(3), "an honest client waited for {:?}", began.elapsed());
}

fn nothing_is_left(gateway: &Gateway) {
    eventually("nothing is left", || {
        let left = gateway.metric("crossway_requests_in_flight") == 0.0 && gateway.status()["connections"] == 0;
        left.then_some(())
    });
}

/// Memory that the gateway holds, in KiB.
fn memory(gateway: &Gateway) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn one_connection_too_many_is_closed_and_the_others_go_on() {
    let upstream = Upstream::start(|_| Answer::ok("fine"));
    let gateway = start(upstream.address(), "connections: { total: 3 }");
    let mut held: Vec<_> = (0..3).map(|_| open(&gateway).expect("there is room")).collect();
    for _ in 0..5 {
        let (answer, closed) = raw(&gateway.address(), REQUEST, Duration::from_secs(5));
        assert!(closed && answer.is_empty(), "{answer:?}");
    }
    assert_eq!(refused(&gateway, "total"), 5.0);
    assert_eq!(gateway.metric("crossway_connections{listener=\"public\"}"), 3.0);
    held = held.into_iter().map(|connection| admitted(connection).expect("it goes on")).collect();
    held.pop();
    let _new = eventually("the place is free again", || open(&gateway));
    assert!(open(&gateway).is_none(), "and taken again");
    drop(held);
    assert_eq!(refused(&gateway, "per_client") + refused(&gateway, "listener_total"), 0.0);
}

#[test]
fn a_listener_has_a_bound_of_its_own() {
    let gateway = Gateway::start(
        "limits: { connections: { total: 4 } }
listeners:
  - { name: public, address: \"127.0.0.1:0\", limits: { connections: { total: 2 } } }
  - { name: other, address: \"127.0.0.2:0\" }
routes: [{ name: all, match: { path: / }, auth: none, plugins: [{ respond: { status: 200 } }] }]\n",
    );
    let other = |gateway: &Gateway| admitted(Connection::open(&gateway.listener("other").unwrap()));
    let held = [open(&gateway).expect("the first"), open(&gateway).expect("the second")];
    assert!(open(&gateway).is_none(), "a third on the listener");
    assert_eq!(refused(&gateway, "listener_total"), 1.0);
    let _others = [other(&gateway).expect("the third of all"), other(&gateway).expect("the fourth of all")];
    assert!(other(&gateway).is_none(), "a fifth of all");
    assert_eq!(gateway.metric("crossway_connections_refused_total{listener=\"other\",reason=\"total\"}"), 1.0);
    drop(held);
    eventually("the place is free again", || open(&gateway));
}

#[test]
fn a_client_has_no_more_than_its_share() {
    let upstream = Upstream::start(|_| Answer::ok("fine"));
    let gateway = start(upstream.address(), "connections: { per_client: 2 }");
    let mut held = vec![open(&gateway).expect("the first"), open(&gateway).expect("the second")];
    for _ in 0..5 {
        assert!(open(&gateway).is_none(), "a third of one client");
    }
    assert_eq!(refused(&gateway, "per_client"), 5.0);
    let _others =
        [open_from("127.0.0.2", &gateway).expect("another client"), open_from("127.0.0.2", &gateway).unwrap()];
    assert!(open_from("127.0.0.2", &gateway).is_none());
    held = held.into_iter().map(|connection| admitted(connection).expect("it goes on")).collect();
    held.pop();
    eventually("the place is free again", || open(&gateway));
    assert_eq!(refused(&gateway, "total"), 0.0);
}

/// With 256 files, 64 of them in reserve, two fifths of the rest are places.
const FILES: u32 = 256;
const PLACES: u32 = 76;

#[test]
fn more_clients_than_files_are_turned_away_and_do_not_block_anything() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/hold" => Answer::silence(),
        _ => Answer::ok("fine"),
    });
    let limits = "connections: { total: 10000, per_client: 0 }";
    let gateway = Gateway::start_with_files(FILES, &config(upstream.address(), limits));
    let files = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    assert!(files.lines().any(|line| line.starts_with("Max open files") && line.contains(" 256 ")), "{files}");
    for round in 1..=2 {
        // All of them are there when the gateway looks.
        gateway.signal("STOP");
        let mut clients: Vec<_> = (0..600).map(|_| Connection::open(&gateway.address())).collect();
        for client in &mut clients {
            let _ = client.try_send(b"GET /hold HTTP/1.1\r\nHost: t\r\n\r\n");
        }
        gateway.signal("CONT");
        let began = Instant::now();
        let places = f64::from(PLACES);
        eventually("the places are taken", || (gateway.metric("crossway_requests_in_flight") == places).then_some(()));
        eventually("the others are turned away", || {
            (refused(&gateway, "total") >= f64::from(round) * (600.0 - places)).then_some(())
        });
        // An accept that finds no file sleeps for a second.
        assert!(began.elapsed() < Duration::from_secs(1), "turning them away took {:?}", began.elapsed());
        assert_eq!(gateway.metric("crossway_connections{listener=\"public\"}"), places);
        // Nobody waits to be turned away.
        let began = Instant::now();
        let (answer, closed) = raw(&gateway.address(), REQUEST, Duration::from_secs(5));
        assert!(closed && answer.is_empty() && began.elapsed() < Duration::from_secs(3), "{answer:?}");
        assert_eq!((gateway.admin("GET /readyz").status, gateway.admin("GET /api/status").status), (200, 200));
        drop(clients);
        eventually("requests work again", || open(&gateway));
        nothing_is_left(&gateway);
        serves_others(&gateway);
    }
    // Those who are turned away take no file from those inside.
    assert_eq!(gateway.metric("crossway_faults_total{code=\"upstream_connect\"}"), 0.0);
    assert_eq!(gateway.metric("crossway_panics_total"), 0.0);
}

#[test]
fn streams_that_want_more_upstream_connections_than_files_leave_the_rest_alone() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/hold" => Answer::silence(),
        _ => Answer::ok("fine"),
    });
    let listener = "listeners: [{ name: public, address: \"127.0.0.1:0\", http2: true }]\n";
    let gateway = Gateway::start_with_files(FILES, &(listener.to_owned() + &config(upstream.address(), "")));
    let mut clients: Vec<_> = (0..4).map(|_| Http2::open(&gateway.address())).collect();
    for client in &mut clients {
        for at in 0..100 {
            let hold = block(&request("GET", "/hold"));
            client.send(&frame(HEADERS, END_STREAM | END_HEADERS, 2 * at + 1, &hold));
        }
    }
    let places = f64::from(PLACES);
    eventually("all are held or refused", || {
        let overloaded = gateway.metric("crossway_refused_total{code=\"overloaded\"}");
        (overloaded == 400.0 - places && gateway.metric("crossway_requests_in_flight") == places).then_some(())
    });
    assert_eq!(gateway.metric("crossway_faults_total{code=\"upstream_connect\"}"), 0.0);
    gateway.get("/").assert_problem(503, "overloaded");
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!((gateway.admin("GET /readyz").status, gateway.admin("GET /metrics").status), (200, 200));
        serves_others(&gateway);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
    drop(clients);
    eventually("requests work again", || (gateway.get("/").status == 200).then_some(()));
    nothing_is_left(&gateway);
}

#[test]
fn idle_connections_to_upstreams_leave_room_for_others() {
    let slow = || {
        Upstream::start(|_| {
            pass(Duration::from_millis(500));
            Answer::ok("fine")
        })
    };
    let upstreams: Vec<_> = (0..4).map(|_| slow()).collect();
    let mut config = "limits: { connections: { per_client: 0 } }\nupstreams:\n".to_owned();
    let mut routes = "routes:\n".to_owned();
    for (at, upstream) in upstreams.iter().enumerate() {
        let _ = writeln!(config, "  u{at}: {{ endpoints: [{{ address: \"{}\" }}] }}", upstream.address());
        let _ = writeln!(routes, "  - {{ name: r{at}, match: {{ path: /{at} }}, auth: none, upstream: u{at} }}");
    }
    let gateway = Gateway::start_with_files(FILES, &(config + &routes));
    let mut clients: Vec<_> = (0..PLACES).map(|_| Connection::open(&gateway.address())).collect();
    for at in 0..upstreams.len() {
        for client in &mut clients {
            client.send(format!("GET /{at} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
        }
        for client in &mut clients {
            assert_eq!(client.read("GET").expect("an answer").status, 200, "upstream {at}");
        }
    }
}

#[test]
fn a_header_that_drips_is_cut_on_any_request_of_a_connection() {
    let folder = Folder::new();
    folder.make("one", &["open.test"], 2040);
    let upstream = Upstream::start(|_| Answer::ok("fine"));
    let listeners = format!(
        "listeners:
  - {{ name: public, address: \"127.0.0.1:0\" }}
  - {{ name: secure, address: \"127.0.0.2:0\", tls: {{ certificates: [{}] }} }}\n",
        folder.pair("one")
    );
    let limits = "client: { header_deadline: 1s }";
    let gateway = Gateway::start(&(listeners + &config(upstream.address(), limits)));
    let fresh: Vec<_> = (0..20).map(|_| Connection::open(&gateway.address())).collect();
    let later: Vec<_> = (0..20).map(|_| open(&gateway).expect("there is room")).collect();
    let slow: Vec<_> = fresh.into_iter().chain(later).collect();
    let trust = Trust::of(&folder, None, rustls::ALL_VERSIONS);
    let mut secure = Secure::connect(&gateway.listener("secure").unwrap(), "open.test", &trust).unwrap();
    let received = upstream.received().len();
    let began = Instant::now();
    // Lines of a header too, so that no line is long.
    for byte in b"GET / HTTP/1.1\r\nHost: t\r\nA: b\r\nC: d\r\n" {
        for client in &slow {
            let _ = client.writer().write_all(&[*byte]);
        }
        let _ = secure.0.write_all(&[*byte]).and_then(|()| secure.0.flush());
        serves_others(&gateway);
        if gateway.metric("crossway_refused_total{code=\"request_timeout\"}") >= 41.0 {
            break;
        }
        pass(TICK);
    }
    assert!((Duration::from_millis(900)..Duration::from_secs(3)).contains(&began.elapsed()), "{:?}", began.elapsed());
    for mut client in slow {
        client.read("GET").expect("an answer").assert_problem(408, "request_timeout");
        assert!(client.is_closed());
    }
    let mut rest = Vec::new();
    let _ = secure.0.read_to_end(&mut rest);
    assert!(rest.starts_with(b"HTTP/1.1 408 "), "{:?}", String::from_utf8_lossy(&rest));
    assert_eq!(upstream.received().len(), received);
    nothing_is_left(&gateway);
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    let upstream = Upstream::start(|_| Answer::ok("fine"));
    let gateway = start(upstream.address(), "client: { header_deadline: 1s, idle: 1500ms }");
    let silent: Vec<_> = (0..20).map(|_| Connection::open(&gateway.address())).collect();
    let between: Vec<_> = (0..20).map(|_| open(&gateway).expect("there is room")).collect();
    let began = Instant::now();
    let mut ends = [silent, between].map(|clients| {
        for mut client in clients {
            assert!(client.is_closed());
        }
        serves_others(&gateway);
        began.elapsed()
    });
    assert!(ends[0] > Duration::from_millis(700) && ends[0] < Duration::from_millis(2500), "{ends:?}");
    ends.sort();
    assert!(ends[1] > Duration::from_millis(1300) && ends[1] < Duration::from_secs(4), "{ends:?}");
    nothing_is_left(&gateway);
}

#[test]
fn a_body_that_comes_too_slowly_is_cut_and_its_upstream_freed() {
    for (framing, piece) in [("Content-Length: 100000", &b"xxxxx"[..]), ("Transfer-Encoding: chunked", b"1\r\nx\r\n")] {
        let upstream = Silent::start(b"");
        let gateway = start(upstream.address(), "client: { idle: 1s, min_rate: 10KiB/s }");
        let mut slow = Connection::open(&gateway.address());
        let began = Instant::now();
        slow.send(format!("POST / HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n").as_bytes());
        slow.send(piece);
        upstream.has_request();
        // Never a pause of `idle`.
        while began.elapsed() < Duration::from_secs(15) && slow.try_send(piece).is_ok() {
            if gateway.metric("crossway_requests_in_flight") == 0.0 {
                break;
            }
            serves_others(&gateway);
            pass(TICK);
        }
        let took = began.elapsed();
        assert!((Duration::from_millis(700)..Duration::from_secs(10)).contains(&took), "{framing}: {took:?}");
        slow.read("POST").expect("an answer").assert_problem(408, "request_timeout");
        upstream.is_freed();
        assert_eq!(gateway.metric("crossway_faults_total{code=\"request_timeout\"}"), 1.0);
        assert_eq!(gateway.metric("crossway_requests_total{class=\"4xx\",route=\"all\"}"), 1.0);
        drop(slow);
        nothing_is_left(&gateway);
    }
}

#[test]
fn a_body_that_keeps_the_rate_may_take_longer_than_a_pause() {
    let upstream = Upstream::echo();
    let gateway = start(upstream.address(), "client: { idle: 1s, min_rate: 1KiB/s }");
    let mut steady = Connection::open(&gateway.address());
    steady.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 12000\r\n\r\n");
    for _ in 0..30 {
        pass(TICK);
        steady.send(&[b'x'; 400]);
    }
    assert_eq!(steady.read("POST").unwrap().status, 200);
    assert_eq!(upstream.only().body.len(), 12_000);
}

const LARGE: usize = 64 << 20;

/// An answer that no reader of these tests takes whole.
fn large() -> Silent {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").into_bytes();
    bytes.resize(bytes.len() + LARGE, b'x');
    Silent::start(&bytes)
}

/// Connects with a small receive buffer and asks.
fn reader(gateway: &Gateway) -> TcpStream {
    let mut stream = connect_from("127.0.0.1", 8192, &gateway.address());
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(REQUEST).unwrap();
    stream
}

#[test]
fn a_response_that_is_taken_too_slowly_is_cut_and_its_upstream_freed() {
    let upstream = large();
    let gateway = start(upstream.address(), "client: { idle: 4s, min_rate: 10MiB/s }");
    let mut slow = reader(&gateway);
    upstream.has_request();
    let (began, mut taken) = (Instant::now(), 0);
    // Far from the end, and with no pause of `idle`: the system wakes a writer when a third of its buffer is free.
    let mut piece = [0; 16 << 10];
    while began.elapsed() < Duration::from_secs(15) {
        match slow.read(&mut piece) {
            Ok(read @ 1..) => taken += read,
            _ => break,
        }
        if gateway.metric("crossway_requests_in_flight") == 0.0 {
            break;
        }
        serves_others(&gateway);
        pass(Duration::from_millis(20));
    }
    assert!(began.elapsed() < Duration::from_secs(10) && taken < LARGE / 2, "{taken} in {:?}", began.elapsed());
    upstream.is_freed();
    assert_eq!(gateway.metric("crossway_faults_total{code=\"client_gone\"}"), 1.0);
    drop(slow);
    nothing_is_left(&gateway);
}

#[test]
fn readers_that_stop_cost_little_memory_and_are_let_go() {
    let upstream = large();
    let gateway = start(upstream.address(), "client: { idle: 2s }");
    serves_others(&gateway);
    let before = memory(&gateway);
    let stopped: Vec<_> = (0..20).map(|_| reader(&gateway)).collect();
    let began = Instant::now();
    let mut most = 0;
    eventually("all are let go", || {
        most = most.max(memory(&gateway));
        serves_others(&gateway);
        (gateway.metric("crossway_faults_total{code=\"client_gone\"}") == 20.0).then_some(())
    });
    let took = began.elapsed();
    assert!((Duration::from_millis(1800)..Duration::from_secs(15)).contains(&took), "{took:?}");
    assert!(most < before + 20 * 1024, "{before} KiB before, {most} KiB with 20 responses of 64 MiB");
    for _ in 0..40 {
        // Twenty requests and twenty ends, in any order.
        upstream.next();
    }
    drop(stopped);
    nothing_is_left(&gateway);
}
