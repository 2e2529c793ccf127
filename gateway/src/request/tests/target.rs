use std::borrow::Cow;

use http::Method;
use proptest::prelude::*;

use crate::request::{canonical_host, canonical_target, split_target};

#[track_caller]
fn assert_path(raw: &str, expected: &str) {
    assert_eq!(canonical_target(raw).map(|target| target.path), Ok(expected.into()), "{raw}");
}

#[test]
fn canonical_paths_are_borrowed() {
    for path in
        ["/", "/a", "/a/", "/a.b/c..d/e.", "/.well-known/x", "/...", "/a;v=1/b", "/a%20b/%C3%A9", "/a:b@c!$&'()*+,=~_-"]
    {
        let target = canonical_target(path).unwrap();
        assert!(matches!(target.path, Cow::Borrowed(same) if same == path), "{path}");
        assert!(!target.encoded_slash);
    }
}

#[test]
fn every_spelling_has_one_form() {
    for (raw, expected) in [
        ("/public/../admin", "/admin"),
        ("/public/%2e%2e/admin", "/admin"),
        ("/public/.%2E/admin", "/admin"),
        ("/%61dmin", "/admin"),
        ("//admin", "/admin"),
        ("/./admin", "/admin"),
        ("/admin/.", "/admin/"),
        ("/admin/x/..", "/admin/"),
        ("/admin//", "/admin/"),
        ("/a//../b", "/b"),
        ("/admin%20", "/admin%20"),
        ("/%7euser", "/~user"),
        ("/%c3%a9", "/%C3%A9"),
        ("/a%3ab", "/a%3Ab"),
        ("/a|b\"{c}^[d]`<>", "/a%7Cb%22%7Bc%7D%5E%5Bd%5D%60%3C%3E"),
        ("/100%25", "/100%25"),
        ("/%25zz", "/%25zz"),
        ("/%25%34%31", "/%2541"),
        ("//evil/x", "/evil/x"),
        ("/admin%23", "/admin%23"),
        ("/ADMIN", "/ADMIN"),
        ("/..a/..", "/"),
    ] {
        assert_path(raw, expected);
    }
}

/// Each list is separated by spaces; `_` stands for a space.
#[test]
fn what_readers_disagree_about_is_refused_for_its_reason() {
    for (detail, list) in [
        ("The request target is not a path.", "a * ?a a/b http://t/"),
        ("The path hides a dot segment.", "/public/..;/admin /public/..;x=1/admin /.;/admin /..%3b/admin /a/%2e%2e;/b"),
        ("The path hides a dot segment.", "/public/..%2fadmin /public%2f..%2fadmin /a%2f. /a/..%2F..;x/b /%2f.."),
        ("The path holds a backslash.", r"/a\b /public\..\admin /public/%5c..%5cadmin /%5C"),
        ("The path is percent-encoded twice.", "/public/%252e%252e/admin /a%252fb /a%255cb /a%2500 /a%250d /a%257F"),
        ("The path is percent-encoded twice.", "/%25252e /%25%32%65 /%2525"),
        ("The path holds a control character.", "/admin%00 /admin%09 /%7f /%0a /%1F /a\tb /a\x7f"),
        (
            "The path is not valid UTF-8.",
            "/%c0%ae%c0%ae/admin /%e0%80%ae /%ed%a0%80 /%f5%80%80%80 /%ff /%c3 /%c3a%a9 /%80",
        ),
        ("The path holds an invalid percent-escape.", "/%u002e/ /%zz /% /%4 /%2%35 /%é /%c3%é /%+1"),
        ("The path leads above the root.", "/.. /../a /a/../.. /a/%2e%2E/../b //.."),
        ("The path holds a character that must be percent-encoded.", "/é /a_b /a#b"),
        ("The query holds a character that must be percent-encoded.", "/a?b_c /a?b#c /a?é /a?b\x01 /%61?\t"),
    ] {
        for raw in list.split(' ').map(|raw| raw.replace('_', " ")) {
            let refusal = canonical_target(&raw).expect_err(&raw);
            assert_eq!((refusal.status.as_u16(), refusal.detail), (400, detail), "{raw}");
        }
    }
    assert!(canonical_target("").is_err());
}

#[test]
fn encoded_slashes_are_told() {
    for (raw, path) in [("/a%2fb", "/a%2Fb"), ("/a%2Fb/../c%2f", "/c%2F")] {
        let target = canonical_target(raw).unwrap();
        assert_eq!((&*target.path, target.encoded_slash), (path, true));
    }
    assert!(!canonical_target("/a%2Fb/../c").unwrap().encoded_slash);
    assert!(!canonical_target("/a?b=%2F").unwrap().encoded_slash);
}

#[test]
fn queries_stay_as_they_came() {
    for (raw, query) in
        [("/a", None), ("/a?", Some("")), ("/a?b=%41&c=../d?e", Some("b=%41&c=../d?e")), ("/%61?x\\y", Some("x\\y"))]
    {
        assert_eq!(canonical_target(raw).unwrap().query, query, "{raw}");
    }
}

