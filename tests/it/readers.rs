//! Clients that ask for much and do not read it: when each is let go, on every protocol, and what it costs until then.

use std::{
    io::Write as _,
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::harness::{
    Folder, Gateway, Secure, Silent, Trust, connect_from, eventually,
    frames::{Http2, WINDOW_UPDATE, frame, request},
    pass,
};

const NAME: &str = "open.test";
/// A little less than `idle` of the gateways below.
const NEARLY_IDLE: Duration = Duration::from_secs(4);

/// A listener of each kind, in front of this upstream.
fn start(folder: &Folder, upstream: &Silent, limits: &str) -> Gateway {
    folder.make("one", &[NAME], 2040);
    Gateway::start(&format!(
        "limits: {{ {limits} }}
listeners:
  - {{ name: public, address: \"127.0.0.1:0\", http2: true }}
  - {{ name: secure, address: \"127.0.0.2:0\", http2: true, tls: {{ certificates: [{}] }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}], retry: {{ attempts: 0 }} }} }}
routes: [{{ name: all, match: {{ path: / }}, auth: none, upstream: back }}]\n",
        folder.pair("one"),
        upstream.address()
    ))
}

/// Much more than all buffers on the way to a client take, in chunks that are smaller than any of them.
fn chunks() -> Silent {
    let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let chunk = [&b"3e8\r\n"[..], &[b'x'; 1000], b"\r\n"].concat();
    for _ in 0..8000 {
        bytes.extend_from_slice(&chunk);
    }
    Silent::start(&bytes)
}

/// Connects with a small receive buffer and asks.
fn plain(gateway: &Gateway) -> TcpStream {
    let mut stream = connect_from("127.0.0.1", 8192, &gateway.address());
    stream.write_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
    stream
}

fn secure(gateway: &Gateway, trust: &Trust) -> Secure {
    let mut secure = Secure::connect(&gateway.listener("secure").unwrap(), NAME, trust).unwrap();
    secure.0.write_all(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes()).unwrap();
    secure.0.flush().unwrap();
    secure
}

/// Asks with windows that are as open as they can be.
fn http2(gateway: &Gateway) -> Http2 {
    const WINDOW: u32 = 0x7fff_ffff;
    let settings = [&[0, 4][..], &WINDOW.to_be_bytes()].concat();
    let mut http2 = Http2::open_with(&gateway.address(), &settings);
    http2.send(&frame(WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes()));
    http2.ask(1, &request("GET", "/"));
    http2
}

/// The gateway's own open files.
fn files(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

fn cut(gateway: &Gateway) -> f64 {
    gateway.metric("crossway_faults_total{code=\"client_gone\"}")
}

#[test]
fn a_reader_that_has_used_up_its_patience_gets_no_more_of_it_for_the_end() {
    let (folder, upstream) = (Folder::new(), chunks());
    let gateway = start(&folder, &upstream, "client: { idle: 5s }");
    let trust = Trust::of(&folder, None, rustls::ALL_VERSIONS);
    gateway.metric("crossway_connections");
    let before = files(&gateway);
    let _plain: Vec<_> = (0..5).map(|_| plain(&gateway)).collect();
    let _secure: Vec<_> = (0..5).map(|_| secure(&gateway, &trust)).collect();
    let began = Instant::now();
    eventually("all are cut", || (cut(&gateway) == 10.0).then_some(()));
    assert!(began.elapsed() > NEARLY_IDLE, "{:?}", began.elapsed());
    let began = Instant::now();
    eventually("their files are closed", || (files(&gateway) <= before + 1).then_some(()));
    assert!(began.elapsed() < NEARLY_IDLE, "the end took another {:?}", began.elapsed());
}

#[test]
fn an_http2_connection_on_which_nothing_is_read_ends_with_its_streams() {
    let (folder, upstream) = (Folder::new(), chunks());
    let gateway = start(&folder, &upstream, "http2: { stall: 2s, idle: 10m }");
    let _deaf: Vec<_> = (0..3).map(|_| http2(&gateway)).collect();
    eventually("all are served", || (gateway.metric("crossway_requests_in_flight") == 3.0).then_some(()));
    eventually("all are cut", || (cut(&gateway) == 3.0).then_some(()));
    eventually("their connections are closed", || (gateway.status()["connections"] == 0).then_some(()));
}

/// Memory of the gateway that is on no disk, in KiB, once it has come to rest.
fn memory(gateway: &Gateway) -> i64 {
    let now = || -> i64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let (mut last, mut calm) = (now(), 0);
    eventually("memory has come to rest", || {
        pass(Duration::from_millis(200));
        let next = now();
        calm = if (next - last).abs() < 64 { calm + 1 } else { 0 };
        last = next;
        (calm == 5).then_some(last)
    })
}

/// KiB that each of so many clients costs when as many are there already: the first find what the allocator must get.
fn cost<T>(gateway: &Gateway, ask: impl Fn() -> T) -> i64 {
    const READERS: u32 = 15;
    let more = |all: u32| {
        let readers: Vec<T> = (0..READERS).map(|_| ask()).collect();
        eventually("all are served", || {
            (gateway.metric("crossway_requests_in_flight") == f64::from(all)).then_some(())
        });
        (readers, memory(gateway))
    };
    let (first, before) = more(READERS);
    let (second, after) = more(2 * READERS);
    drop((first, second));
    eventually("none is left", || (gateway.metric("crossway_requests_in_flight") == 0.0).then_some(()));
    (after - before) / i64::from(READERS)
}

#[test]
fn a_reader_that_stops_costs_little() {
    let folder = Folder::new();
    let trust = Trust::of(&folder, None, rustls::ALL_VERSIONS);
    let length = 8 << 20;
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + length, b'x');
    let upstream = Silent::start(&answer);
    let limits = "client: { idle: 10m, min_rate: \"off\" }, http2: { stall: 10m }";
    // A gateway for each, so that none uses what another has left. Of each number 50 to 80 KiB are what any request
    // costs, where nothing is optimized.
    let started = || start(&folder, &upstream, limits);
    let (first, second, third) = (started(), started(), started());
    let costs = [
        ("HTTP/1.1", cost(&first, || plain(&first)), 155),
        ("TLS", cost(&second, || secure(&second, &trust)), 250),
        ("HTTP/2", cost(&third, || http2(&third)), 320),
    ];
    for (protocol, cost, _) in costs {
        eprintln!("{protocol}: {cost} KiB for a reader that has stopped");
    }
    for (protocol, cost, most) in costs {
        assert!(cost < most, "{protocol}: {cost} KiB");
    }
}
