use super::*;
use crate::testing::{build, ctx, parse, refused, reply_values, request, response, run, values};

const ONE: &str = "cors: { origins: [https://trusted.test] }";

/// The values of a field of the answer to a request of this origin that is no preflight.
async fn answered(yaml: &str, origins: &[&str], name: &str) -> String {
    let plugin = build(yaml).unwrap();
    let fields: Vec<_> = origins.iter().map(|o| ("Origin", *o)).collect();
    let mut ctx = ctx();
    assert!(run(&plugin, &mut request("GET", &fields), &mut ctx).await.is_none(), "it goes on");
    let mut res = response(401, &[("Access-Control-Allow-Origin", "*"), ("Access-Control-Allow-Methods", "TRACE")]);
    plugin.on_response(&mut res, &mut ctx).unwrap();
    assert!(!res.headers.contains_key("access-control-allow-methods"));
    values(&res.headers, name)
}

/// The answer to a preflight, after the response phase, which must leave it as it is.
async fn preflight(yaml: &str, origin: &str, more: &[(&'static str, &str)]) -> Reply {
    let plugin = build(yaml).unwrap();
    let fields = [&[("Origin", origin), ("Access-Control-Request-Method", "PUT")][..], more].concat();
    let mut ctx = ctx();
    let reply = run(&plugin, &mut request("OPTIONS", &fields), &mut ctx).await.unwrap();
    let mut res = response(reply.status.as_u16(), &[]);
    for (name, value) in &reply.headers {
        res.append_header(name.clone(), value.clone()).unwrap();
    }
    let before = res.headers.clone();
    plugin.on_response(&mut res, &mut ctx).unwrap();
    assert_eq!(res.headers, before);
    reply
}

const ALLOW_ORIGIN: &str = "access-control-allow-origin";

#[tokio::test]
async fn only_listed_origins_read_answers() {
    for (origins, expected) in [
        (&["https://trusted.test"][..], "https://trusted.test"),
        (&["null"], ""),
        (&["https://evil"], ""),
        (&["https://trusted.test.evil"], ""),
        (&["https://eviltrusted.test"], ""),
        (&["http://trusted.test"], ""),
        (&["https://trusted.test:8443"], ""),
        (&["https://trusted.test:443"], ""),
        (&["https://TRUSTED.test"], ""),
        (&["https://trusted.test."], ""),
        (&["https://trusted.test/"], ""),
        (&["https://trusted.test https://evil"], ""),
        (&["https://trusted.test", "https://evil"], ""),
        (&["https://trusted.test", "https://trusted.test"], ""),
        (&[""], ""),
        (&[], ""),
    ] {
        assert_eq!(answered(ONE, origins, ALLOW_ORIGIN).await, expected, "{origins:?}");
        assert_eq!(answered(ONE, origins, "vary").await, "Origin", "{origins:?}");
    }
}

#[tokio::test]
async fn a_star_stays_inside_its_part() {
    let yaml = "cors: { origins: ['https://*.example.com', 'http://localhost:*', 'https://*.b.test:8443'] }";
    for (origin, allowed) in [
        ("https://a.example.com", true),
        ("https://a.b.example.com", true),
        ("https://example.com", false),
        ("https://.example.com", false),
        ("https://evil.com/.example.com", false),
        ("https://evil.com?.example.com", false),
        ("https://evil.com#.example.com", false),
        ("https://evil.com:1.example.com", false),
        ("https://evil.com\\.example.com", false),
        ("https://user@a.example.com", false),
        ("https://evilexample.com", false),
        ("https://a.example.com.evil", false),
        ("https://a.example.com:8443", false),
        ("http://a.example.com", false),
        ("https://a.EXAMPLE.com", false),
        ("https://a..example.com", false),
        ("http://localhost", true),
        ("http://localhost:3000", true),
        ("http://localhost:", false),
        ("http://localhost:03000", false),
        ("http://localhost:99999", false),
        ("http://localhost:3000.evil.com", false),
        ("http://localhost.evil.com", false),
        ("https://a.b.test:8443", true),
        ("https://a.b.test", false),
        ("null", false),
    ] {
        let expected = if allowed { origin } else { "" };
        assert_eq!(answered(yaml, &[origin], ALLOW_ORIGIN).await, expected, "{origin}");
    }
}

#[tokio::test]
async fn every_origin_is_not_the_opaque_one() {
    let all = "cors: { origins: ['*'] }";
    assert_eq!(answered(all, &["https://any.test"], ALLOW_ORIGIN).await, "*");
    assert_eq!(answered(all, &["null"], ALLOW_ORIGIN).await, "");
    assert_eq!(preflight(all, "null", &[]).await.code(), Some("cors_origin_denied"));
    assert_eq!(answered("cors: { origins: ['*', 'null'] }", &["null"], ALLOW_ORIGIN).await, "null");
}

#[tokio::test]
async fn credentials_and_exposed_fields_go_to_allowed_origins_only() {
    let yaml = "cors: { origins: [https://trusted.test], credentials: true, expose: [X-A, ETag] }";
    for (yaml, origin, credentials, exposed) in [
        (yaml, "https://trusted.test", "true", "x-a, etag"),
        (yaml, "https://evil", "", ""),
        (ONE, "https://trusted.test", "", ""),
    ] {
        assert_eq!(answered(yaml, &[origin], "access-control-allow-credentials").await, credentials, "{origin}");
        assert_eq!(answered(yaml, &[origin], "access-control-expose-headers").await, exposed, "{origin}");
    }
}

#[tokio::test]
async fn a_preflight_of_an_allowed_origin_is_answered() {
    let asked =
        [("Access-Control-Request-Headers", "content-type,x-a"), ("Access-Control-Request-Headers", "b c, ,*,x-d")];
    let reply = preflight(ONE, "https://trusted.test", &asked).await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT);
    for (name, expected) in [
        (ALLOW_ORIGIN, "https://trusted.test"),
        ("access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE"),
        ("access-control-allow-headers", "content-type, x-a, x-d"),
        ("access-control-max-age", "600"),
        ("access-control-allow-credentials", ""),
        ("access-control-allow-private-network", ""),
        ("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    ] {
        assert_eq!(reply_values(&reply, name), expected, "{name}");
    }
}

#[tokio::test]
async fn settings_show_in_the_preflight() {
    let yaml = "cors: { origins: [https://trusted.test], methods: [GET, PURGE], headers: [X-A, X-B], credentials: true, \
                max_age: 1h, private_network: true }";
    let asked = [("Access-Control-Request-Headers", "x-c"), ("Access-Control-Request-Private-Network", "true")];
    let reply = preflight(yaml, "https://trusted.test", &asked).await;
    for (name, expected) in [
        ("access-control-allow-methods", "GET, PURGE"),
        ("access-control-allow-headers", "x-a, x-b"),
        ("access-control-max-age", "3600"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-private-network", "true"),
    ] {
        assert_eq!(reply_values(&reply, name), expected, "{name}");
    }
    assert!(reply_values(&reply, "vary").ends_with("Access-Control-Request-Private-Network"));
    let none =
        preflight("cors: { origins: [https://trusted.test], headers: [] }", "https://trusted.test", &asked).await;
    assert_eq!(reply_values(&none, "access-control-allow-headers"), "");
    assert_eq!(reply_values(&none, "access-control-allow-private-network"), "");
}

#[tokio::test]
async fn the_echo_is_bounded() {
    let many = vec!["x"; 1000].join(",");
    let reply = preflight(ONE, "https://trusted.test", &[("Access-Control-Request-Headers", &many)]).await;
    assert_eq!(reply_values(&reply, "access-control-allow-headers").split(", ").count(), 64);
    let long = format!("{},x-b", "a".repeat(4096));
    let reply = preflight(ONE, "https://trusted.test", &[("Access-Control-Request-Headers", &long)]).await;
    assert_eq!(reply_values(&reply, "access-control-allow-headers"), "");
}

#[tokio::test]
async fn a_preflight_of_another_origin_is_refused_without_a_word_about_others() {
    for origin in ["https://evil", "null", "https://trusted.test:1"] {
        let reply = preflight(ONE, origin, &[]).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (403, Some("cors_origin_denied")));
        let names: Vec<_> = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["vary"]);
        assert!(reply_values(&reply, "vary").starts_with("Origin, Access-Control-Request-Method"));
    }
}

#[tokio::test]
async fn other_options_requests_are_the_upstreams() {
    let plugin = build(ONE).unwrap();
    for fields in [&[("Origin", "https://evil")][..], &[("Access-Control-Request-Method", "PUT")]] {
        assert!(run(&plugin, &mut request("OPTIONS", fields), &mut ctx()).await.is_none(), "{fields:?}");
    }
}

#[test]
fn vary_is_not_repeated() {
    let plugin = build(ONE).unwrap();
    for (before, after) in [
        ("Accept", "Accept | Origin"),
        ("Accept, ORIGIN", "Accept, ORIGIN"),
        ("*", "*"),
        ("X-Origin", "X-Origin | Origin"),
    ] {
        let mut res = response(200, &[("Vary", before)]);
        plugin.on_response(&mut res, &mut ctx()).unwrap();
        assert_eq!(values(&res.headers, "vary"), after);
    }
}

#[tokio::test]
async fn the_first_of_two_decides() {
    let (first, second) = (build(ONE).unwrap(), build("cors: { origins: ['*'] }").unwrap());
    let (mut req, mut ctx) = (request("GET", &[("Origin", "https://evil")]), ctx());
    run(&first, &mut req, &mut ctx).await;
    run(&second, &mut req, &mut ctx).await;
    let mut res = response(200, &[]);
    second.on_response(&mut res, &mut ctx).unwrap();
    first.on_response(&mut res, &mut ctx).unwrap();
    assert_eq!((values(&res.headers, ALLOW_ORIGIN), values(&res.headers, "vary")), (String::new(), "Origin".into()));
}

#[test]
fn origins_that_no_browser_sends_are_refused() {
    for origin in [
        "example.com",
        "https://",
        "https://example.com/",
        "https://example.com/path",
        "https://Example.com",
        "https://example.com:443",
        "http://example.com:80",
        "https://example.com:0",
        "https://example.com:80*",
        "https://user@example.com",
        "https://a..example.com",
        "https://example.com.",
        "https://*example.com",
        "https://*",
        "https://example.*",
        "*://example.com",
        "https://*.example.com:443",
        "https://[::01]",
        "https://bücher.example",
        "NULL",
        "",
    ] {
        let yaml = format!("cors: {{ origins: [https://fine.test, '{origin}'] }}");
        assert_eq!(refused(&yaml).0, "origins/1", "{origin}");
    }
    for origin in ["https://[::1]:8443", "capacitor://localhost", "http://*.localhost", "http://10.0.0.1:3000"] {
        assert!(build(&format!("cors: {{ origins: ['{origin}'] }}")).is_ok(), "{origin}");
    }
}

#[test]
fn what_cannot_work_is_refused() {
    for (yaml, place) in [
        ("cors: { origins: [] }", "origins"),
        ("cors: { origins: ['*'], credentials: true }", "origins/0"),
        ("cors: { origins: [https://a.test, 'null'], credentials: true }", "origins/1"),
        ("cors: { origins: ['*'], methods: [] }", "methods"),
        ("cors: { origins: ['*'], methods: [GET, patch] }", "methods/1"),
        ("cors: { origins: ['*'], methods: ['*'] }", "methods/0"),
        ("cors: { origins: ['*'], methods: [TRACE] }", "methods/0"),
        ("cors: { origins: ['*'], headers: [X-A, '*'] }", "headers/1"),
        ("cors: { origins: [https://a.test], credentials: true, expose: [X-A, '*'] }", "expose/1"),
        ("cors: { origins: ['*'], max_age: 1500ms }", "max_age"),
    ] {
        assert_eq!(refused(yaml).0, place, "{yaml}");
    }
    assert!(parse("cors: {}").unwrap_err().contains("origins"));
}