#[test]
fn hosts_have_one_form() {
    for (raw, name, port) in [
        ("t", "t", None),
        ("API.Example.com.", "api.example.com", None),
        ("t:8080", "t", Some(8080)),
        ("10.0.0.1:1", "10.0.0.1", Some(1)),
        ("[::1]:65535", "[::1]", Some(65535)),
        ("[2001:DB8:0:0::1]", "[2001:db8::1]", None),
        ("my_host-1", "my_host-1", None),
    ] {
        let host = canonical_host(raw).unwrap();
        assert_eq!((&*host.name, host.port), (name, port), "{raw}");
    }
    let label = "a".repeat(63);
    let long = format!("{label}.{label}.{label}.{}", "b".repeat(61));
    assert!(canonical_host(&long).is_ok() && canonical_host(&label).is_ok());
    for wrong in [
        "",
        ".",
        "a..b",
        ".a",
        "a, b",
        "a@b",
        "a/b",
        "a b",
        "[::1",
        "::1",
        "t:",
        "t:0",
        "t:99999",
        "t:+1",
        "t:00080x",
        "t:1:2",
        "t\0x",
        "[::1]x",
        "[::1%25eth0]",
        "[1.2.3.4]",
        "a%41",
        "é",
        "a..",
        ":80",
        "[]",
        &"a".repeat(64),
        &format!("{long}b"),
    ] {
        assert_eq!(canonical_host(wrong).map_err(|refusal| refusal.code), Err("bad_host"), "{wrong}");
    }
}

fn split(method: &Method, target: &str, host: Option<&str>) -> Result<(String, String, Option<String>), u16> {
    let (host, target) = split_target(method, target, host, "http").map_err(|refusal| refusal.status.as_u16())?;
    Ok((host.name.into(), target.path.into(), target.query.map(Into::into)))
}

#[test]
fn a_request_has_one_authority() {
    for (target, host, expected) in [
        ("/a?b", Some("T:80"), ("t", "/a", Some("b"))),
        ("/a", None, ("", "/a", None)),
        ("//evil/x", Some("t"), ("t", "/evil/x", None)),
        ("http://t/a", Some("t"), ("t", "/a", None)),
        ("HTTP://T.:80/a", Some("t"), ("t", "/a", None)),
        ("http://t:8080", Some("t:8080"), ("t", "/", None)),
        ("http://t?x=/y", None, ("t", "/", Some("x=/y"))),
        ("http://t/%61", None, ("t", "/a", None)),
    ] {
        let found = split(&Method::GET, target, host).unwrap();
        assert_eq!((found.0.as_str(), found.1.as_str(), found.2.as_deref()), expected, "{target}");
    }
    for (target, host) in [
        ("http://internal.svc/admin", Some("t")),
        ("http://t:8080/", Some("t")),
        ("ftp://t/", Some("t")),
        ("https://t/", Some("t")),
        ("t:80/x", Some("t")),
        ("t:80", Some("t")),
        ("http:///x", Some("t")),
        ("http://a@t/", Some("t")),
        ("http://t?a b", Some("t")),
        ("/a", Some("")),
        ("*", Some("t")),
        ("", Some("t")),
    ] {
        assert_eq!(split(&Method::GET, target, host), Err(400), "{target}");
    }
    assert_eq!(split(&Method::OPTIONS, "*", Some("t")), Err(501));
}

/// Decodes every escape: what a server behind the gateway does last.
fn decoded(path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match (byte, pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                rest = &after[2..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

proptest! {
    #[test]
    fn canonical_stays_canonical(raw in "/([a-z./;|]|%2[0-9a-f]|%[2-7][0-9a-fA-F]|%25|%[cC]3%[aA]9|[.][.]/){0,16}([?][a=&]{0,3})?") {
        if let Ok(first) = canonical_target(&raw) {
            let second = canonical_target(&first.path).unwrap();
            prop_assert_eq!(&second.path, &first.path);
            prop_assert!(matches!(second.path, Cow::Borrowed(_)));
            prop_assert_eq!(second.encoded_slash, first.encoded_slash);
            let segments: Vec<&str> = first.path[1..].split('/').collect();
            prop_assert!(segments.iter().all(|segment| !matches!(*segment, "." | "..")));
            prop_assert!(segments[..segments.len() - 1].iter().all(|segment| !segment.is_empty()));
            let uri = format!("{}?x", first.path).parse::<http::Uri>();
            prop_assert!(uri.is_ok());
        }
    }

    /// Without dots and double slashes, the canonical path means the same bytes.
    #[test]
    fn nothing_is_lost(segments in proptest::collection::vec("([a-z~!|\\[]|%[2-7][0-9a-f]|%[cC]3%[aA]9){1,8}", 1..5)) {
        let raw = format!("/{}", segments.join("/"));
        if let Ok(target) = canonical_target(&raw) && !decoded(&raw).contains(&b'.') {
            prop_assert_eq!(decoded(&target.path), decoded(&raw));
        }
    }

    #[test]
    fn no_text_is_too_odd(raw in "\\PC{0,40}", host in "\\PC{0,20}", tail in "/[%a-f0-9./é;]{0,30}") {
        for target in [&raw, &tail, &format!("http://{raw}"), &format!("/{raw}")] {
            let _ = split_target(&Method::GET, target, Some(&host), "http");
        }
        let _ = canonical_host(&raw);
        let _ = canonical_target(&tail);
    }

    #[test]
    fn a_canonical_host_stays_so(raw in "[a-zA-Z0-9.-]{1,20}(:[0-9]{1,5})?") {
        if let Ok(host) = canonical_host(&raw) {
            prop_assert_eq!(&*canonical_host(&host.name).unwrap().name, &*host.name);
        }
    }
}
