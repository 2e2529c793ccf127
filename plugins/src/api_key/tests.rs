use std::collections::BTreeMap;

use crossway_plugin_api::{Consumer, Credential, PluginConfig as _};

use super::*;
use crate::testing::{ctx, parse, refused, reply_values, request, run, values};

/// A plugin that knows `acme` (groups gold and beta, key `key-of-acme`), and `lone` (no group, key `key-of-lone`).
fn plugin(yaml: &str) -> Arc<dyn Plugin> {
    let mut consumers = ConsumerDirectory::default();
    let all: [(&str, &[&str]); 2] = [("acme", &["gold", "beta"]), ("lone", &[])];
    for (name, groups) in all {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, format!("key-of-{name}").as_bytes()).as_ref());
        let groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        let consumer = Arc::new(Consumer::new(name, &groups, BTreeMap::new()).unwrap());
        consumers.add_credential(Credential::ApiKey(Digest256(bytes)), &consumer).unwrap();
    }
    parse(yaml).unwrap().build(&Deps { consumers: Arc::new(consumers), ..Deps::default() }).unwrap()
}

#[tokio::test]
async fn a_key_establishes_its_consumer_and_is_hidden() {
    let plugin = plugin("api_key: {}");
    let (mut req, mut ctx) = (request("GET", &[("X-API-Key", "key-of-acme")]), ctx());
    assert!(run(&plugin, &mut req, &mut ctx).await.is_none());
    assert_eq!(ctx.consumer.as_ref().unwrap().name(), "acme");
    assert!(!req.headers.contains_key("x-api-key"));
}

#[tokio::test]
async fn the_key_stays_where_it_need_not_be_hidden() {
    let plugin = plugin("api_key: { header: Authorization, hide: false }");
    let mut req = request("GET", &[("Authorization", "key-of-acme")]);
    assert!(run(&plugin, &mut req, &mut ctx()).await.is_none());
    assert_eq!(values(&req.headers, "authorization"), "key-of-acme");
}

#[tokio::test]
async fn everything_else_is_401_with_a_challenge() {
    let plugin = plugin("api_key: {}");
    let (longest, too_long) = ("k".repeat(512), "k".repeat(513));
    let cases: [(&[&str], &str); 9] = [
        (&[], "api_key_missing"),
        (&["wrong"], "api_key_invalid"),
        (&[""], "api_key_invalid"),
        (&["KEY-OF-ACME"], "api_key_invalid"),
        (&["key-of-acme "], "api_key_invalid"),
        (&["key-of-acme", "key-of-acme"], "api_key_invalid"),
        (&["key-of-acme", "wrong"], "api_key_invalid"),
        (&[&longest], "api_key_invalid"),
        (&[&too_long], "api_key_invalid"),
    ];
    for (keys, code) in cases {
        let fields: Vec<_> = keys.iter().map(|k| ("X-API-Key", *k)).collect();
        for method in ["GET", "OPTIONS", "HEAD"] {
            let mut ctx = ctx();
            let reply = run(&plugin, &mut request(method, &fields), &mut ctx).await.unwrap();
            assert_eq!((reply.status.as_u16(), reply.code()), (401, Some(code)), "{keys:?}");
            assert_eq!(reply_values(&reply, "www-authenticate"), "Key realm=\"crossway\"");
            assert!(ctx.consumer.is_none());
        }
    }
}

#[tokio::test]
async fn a_very_long_key_is_refused_even_if_its_digest_is_known() {
    let long = "k".repeat(513);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, long.as_bytes()).as_ref());
    let mut consumers = ConsumerDirectory::default();
    let consumer = Arc::new(Consumer::new("long", &[], BTreeMap::new()).unwrap());
    consumers.add_credential(Credential::ApiKey(Digest256(bytes)), &consumer).unwrap();
    let plugin = Config::default().build(&Deps { consumers: Arc::new(consumers), ..Deps::default() }).unwrap();
    let reply = run(&plugin, &mut request("GET", &[("X-API-Key", &long)]), &mut ctx()).await.unwrap();
    assert_eq!(reply.code(), Some("api_key_invalid"));
}

