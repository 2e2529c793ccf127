//! The PROXY protocol, from outside: whom it names, who may speak it, and what is no header.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use rustls::ALL_VERSIONS;

use crate::harness::{
    Connection, Folder, Gateway, Secure, Trust, Upstream, eventually,
    frames::{END_HEADERS, END_STREAM, End, HEADERS, Http2, PREFACE, SETTINGS, block, frame, request},
    pass, raw,
};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
const TCP4: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r\n";
const REFUSED: &str = "crossway_connections_refused_total{listener=\"public\",reason=\"proxy_header\"}";

/// 203.0.113.7:40000 to 198.51.100.1:443.
const V4: [u8; 12] = [203, 0, 113, 7, 198, 51, 100, 1, 0x9C, 0x40, 1, 0xBB];

const PROXY: u8 = 0x21;
const LOCAL: u8 = 0x20;
const UNSPECIFIED: u8 = 0;
const OVER_TCP4: u8 = 0x11;
const OVER_TCP6: u8 = 0x21;

/// A header of version 2: command, family, and what its length counts.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

fn v6(source: &str) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    [&octets(source)[..], &octets("2001:db8::1"), &[0x9C, 0x40, 1, 0xBB]].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// A gateway whose listener expects a PROXY header from this machine.
fn start(upstream: &Upstream, listener: &str, plugins: &str, rest: &str) -> Gateway {
    let trusted = if listener.contains("trusted_proxies") { "" } else { "trusted_proxies: [127.0.0.0/8], " };
    Gateway::start(&format!(
        "listeners: [{{ name: public, address: \"127.0.0.1:0\", proxy_protocol: true, {trusted}{listener} }}]
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back, plugins: [{plugins}] }}]\n{rest}",
        upstream.address()
    ))
}

/// Who the upstream is told the client is, and the port it meant, after this header.
#[track_caller]
fn told(gateway: &Gateway, upstream: &Upstream, header: &[u8]) -> String {
    let before = upstream.received().len();
    let (answer, closed) = raw(&gateway.address(), &[header, REQUEST].concat(), Duration::from_secs(5));
    assert!(closed && answer.starts_with("HTTP/1.1 200 "), "{:?}: {answer:?}", String::from_utf8_lossy(header));
    let received = upstream.received();
    assert_eq!(received.len(), before + 1);
    received[before].header("x-forwarded-for").unwrap().to_owned()
}

