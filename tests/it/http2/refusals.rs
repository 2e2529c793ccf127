//! Requests that are not as they should be: refused, and nothing of them reaches an upstream.

use super::{get, start};
use crate::harness::{
    Gateway, Upstream,
    frames::{self, End, Http2, block, frame, request},
};

type Fields<'t> = Vec<(&'t str, &'t [u8])>;

fn plain(extra: &[(&'static str, &'static [u8])]) -> Fields<'static> {
    let pseudo = request("GET", "/").into_iter().map(|(name, value)| (name, value.as_bytes()));
    pseudo.chain(extra.iter().copied()).collect()
}

/// Pseudo fields as given.
fn pseudo(fields: &[(&'static str, &'static str)]) -> Fields<'static> {
    fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect()
}

/// Sends one request without a body on a connection of its own.
fn ended(gateway: &Gateway, fields: &Fields<'_>) -> End {
    let mut http2 = Http2::open(&gateway.address());
    http2.ask(1, fields);
    http2.end_of(1)
}

#[track_caller]
fn is_refused(gateway: &Gateway, fields: &Fields<'_>, code: &str) {
    let end = ended(gateway, fields);
    assert_eq!(end.code().as_deref(), Some(code), "{end:?}: {fields:?}");
}

/// Answered with a problem document, reset or closed: all is well but a success.
#[track_caller]
fn is_not_served(gateway: &Gateway, fields: &Fields<'_>) {
    let end = ended(gateway, fields);
    let fine = match &end {
        End::Answer(body) => body.is_empty() || end.code().is_some(),
        _ => true,
    };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect();
    assert!(fine, "{fields:?}: {end:?}");
}

#[test]
fn what_http1_refuses_http2_refuses_with_the_same_code() {
    let upstream = Upstream::echo();
    let gateway = start(upstream.address(), "", "", "");
    is_refused(&gateway, &plain(&[("a_b", b"1")]), "underscore_header");
    for value in [&b" x"[..], b"x ", b"\tx", b"x\t"] {
        is_refused(&gateway, &[plain(&[]), vec![("x-a", value)]].concat(), "bad_header");
    }
    is_not_served(&gateway, &plain(&[("content-length", b"5")]));
    is_refused(&gateway, &plain(&[("expect", b"miracle")]), "expectation_failed");
    for method in ["TRACE", "get", "CONNECT\u{9}"] {
        let fields = request(method, "/").into_iter().map(|(n, v)| (n, v.as_bytes())).collect();
        is_not_served(&gateway, &fields);
    }
    is_refused(&gateway, &pseudo(&request("TRACE", "/")), "method_not_supported");
    let long = format!("/{}", "a".repeat(9000));
    let fields = request("GET", &long).into_iter().map(|(n, v)| (n, v.as_bytes())).collect();
    is_refused(&gateway, &fields, "uri_too_long");
    let many: Vec<String> = (0..101).map(|at| format!("x-{at}")).collect();
    let many = [plain(&[]), many.iter().map(|name| (name.as_str(), &b"1"[..])).collect()].concat();
    is_refused(&gateway, &many, "header_too_large");
    let large = vec![b'a'; 33 << 10];
    // In a frame of its own and more: an answer of ours, or 431 without a body from the protocol's library.
    let end = asked_in_pieces(&gateway, &block(&[plain(&[]), vec![("x-a", &large[..])]].concat()));
    assert!(end.code().as_deref() == Some("header_too_large") || end == End::Answer(Vec::new()), "{end:?}");
    for path in ["/../a", "/%2e%2e/%2e%2e/a", "/a%2fb", "/a%00"] {
        let fields = request("GET", path).into_iter().map(|(n, v)| (n, v.as_bytes())).collect();
        is_refused(&gateway, &fields, "bad_path");
    }
    assert!(upstream.received().is_empty(), "{:?}", upstream.received());
    assert_eq!(get(&gateway, "/").status, 200);
}

