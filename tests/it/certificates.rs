//! Certificates of listeners as operators see them, and the gateway's own towards upstreams.

use std::process::Command;

use crate::harness::{BINARY, Folder, Gateway};

const ROUTES: &str =
    "routes: [{ name: all, match: { path: / }, auth: none, plugins: [{ respond: { status: 200 } }] }]\n";

fn listening(certificates: &[String], more: &str) -> String {
    let certificates = certificates.join(", ");
    format!(
        "listeners:\n  - {{ name: public, address: \"127.0.0.1:0\" }}\n  - name: secure\n    address: 127.0.0.2:0\n    tls: {{ certificates: [{certificates}]{more} }}\n{ROUTES}"
    )
}

const EXPIRY: &str = "crossway_tls_certificate_expiry_timestamp_seconds";

#[test]
fn certificates_in_force_are_shown_with_their_end() {
    let folder = Folder::new();
    folder.make("one", &["one.test", "*.one.test"], 2040);
    folder.make("two", &["192.0.2.7"], 2050);
    let mut gateway = Gateway::start(&listening(&[folder.pair("one"), folder.pair("two")], ""));
    let series = |name: &str| format!("{EXPIRY}{{certificate=\"{name}\",listener=\"secure\"}}");
    assert_eq!(gateway.metric(&series("one.test")), 2_208_988_800.0);
    assert_eq!(gateway.metric(&series("192.0.2.7")), 2_524_608_000.0);
    let shown = |gateway: &Gateway, name: &str| {
        let status = gateway.status();
        let listeners = status["listeners"].as_array().unwrap().clone();
        listeners.into_iter().find(|l| l["name"] == name).unwrap()["certificates"].clone()
    };
    let certificates = shown(&gateway, "secure");
    assert_eq!(certificates[0]["names"], serde_json::json!(["one.test", "*.one.test"]));
    assert_eq!(certificates[0]["not_after"], "2040-01-01T00:00:00Z");
    assert!(certificates[0]["expires_in_days"].as_i64().unwrap() > 1000, "{certificates}");
    assert_eq!(certificates[1]["names"], serde_json::json!(["192.0.2.7"]));
    assert_eq!(shown(&gateway, "public"), serde_json::json!([]));

    folder.make("one", &["renewed.test"], 2041);
    assert_eq!(gateway.reload(&listening(&[folder.pair("one")], "")).status, 200);
    let text = gateway.admin("GET /metrics").text();
    assert_eq!(text.lines().filter(|line| line.starts_with(EXPIRY)).count(), 1, "{text}");
    assert_eq!(gateway.metric(&series("renewed.test")), 2_240_611_200.0);
    assert!(text.contains("crossway_tls_handshakes_total{listener=\"secure\",result=\"resumed\"} 0"), "{text}");

    assert_eq!(gateway.reload(ROUTES).status, 200);
    let text = gateway.admin("GET /metrics").text();
    assert!(!text.contains(EXPIRY) && !text.contains("listener=\"secure\""), "{text}");
}