#[test]
fn both_versions_name_the_client() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, "", "", "");
    let tlvs = [&V4[..], &tlv(0x04, &[]), &tlv(0x02, b"example.test"), &tlv(0xEA, &[1; 300])].concat();
    let checked = [&V4[..], &tlv(0x01, b"h2")].concat();
    let long = [&V4[..], &tlv(0xE0, &[7; 4000])].concat();
    for (header, client) in [
        (TCP4.to_vec(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 40000 443\r\n".to_vec(), "203.0.113.7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n".to_vec(), "127.0.0.1"),
        (v2(PROXY, OVER_TCP4, &V4), "203.0.113.7"),
        (v2(PROXY, OVER_TCP4, &tlvs), "203.0.113.7"),
        (v2(PROXY, OVER_TCP4, &checked), "203.0.113.7"),
        (v2(PROXY, OVER_TCP4, &long), "203.0.113.7"),
        (v2(PROXY, OVER_TCP6, &v6("2001:db8::7")), "2001:db8::7"),
        (v2(PROXY, OVER_TCP6, &v6("::ffff:203.0.113.7")), "203.0.113.7"),
        (v2(PROXY, UNSPECIFIED, b""), "127.0.0.1"),
        (v2(LOCAL, UNSPECIFIED, b""), "127.0.0.1"),
        (v2(LOCAL, OVER_TCP4, &V4), "127.0.0.1"),
    ] {
        assert_eq!(told(&gateway, &upstream, &header), client, "{:?}", String::from_utf8_lossy(&header));
    }
    assert_eq!(gateway.metric(REFUSED), 0.0);
    // What a client says of itself counts no more than from any stranger.
    let forged =
        [TCP4, b"GET / HTTP/1.1\r\nHost: t\r\nX-Forwarded-For: 192.0.2.66\r\nForwarded: for=192.0.2.66\r\n\r\n"];
    let mut connection = Connection::open(&gateway.address());
    connection.send(&forged.concat());
    assert_eq!(connection.read("GET").unwrap().status, 200);
    assert_eq!(upstream.received().pop().unwrap().header("x-forwarded-for"), Some("203.0.113.7"));
    // It is so for all requests of the connection; a second header is no request.
    connection.send(b"GET /again HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(connection.read("GET").unwrap().status, 200);
    assert_eq!(upstream.received().pop().unwrap().header("x-forwarded-for"), Some("203.0.113.7"));
    connection.send(b"PROXY TCP4 192.0.2.66 198.51.100.1 1 443\r\n\r\n");
    connection.read("GET").unwrap().assert_problem(400, "bad_request_line");
}

#[test]
fn a_header_and_what_follows_may_come_in_any_pieces() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, "", "", "");
    let tlvs = [&V4[..], &tlv(0x02, &[b'n'; 300])].concat();
    for header in [TCP4.to_vec(), v2(PROXY, OVER_TCP4, &tlvs)] {
        let mut slow = Connection::open(&gateway.address());
        for byte in [&header[..], REQUEST].concat() {
            slow.send(&[byte]);
        }
        assert_eq!(slow.read("GET").unwrap().status, 200);
        // All at once, with a body that is far longer than the header.
        let body = "b".repeat(100_000);
        let posted = format!("POST /whole HTTP/1.1\r\nHost: t\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut quick = Connection::open(&gateway.address());
        quick.send(&[&header[..], posted.as_bytes()].concat());
        assert_eq!(quick.read("POST").unwrap().status, 200);
        let received = upstream.received().pop().unwrap();
        assert_eq!((received.header("x-forwarded-for"), received.body.len()), (Some("203.0.113.7"), body.len()));
    }
}

#[test]
fn it_comes_before_tls() {
    let folder = Folder::new();
    folder.make("one", &["open.test"], 2040);
    let upstream = Upstream::echo();
    let gateway = start(&upstream, &format!("tls: {{ certificates: [{}] }}", folder.pair("one")), "", "");
    let trust = Trust::of(&folder, None, ALL_VERSIONS);
    for header in [TCP4.to_vec(), v2(PROXY, OVER_TCP4, &V4)] {
        let mut client = Secure::connect_after(&gateway.address(), &header, "open.test", &trust).unwrap();
        assert_eq!(client.get("open.test", "/").unwrap().status, 200);
        let received = upstream.received().pop().unwrap();
        assert_eq!(received.header("x-forwarded-for"), Some("203.0.113.7"));
        assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    }
    assert!(Secure::connect(&gateway.address(), "open.test", &trust).is_err(), "the header is missing");
    eventually("it is counted", || (gateway.metric(REFUSED) == 1.0).then_some(()));
    assert_eq!(upstream.received().len(), 2);
}

#[test]
fn it_comes_before_http2() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, "http2: true", "", "");
    let asked = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&request("GET", "/")));
    let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &asked].concat();
    for header in [TCP4.to_vec(), v2(PROXY, OVER_TCP4, &V4)] {
        let mut client = Http2::connect(&gateway.address());
        client.send(&[&header[..], &opening].concat());
        assert!(matches!(client.end_of(1), End::Answer(_)));
        assert_eq!(upstream.received().pop().unwrap().header("x-forwarded-for"), Some("203.0.113.7"));
    }
    let mut bare = Http2::connect(&gateway.address());
    bare.send(&opening);
    assert_eq!(bare.end_of(1), End::Closed);
    assert_eq!(upstream.received().len(), 2);
    eventually("it is counted", || (gateway.metric(REFUSED) == 1.0).then_some(()));
}

