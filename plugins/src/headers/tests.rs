use std::collections::BTreeMap;

use crossway_plugin_api::{Consumer, PathParams, RequestId};

use super::*;
use crate::testing::{build, ctx, parse, refused, request, response, values};

/// The values of a request field after the plugin has run.
fn after(yaml: &str, fields: &[(&'static str, &str)], name: &str) -> String {
    let mut req = request("GET", fields);
    build(yaml).unwrap().on_upstream_request(&mut req, &mut ctx()).unwrap();
    values(&req.headers, name)
}

#[test]
fn each_change_does_what_it_says() {
    let both = [("X-A", "1"), ("X-A", "2"), ("X-B", "3")];
    assert_eq!(after("headers: { request: { set: { X-A: new } } }", &both, "x-a"), "new");
    assert_eq!(after("headers: { request: { add: { X-A: new } } }", &both, "x-a"), "1 | 2 | new");
    assert_eq!(after("headers: { request: { remove: [x-a] } }", &both, "x-a"), "");
    let rename = "headers: { request: { rename: { X-A: X-B } } }";
    assert_eq!(after(rename, &both, "x-a"), "");
    assert_eq!(after(rename, &both, "x-b"), "1 | 2");
    assert_eq!(after(rename, &[("X-B", "3")], "x-b"), "3", "nothing to rename");
}

#[test]
fn the_order_is_remove_rename_set_add() {
    let yaml =
        "headers: { request: { remove: [X-New], rename: { X-Old: X-New }, add: { X-New: b }, set: { X-C: a } } }";
    assert_eq!(after(yaml, &[("X-New", "gone"), ("X-Old", "kept")], "x-new"), "kept | b");
    let yaml = "headers: { request: { add: { X-A: added }, set: { X-A: first } } }";
    assert_eq!(after(yaml, &[("X-A", "theirs")], "x-a"), "first | added");
    let yaml = "headers: { request: { rename: { X-A: X-B }, set: { X-B: last } } }";
    assert_eq!(after(yaml, &[("X-A", "1")], "x-b"), "last");
}

#[test]
fn the_response_is_changed_in_the_same_way() {
    let plugin = build("headers: { response: { remove: [Server], set: { X-Gateway: '{route}' } } }").unwrap();
    let (mut res, mut ctx) = (response(200, &[("Server", "old")]), ctx());
    ctx.route = Some("orders".into());
    plugin.on_response(&mut res, &mut ctx).unwrap();
    assert_eq!(values(&res.headers, "server"), "");
    assert_eq!(values(&res.headers, "x-gateway"), "orders");
    assert!(plugin.needs().response && !plugin.needs().upstream_request);
}

#[test]
fn placeholders_are_filled_in() {
    let mut ctx = ctx();
    ctx.request_id = RequestId::parse("r-1").unwrap();
    ctx.route = Some("items".into());
    ctx.consumer = Some(Arc::new(Consumer::new("acme", &[], BTreeMap::new()).unwrap()));
    ctx.params = PathParams { names: Arc::new(["kind".into(), "id".into()]), values: vec![1..6, 7..8] };
    let cases = [
        ("{request_id}", "r-1"),
        ("a {client} b", "a 192.0.2.7 b"),
        ("{consumer}/{route}/{path.id}", "acme/items/7"),
        ("{path.kind}", "items"),
        ("{path.other}", ""),
        ("{{consumer}", "{consumer}"),
        ("{{{consumer}}", "{acme}"),
        ("plain } text", "plain } text"),
    ];
    for (text, expected) in cases {
        let plugin = build(&format!("headers: {{ request: {{ set: {{ X-A: '{text}' }} }} }}")).unwrap();
        let mut req = request("GET", &[("X-A", "theirs")]);
        plugin.on_upstream_request(&mut req, &mut ctx).unwrap();
        assert_eq!(values(&req.headers, "x-a"), expected, "{text}");
    }
}

#[test]
fn what_is_unknown_for_a_request_is_empty() {
    assert_eq!(after("headers: { request: { set: { X-A: '[{consumer}]' } } }", &[("X-A", "forged")], "x-a"), "[]");
}

#[test]
fn a_rendered_value_cannot_end_its_line() {
    let mut ctx = ctx();
    let name = "a\r\nX-Evil: 1\0é%";
    ctx.route = Some(name.into());
    let mut req = request("GET", &[]);
    let plugin = build("headers: { request: { set: { X-A: '{route}' } } }").unwrap();
    plugin.on_upstream_request(&mut req, &mut ctx).unwrap();
    assert_eq!(values(&req.headers, "x-a"), "a%0D%0AX-Evil: 1%00%C3%A9%");
}

#[test]
fn the_gateways_own_fields_are_refused_in_every_change() {
    for name in [
        "Host",
        "Content-Length",
        "content_length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "TE",
        "Trailer",
        "Upgrade",
        "X-Consumer-Name",
        "X_Consumer_Groups",
        "X-Forwarded-For",
        "X-Forwarded-Anything",
        "Forwarded",
        "Via",
    ] {
        for (change, place) in [
            (format!("set: {{ {name}: x }}"), format!("request/set/{name}")),
            (format!("add: {{ {name}: x }}"), format!("request/add/{name}")),
            (format!("remove: [X-Fine, {name}]"), "request/remove/1".into()),
            (format!("rename: {{ {name}: X-B }}"), format!("request/rename/{name}")),
            (format!("rename: {{ X-B: {name} }}"), "request/rename/X-B".into()),
        ] {
            assert_eq!(refused(&format!("headers: {{ request: {{ {change} }} }}")).0, place);
        }
    }
}

#[test]
fn identity_fields_of_a_response_are_free_but_its_framing_is_not() {
    assert!(build("headers: { response: { set: { Via: x, X-Consumer-Name: y } } }").is_ok());
    assert_eq!(refused("headers: { response: { remove: [Content-Length] } }").0, "response/remove/0");
}

#[test]
fn what_cannot_work_is_refused() {
    for (yaml, place) in [
        ("headers: {}", ""),
        ("headers: { request: { set: {} } }", ""),
        ("headers: { request: { set: { ':path': x } } }", "request/set/:path"),
        ("headers: { request: { set: { 'a b': x } } }", "request/set/a b"),
        ("headers: { request: { set: { X-A: 1a, x-a: b } } }", "request/set/x-a"),
        ("headers: { request: { set: { X-A: \"a\\nb\" } } }", "request/set/X-A"),
        ("headers: { request: { add: { X-A: 'é' } } }", "request/add/X-A"),
        ("headers: { request: { set: { X-A: '{nothing}' } } }", "request/set/X-A"),
        ("headers: { request: { set: { X-A: '{path.}' } } }", "request/set/X-A"),
        ("headers: { request: { set: { X-A: '{path.a b}' } } }", "request/set/X-A"),
        ("headers: { request: { set: { X-A: '{client' } } }", "request/set/X-A"),
        ("headers: { request: { remove: [X-A, x-a] } }", "request/remove/1"),
        ("headers: { request: { remove: [X-A], rename: { X-A: X-B } } }", "request/rename/X-A"),
        ("headers: { request: { rename: { X-A: X-B, X-B: X-C } } }", "request/rename/X-A"),
        ("headers: { request: { rename: { X-A: X-C, X-B: X-C } } }", "request/rename/X-B"),
        ("headers: { request: { rename: { X-A: x-a } } }", "request/rename/X-A"),
    ] {
        assert_eq!(refused(yaml).0, place, "{yaml}");
    }
}

#[test]
fn values_are_not_shown() {
    let entry = parse("headers: { request: { set: { Authorization: hunter2 }, add: { X-A: 'hunter2{' } } }").unwrap();
    assert!(!format!("{entry:?}").contains("hunter2"));
    let (_, reason) = refused("headers: { request: { set: { X-A: 'hunter2{hunter2}' } } }");
    assert!(!reason.contains("hunter2"), "{reason}");
}
