//! Client certificates.

use std::{
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::SanType;
use rustls::{
    ALL_VERSIONS,
    version::{TLS12, TLS13},
};

use crate::harness::{Folder, Gateway, Response, Secure, Trust, Upstream, eventually};

const HOST: &str = "api.test";
const URI: &str = "spiffe://acme.test/device/7";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.make("server", &[HOST], 2040);
    let named = |file: &str, uri: &'static str| {
        folder.make_with(file, &["Device-7.acme.test"], |params| {
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        });
    };
    named("device", URI);
    named("stranger", "spiffe://acme.test/device/8");
    folder
}

fn config(folder: &Folder, upstream: &Upstream, consumers: &str, settings: &str) -> String {
    format!(
        "listeners:
  - name: public
    address: 127.0.0.1:0
    tls: {{ certificates: [{}], client_auth: {{ ca: \"{}\", mode: optional }} }}
consumers: [{consumers}]
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, upstream: back, plugins: [{{ client_certificate: {{ {settings} }} }}] }}]\n",
        folder.pair("server"),
        folder.file("ca", "pem").display(),
        upstream.address(),
    )
}

fn device() -> String {
    format!("{{ name: device-7, groups: [devices], credentials: [{{ client_certificate: {{ uri: \"{URI}\" }} }}] }}")
}

fn get(gateway: &Gateway, trust: &Trust) -> Response {
    Secure::connect(&gateway.address(), HOST, trust).unwrap().get(HOST, "/").unwrap()
}

#[test]
fn client_certificate() {
    let (folder, upstream) = (folder(), Upstream::echo());
    let settings = "forward: { uri: X-Client-Uri, dns: X-Client-Dns }";
    let gateway = Gateway::start(&config(&folder, &upstream, &device(), settings));
    for version in [&TLS12, &TLS13] {
        let with = |file: &str| Trust::of(&folder, Some((&folder, file)), &[version]);
        let nobody = get(&gateway, &Trust::of(&folder, None, &[version]));
        nobody.assert_problem(401, "client_certificate_missing");
        assert_eq!(nobody.header("www-authenticate"), Some("ClientCertificate realm=\"crossway\""));
        get(&gateway, &with("stranger")).assert_problem(401, "client_certificate_invalid");
        let (before, device) = (upstream.received().len(), with("device"));
        for is_resumed in [false, true] {
            let mut client = Secure::connect(&gateway.address(), HOST, &device).unwrap();
            assert_eq!(client.get(HOST, "/").unwrap().status, 200);
            assert_eq!(client.is_resumed(), is_resumed, "{version:?}");
        }
        for seen in &upstream.received()[before..] {
            let consumer = (seen.header("x-consumer-name"), seen.header("x-consumer-groups"));
            assert_eq!(consumer, (Some("device-7"), Some("devices")));
            assert_eq!(seen.header("x-client-uri"), Some(URI));
            assert_eq!(seen.header("x-client-dns"), Some("device-7.acme.test"));
        }
        assert_eq!(upstream.received().len(), before + 2);
    }
}

/// Several requests on one HTTP/2 connection; what they say of a certificate themselves counts for nothing.
#[test]
fn a_certificate_counts_on_http2_and_fields_do_not() {
    let (folder, upstream) = (folder(), Upstream::echo());
    let gateway = Gateway::start(&config(&folder, &upstream, &device(), "forward: { uri: X-Client-Uri }"));
    let port = gateway.address().rsplit(':').next().unwrap().to_owned();
    let url = format!("https://{HOST}:{port}/");
    let ask = |more: &[&str]| {
        let output = Command::new("curl")
            // OpenSSL takes the server's certificate for a self-signed one, because it is named like its authority.
            .args(["-sSk", "--http2", "--resolve", &format!("{HOST}:{port}:127.0.0.1")])
            .args(["-H", &format!("X-Client-Uri: {URI}"), "-H", "X-Consumer-Name: device-7", "-o", "/dev/null"])
            .args(["-w", "%{http_version} %{http_code}\n", "-o", "/dev/null"])
            .args(more)
            .args([&url, &url])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(ask(&[]), "2 401\n2 401\n");
    assert!(upstream.received().is_empty());
    let (cert, key) = (folder.file("device", "pem"), folder.file("device", "key"));
    let own = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    assert_eq!(ask(&own), "2 200\n2 200\n");
    for seen in upstream.received() {
        assert_eq!((seen.header("x-client-uri"), seen.header("x-consumer-name")), (Some(URI), Some("device-7")));
    }
}

#[test]
fn a_consumer_that_a_reload_removes_is_nobody() {
    let (folder, upstream) = (folder(), Upstream::echo());
    let trust = Trust::of(&folder, Some((&folder, "device")), ALL_VERSIONS);
    let mut gateway = Gateway::start(&config(&folder, &upstream, &device(), ""));
    assert_eq!(get(&gateway, &trust).status, 200);
    let mut early = Secure::connect(&gateway.address(), HOST, &trust).unwrap();
    assert_eq!(gateway.reload(&config(&folder, &upstream, "", "")).status, 200);
    early.get(HOST, "/").unwrap().assert_problem(401, "client_certificate_invalid");
    get(&gateway, &trust).assert_problem(401, "client_certificate_invalid");
}

/// A session that is resumed brings the certificate of its beginning, which may have ended since.
#[test]
fn an_old_session_does_not_outlive_its_certificate() {
    let (folder, upstream) = (folder(), Upstream::echo());
    let gateway = Gateway::start(&config(&folder, &upstream, "", "require_consumer: false"));
    let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let end = seconds() + 5;
    folder.make_with("short", &["short.acme.test"], |params| {
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
    });
    let trusts = [&TLS12, &TLS13].map(|version| Trust::of(&folder, Some((&folder, "short")), &[version]));
    for trust in &trusts {
        assert_eq!(get(&gateway, trust).status, 200);
    }
    eventually("the certificate ends", || (seconds() > end + 1).then_some(()));
    for trust in &trusts {
        let client = Secure::connect(&gateway.address(), HOST, trust);
        let answer = client.and_then(|mut client| client.get(HOST, "/"));
        assert!(answer.is_err(), "{answer:?}");
    }
}

/// A name that could be read in two ways makes nobody anonymous: the connection ends.
#[test]
fn a_certificate_that_cannot_be_read_is_no_missing_one() {
    let (folder, upstream) = (folder(), Upstream::echo());
    folder.make_with("odd", &[], |params| {
        params.subject_alt_names = vec![SanType::URI("spiffe://acme.test/device/7 x".try_into().unwrap())];
    });
    let config = config(&folder, &upstream, &device(), "").replace("{  } }]", "{  }, required: false }], auth: none");
    assert!(config.contains("required: false"));
    let gateway = Gateway::start(&config);
    assert_eq!(get(&gateway, &Trust::of(&folder, None, ALL_VERSIONS)).status, 200, "anonymous callers may pass");
    let trust = Trust::of(&folder, Some((&folder, "odd")), ALL_VERSIONS);
    let answer = Secure::connect(&gateway.address(), HOST, &trust).and_then(|mut client| client.get(HOST, "/"));
    assert!(answer.is_err(), "{answer:?}");
}

#[test]
fn a_listener_that_asks_nobody_is_a_warning_beside_one_that_asks() {
    let (folder, upstream) = (folder(), Upstream::echo());
    let config = config(&folder, &upstream, &device(), "")
        .replace("listeners:\n", "listeners:\n  - { name: plain, address: \"127.0.0.1:0\" }\n");
    let config = config.replacen("127.0.0.1:0", "127.0.0.2:0", 1);
    let gateway = Gateway::start(&config);
    let said = gateway.stderr();
    assert!(said.contains("the listener `plain` asks no client for a certificate"), "{said}");
    let plain = gateway.listener("plain").unwrap();
    crate::harness::exchange(&plain, "GET /", &[], b"").assert_problem(401, "client_certificate_missing");
}