#[tokio::test]
async fn no_consumers_means_nobody_comes_in() {
    let plugin = crate::testing::build("api_key: {}").unwrap();
    let reply = run(&plugin, &mut request("GET", &[("X-API-Key", "any")]), &mut ctx()).await.unwrap();
    assert_eq!(reply.status.as_u16(), 401);
    assert!(plugin.needs().authenticates);
}

#[test]
fn fields_with_another_meaning_are_refused() {
    for name in ["Host", "Transfer-Encoding", "X-Consumer-Name", "Forwarded", "Cookie"] {
        assert_eq!(refused(&format!("api_key: {{ header: {name} }}")).0, "header", "{name}");
    }
}

/// Issued keys, as a plugin sees them: `good` is of acme, `gone` of nobody that there is, `unread` cannot be told.
#[derive(Debug)]
struct Issued;

impl IssuedKeys for Issued {
    fn holder<'c>(
        &self,
        text: &[u8],
        _: &Digest256,
        consumers: &'c ConsumerDirectory,
    ) -> Result<&'c Arc<Consumer>, NoHolder> {
        match text {
            b"good" => consumers.named("acme").ok_or(NoHolder::Refused("its consumer is gone")),
            b"unread" => Err(NoHolder::Unknown),
            _ => Err(NoHolder::Refused("no such key")),
        }
    }
}

#[tokio::test]
async fn issued_keys_come_after_those_of_the_configuration() {
    let acme = Arc::new(Consumer::new("acme", &[], BTreeMap::new()).unwrap());
    let mut consumers = ConsumerDirectory::default();
    consumers.add(&acme);
    let deps = Deps { consumers: Arc::new(consumers), issued: Arc::new(Issued), ..Deps::default() };
    let plugin = Config::default().build(&deps).unwrap();
    let mut ctx_of_good = ctx();
    assert!(run(&plugin, &mut request("GET", &[("X-API-Key", "good")]), &mut ctx_of_good).await.is_none());
    assert_eq!(ctx_of_good.consumer.unwrap().name(), "acme");
    let mut ctx_of_bad = ctx();
    let reply = run(&plugin, &mut request("GET", &[("X-API-Key", "bad")]), &mut ctx_of_bad).await.unwrap();
    assert_eq!((reply.status.as_u16(), ctx_of_bad.refusal.as_deref()), (401, Some("no such key")));
    let failed = plugin.on_request(&mut request("GET", &[("X-API-Key", "unread")]), &mut ctx()).await;
    assert!(matches!(failed, Err(Fault::Dependency(_))), "a key that cannot be told is not a wrong one");
}

#[tokio::test]
async fn a_refused_key_is_hidden_too() {
    let plugin = plugin("api_key: { query: k, cookie: c }");
    let mut req = RequestHeader::build("GET", b"/items?a=1&k=wrong", None).unwrap();
    let reply = run(&plugin, &mut req, &mut ctx()).await.unwrap();
    assert_eq!(reply.code(), Some("api_key_invalid"));
    assert_eq!(req.uri.to_string(), "/items?a=1", "what is logged is what is left");
    assert_eq!(plugin.needs().secret_query, ["k"]);
    let mut req = request("GET", &[("X-API-Key", "key-of-acme"), ("Cookie", "c=key-of-acme")]);
    assert_eq!(run(&plugin, &mut req, &mut ctx()).await.unwrap().status.as_u16(), 401, "two keys");
    let mut req = request("GET", &[("Cookie", "a=1; c=key-of-acme")]);
    assert!(run(&plugin, &mut req, &mut ctx()).await.is_none());
    assert_eq!(values(&req.headers, "cookie"), "a=1");
}