#[test]
fn it_decides_what_is_allowed_and_logged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let upstream = Upstream::echo();
    let log = format!("telemetry: {{ access_log: {{ to: \"file:{}\" }} }}\n", path.display());
    let gateway = start(&upstream, "", "{ ip_allow: { deny: [203.0.113.0/24] } }", &log);
    let cases = [
        (TCP4.to_vec(), 403, "203.0.113.7"),
        (v2(PROXY, OVER_TCP6, &v6("::ffff:203.0.113.8")), 403, "203.0.113.8"),
        (b"PROXY TCP4 198.51.100.7 203.0.113.1 40000 443\r\n".to_vec(), 200, "198.51.100.7"),
        (v2(LOCAL, UNSPECIFIED, b""), 200, "127.0.0.1"),
    ];
    for (header, status, _) in &cases {
        let mut connection = Connection::open(&gateway.address());
        connection.send(&[&header[..], REQUEST].concat());
        assert_eq!(connection.read("GET").unwrap().status, *status);
    }
    // A request that is refused before there is a route, too.
    raw(&gateway.address(), &[TCP4, b"GARBAGE\r\n\r\n"].concat(), Duration::from_secs(5));
    let lines = eventually("the lines are written", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines.len() == 5).then_some(lines)
    });
    let expected = cases.iter().map(|(_, status, client)| (*status, *client)).chain([(400, "203.0.113.7")]);
    for (status, client) in expected {
        assert!(lines.iter().any(|line| line["status"] == status && line["client"] == client), "{client}: {lines:?}");
    }
}

#[test]
fn it_names_the_client_whose_connections_are_counted() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, "limits: { connections: { per_client: 2 } }", "", "");
    let open = |header: &[u8]| {
        let mut connection = Connection::open(&gateway.address());
        connection.send(&[header, b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"].concat());
        connection.read("GET").map(|answer| {
            assert_eq!(answer.status, 200);
            connection
        })
    };
    let first = open(TCP4).expect("the first");
    let _mapped = open(&v2(PROXY, OVER_TCP6, &v6("::ffff:203.0.113.7"))).expect("the second, in other clothes");
    assert!(open(TCP4).is_none(), "a third of one client");
    assert_eq!(gateway.metric("crossway_connections_refused_total{listener=\"public\",reason=\"per_client\"}"), 1.0);
    let _other = open(b"PROXY TCP4 203.0.113.8 198.51.100.1 40000 443\r\n").expect("another client");
    let _network: Vec<_> =
        ["2001:db8::7", "2001:db8::8"].map(|ip| open(&v2(PROXY, OVER_TCP6, &v6(ip))).expect(ip)).into();
    assert!(open(&v2(PROXY, OVER_TCP6, &v6("2001:db8::9"))).is_none(), "a third of one network");
    // The load balancer itself is not counted.
    let _own: Vec<_> = (0..4).map(|_| open(&v2(LOCAL, UNSPECIFIED, b"")).expect("of the load balancer")).collect();
    drop(first);
    eventually("the place is free again", || open(TCP4));
    assert_eq!(gateway.metric(REFUSED), 0.0);
}

#[test]
fn only_those_who_are_trusted_may_speak_for_others() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, "trusted_proxies: [10.0.0.0/8, 203.0.113.0/24]", "", "");
    for bytes in [TCP4, &v2(PROXY, OVER_TCP4, &V4), &v2(LOCAL, UNSPECIFIED, b""), b"PROXY UNKNOWN\r\n", b""] {
        let (answer, closed) = raw(&gateway.address(), &[bytes, REQUEST].concat(), Duration::from_secs(5));
        assert!(closed && answer.is_empty(), "{answer:?}");
    }
    assert!(upstream.received().is_empty());
    eventually("they are counted", || (gateway.metric(REFUSED) == 5.0).then_some(()));
}

/// Bytes that do not begin as a header.
fn no_beginnings() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        b"\x16\x03\x01\x02\0\x01\0".to_vec(),
        vec![0xFF; 600],
        b"\r\n\r\n\0\r\nQUIX\n".to_vec(),
        b"proxy TCP4 203.0.113.7 198.51.100.1 40000 443\r\n".to_vec(),
        b" PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r\n".to_vec(),
        b"PROXYTCP4 203.0.113.7 198.51.100.1 40000 443\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r".to_vec(),
    ]
}

