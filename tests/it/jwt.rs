//! `jwt` from outside, with tokens of an identity provider that nobody here wrote.

use crate::harness::{CLIENT_SECRET, Idp};

#[test]
fn the_identity_provider_gives_tokens_and_says_what_they_are_worth() {
    let mut idp = Idp::start();
    let token = idp.client_credentials("orders", CLIENT_SECRET, "orders.read");
    assert_eq!(token.split('.').count(), 3);
    let opaque = idp.client_credentials("opaque", CLIENT_SECRET, "orders.read");
    assert_eq!(opaque.split('.').count(), 1);
    assert_eq!(idp.introspect(&opaque)["active"], true);
    idp.revoke("opaque", CLIENT_SECRET, &opaque);
    assert_eq!(idp.introspect(&opaque)["active"], false);
    assert_eq!((idp.asked("/token"), idp.token_url()), (2, format!("{}/token", idp.url())));
    idp.rotate();
    let next = idp.client_credentials("orders", CLIENT_SECRET, "orders.read");
    assert_ne!(next.split('.').next(), token.split('.').next(), "another key has another name");
    assert_eq!(idp.asked("/token"), 1, "another process");
}
