use std::collections::BTreeMap;

use crossway_plugin_api::{CertificateName, Consumer, Digest256};

use super::*;
use crate::testing::{ctx, parse, refused, reply_values, request, run, values};

fn certificate() -> ClientCertificate {
    ClientCertificate {
        subject: "CN=device-7,O=Acme".into(),
        issuer: "CN=ca".into(),
        serial: "01".into(),
        dns: vec!["device-7.acme.test".into()],
        uris: vec!["spiffe://acme.test/device/7".into()],
        emails: vec!["seven@acme.test".into()],
        sha256: Digest256([7; 32]),
    }
}

/// The plugin, with consumers of these certificates.
fn plugin(yaml: &str, known: &[(&str, CertificateName)]) -> Arc<dyn Plugin> {
    let mut consumers = ConsumerDirectory::default();
    for (name, certificate) in known {
        let consumer = Arc::new(Consumer::new(name, &[], BTreeMap::new()).unwrap());
        consumers.add_credential(Credential::Certificate(certificate.clone()), &consumer).unwrap();
    }
    parse(yaml).unwrap().build(&Deps { consumers: Arc::new(consumers), ..Deps::default() }).unwrap()
}

fn shown() -> Ctx {
    Ctx { client_certificate: Some(Arc::new(certificate())), ..ctx() }
}

/// What becomes of a request with the certificate: the consumer, or the code of the refusal.
async fn outcome(plugin: &Arc<dyn Plugin>) -> Result<Option<String>, &'static str> {
    let mut ctx = shown();
    match run(plugin, &mut request("GET", &[]), &mut ctx).await {
        None => Ok(ctx.consumer.map(|consumer| consumer.name().to_owned())),
        Some(reply) => {
            assert!(ctx.consumer.is_none() && ctx.refusal.is_some());
            assert_eq!(reply.status.as_u16(), 401);
            assert_eq!(reply_values(&reply, "www-authenticate"), "ClientCertificate realm=\"crossway\"");
            Err(reply.code().unwrap())
        }
    }
}

#[tokio::test]
async fn the_most_exact_name_says_whose_it_is() {
    let mut known = vec![
        ("by-subject", CertificateName::Subject(certificate().subject)),
        ("by-email", CertificateName::Email("seven@acme.test".into())),
        ("by-dns", CertificateName::Dns("device-7.acme.test".into())),
        ("by-uri", CertificateName::Uri("spiffe://acme.test/device/7".into())),
        ("by-digest", CertificateName::Sha256(Digest256([7; 32]))),
    ];
    while let Some((name, _)) = known.last() {
        let plugin = plugin("client_certificate: {}", &known);
        assert_eq!(outcome(&plugin).await, Ok(Some((*name).to_owned())));
        known.pop();
    }
}

#[tokio::test]
async fn a_certificate_of_nobody_is_refused_unless_it_will_do() {
    let strangers = [
        ("a", CertificateName::Subject("CN=device-7".into())),
        ("b", CertificateName::Dns("acme.test".into())),
        ("c", CertificateName::Uri("device-7.acme.test".into())),
        ("d", CertificateName::Sha256(Digest256([8; 32]))),
    ];
    let strict = plugin("client_certificate: {}", &strangers);
    assert_eq!(outcome(&strict).await, Err("client_certificate_invalid"));
    let open = plugin("client_certificate: { require_consumer: false }", &strangers);
    assert_eq!(outcome(&open).await, Ok(None));
}

#[tokio::test]
async fn lists_let_in_by_one_name() {
    for (lists, lets_in) in [
        ("subjects: [\"CN=device-*,O=Acme\"]", true),
        ("dns: [\"*.acme.test\"]", true),
        ("uris: [\"spiffe://acme.test/device/*\"]", true),
        ("subjects: [\"CN=other\"], dns: [\"*.acme.test\"]", true),
        ("subjects: [\"device-7.acme.test\"]", false),
        ("dns: [\"spiffe://*\"]", false),
        ("uris: [\"CN=*\"], dns: [other.test]", false),
    ] {
        let plugin = plugin(&format!("client_certificate: {{ require_consumer: false, {lists} }}"), &[]);
        let expected = if lets_in { Ok(None) } else { Err("client_certificate_invalid") };
        assert_eq!(outcome(&plugin).await, expected, "{lists}");
    }
}

#[tokio::test]
async fn without_a_certificate_the_credential_is_absent_whatever_fields_say() {
    let plugin = plugin("client_certificate: { require_consumer: false, forward: { subject: X-Client-Subject } }", &[]);
    let mut req = request("GET", &[("X-Client-Subject", "CN=device-7,O=Acme"), ("X-Client-Cert", "anything")]);
    let decision = plugin.on_request(&mut req, &mut ctx()).await.unwrap();
    let Decision::Absent(reply) = decision else { panic!("{decision:?}") };
    assert_eq!((reply.status.as_u16(), reply.code()), (401, Some("client_certificate_missing")));
    // An anonymous caller, where one may pass, brings nothing of its own.
    plugin.on_upstream_request(&mut req, &mut ctx()).unwrap();
    assert_eq!(values(&req.headers, "x-client-subject"), "");
}

#[tokio::test]
async fn the_upstream_is_told_what_the_certificate_says() {
    let plugin = plugin(
        "client_certificate: { require_consumer: false, forward: { subject: X-S, dns: X-D, uri: X-U, sha256: X-H } }",
        &[],
    );
    let mut req = request("GET", &[("X-S", "forged"), ("X-S", "twice")]);
    plugin.on_upstream_request(&mut req, &mut shown()).unwrap();
    assert_eq!(values(&req.headers, "x-s"), "CN=device-7,O=Acme");
    assert_eq!(values(&req.headers, "x-d"), "device-7.acme.test");
    assert_eq!(values(&req.headers, "x-u"), "spiffe://acme.test/device/7");
    assert_eq!(values(&req.headers, "x-h"), "07".repeat(32));
}

#[test]
fn fields_with_another_meaning_are_refused() {
    for name in ["Host", "X-Consumer-Name", "X-Forwarded-For", "Connection"] {
        assert_eq!(refused(&format!("client_certificate: {{ forward: {{ uri: {name} }} }}")).0, "forward/uri");
    }
    assert_eq!(refused("client_certificate: { forward: { subject: X-A, dns: x-a } }").0, "forward/dns");
}
