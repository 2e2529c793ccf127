//! TLS towards clients.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rcgen::ExtendedKeyUsagePurpose;
use rustls::{
    ALL_VERSIONS,
    version::{TLS12, TLS13},
};

use crate::harness::{Answer, Finish, Folder, Gateway, Secure, Trust, Upstream, eventually, raw};

/// The names that the certificate of these tests has, and a host that is none of them.
const OPEN: &str = "open.test";
const CLOSED: &str = "closed.wild.test";

/// A gateway that listens on TLS: client certificates are demanded of one host and may be shown to another.
fn config(folder: &Folder, more: &str) -> String {
    let ca = folder.file("ca", "pem");
    let ca = ca.display();
    format!(
        "listeners:
  - name: public
    address: 127.0.0.1:0
    limits: {{ client: {{ header_deadline: 2s }} }}
    tls:
      certificates: [{}]
      hosts:
        - {{ names: [{CLOSED}], client_auth: {{ ca: \"{ca}\", mode: required }} }}
        - {{ names: [maybe.wild.test], client_auth: {{ ca: \"{ca}\", mode: optional }} }}
{more}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, plugins: [{{ request_id: {{}} }}, {{ respond: {{ status: 200, body: here }} }}] }}]\n",
        folder.pair("one"),
    )
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.make("one", &[OPEN, "*.wild.test"], 2040);
    folder
}

/// The status of one request, or that there was none.
fn status(gateway: &Gateway, name: &str, host: &str, trust: &Trust) -> Option<u16> {
    let mut client = Secure::connect(&gateway.address(), name, trust).ok()?;
    client.get(host, "/").ok().map(|answer| answer.status)
}

#[test]
fn a_request_over_tls_is_one_over_https() {
    let folder = folder();
    let upstream = Upstream::start(|_| Answer::ok("there"));
    let gateway = Gateway::start(&format!(
        "listeners: [{{ name: public, address: \"127.0.0.1:0\", tls: {{ certificates: [{}] }} }}]
upstreams: {{ up: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: up }}]\n",
        folder.pair("one"),
        upstream.address(),
    ));
    let mut client = Secure::connect(&gateway.address(), OPEN, &Trust::of(&folder, None, ALL_VERSIONS)).unwrap();
    assert_eq!(client.get(OPEN, "/x").unwrap().text(), "there");
    let received = upstream.received();
    assert_eq!(received[0].header("x-forwarded-proto"), Some("https"));
    assert_eq!(received[0].header("x-forwarded-port"), Some("443"));
    // A URL of another scheme is not for this connection.
    let mut client = Secure::connect(&gateway.address(), OPEN, &Trust::of(&folder, None, ALL_VERSIONS)).unwrap();
    client.get(OPEN, "http://open.test/x").unwrap().assert_problem(400, "bad_request_line");
    let (plain, closed) = raw(&gateway.address(), b"GET / HTTP/1.1\r\nHost: t\r\n\r\n", Duration::from_secs(5));
    assert!(closed && !plain.contains("HTTP/1.1"), "{plain:?}");
}

#[test]
fn each_host_has_its_own_rule_for_client_certificates() {
    let (folder, strangers) = (folder(), Folder::new());
    folder.make("device", &["device-1"], 2040);
    folder.make("expired", &["device-1"], 2020);
    folder.make_with("later", &["device-1"], |p| p.not_before = rcgen::date_time_ymd(2039, 1, 1));
    folder.make_with("server", &["device-1"], |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    strangers.make("device", &["device-1"], 2040);
    let gateway = Gateway::start(&config(&folder, ""));
    for version in [&TLS12, &TLS13] {
        let with = |own| Trust::of(&folder, own, &[version]);
        let nobody = with(None);
        let device = with(Some((&folder, "device")));
        assert_eq!(status(&gateway, OPEN, OPEN, &nobody), Some(200));
        assert_eq!(status(&gateway, OPEN, OPEN, &device), Some(200));
        assert_eq!(status(&gateway, CLOSED, CLOSED, &nobody), None);
        assert_eq!(status(&gateway, CLOSED, CLOSED, &device), Some(200));
        assert_eq!(status(&gateway, "maybe.wild.test", "maybe.wild.test", &nobody), Some(200));
        assert_eq!(status(&gateway, "maybe.wild.test", "maybe.wild.test", &device), Some(200));
        for bad in ["expired", "later", "server"] {
            let client = with(Some((&folder, bad)));
            assert_eq!(status(&gateway, CLOSED, CLOSED, &client), None, "{bad}");
            assert_eq!(status(&gateway, "maybe.wild.test", "maybe.wild.test", &client), None, "{bad}");
        }
        let stranger = with(Some((&strangers, "device")));
        assert_eq!(status(&gateway, CLOSED, CLOSED, &stranger), None);
    }
    assert!(gateway.metric("crossway_tls_handshakes_total{listener=\"public\",result=\"failed\"}") >= 8.0);
}

#[test]
fn a_connection_for_one_host_does_not_serve_another_where_certificates_are_asked_for() {
    let folder = folder();
    folder.make("device", &["device-1"], 2040);
    let gateway = Gateway::start(&config(&folder, ""));
    let nobody = Trust::of(&folder, None, ALL_VERSIONS);
    let device = Trust::of(&folder, Some((&folder, "device")), ALL_VERSIONS);
    for (name, host, trust, expected) in [
        (OPEN, CLOSED, &nobody, 421),
        (OPEN, "CLOSED.wild.test.", &nobody, 421),
        (OPEN, "closed.wild.test:443", &nobody, 421),
        (OPEN, "maybe.wild.test", &nobody, 421),
        ("other.wild.test", CLOSED, &device, 421),
        (CLOSED, OPEN, &device, 421),
        (CLOSED, "maybe.wild.test", &device, 421),
        (CLOSED, "Closed.Wild.Test:8443", &device, 200),
        // Nobody is asked for a certificate for either of them.
        (OPEN, "other.wild.test", &nobody, 200),
        (OPEN, "elsewhere.test", &nobody, 200),
    ] {
        assert_eq!(status(&gateway, name, host, trust), Some(expected), "{name} {host}");
    }
    let mut client = Secure::connect(&gateway.address(), OPEN, &nobody).unwrap();
    client.get(CLOSED, "/").unwrap().assert_problem(421, "misdirected_request");
    // The target names the host too.
    let mut client = Secure::connect(&gateway.address(), OPEN, &nobody).unwrap();
    let answer = client.get(CLOSED, &format!("https://{CLOSED}/")).unwrap();
    assert_eq!(answer.status, 421);
}

#[test]
fn sessions_are_resumed_for_the_same_host_only_and_over_a_reload() {
    let folder = folder();
    folder.make("device", &["device-1"], 2040);
    let mut gateway = Gateway::start(&config(&folder, ""));
    for version in [&TLS12, &TLS13] {
        let device = Trust::of(&folder, Some((&folder, "device")), &[version]);
        let connect = |gateway: &Gateway, name: &str| {
            let mut client = Secure::connect(&gateway.address(), name, &device).unwrap();
            assert_eq!(client.get(name, "/").unwrap().status, 200);
            client.is_resumed()
        };
        assert!(!connect(&gateway, OPEN), "the first one");
        assert!(connect(&gateway, OPEN), "{version:?}");
        assert!(!connect(&gateway, CLOSED), "a session of one host is none of another");
        assert!(connect(&gateway, CLOSED));
        assert_eq!(gateway.reload(&config(&folder, "telemetry: { access_log: { to: stdout } }")).status, 200);
        assert!(connect(&gateway, OPEN), "nothing about TLS has changed");
        assert_eq!(gateway.reload(&config(&folder, "")).status, 200);
    }
    assert!(gateway.metric("crossway_tls_handshakes_total{listener=\"public\",result=\"resumed\"}") >= 6.0);
}

#[test]
fn both_sides_agree_on_a_protocol() {
    let folder = folder();
    let gateway = Gateway::start(&config(&folder, ""));
    let plain = Trust::of(&folder, None, ALL_VERSIONS);
    for (offered, agreed) in
        [(&["h2", "http/1.1"][..], Some(&b"h2"[..])), (&["http/1.1"], Some(b"http/1.1")), (&[], None)]
    {
        let client = Secure::connect(&gateway.address(), OPEN, &plain.offering(offered)).unwrap();
        assert_eq!(client.0.conn.alpn_protocol(), agreed, "{offered:?}");
    }
    assert!(Secure::connect(&gateway.address(), OPEN, &plain.offering(&["spdy/3"])).is_err());
}

#[test]
fn the_oldest_version_and_the_suites_are_those_of_the_configuration() {
    let folder = folder();
    let listening = |tls: &str| {
        format!(
            "listeners: [{{ name: public, address: \"127.0.0.1:0\", tls: {{ certificates: [{}], {tls} }} }}]
routes: [{{ name: all, match: {{ path: / }}, auth: none, plugins: [{{ respond: {{ status: 200 }} }}] }}]\n",
            folder.pair("one")
        )
    };
    let gateway = Gateway::start(&listening("min_version: \"1.3\""));
    let (old, new) = (Trust::of(&folder, None, &[&TLS12]), Trust::of(&folder, None, &[&TLS13]));
    assert_eq!(status(&gateway, OPEN, OPEN, &old), None);
    assert_eq!(status(&gateway, OPEN, OPEN, &new), Some(200));
    let suites = "ciphers: [TLS_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]";
    let gateway = Gateway::start(&listening(suites));
    for (trust, suite) in [
        (&new, rustls::CipherSuite::TLS13_AES_128_GCM_SHA256),
        (&old, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ] {
        let client = Secure::connect(&gateway.address(), OPEN, trust).unwrap();
        assert_eq!(client.0.conn.negotiated_cipher_suite().unwrap().suite(), suite);
    }
    // A ClientHello of TLS 1.0, and one of nothing.
    for hello in [&b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x01"[..], b"\x16\x03\x01\xff\xff", b"SSH-2.0-x\r\n"] {
        let mut bytes = hello.to_vec();
        bytes.resize(64, 0);
        let (answer, closed) = raw(&gateway.address(), &bytes, Duration::from_secs(12));
        assert!(closed && !answer.contains("HTTP"), "{hello:?} {answer:?}");
    }
}

#[test]
fn who_does_not_finish_the_handshake_is_cut_at_the_deadline() {
    let folder = folder();
    let gateway = Gateway::start(&config(&folder, ""));
    let begun = Instant::now();
    let silent = TcpStream::connect(gateway.address()).unwrap();
    let mut dripping = TcpStream::connect(gateway.address()).unwrap();
    let mut waiting = [silent, dripping.try_clone().unwrap()];
    let dripper = std::thread::spawn(move || {
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".iter().cycle().take(40) {
            if dripping.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    });
    for stream in &mut waiting {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)));
        let waited = begun.elapsed();
        assert!((Duration::from_secs(1)..Duration::from_secs(6)).contains(&waited), "{waited:?}");
    }
    dripper.join().unwrap();
    let timeouts = "crossway_tls_handshakes_total{listener=\"public\",result=\"timeout\"}";
    eventually("both are counted", || (gateway.metric(timeouts) >= 2.0).then_some(()));
}

#[test]
fn certificates_are_renewed_under_load_and_a_wrong_key_changes_nothing() {
    let folder = folder();
    let gateway = Gateway::start(&config(&folder, ""));
    let trust = Trust::of(&folder, None, ALL_VERSIONS);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut served = 0;
                    while !done.load(Ordering::SeqCst) {
                        assert_eq!(status(&gateway, OPEN, OPEN, &trust), Some(200));
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        let finish = Finish(&done);
        for round in 0..10 {
            let before = gateway.generation();
            let good = round % 3 != 2;
            let made = folder.make("one", &[OPEN, "*.wild.test"], 2041 + round);
            if !good {
                folder.make("two", &["two.test"], 2040);
                std::fs::copy(folder.file("two", "key"), folder.file("one", "key")).unwrap();
            }
            gateway.signal("HUP");
            let reloads = if good { "ok" } else { "error" };
            let counted = format!("crossway_config_reloads_total{{result=\"{reloads}\"}}");
            let wanted: f64 = (0..=round).filter(|r| (r % 3 != 2) == good).map(|_| 1.0).sum();
            eventually("the reload ends", || (gateway.metric(&counted) >= wanted).then_some(()));
            assert_eq!(gateway.generation(), before + u64::from(good));
            let client = Secure::connect(&gateway.address(), OPEN, &Trust::of(&folder, None, ALL_VERSIONS)).unwrap();
            let shown = client.0.conn.peer_certificates().unwrap()[0].to_vec();
            assert_eq!(shown == made, good, "round {round}");
        }
        drop(finish);
        let served: u32 = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(served > 20, "{served}");
    });
}