/// Lines of version 1 that say nothing, or not quite.
fn bad_lines() -> Vec<Vec<u8>> {
    let long =
        [format!("UNKNOWN {}", "a".repeat(100)), format!("TCP4 203.0.113.7 198.51.100.1 40000 {}", "0".repeat(5000))];
    let texts = [
        "",
        "tcp4 203.0.113.7 198.51.100.1 40000 443",
        "UDP4 203.0.113.7 198.51.100.1 40000 443",
        "TCP4 203.0.113.7 198.51.100.1 40000",
        "TCP4 203.0.113.7 198.51.100.1 40000 443 1",
        "TCP4 203.0.113.7 198.51.100.1 40000 443 ",
        "TCP4  203.0.113.7 198.51.100.1 40000 443",
        "TCP4\t203.0.113.7 198.51.100.1 40000 443",
        "TCP4 203.0.113.7 198.51.100.1 65536 443",
        "TCP4 203.0.113.7 198.51.100.1 -1 443",
        "TCP4 203.0.113.7 198.51.100.1 +1 443",
        "TCP4 203.0.113.7 198.51.100.1 0x1 443",
        "TCP4 203.0.113.7 198.51.100.1 040000 443",
        "TCP4 203.0.113.7:1 198.51.100.1 40000 443",
        "TCP4 203.0.113.256 198.51.100.1 40000 443",
        "TCP4 203.0.113 198.51.100.1 40000 443",
        "TCP4 203.0.113.007 198.51.100.1 40000 443",
        "TCP4 3405803783 198.51.100.1 40000 443",
        "TCP4 2001:db8::7 2001:db8::1 40000 443",
        "TCP4 localhost 198.51.100.1 40000 443",
        "TCP6 203.0.113.7 198.51.100.1 40000 443",
        "TCP6 [2001:db8::7] 2001:db8::1 40000 443",
        "TCP6 fe80::1%lo 2001:db8::1 40000 443",
    ];
    let texts = texts.into_iter().chain(long.iter().map(String::as_str));
    texts.map(|text| format!("PROXY {text}\r\n").into_bytes()).collect()
}

/// Headers of version 2 of other versions, commands and families, and with lengths that do not add up.
fn bad_binaries() -> Vec<Vec<u8>> {
    let raw_v2 = |head: [u8; 4], rest: &[u8]| [b"\r\n\r\n\0\r\nQUIT\n", &head[..], rest].concat();
    let with = |rest: &[u8]| [&V4[..], rest].concat();
    vec![
        raw_v2([0x11, OVER_TCP4, 0, 12], &V4),
        raw_v2([0x31, OVER_TCP4, 0, 12], &V4),
        raw_v2([0x01, OVER_TCP4, 0, 12], &V4),
        v2(0x22, OVER_TCP4, &V4),
        v2(0x2F, OVER_TCP4, &V4),
        v2(PROXY, 0x12, &V4),
        v2(PROXY, 0x10, &V4),
        v2(PROXY, 0x13, &V4),
        v2(PROXY, 0x41, &V4),
        v2(PROXY, 0x31, &[0; 216]),
        v2(PROXY, OVER_TCP4, &V4[..11]),
        v2(PROXY, OVER_TCP4, b""),
        v2(PROXY, OVER_TCP6, &V4),
        v2(PROXY, OVER_TCP6, &v6("2001:db8::7")[..35]),
        v2(PROXY, OVER_TCP4, &with(&[4])),
        v2(PROXY, OVER_TCP4, &with(&[4, 0])),
        v2(PROXY, OVER_TCP4, &with(&[4, 0, 5, 1])),
        v2(PROXY, OVER_TCP4, &with(&[4, 0xFF, 0xFF])),
        raw_v2([PROXY, OVER_TCP4, 0xFF, 0xFF], &[0; 8000]),
        v2(PROXY, OVER_TCP4, &with(&tlv(0xE0, &vec![0; 20_000]))),
    ]
}

