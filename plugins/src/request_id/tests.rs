use super::*;
use crate::testing::{build, ctx, refused, request, response, run, values};

#[test]
fn fresh_names_are_different_uuids() {
    let (one, two) = (fresh(), fresh());
    assert_ne!(one.as_str(), two.as_str());
    assert_eq!((one.as_str().len(), one.as_str().as_bytes()[14]), (36, b'7'));
    assert!(Uuid::parse_str(one.as_str()).is_ok());
}

#[tokio::test]
async fn the_clients_name_is_replaced_by_default() {
    let plugin = build("request_id: {}").unwrap();
    let (mut req, mut ctx) = (request("GET", &[("X-Request-Id", "theirs")]), ctx());
    ctx.request_id = RequestId::parse("ours").unwrap();
    assert!(run(&plugin, &mut req, &mut ctx).await.is_none());
    assert!(!req.headers.contains_key("x-request-id"));
    plugin.on_upstream_request(&mut req, &mut ctx).unwrap();
    let mut res = response(200, &[("X-Request-Id", "upstream")]);
    plugin.on_response(&mut res, &mut ctx).unwrap();
    assert_eq!(values(&req.headers, "x-request-id"), "ours");
    assert_eq!(values(&res.headers, "x-request-id"), "ours");
}

#[tokio::test]
async fn a_trusted_name_must_be_one_and_well_formed() {
    let plugin = build("request_id: { trust_incoming: true, header: X-Trace }").unwrap();
    let long = "a".repeat(65);
    let cases: [(&[&str], &str); 7] = [
        (&["theirs-1.2_3"], "theirs-1.2_3"),
        (&["one", "two"], "ours"),
        (&["same", "same"], "ours"),
        (&["../../x"], "ours"),
        (&["a b"], "ours"),
        (&[""], "ours"),
        (&[&long], "ours"),
    ];
    for (copies, expected) in cases {
        let fields: Vec<_> = copies.iter().map(|v| ("X-Trace", *v)).collect();
        let (mut req, mut ctx) = (request("GET", &fields), ctx());
        ctx.request_id = RequestId::parse("ours").unwrap();
        run(&plugin, &mut req, &mut ctx).await;
        assert_eq!(ctx.request_id.as_str(), expected, "{copies:?}");
        assert_eq!(req.headers.contains_key("x-trace"), expected != "ours", "{copies:?}");
        plugin.on_upstream_request(&mut req, &mut ctx).unwrap();
        assert_eq!(values(&req.headers, "x-trace"), expected, "{copies:?}");
    }
}

#[test]
fn the_client_need_not_be_told() {
    assert!(!build("request_id: { response: false }").unwrap().needs().response);
    assert!(build("request_id: {}").unwrap().needs().response);
}

#[test]
fn fields_with_another_meaning_are_refused() {
    for name in ["Host", "content-length", "X-Forwarded-For", "Via", "Authorization", "cookie"] {
        assert_eq!(refused(&format!("request_id: {{ header: {name} }}")).0, "header", "{name}");
    }
}
