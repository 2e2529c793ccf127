//! Large bodies stream, slow ones are cut, too large ones are refused.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use crate::harness::{Answer, Connection, Gateway, PATIENCE, Upstream, raw};

fn config(address: &str, extra: &str) -> String {
    format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{address}\" }}] }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}]\n{extra}"
    )
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Bytes of a large body: more by hand, with `CROSSWAY_TEST_BODY_MIB=2048`.
fn large() -> u64 {
    let asked = std::env::var_os("CROSSWAY_TEST_BODY_MIB").and_then(|n| n.to_str()?.parse().ok());
    asked.unwrap_or(200_u64) << 20
}

/// A server that swallows a request body of `large` bytes, and answers with one.
fn swallow_and_spout(large: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut header = Vec::new();
        while !header.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            header.push(byte[0]);
        }
        std::io::copy(&mut Read::by_ref(&mut stream).take(large), &mut std::io::sink()).unwrap();
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {large}\r\n\r\n").as_bytes()).unwrap();
        std::io::copy(&mut std::io::repeat(b'x').take(large), &mut stream).unwrap();
    });
    address
}

#[test]
fn large_bodies_stream_both_ways_in_little_memory() {
    let large = large();
    let limits = format!("limits: {{ request: {{ body: {large}B }} }}\n");
    let gateway = Gateway::start(&config(&swallow_and_spout(large), &limits));
    gateway.get("/%zz");
    let before = resident(gateway.pid());
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    stream
        .write_all(
            format!("PUT /x HTTP/1.1\r\nHost: t\r\nContent-Length: {large}\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .unwrap();
    std::io::copy(&mut std::io::repeat(b'y').take(large), &mut stream).unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let rest = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    assert!(rest > large, "{rest}");
    let grown = resident(gateway.pid()).saturating_sub(before);
    println!("{grown} KiB for {large} bytes each way");
    assert!(grown < 20 << 10, "{grown} KiB for {large} bytes each way");
}

#[test]
fn a_body_larger_than_allowed_is_413() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&config(upstream.address(), "limits: { request: { body: 1KiB } }\n"));
    assert_eq!(gateway.send("POST /x", &[], &[b'x'; 1024]).status, 200);
    gateway.send("POST /x", &[], &[b'x'; 1025]).assert_problem(413, "body_too_large");
    let declared = raw(
        &gateway.address(),
        b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999\r\n\r\n",
        Duration::from_secs(3),
    );
    assert!(declared.0.starts_with("HTTP/1.1 413 ") && declared.1, "{declared:?}");
    let mut chunked = Vec::new();
    for _ in 0..100 {
        chunked.extend_from_slice(b"40\r\n");
        chunked.extend_from_slice(&[b'x'; 0x40]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    gateway.send("POST /x", &[("Transfer-Encoding", "chunked")], &chunked).assert_problem(413, "body_too_large");
    assert_eq!(upstream.received().iter().filter(|r| r.body.len() > 1024).count(), 0);
}

#[test]
fn a_route_has_its_own_bound() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&format!(
        "limits: {{ request: {{ body: 10B }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes:
  - {{ name: wide, match: {{ path: /wide }}, auth: none, upstream: back, limits: {{ request: {{ body: 1KiB }} }} }}
  - {{ name: narrow, match: {{ path: /narrow }}, auth: none, upstream: back, plugins: [{{ body_limit: {{ max: 4B }} }}] }}
  - {{ name: usual, match: {{ path: /usual }}, auth: none, upstream: back }}\n",
        upstream.address()
    ));
    for (path, length, status) in [
        ("/wide", 1024, 200),
        ("/wide", 1025, 413),
        ("/usual", 10, 200),
        ("/usual", 11, 413),
        ("/narrow", 4, 200),
        ("/narrow", 5, 413),
    ] {
        assert_eq!(gateway.send(&format!("POST {path}"), &[], &vec![b'x'; length]).status, status, "{path} {length}");
    }
}

#[test]
fn a_client_that_stops_sending_is_408() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&config(upstream.address(), "limits: { client: { idle: 500ms } }\n"));
    let mut connection = Connection::open(&gateway.address());
    connection.send(b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\nsome of it");
    let answer = connection.read("POST").unwrap();
    answer.assert_problem(408, "request_timeout");
    assert!(connection.is_closed());
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let upstream = Upstream::start(|_| Answer::ok("never asked"));
    let gateway = Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: /x }}, upstream: back, plugins: [{{ api_key: {{}} }}] }}]\n",
        upstream.address()
    ));
    for _ in 0..10 {
        let refused = gateway.send("POST /x", &[], &vec![b'x'; 600_000]);
        refused.assert_problem(401, "api_key_missing");
    }
    // A small rest is read and thrown away, and the connection lives on.
    let mut connection = Connection::open(&gateway.address());
    for _ in 0..3 {
        connection.send(b"POST /x HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(connection.read("POST").unwrap().status, 401);
    }
    assert!(upstream.received().is_empty());
}

/// On the way to the final response (RFC 9110, section 15.2), together with it and before it.
#[test]
fn what_comes_before_a_final_response_is_passed_on() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let upstream = Upstream::start(move |_| Answer::raw(early));
    let gateway = Gateway::start(&format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}]\n",
        upstream.address()
    ));
    for (version, passes) in [("1.1", true), ("1.0", false)] {
        let request = format!("GET / HTTP/{version}\r\nHost: t\r\nConnection: close\r\n\r\n");
        let (got, is_closed) = raw(&gateway.address(), request.as_bytes(), PATIENCE);
        assert!(is_closed);
        let got = got.to_lowercase();
        assert_eq!(got.starts_with("http/1.1 103 early hints\r\nlink: </a.css>\r\n"), passes, "{got}");
        assert!(got.contains("http/1.1 200 ok\r\n") && got.ends_with("\r\n\r\nhi"), "{got}");
    }
}