#[test]
fn what_is_no_header_is_closed_without_an_answer() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, "", "", "");
    let mut count = 0.0;
    for header in [no_beginnings(), bad_lines(), bad_binaries()].concat() {
        count += 1.0;
        let (answer, closed) = raw(&gateway.address(), &[&header[..], REQUEST].concat(), Duration::from_secs(5));
        let shown = String::from_utf8_lossy(&header[..header.len().min(80)]).into_owned();
        assert!(closed && answer.is_empty(), "{shown:?}: closed {closed}, {answer:?}");
        assert!(upstream.received().is_empty(), "{shown:?}");
        eventually(&format!("{shown:?} is counted"), || (gateway.metric(REFUSED) == count).then_some(()));
    }
    assert_eq!(gateway.metric("crossway_panics_total"), 0.0);
    assert_eq!(told(&gateway, &upstream, TCP4), "203.0.113.7");
}

#[test]
fn a_header_that_does_not_end_is_not_waited_for_for_ever() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, "limits: { client: { header_deadline: 1s } }", "", "");
    let whole = v2(PROXY, OVER_TCP4, &[&V4[..], &tlv(0xE0, &[0; 200])].concat());
    let mut count = 0.0;
    for (half, drip) in
        [(&b""[..], false), (&TCP4[..20], false), (&whole[..40], false), (&b""[..], true), (&TCP4[..1], true)]
    {
        let began = Instant::now();
        let mut client = Connection::open(&gateway.address());
        client.send(half);
        let rest = if half.is_empty() { &whole[..] } else { &TCP4[1..] };
        if drip {
            for byte in rest {
                if client.writer().write_all(&[*byte]).is_err() || began.elapsed() > Duration::from_secs(4) {
                    break;
                }
                pass(Duration::from_millis(100));
            }
        }
        assert!(client.is_closed());
        let took = began.elapsed();
        assert!((Duration::from_millis(900)..Duration::from_millis(3500)).contains(&took), "{half:?}: {took:?}");
        count += 1.0;
        eventually("it is counted", || (gateway.metric(REFUSED) == count).then_some(()));
        // Others are served meanwhile and afterwards.
        told(&gateway, &upstream, TCP4);
    }
    // From there on the deadline is that of a request.
    let mut client = Connection::open(&gateway.address());
    client.send(&[TCP4, b"GET / HT"].concat());
    client.read("GET").unwrap().assert_problem(408, "request_timeout");
}

#[test]
fn a_client_that_leaves_within_its_header_leaves_nothing_behind() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, "", "", "");
    for _ in 0..20 {
        Connection::open(&gateway.address()).send(&TCP4[..20]);
    }
    eventually("they are counted", || (gateway.metric(REFUSED) == 20.0).then_some(()));
    eventually("nothing is left", || (gateway.status()["connections"] == 0).then_some(()));
}

#[test]
fn other_listeners_know_no_header() {
    let folder = Folder::new();
    folder.make("one", &["open.test"], 2040);
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&format!(
        "listeners:
  - {{ name: public, address: \"127.0.0.1:0\", trusted_proxies: [127.0.0.0/8] }}
  - {{ name: both, address: \"127.0.0.2:0\", trusted_proxies: [127.0.0.0/8], http2: true }}
  - {{ name: secure, address: \"127.0.0.3:0\", trusted_proxies: [127.0.0.0/8], tls: {{ certificates: [{}] }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}]\n",
        folder.pair("one"),
        upstream.address()
    ));
    for header in [TCP4.to_vec(), v2(PROXY, OVER_TCP4, &V4), v2(LOCAL, UNSPECIFIED, b"")] {
        let bytes = [&header[..], REQUEST].concat();
        let (plain, closed) = raw(&gateway.address(), &bytes, Duration::from_secs(5));
        assert!(closed && plain.starts_with("HTTP/1.1 400 ") && !plain.contains("HTTP/1.1 200"), "{plain:?}");
        let (both, closed) = raw(&gateway.listener("both").unwrap(), &bytes, Duration::from_secs(5));
        assert!(closed && !both.contains("HTTP/1.1 200"), "{both:?}");
        let secure = gateway.listener("secure").unwrap();
        let (answer, closed) = raw(&secure, &bytes, Duration::from_secs(5));
        assert!(closed && !answer.contains("HTTP/1.1"), "{answer:?}");
        let trust = Trust::of(&folder, None, ALL_VERSIONS);
        assert!(Secure::connect_after(&secure, &header, "open.test", &trust).is_err());
    }
    assert!(upstream.received().is_empty());
}