#[test]
fn a_certificate_that_ended_is_a_warning_wherever_a_configuration_is_read() {
    let folder = Folder::new();
    folder.make("old", &["old.test"], 2020);
    folder.make("new", &["new.test"], 2040);
    let text = listening(&[folder.pair("old")], ", hosts: [{ names: [elsewhere.test] }]");
    std::fs::write(folder.path().join("c.yaml"), &text).unwrap();
    let output = Command::new(BINARY).current_dir(folder.path()).args(["check", "c.yaml"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let expired = "warning: `cert` names a certificate that expired on 2020-01-01T00:00:00Z";
    assert!(output.status.success(), "{said}");
    assert!(said.contains(expired) && said.contains("c.yaml:5:"), "{said}");
    assert!(said.contains("warning: an item of `names` is in no certificate of this listener"), "{said}");

    let mut gateway = Gateway::start(&text);
    assert!(gateway.stderr().contains(expired), "{}", gateway.stderr());
    let certificates = &gateway.status()["listeners"];
    assert!(certificates.to_string().contains("\"not_after\":\"2020-01-01T00:00:00Z\""), "{certificates}");
    let answer = gateway.reload(&listening(&[folder.pair("new")], ""));
    assert_eq!((answer.status, answer.json()["warnings"].as_str()), (200, Some("")));
    let answer = gateway.reload(&text);
    assert_eq!(answer.status, 200);
    assert!(answer.json()["warnings"].as_str().unwrap().contains(expired), "{}", answer.text());
}

#[test]
fn keys_are_never_shown() {
    let folder = Folder::new();
    folder.make("one", &["one.test"], 2040);
    folder.make("two", &["two.test"], 2040);
    let mut gateway = Gateway::start(&listening(&[folder.pair("one")], ""));
    std::fs::copy(folder.file("two", "key"), folder.file("one", "key")).unwrap();
    let refused = gateway.reload(&listening(&[folder.pair("one")], ""));
    refused.assert_problem(422, "config_invalid");
    let message = refused.json()["errors"][0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("is not the key of this certificate"), "{message}");
    let key = std::fs::read_to_string(folder.file("two", "key")).unwrap();
    let seen = refused.text() + &gateway.stderr() + &gateway.status().to_string();
    for line in key.lines() {
        assert!(!seen.contains(line), "{seen}");
    }
}

mod upstream {
    //! The certificate that the gateway presents to upstreams.

    use std::{
        io::{BufRead as _, BufReader, Write as _},
        net::{TcpListener, TcpStream},
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use rustls::{
        RootCertStore, ServerConfig, ServerConnection, StreamOwned,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    };

    use super::Folder;
    use crate::harness::{Gateway, eventually};

    /// A server that says, for each request, on which connection it came and whose certificate that showed.
    struct Server {
        address: String,
        stopped: Arc<AtomicBool>,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.stopped.store(true, Ordering::SeqCst);
            // Wakes the thread that accepts.
            let _ = TcpStream::connect(&self.address);
        }
    }

    type Known = Arc<Vec<(&'static str, Vec<u8>)>>;

    fn config(folder: &Folder, required: bool, versions: &[&'static rustls::SupportedProtocolVersion]) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(folder.authority.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
        let chain = CertificateDer::pem_file_iter(folder.file("server", "pem")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(folder.file("server", "key")).unwrap();
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap()
    }

    impl Server {
        fn start(config: ServerConfig, known: Vec<(&'static str, Vec<u8>)>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let (config, known, stopped): (_, Known, Arc<AtomicBool>) =
                (Arc::new(config), Arc::new(known), Arc::default());
            let stop = Arc::clone(&stopped);
            std::thread::spawn(move || {
                let wanted = |_: &TcpStream| !stop.load(Ordering::SeqCst);
                for (at, stream) in listener.incoming().flatten().take_while(wanted).enumerate() {
                    let (config, known) = (Arc::clone(&config), Arc::clone(&known));
                    std::thread::spawn(move || serve(stream, config, at, &known));
                }
            });
            Self { address, stopped }
        }
    }

    fn serve(stream: TcpStream, config: Arc<ServerConfig>, at: usize, known: &Known) -> Option<()> {
        let mut tls = StreamOwned::new(ServerConnection::new(config).ok()?, stream);
        loop {
            let mut reader = BufReader::with_capacity(1, &mut tls);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                if line == "\r\n" {
                    break;
                }
            }
            let shown = tls.conn.peer_certificates().map(|chain| chain[0].to_vec());
            let name = known.iter().find(|(_, der)| Some(der) == shown.as_ref()).map_or("nobody", |(name, _)| name);
            let body = format!("{at} {name}");
            write!(tls, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()?;
            tls.flush().ok()?;
        }
    }

    const WAYS: [&str; 2] = ["", "{ respond: { instead_of: [418], status: 200, body: replaced } }"];

    fn gateway_config(server: &Server, folder: &Folder, client: &str, way: &str) -> String {
        format!(
            "upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}], tls: {{ server_name: server.test, ca: \"{}\"{client} }}, retry: {{ attempts: 0 }} }} }}
routes: [{{ name: all, match: {{ path: / }}, auth: none, plugins: [{way}], upstream: back }}]\n",
            server.address,
            folder.file("ca", "pem").display(),
        )
    }

    #[test]
    fn who_demands_a_certificate_gets_the_one_that_is_configured() {
        let (folder, strangers) = (Folder::new(), Folder::new());
        folder.make("server", &["server.test"], 2040);
        let gateway_der = folder.make("gateway", &["gateway.test"], 2040);
        strangers.make("stranger", &["gateway.test"], 2040);
        // With TLS 1.3 the server's refusal comes after the handshake.
        for (version, code) in [(&rustls::version::TLS12, "upstream_tls"), (&rustls::version::TLS13, "upstream_reset")]
        {
            let server = Server::start(config(&folder, true, &[version]), vec![("gateway", gateway_der.clone())]);
            for way in WAYS {
                let ask = |client: &str| Gateway::start(&gateway_config(&server, &folder, client, way)).get("/");
                let good = ask(&format!(", client: {}", folder.pair("gateway")));
                assert_eq!(good.status, 200, "{good:?}");
                assert!(good.text().ends_with(" gateway"), "{good:?}");
                ask("").assert_problem(502, code);
                ask(&format!(", client: {}", strangers.pair("stranger"))).assert_problem(502, code);
            }
        }
    }

    #[test]
    fn a_connection_of_one_certificate_is_not_used_for_another() {
        let folder = Folder::new();
        folder.make("server", &["server.test"], 2040);
        let (one, two) = (folder.make("one", &["one.test"], 2040), folder.make("two", &["two.test"], 2040));
        let server = Server::start(
            config(&folder, false, rustls::DEFAULT_VERSIONS),
            vec![("one", one.clone()), ("two", two.clone())],
        );
        for way in WAYS {
            let configured = |client: Option<&str>| {
                let client = client.map_or_else(String::new, |name| format!(", client: {}", folder.pair(name)));
                gateway_config(&server, &folder, &client, way)
            };
            let mut gateway = Gateway::start(&configured(Some("one")));
            // The answer may be here before the connection is back in the pool, and there may be several of them.
            let mut seen: Vec<String> = Vec::new();
            eventually("a connection is used again", || {
                let answer = gateway.get("/").text();
                assert!(answer.ends_with(" one"), "{answer}");
                let again = seen.contains(&answer);
                seen.push(answer);
                again.then_some(())
            });
            for (client, name) in [(Some("two"), " two"), (None, " nobody"), (Some("one"), " one")] {
                assert_eq!(gateway.reload(&configured(client)).status, 200);
                let answer = gateway.get("/").text();
                assert!(answer.ends_with(name), "{answer}");
            }
        }
    }
}
