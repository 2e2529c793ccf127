use super::*;
use crate::testing::{build, ctx, parse, refused, reply_values, request, response, run, values};

async fn reply(yaml: &str) -> Reply {
    let plugin = build(yaml).unwrap();
    assert!(plugin.needs().answers && plugin.needs().response_body.is_none());
    run(&plugin, &mut request("POST", &[]), &mut ctx()).await.unwrap()
}

fn content_of(reply: &Reply) -> (String, String) {
    match &reply.content {
        Content::Other { media_type: Some(media_type), body } => {
            (media_type.to_str().unwrap().into(), String::from_utf8(body.to_vec()).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_request_is_answered() {
    let text = reply("respond: { status: 503, body: 'back soon', headers: { Retry-After: '60' } }").await;
    assert_eq!(text.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(content_of(&text), ("text/plain; charset=utf-8".into(), "back soon".into()));
    assert_eq!(reply_values(&text, "retry-after"), "60");

    let json = reply("respond: { status: 200, json: { a: [1, null] } }").await;
    assert_eq!(content_of(&json), ("application/json".into(), r#"{"a":[1,null]}"#.into()));

    let typed = reply("respond: { status: 200, body: '<p>', content_type: text/html }").await;
    assert_eq!(content_of(&typed).0, "text/html");

    let empty = reply("respond: { status: 204 }").await;
    assert!(matches!(empty.content, Content::Empty));
}

#[tokio::test]
async fn listed_answers_of_the_upstream_are_replaced_whole() {
    let plugin = build("respond: { instead_of: [5xx, 404], status: 503, json: {}, headers: { X-A: ours } }").unwrap();
    assert!(!plugin.needs().answers && !plugin.needs().request);
    let need = plugin.needs().response_body.unwrap();
    assert_eq!((need.max, need.overflow), (1_048_576, crossway_plugin_api::Overflow::Refuse));
    let upstream = [
        ("Content-Length", "6"),
        ("Content-Type", "text/html"),
        ("Content-Encoding", "gzip"),
        ("Content-Range", "bytes 0-5/6"),
        ("Accept-Ranges", "bytes"),
        ("ETag", "\"1\""),
        ("Last-Modified", "Tue, 01 Sep 2026 00:00:00 GMT"),
        ("Digest", "x"),
        ("Content-Digest", "x"),
        ("Repr-Digest", "x"),
        ("X-A", "theirs"),
        ("X-B", "kept"),
    ];
    for status in [500, 599, 404] {
        let (mut body, mut res) = (Bytes::from_static(b"secret"), response(status, &upstream));
        res.set_reason_phrase(Some("Database On Fire")).unwrap();
        plugin.on_response_body(&mut body, &mut res, &mut ctx()).await.unwrap();
        assert_eq!(
            (res.status.as_u16(), res.get_reason_phrase(), &body[..]),
            (503, Some("Service Unavailable"), &b"{}"[..])
        );
        assert_eq!(values(&res.headers, "content-type"), "application/json");
        assert_eq!((values(&res.headers, "x-a"), values(&res.headers, "x-b")), ("ours".into(), "kept".into()));
        assert_eq!(res.headers.len(), 3, "{:?}", res.headers);
    }
}

#[tokio::test]
async fn other_answers_of_the_upstream_are_left_alone() {
    let plugin = build("respond: { instead_of: [500-502], status: 503, body: x }").unwrap();
    for status in [200, 404, 499, 503] {
        let (mut body, mut res) = (Bytes::from_static(b"theirs"), response(status, &[("ETag", "\"1\"")]));
        plugin.on_response_body(&mut body, &mut res, &mut ctx()).await.unwrap();
        assert_eq!((res.status.as_u16(), &body[..]), (status, &b"theirs"[..]));
        assert_eq!(values(&res.headers, "etag"), "\"1\"");
    }
}

#[test]
fn what_cannot_be_sent_is_refused() {
    for (yaml, place) in [
        ("respond: { status: 100 }", "status"),
        ("respond: { status: 199 }", "status"),
        ("respond: { status: 600 }", "status"),
        ("respond: { status: 204, body: x }", "body"),
        ("respond: { status: 205, body: x }", "body"),
        ("respond: { status: 304, json: {} }", "json"),
        ("respond: { status: 200, body: x, json: {} }", "json"),
        ("respond: { status: 200, content_type: text/html }", "content_type"),
        ("respond: { status: 200, headers: { Content-Length: '1' } }", "headers/Content-Length"),
        ("respond: { status: 200, headers: { content-type: a/b } }", "headers/content-type"),
        ("respond: { status: 200, headers: { 'a b': x } }", "headers/a b"),
        ("respond: { status: 200, instead_of: [] }", "instead_of"),
    ] {
        assert_eq!(refused(yaml).0, place, "{yaml}");
    }
    assert!(parse("respond: {}").unwrap_err().contains("status"));
}
