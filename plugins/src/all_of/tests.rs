use std::{collections::BTreeMap, sync::Arc};

use crossway_plugin_api::{Claims, ConsumerDirectory, Credential, Digest256};
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

use super::*;
use crate::testing::{Decide, Probe, ctx, parse, phases, request};

fn deps() -> Deps {
    let mut consumers = ConsumerDirectory::default();
    for name in ["alice", "bob"] {
        let consumer = Arc::new(Consumer::new(name, &[], BTreeMap::new()).unwrap());
        for key in [format!("key-of-{name}"), format!("other-key-of-{name}")] {
            let mut bytes = [0; 32];
            bytes.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
            consumers.add_credential(Credential::ApiKey(Digest256(bytes)), &consumer).unwrap();
        }
    }
    Deps { consumers: Arc::new(consumers), ..Deps::default() }
}

const TWO: &str = "all_of: [{ api_key: { header: A } }, { api_key: { header: B } }]";

async fn decide(yaml: &str, fields: &[(&'static str, &str)], ctx: &mut Ctx) -> Decision {
    let plugin = parse(yaml).unwrap().build(&deps()).unwrap();
    plugin.on_request(&mut request("GET", fields), ctx).await.unwrap()
}

#[tokio::test]
async fn all_must_let_in_and_know_the_same_consumer() {
    for (fields, expected) in [
        (&[("A", "key-of-alice"), ("B", "other-key-of-alice")][..], "alice"),
        (&[("A", "key-of-alice"), ("B", "key-of-bob")], "credentials_differ"),
        (&[("A", "key-of-alice"), ("B", "wrong")], "api_key_invalid"),
        (&[("A", "wrong"), ("B", "key-of-alice")], "api_key_invalid"),
        (&[("B", "wrong")], "api_key_invalid"),
    ] {
        let mut ctx = ctx();
        let found = match decide(TWO, fields, &mut ctx).await {
            Decision::Continue => ctx.consumer.as_ref().unwrap().name(),
            Decision::Respond(reply) => {
                assert!(ctx.consumer.is_none() && ctx.claims.is_none());
                reply.code().unwrap()
            }
            Decision::Absent(_) => "absent",
        };
        assert_eq!(found, expected, "{fields:?}");
    }
}

#[tokio::test]
async fn a_part_of_the_credentials_is_not_their_absence() {
    for fields in [&[("A", "key-of-alice")][..], &[("B", "key-of-alice")]] {
        let mut ctx = ctx();
        let Decision::Respond(reply) = decide(TWO, fields, &mut ctx).await else { panic!("{fields:?}") };
        assert_eq!((reply.status.as_u16(), reply.code()), (401, Some("api_key_missing")));
        assert!(ctx.consumer.is_none(), "who has shown a part is nobody");
    }
    let Decision::Absent(reply) = decide(TWO, &[], &mut ctx()).await else { panic!("nothing was shown") };
    assert_eq!((reply.status.as_u16(), reply.code()), (401, Some("credential_missing")));
}

#[tokio::test]
async fn what_an_earlier_plugin_has_established_stays_or_is_replaced_as_a_whole() {
    let known = || {
        let mut ctx = ctx();
        ctx.consumer = Some(Arc::new(Consumer::new("carol", &[], BTreeMap::new()).unwrap()));
        ctx.claims = Some(Arc::new(Claims::default()));
        ctx
    };
    let both = [("A", "key-of-alice"), ("B", "key-of-alice")];
    for (fields, expected) in [(&both[..], "alice"), (&both[..1], "carol"), (&[], "carol")] {
        let mut ctx = known();
        decide(TWO, fields, &mut ctx).await;
        assert_eq!(ctx.consumer.as_ref().unwrap().name(), expected);
        assert!(ctx.claims.is_some());
    }
}

fn all_of(decisions: [Decide; 2]) -> (AllOf, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::default());
    let probes = ["a", "b"].into_iter().zip(decisions);
    let probes =
        probes.map(|(name, decide)| Arc::new(Probe { name, decide, seen: Arc::clone(&seen) }) as Arc<dyn Plugin>);
    (AllOf { members: Members::of(probes.collect()) }, seen)
}

#[expect(clippy::unnecessary_wraps, reason = "the form of a probe's decision")]
fn dave(ctx: &mut Ctx) -> Result<Decision, Fault> {
    ctx.consumer = Some(Arc::new(Consumer::new("dave", &[], BTreeMap::new()).unwrap()));
    ctx.claims = Some(Arc::default());
    Ok(Decision::Continue)
}

#[tokio::test]
async fn later_phases_run_for_all_or_none() {
    let (plugin, seen) = all_of([dave, |_| Ok(Decision::Continue)]);
    let order = phases(&plugin, &mut ctx(), &seen).await;
    let expected =
        ["a request", "b request", "a upstream", "b upstream", "b response", "a response", "a done", "b done"];
    assert_eq!(order, expected);
    let (plugin, seen) = all_of([dave, |_| Ok(Decision::Respond(Reply::empty(StatusCode::UNAUTHORIZED)))]);
    assert_eq!(phases(&plugin, &mut ctx(), &seen).await, ["a request", "b request"]);
}

#[tokio::test]
async fn after_a_fault_nobody_is_known() {
    let (plugin, _) = all_of([dave, |_| Err(Fault::Dependency("down".into()))]);
    let mut ctx = ctx();
    assert!(plugin.on_request(&mut request("GET", &[]), &mut ctx).await.is_err());
    assert!(
        ctx.consumer.is_none() && ctx.claims.is_none(),
        "`on_error: allow` goes on as if the plugin were not there"
    );
    let (plugin, _) = all_of([dave, |_| Ok(Decision::Continue)]);
    assert!(matches!(plugin.on_request(&mut request("GET", &[]), &mut ctx).await, Ok(Decision::Continue)));
    assert_eq!(ctx.consumer.unwrap().name(), "dave");
}