/// Sends a header block in frames of 16 KiB.
fn asked_in_pieces(gateway: &Gateway, block: &[u8]) -> End {
    let mut http2 = Http2::open(&gateway.address());
    let mut pieces = block.chunks(16 << 10).peekable();
    let mut kind = (frames::HEADERS, frames::END_STREAM);
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() { frames::END_HEADERS } else { 0 };
        http2.send(&frame(kind.0, kind.1 | last, 1, piece));
        kind = (frames::CONTINUATION, 0);
    }
    http2.end_of(1)
}

#[test]
fn fields_that_http2_does_not_have_are_malformed() {
    let upstream = Upstream::echo();
    let gateway = start(upstream.address(), "", "", "");
    let bad: [(&str, &[u8]); 20] = [
        ("X-Upper", b"1"),
        ("x y", b"1"),
        ("x:", b"1"),
        ("", b"1"),
        ("x\n", b"1"),
        ("x-\u{e9}", b"1"),
        ("x-a", b"a\rb"),
        ("x-a", b"a\nb"),
        ("x-a", b"a\0b"),
        ("x-a", b"a\x7fb"),
        ("x-a", b"a\r\nx-consumer-name: root"),
        ("connection", b"close"),
        ("connection", b"x-consumer-id"),
        ("transfer-encoding", b"chunked"),
        ("upgrade", b"h2c"),
        ("keep-alive", b"1"),
        ("proxy-connection", b"keep-alive"),
        ("te", b"gzip"),
        ("content-length", b"+0"),
        ("content-length", b"0, 0"),
    ];
    for (name, value) in bad {
        is_not_served(&gateway, &[plain(&[]), vec![(name, value)]].concat());
    }
    is_not_served(&gateway, &plain(&[("content-length", b"0"), ("content-length", b"0")]));
    assert!(upstream.received().is_empty(), "{:?}", upstream.received());
    assert_eq!(get(&gateway, "/").status, 200);
}

type Field = (&'static str, &'static str);

const A_REQUEST: (Field, Field, Field, Field) =
    ((":method", "GET"), (":scheme", "http"), (":authority", "gateway.test"), (":path", "/"));

#[test]
fn pseudo_fields_are_what_they_must_be() {
    let upstream = Upstream::echo();
    let gateway = start(upstream.address(), "", "", "");
    let (method, scheme, authority, path) = A_REQUEST;
    for fields in [
        vec![scheme, authority, path],
        vec![method, authority, path],
        vec![method, scheme, authority],
        vec![method, scheme, path],
        vec![method, method, scheme, authority, path],
        vec![method, scheme, authority, path, path],
        vec![method, scheme, scheme, authority, path],
        vec![method, scheme, authority, authority, path],
        vec![method, scheme, authority, path, (":status", "200")],
        vec![method, scheme, authority, path, (":x", "1")],
        vec![method, scheme, path, ("x-a", "1"), authority],
        vec![method, scheme, authority, (":path", "")],
        vec![method, scheme, authority, (":path", "*")],
        vec![method, scheme, authority, (":path", "admin")],
        vec![method, scheme, authority, (":path", "http://x/")],
        vec![method, scheme, authority, (":path", "/a HTTP/1.1\r\nX: y")],
        vec![method, scheme, authority, (":path", "/a b")],
        vec![(":method", "GET / HTTP/1.1\r\nHost: x"), scheme, authority, path],
        vec![(":method", ""), scheme, authority, path],
        vec![method, (":scheme", "http://evil/?"), authority, path],
        vec![method, scheme, (":authority", "a@b"), path],
        vec![method, scheme, (":authority", "a/b"), path],
        vec![method, scheme, (":authority", "a b"), path],
        vec![method, scheme, (":authority", ""), path],
        vec![method, scheme, (":authority", "a:99999"), path],
        vec![method, scheme, authority, path, ("host", "other.test")],
        vec![method, scheme, authority, path, ("host", "gateway.test"), ("host", "gateway.test")],
        vec![method, scheme, path, ("host", "a.test"), ("host", "b.test")],
        vec![(":method", "CONNECT"), (":authority", "169.254.169.254:80")],
        vec![(":method", "CONNECT"), scheme, authority, path],
        vec![(":method", "CONNECT"), (":protocol", "websocket"), scheme, authority, path],
    ] {
        is_not_served(&gateway, &pseudo(&fields));
    }
    assert!(upstream.received().is_empty(), "{:?}", upstream.received());
    assert!(gateway.metric("crossway_refused_total{code=\"bad_http2\"}") >= 1.0);
}

