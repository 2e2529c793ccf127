use proptest::prelude::*;

use crate::request::{BodyFraming, Framing, HeaderLimits, Refusal, header_end, inspect};

const LIMITS: HeaderLimits = HeaderLimits { bytes: 32 << 10, fields: 100, uri: 8 << 10 };

fn check(raw: &[u8]) -> Result<Framing, Refusal> {
    inspect(raw, &LIMITS).map(|head| head.framing)
}

/// A request with these header lines after `Host`.
fn post(lines: &[u8]) -> Vec<u8> {
    [b"POST /public HTTP/1.1\r\nHost: t\r\n", lines, b"\r\n\r\n"].concat()
}

fn answer(raw: &[u8]) -> (u16, &'static str) {
    check(raw).map_or_else(|refusal| (refusal.status.as_u16(), refusal.code), |_| (200, ""))
}

#[track_caller]
fn assert_post(lines: &[u8], expected: (u16, &'static str)) {
    assert_eq!(answer(&post(lines)), expected, "{}", lines.escape_ascii());
}

#[test]
fn ordinary_requests_pass() {
    let get = b"GET /a?b=c HTTP/1.1\r\nHost: t\r\nAccept: */*\r\nX-Note: caf\xc3\xa9\t\"x\"\r\nEmpty:\r\n\r\n";
    assert_eq!(check(get).unwrap(), Framing { body: BodyFraming::None, expects_continue: false, close: false });
    let length = check(&post(b"content-length:  12 \r\nExpect: 100-Continue")).unwrap();
    assert_eq!(length, Framing { body: BodyFraming::Length(12), expects_continue: true, close: false });
    let chunked = check(&post(b"Transfer-Encoding: Chunked\r\nConnection: keep-alive, Close")).unwrap();
    assert_eq!(chunked, Framing { body: BodyFraming::Chunked, expects_continue: false, close: true });
    assert_post(b"Content-Length: 9999999999999999999", (200, ""));
    assert_post(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c", (200, ""));
    assert!(!check(&post(b"Content-Length: 0\r\nExpect: 100-continue")).unwrap().expects_continue);
}

#[test]
fn http_1_0_closes_unless_it_says_otherwise() {
    let close = |lines: &str| check(format!("GET / HTTP/1.0\r\n{lines}\r\n").as_bytes()).unwrap().close;
    assert!(close("") && close("Connection: close\r\n") && close("Connection: keep-alive, close\r\n"));
    assert!(!close("Connection: Keep-Alive\r\n"));
    assert_eq!(answer(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), (400, "bad_framing"));
    let expecting = check(b"POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n").unwrap();
    assert!(!expecting.expects_continue);
}

#[test]
fn transfer_encoding_is_chunked_or_nothing() {
    for coding in
        ["chunked, identity", "\"chunked\"", "chunked;q=1", ",chunked", "chunked,", "chunked, chunked", "", "gzip, br"]
    {
        assert_post(format!("Transfer-Encoding: {coding}").as_bytes(), (400, "bad_framing"));
    }
    for coding in ["xchunked", "identity, chunked", "gzip, chunked", "gzip"] {
        assert_post(format!("Transfer-Encoding: {coding}").as_bytes(), (501, "transfer_coding_not_supported"));
    }
    assert_post(b"Transfer-Encoding: \x0bchunked", (400, "bad_header"));
    assert_post(b"Transfer-Encoding: chunked\x00", (400, "bad_header"));
    assert_post(b"Transfer-Encoding: \xa0chunked", (400, "bad_framing"));
    assert_post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", (400, "bad_framing"));
    assert_post(b"Transfer-Encoding: chunked\r\ntransfer-encoding: chunked", (400, "bad_framing"));
    assert_post(b"Transfer-Encoding : chunked", (400, "bad_header"));
    assert_post(b"Transfer_Encoding: chunked", (400, "underscore_header"));
    assert_post(b"X: y\r\n Transfer-Encoding: chunked", (400, "bad_header"));
    assert_post(b"Content-Length: 6\r\nTransfer-Encoding: chunked", (400, "bad_framing"));
    assert_post(b"Transfer-Encoding: chunked\r\nContent-Length: 4", (400, "bad_framing"));
}

#[test]
fn content_length_is_one_plain_number() {
    for length in [
        "+5",
        "-5",
        "0x5",
        "5 5",
        "5;",
        "1e1",
        "5, 5",
        "",
        "18446744073709551616",
        "10000000000000000000",
        "007",
        "00",
        "\u{665}",
    ] {
        assert_post(format!("Content-Length: {length}").as_bytes(), (400, "bad_framing"));
    }
    assert_post(b"Content-Length: 5\x0b", (400, "bad_header"));
    assert_post(b"Content-Length: 5\r\nContent-Length: 6", (400, "bad_framing"));
    assert_post(b"Content-Length: 5\r\nContent-Length: 5", (400, "bad_framing"));
    assert_post(b"Content-Length: 0\r\nContent-Length: 0", (400, "bad_framing"));
    assert_post(b"Content_Length: 5", (400, "underscore_header"));
    assert_post(b"Content-Length 10", (400, "bad_header"));
}

#[test]
fn lines_end_in_crlf_and_hold_fields() {
    for raw in [
        &b"GET / HTTP/1.1\nHost: t\n\n"[..],
        b"GET / HTTP/1.1\r\nHost: t\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\n\n",
        b"GET / HTTP/1.1\r\nHost: t\r\nX: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\nX: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\n\rX: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\n\r\nX: a\r\n\r\n",
    ] {
        assert_eq!(answer(raw), (400, "bad_header"), "{}", raw.escape_ascii());
    }
    for line in [
        &b" X: a"[..],
        b"X : a",
        b"X\x00: a",
        b"X\x85: a",
        b"(x): a",
        b": a",
        b"no colon",
        b"X\t: a",
        b"X: a\x7f",
        b"X: a\x00b",
    ] {
        assert_post(line, (400, "bad_header"));
    }
    assert_post(b"x_consumer_id: alice", (400, "underscore_header"));
}

#[test]
fn hosts_are_counted() {
    assert_eq!(answer(b"GET / HTTP/1.1\r\n\r\n"), (400, "bad_host"));
    assert_eq!(answer(b"GET / HTTP/1.0\r\n\r\n"), (200, ""));
    assert_eq!(answer(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), (400, "bad_host"));
    assert_post(b"hOST: t", (400, "bad_host"));
}

#[test]
fn request_lines_have_one_form() {
    let line = |line: &[u8]| answer(&[line, b"\r\nHost: t\r\n\r\n"].concat());
    for wrong in [
        &b"GET  / HTTP/1.1"[..],
        b"GET\t/ HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET /public HTTP/1.1/../admin HTTP/1.1",
        b"GET / HTTP/1.10",
        b"GET / http/1.1",
        b"GET /",
        b"GET",
        b"",
        b"GET\x00 / HTTP/1.1",
        b"G=\":<>(e) / HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1",
        b"GET /a#b HTTP/1.1",
        b"GET / HTTP/1.1\r",
        b"GET /\t HTTP/1.1",
        b"GET  HTTP/1.1",
    ] {
        assert_eq!(line(wrong), (400, "bad_request_line"), "{}", wrong.escape_ascii());
    }
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2"] {
        assert_eq!(line(format!("GET / {version}").as_bytes()), (505, "version_not_supported"));
    }
    for method in ["TRACE", "CONNECT", "get", "G3T", &"M".repeat(33), &"M".repeat(9000)] {
        assert_eq!(line(format!("{method} / HTTP/1.1").as_bytes()), (501, "method_not_supported"), "{method}");
    }
    for method in ["PROPFIND", "M-SEARCH", &"M".repeat(32)] {
        assert_eq!(line(format!("{method} / HTTP/1.1").as_bytes()), (200, ""), "{method}");
    }
}

#[test]
fn limits_hold_to_the_byte() {
    let uri = |length: usize| answer(format!("GET /{} HTTP/1.1\r\nHost: t\r\n\r\n", "a".repeat(length - 1)).as_bytes());
    assert_eq!((uri(8192), uri(8193)), ((200, ""), (414, "uri_too_long")));
    let fields = |count: usize| answer(&post("X: a\r\n".repeat(count - 1).trim_end().as_bytes()));
    assert_eq!((fields(100), fields(101)), ((200, ""), (431, "header_too_large")));
    let rest = post(b"X: ").len();
    let bytes = |length: usize| answer(&post(format!("X: {}", "a".repeat(length - rest)).as_bytes()));
    assert_eq!((bytes(32768), bytes(32769)), ((200, ""), (431, "header_too_large")));
}

#[test]
fn connection_takes_nothing_that_is_not_its_own() {
    for name in [
        "X-Consumer-Id",
        "host",
        "Content-Length",
        "Content-Type",
        "x-forwarded-for",
        "Forwarded",
        "VIA",
        "Authorization",
        "X-API-Key",
        "x-request-id",
        "Transfer-Encoding",
    ] {
        assert_post(format!("Connection: keep-alive, {name}").as_bytes(), (400, "bad_header"));
    }
    assert_post(b"Connection: a b", (400, "bad_header"));
    assert_post(b"Connection: , close,,X-Own", (200, ""));
    assert_post(b"Expect: 200-ok", (417, "expectation_failed"));
}

#[test]
fn an_empty_line_ends_a_header() {
    for (raw, end) in [
        (&b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest"[..], Some(24)),
        (b"GET /\nA: b\n\nrest", Some(12)),
        (b"GET /\nA: b\n\r\nrest", Some(13)),
        (b"\r\nGET /", Some(2)),
        (b"\nGET /", Some(1)),
        (b"GET / HTTP/1.1\r\nA: b\r\n\r", None),
        (b"GET / HTTP/1.1\r\n\rX\r\n", None),
        (b"", None),
    ] {
        assert_eq!(header_end(raw, 0), end, "{}", raw.escape_ascii());
    }
}

proptest! {
    #[test]
    fn the_search_for_the_end_can_resume(raw in "[a\r\n]{0,24}", step in 1..5_usize) {
        let whole = header_end(raw.as_bytes(), 0);
        let mut searched = 0;
        let mut found = None;
        while found.is_none() && searched < raw.len() {
            let now = (searched + step).min(raw.len());
            found = header_end(&raw.as_bytes()[..now], searched);
            searched = now;
        }
        prop_assert_eq!(found, whole);
    }

    #[test]
    fn no_bytes_are_too_odd(raw in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = check(&raw);
        let _ = header_end(&raw, 0);
    }

    /// Whatever passes has exactly the form that the grammar gives, found here by splitting.
    #[test]
    fn what_passes_is_well_formed(lines in "(GET|P) /[a#]{0,2} HTTP/1[.][01](\r\n|\n)((Host|A|_| B|Content-Length|Transfer-Encoding): ?(t|5|chunked|\r|\x01)(\r\n|\r\n|\r\n|\n)){0,4}\r\n") {
        if check(lines.as_bytes()).is_ok() {
            let body: Vec<&str> = lines.strip_suffix("\r\n\r\n").unwrap().split("\r\n").collect();
            prop_assert!(body.iter().all(|line| !line.contains(['\r', '\n', '\x01', '_', '#']) && !line.starts_with(' ')));
            let count = |name: &str| body.iter().filter(|line| line.starts_with(name)).count();
            prop_assert!(count("Content-Length:") + count("Transfer-Encoding:") <= 1);
            prop_assert!(count("Host:") <= 1 && (body[0].ends_with("1.0") || count("Host:") == 1));
        }
    }
}
