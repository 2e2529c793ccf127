//! Which route takes a request, and what it makes of it.

use crate::harness::{Gateway, Upstream};

fn gateway(upstream: &Upstream, routes: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{ echo: {{ endpoints: [{{ address: \"{}\" }}] }} }}\nroutes:\n{routes}",
        upstream.address()
    ))
}

/// A route that answers with its own name.
fn named(name: &str, matcher: &str) -> String {
    format!(
        "  - {{ name: {name}, match: {{ {matcher} }}, auth: none, plugins: [{{ respond: {{ status: 200, body: {name} }} }}] }}\n"
    )
}

#[test]
fn the_most_specific_route_takes_a_request() {
    let routes = [
        named("any", "path: \"/{rest...}\""),
        named("item", "path: \"/items/{id}\""),
        named("new", "path: /items/new"),
        named("below", "path: \"/items/{id}/{rest...}\""),
        named("host", "path: \"/items/{id}\", hosts: [shop.test]"),
        named("wild", "path: \"/items/{id}\", hosts: [\"*.shop.test\"]"),
        named("canary", "path: \"/items/{id}\", headers: { X-Env: \"canary*\" }"),
        named("second", "path: \"/items/{id}\", query: { v: \"2\" }"),
        named("post", "path: /only-post, methods: [POST]"),
    ];
    let gateway = Gateway::start(&format!("routes:\n{}", routes.concat()));
    let ask = |target: &str, headers: &[(&str, &str)]| gateway.send(&format!("GET {target}"), headers, b"").text();
    for (target, headers, expected) in [
        ("/", &[][..], "any"),
        ("/items", &[], "any"),
        ("/items/7", &[], "item"),
        ("/items/7/", &[], "below"),
        ("/items/7/parts/3", &[], "below"),
        ("/items/new", &[], "new"),
        ("/items/7", &[("Host", "shop.test")], "host"),
        ("/items/7", &[("Host", "SHOP.test:80")], "host"),
        ("/items/7", &[("Host", "a.b.shop.test")], "wild"),
        ("/items/7", &[("X-Env", "canary-3")], "canary"),
        ("/items/7?v=2", &[], "second"),
        ("/items/7?v=2&v=3", &[], "item"),
        ("/elsewhere", &[("Host", "shop.test")], "any"),
    ] {
        assert_eq!(ask(target, headers), expected, "{target} {headers:?}");
    }
}

#[test]
fn what_no_route_takes_is_404_or_405_with_allow() {
    let routes =
        [named("items", "path: /items, methods: [GET, PUT]"), named("more", "path: /items, methods: [DELETE]")];
    let gateway = Gateway::start(&format!("routes:\n{}", routes.concat()));
    gateway.get("/nothing").assert_problem(404, "no_route");
    let refused = gateway.send("POST /items", &[], b"{}");
    refused.assert_problem(405, "method_not_allowed");
    assert_eq!(refused.header("allow"), Some("DELETE, GET, HEAD, PUT"));
    let head = gateway.send("HEAD /items", &[], b"");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("5"), 0));
}

#[test]
fn the_upstream_sees_the_path_that_was_matched() {
    let upstream = Upstream::echo();
    let gateway =
        gateway(&upstream, "  - { name: all, match: { path: \"/{rest...}\" }, auth: none, upstream: echo }\n");
    for (sent, forwarded) in [
        ("/a/b?x=1%20&y", "/a/b?x=1%20&y"),
        ("/a/../b", "/b"),
        ("/a/./b//c/", "/a/b/c/"),
        ("/%61%2Db", "/a-b"),
        ("/a%3fb", "/a%3Fb"),
        ("/%7euser", "/~user"),
    ] {
        assert_eq!(gateway.get(sent).json()["target"], forwarded, "{sent}");
    }
    for refused in ["/a%2fb", "/a%5cb", "/%00", "/%zz", "/a/..;/b", "/%252e%252e/b", "/../a", "/%c0%ae"] {
        let answer = gateway.get(refused);
        assert_eq!(answer.status, 400, "{refused}: {}", answer.text());
    }
    assert_eq!(upstream.received().len(), 6);
}

#[test]
fn paths_and_hosts_are_rewritten() {
    let upstream = Upstream::echo();
    let gateway = gateway(
        &upstream,
        "  - { name: new, match: { path: \"/customers/{id}\" }, auth: none, upstream: echo, rewrite: { path: \"/api/v2/clients/{id}\" } }
  - { name: rest, match: { path: \"/v1/{rest...}\" }, auth: none, upstream: echo, rewrite: { path: \"/{rest}\", host: preserve } }
  - { name: fixed, match: { path: /fixed }, auth: none, upstream: echo, rewrite: { host: crm.internal } }
  - { name: kept, match: { path: \"/files/{name}\" }, auth: none, upstream: echo, encoded_slashes: keep }
",
    );
    let ask = |target: &str| {
        gateway.get(target);
        let last = upstream.received().pop().unwrap();
        (last.target.clone(), last.header("host").unwrap().to_owned())
    };
    let own = upstream.address().to_owned();
    assert_eq!(ask("/customers/42?full=1"), ("/api/v2/clients/42?full=1".into(), own.clone()));
    assert_eq!(ask("/v1/a/b"), ("/a/b".into(), "gateway.test".into()));
    assert_eq!(ask("/v1"), ("/".into(), "gateway.test".into()));
    assert_eq!(ask("/fixed"), ("/fixed".into(), "crm.internal".into()));
    assert_eq!(ask("/files/a%2fb"), ("/files/a%2Fb".into(), own));
}

#[test]
fn redirects_keep_the_query() {
    let gateway = Gateway::start(
        "routes:
  - { name: moved, match: { path: \"/old/{id}\" }, auth: none, redirect: { to: \"/new/{id}\" } }
  - { name: gone, match: { path: /away }, auth: none, redirect: { to: \"https://example.com/\", status: 302 } }
",
    );
    let moved = gateway.get("/old/7?a=1");
    assert_eq!((moved.status, moved.header("location")), (308, Some("/new/7?a=1")));
    let gone = gateway.get("/away");
    assert_eq!((gone.status, gone.header("location")), (302, Some("https://example.com/")));
}

#[test]
fn a_route_can_be_bound_to_a_listener() {
    let gateway = Gateway::start(
        "listeners:
  - { name: public, address: \"127.0.0.1:0\" }
  - { name: inside, address: \"127.0.0.2:0\" }
routes:
  - { name: both, match: { path: /x }, auth: none, plugins: [{ respond: { status: 200, body: both } }] }
  - { name: inside, match: { path: /x, listeners: [inside] }, auth: none, plugins: [{ respond: { status: 200, body: inside } }] }
",
    );
    let inside = gateway.listener("inside").unwrap();
    assert_eq!(gateway.get("/x").text(), "both");
    assert_eq!(crate::harness::exchange(&inside, "GET /x", &[], b"").text(), "inside");
}