#[test]
fn pseudo_fields_that_need_not_agree_are_put_right() {
    let upstream = Upstream::echo();
    let gateway = start(upstream.address(), "", "", "");
    let (method, scheme, authority, path) = A_REQUEST;
    // The protocol's library takes the fragment off before anybody sees it.
    assert!(matches!(ended(&gateway, &pseudo(&[method, scheme, authority, (":path", "/a#b")])), End::Answer(_)));
    assert_eq!(upstream.only().target, "/a");
    // What a client says of the scheme is not believed.
    for said in ["https", ""] {
        assert!(matches!(ended(&gateway, &pseudo(&[method, (":scheme", said), authority, path])), End::Answer(_)));
        assert_eq!(upstream.received().last().unwrap().header("x-forwarded-proto"), Some("http"));
    }
    // `Host` in place of `:authority` is fine, and the same host in both too.
    assert!(matches!(ended(&gateway, &pseudo(&[method, scheme, path, ("host", "a.test")])), End::Answer(_)));
    assert!(matches!(
        ended(&gateway, &pseudo(&[method, scheme, authority, path, ("host", "gateway.test")])),
        End::Answer(_)
    ));
    let hosts: Vec<_> = upstream
        .received()
        .iter()
        .skip(3)
        .map(|r| r.header("x-forwarded-host").unwrap_or_default().to_owned())
        .collect();
    assert_eq!(hosts, ["a.test", "gateway.test"]);
}

#[test]
fn a_body_has_the_length_it_says() {
    let upstream = Upstream::echo();
    let gateway = start(upstream.address(), "", "{ body_limit: { max: 1MiB, buffer: true } }", "");
    for body in [&b"abcd"[..], b"abcdef", b""] {
        let mut http2 = Http2::open(&gateway.address());
        let fields = [request("POST", "/"), vec![("content-length", "5")]].concat();
        http2.send(&frame(frames::HEADERS, frames::END_HEADERS, 1, &block(&fields)));
        http2.send(&frame(frames::DATA, frames::END_STREAM, 1, body));
        let end = http2.end_of(1);
        assert!(matches!(&end, End::Reset(_)) || end.code().is_some(), "{end:?}");
    }
    assert!(upstream.received().is_empty(), "{:?}", upstream.received());
}

#[test]
fn trailers_of_a_request_are_dropped_or_refused() {
    let upstream = Upstream::echo();
    let gateway = start(upstream.address(), "", "", "");
    let large = vec![b'a'; 15 << 10];
    for trailers in [
        vec![("x-consumer-name", &b"root"[..])],
        vec![(":path", b"/admin")],
        vec![("content-length", b"3")],
        vec![("x-a", &large)],
    ] {
        let mut http2 = Http2::open(&gateway.address());
        http2.send(&frame(frames::HEADERS, frames::END_HEADERS, 1, &block(&request("POST", "/"))));
        http2.send(&frame(frames::DATA, 0, 1, b"hello"));
        let flags = frames::END_HEADERS | frames::END_STREAM;
        http2.send(&frame(frames::HEADERS, flags, 1, &block(&trailers)));
        http2.end_of(1);
    }
    for received in upstream.received() {
        assert_eq!(
            (received.target.as_str(), received.header("x-consumer-name"), received.header("x-a")),
            ("/", None, None)
        );
    }
    assert_eq!(upstream.errors(), 0);
    assert_eq!(get(&gateway, "/").status, 200);
}

#[test]
fn identity_fields_of_a_client_are_taken_off() {
    let upstream = Upstream::echo();
    let gateway = start(upstream.address(), "", "", "");
    ended(
        &gateway,
        &plain(&[("x-consumer-name", b"root"), ("x-forwarded-for", b"1.2.3.4"), ("forwarded", b"for=1.2.3.4")]),
    );
    let received = upstream.only();
    assert_eq!((received.header("x-consumer-name"), received.header("x-forwarded-for")), (None, Some("127.0.0.1")));
    assert!(!format!("{:?}", received.headers).contains("1.2.3.4"), "{received:?}");
}
