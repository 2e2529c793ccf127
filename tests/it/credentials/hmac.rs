//! Signed webhooks.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use ring::hmac;

use super::{config, start};
use crate::harness::{Connection, Gateway, Response, Upstream};

const BODY: &[u8] = br#"{"event":"paid"}"#;
const STRIPE: &str = "{ hmac_signature: { style: stripe, secrets: [s3cret], max_body: 1KiB, consumer: billing } }";

fn stripe(offset: i64, body: &[u8]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let time = now.checked_add_signed(offset).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"s3cret");
    let signed = hmac::sign(&key, &[format!("{time}.").as_bytes(), body].concat());
    let mut field = format!("t={time},v1=");
    for byte in signed.as_ref() {
        write!(field, "{byte:02x}").unwrap();
    }
    field
}

fn send(gateway: &Gateway, signature: &str, body: &[u8]) -> Response {
    gateway.send("POST /hook", &[("Stripe-Signature", signature)], body)
}

#[test]
fn hmac_signature() {
    let upstream = Upstream::echo();
    let mut gateway = start(&upstream, "{ name: billing }", STRIPE);
    gateway.send("POST /hook", &[], BODY).assert_problem(401, "signature_missing");
    for (signature, body) in [
        (stripe(0, BODY), &b"{}"[..]),
        (stripe(0, BODY), b""),
        (stripe(-600, BODY), BODY),
        (stripe(600, BODY), BODY),
        (stripe(0, BODY).replace("v1", "v0"), BODY),
        ("nonsense".into(), BODY),
    ] {
        let refused = send(&gateway, &signature, body);
        refused.assert_problem(401, "signature_invalid");
        assert!(refused.header("www-authenticate").is_some());
    }
    assert!(upstream.received().is_empty());
    let good = stripe(0, BODY);
    assert_eq!(send(&gateway, &good, BODY).status, 200);
    let seen = upstream.only();
    assert_eq!((seen.body.as_slice(), seen.header("x-consumer-name")), (BODY, Some("billing")));
    send(&gateway, &good, BODY).assert_problem(401, "signature_invalid");
    // A reload, and another secret beside the first: what was seen stays seen.
    let changed = config(&upstream, "{ name: billing }", &STRIPE.replace("[s3cret]", "[next, s3cret]"));
    assert_eq!(gateway.reload(&changed).status, 200);
    send(&gateway, &good, BODY).assert_problem(401, "signature_invalid");
    assert_eq!(send(&gateway, &stripe(-1, BODY), BODY).status, 200);
    assert_eq!(upstream.received().len(), 2);
}

#[test]
fn a_body_is_read_before_anything_goes_upstream_and_is_bounded() {
    let upstream = Upstream::echo();
    let gateway = start(&upstream, "{ name: billing }", STRIPE);
    let large = vec![b'x'; 1025];
    send(&gateway, &stripe(0, &large), &large).assert_problem(413, "body_too_large");
    let chunked = |body: &[u8]| {
        let mut connection = Connection::open(&gateway.address());
        let head = format!(
            "POST /hook HTTP/1.1\r\nHost: t\r\nStripe-Signature: {}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n",
            stripe(0, body),
            body.len()
        );
        let _ = connection.try_send(&[head.as_bytes(), body, b"\r\n0\r\n\r\n"].concat());
        connection.read("POST").unwrap()
    };
    chunked(&large).assert_problem(413, "body_too_large");
    assert_eq!(chunked(&large[..1024]).status, 200);
    assert_eq!(upstream.only().body, &large[..1024]);
    // A request without a body is signed too.
    assert_eq!(gateway.send("GET /hook", &[("Stripe-Signature", &stripe(0, b""))], b"").status, 200);
}
