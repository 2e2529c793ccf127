use std::{cell::Cell, collections::BTreeMap};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crossway_plugin_api::{ConsumerDirectory, SharedState};

use super::*;
use crate::testing::{ctx, parse, refused, request};

const NOW: u64 = 1_800_000_000;
const BODY: &[u8] = br#"{"event":"paid"}"#;

thread_local! {
    /// How many signatures this test has had computed.
    pub(super) static COMPUTED: Cell<usize> = const { Cell::new(0) };
}

struct Setup {
    plugin: Arc<dyn Plugin>,
    clock: Clock,
    state: SharedState,
}

fn setup(yaml: &str) -> Setup {
    let (clock, state) = (Clock::fixed(Duration::from_secs(NOW)), SharedState::default());
    Setup { plugin: build(yaml, &clock, &state), clock, state }
}

fn build(yaml: &str, clock: &Clock, state: &SharedState) -> Arc<dyn Plugin> {
    let mut consumers = ConsumerDirectory::default();
    consumers.add(&Arc::new(Consumer::new("billing", &[], BTreeMap::new()).unwrap()));
    let deps = Deps { consumers: Arc::new(consumers), clock: clock.clone(), state: state.clone(), ..Deps::default() };
    parse(yaml).unwrap().build(&deps).unwrap_or_else(|wrong| panic!("{yaml}: {wrong}"))
}

