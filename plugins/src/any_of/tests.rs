use std::{collections::BTreeMap, sync::Arc};

use crossway_plugin_api::{Consumer, ConsumerDirectory, Credential, Digest256};
use http::StatusCode;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

use super::*;
use crate::testing::{Decide, Probe, ctx, parse, phases, reply_values, request, run};

fn deps() -> Deps {
    let mut consumers = ConsumerDirectory::default();
    for name in ["alice", "bob"] {
        let consumer = Arc::new(Consumer::new(name, &[], BTreeMap::new()).unwrap());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, format!("key-of-{name}").as_bytes()).as_ref());
        consumers.add_credential(Credential::ApiKey(Digest256(bytes)), &consumer).unwrap();
    }
    Deps { consumers: Arc::new(consumers), ..Deps::default() }
}

fn build(yaml: &str) -> Result<Arc<dyn Plugin>, InvalidConfig> {
    parse(yaml).unwrap().build(&deps())
}

const TWO: &str = "any_of: [{ api_key: { header: A } }, { api_key: { header: B } }]";

#[tokio::test]
async fn the_first_credential_decides() {
    let plugin = build(TWO).unwrap();
    for (fields, expected) in [
        (&[("A", "key-of-alice")][..], Ok("alice")),
        (&[("B", "key-of-bob")], Ok("bob")),
        (&[("A", "key-of-alice"), ("B", "key-of-bob")], Ok("alice")),
        (&[("A", "key-of-alice"), ("B", "wrong")], Ok("alice")),
        (&[("A", "wrong"), ("B", "key-of-bob")], Err("api_key_invalid")),
        (&[("A", ""), ("B", "key-of-bob")], Err("api_key_invalid")),
        (&[("B", "wrong")], Err("api_key_invalid")),
        (&[], Err("credential_missing")),
    ] {
        let mut ctx = ctx();
        let reply = run(&plugin, &mut request("GET", fields), &mut ctx).await;
        let found = match &reply {
            None => Ok(ctx.consumer.as_ref().unwrap().name()),
            Some(reply) => Err(reply.code().unwrap()),
        };
        assert_eq!(found, expected, "{fields:?}");
        assert!(expected.is_ok() || ctx.consumer.is_none());
    }
}

#[tokio::test]
async fn without_any_credential_it_is_absent_with_every_challenge() {
    let three = "any_of: [{ any_of: [{ api_key: {} }, { api_key: { header: B } }] }, { api_key: { header: C } }]";
    for yaml in [TWO, three] {
        let plugin = build(yaml).unwrap();
        let Decision::Absent(reply) = plugin.on_request(&mut request("GET", &[]), &mut ctx()).await.unwrap() else {
            panic!("{yaml}");
        };
        assert_eq!(reply.status.as_u16(), 401);
        assert_eq!(reply_values(&reply, "www-authenticate"), "Key realm=\"crossway\"");
    }
}

#[test]
fn what_cannot_stand_in_a_list_is_refused_at_its_place() {
    let within = |depth: usize| {
        let inner = "[{ api_key: {} }, { api_key: {} }]".to_owned();
        (0..depth).fold(inner, |list, _| format!("[{{ api_key: {{}} }}, {{ any_of: {list} }}]"))
    };
    for (list, place) in [
        ("[{ api_key: {} }]".to_owned(), ""),
        ("[]".to_owned(), ""),
        (format!("[{}]", ["{ api_key: {} }"; 9].join(", ")), ""),
        ("[{ api_key: {} }, { request_id: {} }]".to_owned(), "1/request_id"),
        ("[{ body_limit: { max: 1KiB, buffer: true } }, { api_key: {} }]".to_owned(), "0/body_limit"),
        ("[{ api_key: {} }, { authorize: { networks: [10.0.0.0/8] } }]".to_owned(), "1/authorize"),
        ("[{ api_key: {} }, { api_key: { header: Host } }]".to_owned(), "1/api_key/header"),
        (
            "[{ api_key: {} }, { all_of: [{ api_key: {} }, { api_key: { header: Host } }] }]".to_owned(),
            "1/all_of/1/api_key/header",
        ),
        ("[{ api_key: {} }, { any_of: [{ api_key: {} }] }]".to_owned(), "1/any_of"),
        (within(4), "1/any_of/1/any_of/1/any_of/1/any_of"),
        (within(6), "1/any_of/1/any_of/1/any_of/1/any_of"),
    ] {
        let wrong = build(&format!("any_of: {list}")).err().unwrap_or_else(|| panic!("{list}"));
        assert_eq!(wrong.field, place, "{list}: {}", wrong.reason);
    }
    assert!(build(&format!("any_of: {}", within(3))).is_ok());
}

#[test]
fn an_entry_is_one_plugin_and_nothing_else() {
    for entry in ["{}", "{ api_key: {}, id: x }", "{ api_key: {}, cors: {} }", "{ nothing: {} }", "api_key", "[]"] {
        assert!(parse(&format!("any_of: [{{ api_key: {{}} }}, {entry}]")).is_err(), "{entry}");
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the form of a probe's decision")]
fn absent(ctx: &mut Ctx) -> Result<Decision, Fault> {
    ctx.refusal = Some("no credential".into());
    Ok(Decision::Absent(Reply::empty(StatusCode::UNAUTHORIZED)))
}

fn any_of(decisions: [Decide; 3]) -> (AnyOf, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::default());
    let probes = ["a", "b", "c"].into_iter().zip(decisions);
    let probes =
        probes.map(|(name, decide)| Arc::new(Probe { name, decide, seen: Arc::clone(&seen) }) as Arc<dyn Plugin>);
    (AnyOf { members: Members::of(probes.collect()) }, seen)
}

#[tokio::test]
async fn later_phases_run_for_the_one_that_has_let_in() {
    let (plugin, seen) = any_of([absent, |_| Ok(Decision::Continue), |_| Ok(Decision::Continue)]);
    let mut ctx = ctx();
    let order = phases(&plugin, &mut ctx, &seen).await;
    assert_eq!(order, ["a request", "b request", "b upstream", "b response", "b done"]);
    assert_eq!(ctx.refusal, None, "who came in was not refused");
    // Another list in the same request goes by its own notes.
    let (other, seen) = any_of([absent, absent, |_| Ok(Decision::Continue)]);
    let order = phases(&other, &mut ctx, &seen).await;
    assert_eq!(order, ["a request", "b request", "c request", "c upstream", "c response", "c done"]);
}

#[tokio::test]
async fn a_fault_is_neither_a_pass_nor_an_absence() {
    let (plugin, seen) = any_of([absent, |_| Err(Fault::Dependency("down".into())), |_| Ok(Decision::Continue)]);
    assert_eq!(phases(&plugin, &mut ctx(), &seen).await, ["a request", "b request"]);
    assert!(plugin.on_request(&mut request("GET", &[]), &mut ctx()).await.is_err());
}