type Outcome = Result<Option<String>, (u16, &'static str)>;

impl Setup {
    async fn ask(&self, fields: &[(&'static str, &str)], body: &[u8]) -> Outcome {
        ask(&self.plugin, fields, body).await
    }
}

/// Runs both phases: the consumer, or the refusal. What is refused may not go upstream.
async fn ask(plugin: &Arc<dyn Plugin>, fields: &[(&'static str, &str)], body: &[u8]) -> Outcome {
    let (mut req, mut ctx) = (request("POST", fields), ctx());
    let mut decision = plugin.on_request(&mut req, &mut ctx).await.unwrap();
    if matches!(decision, Decision::Continue) {
        assert!(plugin.on_upstream_request(&mut req, &mut ctx).is_err(), "the body was not seen");
        decision = plugin.on_request_body(&mut Bytes::copy_from_slice(body), &mut req, &mut ctx).await.unwrap();
    }
    match decision {
        Decision::Continue => {
            plugin.on_upstream_request(&mut req, &mut ctx).unwrap();
            Ok(ctx.consumer.map(|consumer| consumer.name().to_owned()))
        }
        Decision::Respond(reply) | Decision::Absent(reply) => {
            assert!(plugin.on_upstream_request(&mut req, &mut ctx).is_err());
            assert!(ctx.consumer.is_none() && ctx.refusal.is_some());
            Err((reply.status.as_u16(), reply.code().unwrap()))
        }
    }
}

fn sign(algorithm: hmac::Algorithm, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, key), &parts.concat()).as_ref().to_vec()
}

const INVALID: Outcome = Err((401, "signature_invalid"));
const MISSING: Outcome = Err((401, "signature_missing"));
const GOOD: Outcome = Ok(None);

#[tokio::test]
async fn the_published_example_of_standard_webhooks() {
    let setup =
        setup("hmac_signature: { style: standard_webhooks, secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw] }");
    setup.clock.advance(Duration::ZERO);
    let clock = Clock::fixed(Duration::from_secs(1_614_265_330));
    let plugin = build(
        "hmac_signature: { style: standard_webhooks, secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw] }",
        &clock,
        &setup.state,
    );
    let fields = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    assert_eq!(ask(&plugin, &fields, br#"{"test": 2432232314}"#).await, GOOD);
    assert_eq!(ask(&setup.plugin, &fields, br#"{"test": 2432232314}"#).await, INVALID, "years later");
}

#[tokio::test]
async fn standard_webhooks_sign_id_time_and_body() {
    let key = b"0123456789abcdef01234567";
    let yaml = format!(
        "hmac_signature: {{ style: standard_webhooks, secrets: [\"whsec_{}\", {}], consumer: billing }}",
        STANDARD.encode(b"another secret, just old"),
        STANDARD.encode(key),
    );
    let setup = setup(&yaml);
    let time = NOW.to_string();
    let sign = |id: &str, time: &str, body: &[u8]| {
        let signed = sign(hmac::HMAC_SHA256, key, &[id.as_bytes(), b".", time.as_bytes(), b".", body]);
        format!("v1,{}", STANDARD.encode(signed))
    };
    let send = async |id: &str, time: &str, signature: &str, body: &[u8]| {
        setup.ask(&[("webhook-id", id), ("webhook-timestamp", time), ("webhook-signature", signature)], body).await
    };
    let good = sign("msg_1", &time, BODY);
    assert_eq!(send("msg_2", &time, &good, BODY).await, INVALID);
    assert_eq!(send("msg_1", &(NOW + 1).to_string(), &good, BODY).await, INVALID);
    assert_eq!(send("msg_1", &time, &good, b"{}").await, INVALID);
    assert_eq!(send("msg_1", &time, &good.replace("v1,", "v2,"), BODY).await, INVALID);
    assert_eq!(send("msg_1", &time, &good.replace("v1,", ""), BODY).await, INVALID);
    assert_eq!(send("msg_1", &time, "", BODY).await, INVALID);
    assert_eq!(send("msg_1", &time, &["v1,AAAA"; 9].join(" "), BODY).await, INVALID);
    assert_eq!(send("msg_1", &format!("+{time}"), &good, BODY).await, INVALID);
    assert_eq!(send("msg.1", &time, &sign("msg.1", &time, BODY), BODY).await, INVALID);
    assert_eq!(setup.ask(&[("webhook-signature", &good)], BODY).await, INVALID, "no id, no time");
    assert_eq!(setup.ask(&[("webhook-id", "msg_1"), ("webhook-timestamp", &time)], BODY).await, MISSING);
    let many = format!("{}{good}", "v1,AAAA ".repeat(8));
    assert_eq!(send("msg_1", &time, &many, BODY).await, INVALID, "nine signatures");
    let among = format!("v1a,AAAA v1,{} {good}", STANDARD.encode([0; 32]));
    assert_eq!(send("msg_1", &time, &among, BODY).await, Ok(Some("billing".into())));
    assert_eq!(send("msg_1", &time, &good, BODY).await, INVALID, "a second time");
    assert_eq!(send("msg_2", &time, &sign("msg_2", &time, BODY), BODY).await, Ok(Some("billing".into())));
}

#[tokio::test]
async fn times_are_good_up_to_the_tolerance() {
    for (offset, good) in [(-301, false), (-300, true), (0, true), (300, true), (301, false)] {
        let setup = setup("hmac_signature: { style: stripe, secrets: [s3cret] }");
        let time = NOW.checked_add_signed(offset).unwrap().to_string();
        let signature = hex::lower(&sign(hmac::HMAC_SHA256, b"s3cret", &[time.as_bytes(), b".", BODY]));
        let value = format!("t={time},v1={signature},v0=abc");
        let expected = if good { GOOD } else { INVALID };
        assert_eq!(setup.ask(&[("Stripe-Signature", &value)], BODY).await, expected, "{offset}");
    }
}

#[tokio::test]
async fn stripe_signs_time_and_body() {
    let setup = setup("hmac_signature: { style: stripe, secrets: [old, s3cret], tolerance: 1m }");
    let signature = |time: &str| hex::lower(&sign(hmac::HMAC_SHA256, b"s3cret", &[time.as_bytes(), b".", BODY]));
    let time = NOW.to_string();
    let good = signature(&time);
    for value in [
        format!("t={time}"),
        format!("v1={good}"),
        format!("t={time},t={time},v1={good}"),
        format!("t={},v1={good}", NOW + 1),
        format!("t={time},v0={good}"),
        format!("t={time},v1={good}0"),
        format!("t={time};v1={good}"),
        format!("t= {time},v1={}", signature(&format!(" {time}"))),
        String::new(),
    ] {
        assert_eq!(setup.ask(&[("Stripe-Signature", &value)], BODY).await, INVALID, "{value}");
    }
    let value = format!("t={time}, v1={}, v1={good}", "00".repeat(32));
    assert_eq!(setup.ask(&[("Stripe-Signature", &value), ("Stripe-Signature", &value)], BODY).await, INVALID);
    assert_eq!(setup.ask(&[("Stripe-Signature", &value)], BODY).await, GOOD);
    assert_eq!(setup.ask(&[("X-Other", &value)], BODY).await, MISSING);
}

#[tokio::test]
async fn the_published_example_of_github() {
    let setup = setup("hmac_signature: { style: github, secrets: [\"It's a Secret to Everybody\"] }");
    let good = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    for _ in 0..2 {
        assert_eq!(setup.ask(&[("X-Hub-Signature-256", good)], b"Hello, World!").await, GOOD, "it has no time");
    }
    for wrong in [&good[7..], &good.replace("sha256", "sha1"), &good[..40], &format!("{good} "), "sha256="] {
        assert_eq!(setup.ask(&[("X-Hub-Signature-256", wrong)], b"Hello, World!").await, INVALID, "{wrong}");
    }
    assert_eq!(setup.ask(&[("X-Hub-Signature", good)], b"Hello, World!").await, MISSING);
}

#[tokio::test]
async fn a_field_of_ones_own() {
    for (yaml, value) in [
        ("header: X-Sig", hex::lower(&sign(hmac::HMAC_SHA256, b"k", &[BODY])).to_uppercase()),
        (
            "header: X-Sig, algorithm: sha512, encoding: base64, prefix: \"hmac \"",
            format!("hmac {}", STANDARD.encode(sign(hmac::HMAC_SHA512, b"k", &[BODY]))),
        ),
    ] {
        let setup = setup(&format!("hmac_signature: {{ style: generic, secrets: [k], replay_window: 1h, {yaml} }}"));
        assert_eq!(setup.ask(&[("X-Sig", &value)], b"other").await, INVALID);
        assert_eq!(setup.ask(&[("X-Sig", &value)], BODY).await, GOOD);
        assert_eq!(setup.ask(&[("X-Sig", &value)], BODY).await, INVALID, "within the window");
        setup.clock.advance(Duration::from_hours(1));
        assert_eq!(setup.ask(&[("X-Sig", &value)], BODY).await, GOOD);
    }
}

#[tokio::test]
async fn what_was_seen_is_known_after_a_reload_with_another_secret_beside_it() {
    let first = setup("hmac_signature: { style: stripe, secrets: [one] }");
    let time = NOW.to_string();
    let signature = hex::lower(&sign(hmac::HMAC_SHA256, b"one", &[time.as_bytes(), b".", BODY]));
    let value = format!("t={time},v1={signature}");
    assert_eq!(first.ask(&[("Stripe-Signature", &value)], BODY).await, GOOD);
    let yaml = "hmac_signature: { style: stripe, secrets: [two, one] }";
    let second = build(yaml, &first.clock, &first.state);
    drop(first.plugin);
    assert_eq!(ask(&second, &[("Stripe-Signature", &value)], BODY).await, INVALID);
}

/// The work for a request tells nothing of the secrets: not whether one of them fits, nor which.
#[tokio::test]
async fn whatever_is_wrong_with_a_signature_it_costs_as_much_as_a_right_one() {
    const SECRETS: usize = 3;
    let setup = setup("hmac_signature: { style: stripe, secrets: [one, two, three] }");
    let value = |time: u64, secret: &str, body: &[u8]| {
        let signed = sign(hmac::HMAC_SHA256, secret.as_bytes(), &[time.to_string().as_bytes(), b".", body]);
        format!("t={time},v1={}", hex::lower(&signed))
    };
    let late = NOW - 301;
    for (what, value, expected, computed) in [
        ("by the first secret", value(NOW, "one", BODY), GOOD, SECRETS),
        ("by the second", value(NOW, "two", BODY), GOOD, SECRETS),
        ("by the last", value(NOW, "three", BODY), GOOD, SECRETS),
        ("a second time", value(NOW, "one", BODY), INVALID, SECRETS),
        ("by nobody's secret", value(NOW, "four", BODY), INVALID, SECRETS),
        ("of another body", value(NOW, "one", b"other"), INVALID, SECRETS),
        ("of another length", format!("t={NOW},v1=00"), INVALID, SECRETS),
        ("several", format!("{},v1={}", value(NOW + 1, "one", BODY), "00".repeat(32)), GOOD, SECRETS),
        // By what the sender has written for all to see, before its body is read.
        ("late, and right", value(late, "one", BODY), INVALID, 0),
        ("late, and wrong", value(late, "four", BODY), INVALID, 0),
        ("unreadable", "t=1".into(), INVALID, 0),
    ] {
        COMPUTED.set(0);
        assert_eq!(setup.ask(&[("Stripe-Signature", &value)], BODY).await, expected, "{what}");
        assert_eq!(COMPUTED.get(), computed, "{what}");
    }
    // Late by the time that its body is there.
    for secret in ["one", "four"] {
        let value = value(setup.clock.unix(), secret, b"slow");
        let (mut req, mut ctx) = (request("POST", &[("Stripe-Signature", &value)]), ctx());
        assert!(matches!(setup.plugin.on_request(&mut req, &mut ctx).await.unwrap(), Decision::Continue));
        setup.clock.advance(Duration::from_secs(301));
        COMPUTED.set(0);
        let decision =
            setup.plugin.on_request_body(&mut Bytes::from_static(b"slow"), &mut req, &mut ctx).await.unwrap();
        assert!(matches!(decision, Decision::Respond(_)), "{secret}");
        assert_eq!(COMPUTED.get(), SECRETS, "{secret}");
    }
}

#[tokio::test]
async fn who_may_stay_anonymous_passes_without_a_signature() {
    let setup = setup("hmac_signature: { style: github, secrets: [s], consumer: billing }");
    let (mut req, mut ctx) = (request("POST", &[]), ctx());
    assert!(matches!(setup.plugin.on_request(&mut req, &mut ctx).await.unwrap(), Decision::Absent(_)));
    let decision = setup.plugin.on_request_body(&mut Bytes::new(), &mut req, &mut ctx).await.unwrap();
    assert!(matches!(decision, Decision::Absent(_)));
    assert!(setup.plugin.on_upstream_request(&mut req, &mut ctx).is_ok());
    assert!(ctx.consumer.is_none());
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    for (settings, place) in [
        ("style: generic, secrets: [s]", "style"),
        ("style: generic, secrets: [s], header: Host", "header"),
        ("style: github, secrets: [s], header: X-A", "header"),
        ("style: stripe, secrets: [s], encoding: hex", "encoding"),
        ("style: stripe, secrets: [s], prefix: v1", "prefix"),
        ("style: github, secrets: [s], tolerance: 1m", "tolerance"),
        ("style: stripe, secrets: [s], replay_window: 1m", "replay_window"),
        ("style: stripe, secrets: [s], tolerance: 0s", "tolerance"),
        ("style: github, secrets: [s], replay_window: 0s", "replay_window"),
        ("style: github, secrets: []", "secrets"),
        ("style: standard_webhooks, secrets: [whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, \"not base64!\"]", "secrets/1"),
        ("style: standard_webhooks, secrets: [whsec_c2hvcnQ=]", "secrets/0"),
        ("style: github, secrets: [s], max_body: 0B", "max_body"),
        ("style: github, secrets: [s], consumer: nobody", "consumer"),
    ] {
        assert_eq!(refused(&format!("hmac_signature: {{ {settings} }}")).0, place, "{settings}");
    }
}
