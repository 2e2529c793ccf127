//! What rustls clients get.

use std::io::{Read, Write};

use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, ProtocolVersion, RootCertStore,
    ServerConnection, SupportedProtocolVersion,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    server::Acceptor,
    version::{TLS12, TLS13},
};

use super::*;

const REQUIRED: ClientAuthMode = ClientAuthMode::Required;
const OPTIONAL: ClientAuthMode = ClientAuthMode::Optional;
const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
const ONLY_12: &[&SupportedProtocolVersion] = &[&TLS12];
const ONLY_13: &[&SupportedProtocolVersion] = &[&TLS13];

/// A client, with the sessions it remembers.
struct Client(Arc<ClientConfig>);

impl Client {
    fn new(trusts: &Authority) -> Self {
        Self::with(trusts, BOTH, None, |_| {})
    }

    fn with(
        trusts: &Authority,
        versions: &[&'static SupportedProtocolVersion],
        certificate: Option<&Made>,
        change: impl Fn(&mut ClientConfig),
    ) -> Self {
        let roots: RootCertStore = trusts.trusted().roots().unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(made) => {
                let pair = made.pair();
                let key = PrivateKeyDer::try_from(pair.secret().to_vec()).unwrap();
                builder.with_client_auth_cert(pair.chain().to_vec(), key).unwrap()
            }
        };
        config.resumption = Resumption::in_memory_sessions(8);
        change(&mut config);
        Self(Arc::new(config))
    }

    /// One handshake, and a byte both ways; an address as name sends no SNI.
    fn shake(&self, table: &TlsTable, name: &str) -> Result<Shaken, Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        let mut acceptor = Acceptor::default();
        acceptor.read_tls(&mut hello.as_slice()).unwrap();
        let accepted = acceptor.accept().map_err(|(error, _)| error)?.unwrap();
        let Some(host) = table.choose(accepted.client_hello().server_name()) else {
            client.read_tls(&mut UNRECOGNIZED_NAME.as_slice()).unwrap();
            return Err(client.process_new_packets().unwrap_err());
        };
        let mut server = accepted.into_connection(Arc::clone(&host.config)).map_err(|(error, _)| error)?;
        for _ in 0..8 {
            pass(&mut server, &mut client)?;
            pass(&mut client, &mut server)?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        for (from, to) in [(0, 1), (1, 0)] {
            let mut ends: [rustls::Connection; 2] = [client.into(), server.into()];
            ends[from].writer().write_all(b"x").unwrap();
            let mut bytes = Vec::new();
            ends[from].write_tls(&mut bytes).unwrap();
            ends[to].read_tls(&mut bytes.as_slice()).unwrap();
            ends[to].process_new_packets()?;
            ends[to].reader().read_exact(&mut [0]).unwrap();
            let [rustls::Connection::Client(one), rustls::Connection::Server(two)] = ends else { unreachable!() };
            (client, server) = (one, two);
        }
        Ok(Shaken::of(&client, &server, host.policy))
    }
}

/// Moves what one end has to say to the other.
fn pass<A, B, C, D>(from: &mut A, to: &mut B) -> Result<(), Error>
where
    A: std::ops::DerefMut<Target = rustls::ConnectionCommon<C>>,
    B: std::ops::DerefMut<Target = rustls::ConnectionCommon<D>>,
    C: rustls::SideData,
    D: rustls::SideData,
{
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets()?;
    }
    Ok(())
}

/// What came of a handshake.
#[derive(Debug)]
struct Shaken {
    certificate: CertificateDer<'static>,
    version: ProtocolVersion,
    suite: u16,
    alpn: Option<Vec<u8>>,
    kind: HandshakeKind,
    client: Option<CertificateDer<'static>>,
    policy: usize,
}

impl Shaken {
    fn of(client: &ClientConnection, server: &ServerConnection, policy: usize) -> Self {
        assert_eq!(client.handshake_kind(), server.handshake_kind());
        Self {
            certificate: client.peer_certificates().unwrap()[0].clone(),
            version: server.protocol_version().unwrap(),
            suite: server.negotiated_cipher_suite().unwrap().suite().into(),
            alpn: client.alpn_protocol().map(<[u8]>::to_vec),
            kind: server.handshake_kind().unwrap(),
            client: server.peer_certificates().map(|chain| chain[0].clone().into_owned()),
            policy,
        }
    }

    fn is_resumed(&self) -> bool {
        self.kind == HandshakeKind::Resumed
    }
}

#[test]
fn the_certificate_is_that_of_the_name() {
    let authority = Authority::new("ca");
    let default = authority.sign(&["default.test", "192.0.2.1"]);
    let (wild, exact) = (authority.sign(&["*.a.test"]), authority.sign(&["x.a.test"]));
    let table = TlsTable::new(settings(&[&default, &wild, &exact])).unwrap();
    let client = Client::new(&authority);
    for (name, made) in [
        ("default.test", &default),
        ("x.a.test", &exact),
        ("X.A.TEST", &exact),
        ("y.a.test", &wild),
        ("192.0.2.1", &default),
    ] {
        let shaken = client.shake(&table, name).unwrap();
        assert_eq!(shaken.certificate, made.pair().chain()[0], "{name}");
    }
    for name in ["y.x.a.test", "a.test", "unknown.test"] {
        let error = client.shake(&table, name).unwrap_err();
        assert!(matches!(error, Error::InvalidCertificate(_)), "{name} gets the default: {error}");
    }
}

#[test]
fn an_unknown_name_is_answered_with_its_alert() {
    let authority = Authority::new("ca");
    let pair = authority.sign(&["a.test", "192.0.2.1"]);
    let mut settings = settings(&[&pair]);
    settings.unknown_names = UnknownNames::Refuse;
    let table = TlsTable::new(settings).unwrap();
    let client = Client::new(&authority);
    let refused = client.shake(&table, "b.test").unwrap_err();
    assert_eq!(refused, Error::AlertReceived(AlertDescription::UnrecognisedName));
    assert!(client.shake(&table, "a.test").is_ok() && client.shake(&table, "192.0.2.1").is_ok());
}

#[test]
fn versions_and_suites_are_applied() {
    let authority = Authority::new("ca");
    let pair = authority.sign(&["a.test"]);
    let with = |min_version, ciphers: Option<&[u16]>| {
        let ciphers = ciphers.map(|list| list.iter().map(|number| CipherSuite(*number)).collect());
        TlsTable::new(Settings { min_version, ciphers, ..settings(&[&pair]) }).unwrap()
    };
    let shake = |table: &TlsTable, versions| Client::with(&authority, versions, None, |_| {}).shake(table, "a.test");
    let open = with(MinVersion::Tls12, None);
    assert_eq!(shake(&open, BOTH).unwrap().version, ProtocolVersion::TLSv1_3);
    assert_eq!(shake(&open, ONLY_12).unwrap().version, ProtocolVersion::TLSv1_2);
    let strict = with(MinVersion::Tls13, None);
    assert!(shake(&strict, ONLY_12).is_err());
    assert_eq!(shake(&strict, ONLY_13).unwrap().version, ProtocolVersion::TLSv1_3);
    let chosen = with(MinVersion::Tls12, Some(&[0x1303, 0x1301, 0xcca9, 0xc02b]));
    assert_eq!(shake(&chosen, ONLY_13).unwrap().suite, 0x1303, "the list's order, not the client's");
    assert_eq!(shake(&chosen, ONLY_12).unwrap().suite, 0xcca9);
    let one = with(MinVersion::Tls12, Some(&[0x1301, 0xc02c]));
    assert_eq!(shake(&one, ONLY_13).unwrap().suite, 0x1301);
    assert_eq!(shake(&one, ONLY_12).unwrap().suite, 0xc02c);
    let foreign = with(MinVersion::Tls12, Some(&[0x1301, 0xc030]));
    assert!(shake(&foreign, ONLY_12).is_err(), "an RSA suite is of no use to an ECDSA key");
    assert!(lacks_suite_for(&[CipherSuite(0x1301), CipherSuite(0xc030)], &pair.pair()));
    assert!(!lacks_suite_for(&[CipherSuite(0xc02c)], &pair.pair()));
}

#[test]
fn http2_is_offered_where_it_is_spoken() {
    let authority = Authority::new("ca");
    let pair = authority.sign(&["a.test"]);
    let offering = |names: &[&str]| {
        let names: Vec<Vec<u8>> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        Client::with(&authority, BOTH, None, |config| config.alpn_protocols.clone_from(&names))
    };
    let both = TlsTable::new(settings(&[&pair])).unwrap();
    let plain = TlsTable::new(Settings { http2: false, ..settings(&[&pair]) }).unwrap();
    let alpn = |table, names: &[&str]| offering(names).shake(table, "a.test").map(|shaken| shaken.alpn);
    assert_eq!(alpn(&both, &["http/1.1", "h2"]), Ok(Some(b"h2".to_vec())));
    assert_eq!(alpn(&both, &["http/1.1"]), Ok(Some(b"http/1.1".to_vec())));
    assert_eq!(alpn(&both, &[]), Ok(None));
    assert_eq!(alpn(&plain, &["h2", "http/1.1"]), Ok(Some(b"http/1.1".to_vec())));
    assert!(alpn(&plain, &["h2"]).is_err());
}

#[test]
fn client_certificates_are_verified() {
    let (authority, devices, strangers) = (Authority::new("ca"), Authority::new("devices"), Authority::new("others"));
    let pair = authority.sign(&["a.test"]);
    let (device, stranger) = (devices.sign(&["device"]), strangers.sign(&["device"]));
    for versions in [ONLY_12, ONLY_13] {
        for (mode, anonymous_is_good) in [(REQUIRED, false), (OPTIONAL, true)] {
            let policies = vec![policy(&[], Some((&devices, mode)))];
            let table = TlsTable::new(Settings { policies, ..settings(&[&pair]) }).unwrap();
            let shake = |made| Client::with(&authority, versions, made, |_| {}).shake(&table, "a.test");
            let known = shake(Some(&device)).unwrap();
            assert_eq!(known.client.as_ref(), Some(&device.pair().chain()[0]));
            let anonymous = shake(None);
            assert_eq!(anonymous.is_ok(), anonymous_is_good, "{mode:?}: {anonymous:?}");
            // rustls sends a certificate only if its authority was named: here the stranger insists.
            let insisting = |config: &mut ClientConfig| {
                let pair = stranger.pair();
                config.client_auth_cert_resolver = Arc::new(Insisting(Arc::clone(pair.certified())));
            };
            let strange = Client::with(&authority, versions, None, insisting).shake(&table, "a.test");
            assert!(strange.is_err(), "{mode:?}: {strange:?}");
        }
    }
}

#[derive(Debug)]
struct Insisting(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Insisting {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn sessions_resume_unless_that_is_off() {
    let authority = Authority::new("ca");
    let pair = authority.sign(&["a.test"]);
    for versions in [ONLY_12, ONLY_13] {
        for session_tickets in [true, false] {
            let table = TlsTable::new(Settings { session_tickets, ..settings(&[&pair]) }).unwrap();
            let client = Client::with(&authority, versions, None, |_| {});
            assert!(!client.shake(&table, "a.test").unwrap().is_resumed());
            assert_eq!(client.shake(&table, "a.test").unwrap().is_resumed(), session_tickets);
            let other = TlsTable::new(settings(&[&pair])).unwrap();
            assert!(!client.shake(&other, "a.test").unwrap().is_resumed(), "another table has other keys");
        }
    }
}

#[test]
fn session_ids_of_old_clients_resume_unless_that_is_off() {
    let authority = Authority::new("ca");
    let pair = authority.sign(&["a.test"]);
    for session_tickets in [true, false] {
        let table = TlsTable::new(Settings { session_tickets, ..settings(&[&pair]) }).unwrap();
        let without_tickets = |config: &mut ClientConfig| {
            let sessions = Resumption::in_memory_sessions(8);
            config.resumption = sessions.tls12_resumption(rustls::client::Tls12Resumption::SessionIdOnly);
        };
        let client = Client::with(&authority, ONLY_12, None, without_tickets);
        client.shake(&table, "a.test").unwrap();
        assert_eq!(client.shake(&table, "a.test").unwrap().is_resumed(), session_tickets);
    }
}

/// A session store that takes every server for the same one: what a client would do that tries a session elsewhere.
#[derive(Debug)]
struct Shared(Arc<dyn rustls::client::ClientSessionStore>);

fn everywhere() -> ServerName<'static> {
    ServerName::try_from("everywhere.test").unwrap()
}

impl rustls::client::ClientSessionStore for Shared {
    fn set_kx_hint(&self, _: ServerName<'static>, group: rustls::NamedGroup) {
        self.0.set_kx_hint(everywhere(), group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<rustls::NamedGroup> {
        self.0.kx_hint(&everywhere())
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: rustls::client::Tls12ClientSessionValue) {
        self.0.set_tls12_session(everywhere(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        self.0.tls12_session(&everywhere())
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&everywhere());
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: rustls::client::Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(everywhere(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&everywhere())
    }
}

#[test]
fn a_session_of_one_policy_does_not_open_another() {
    let (authority, devices) = (Authority::new("ca"), Authority::new("devices"));
    let pair = authority.sign(&["open.test", "mtls.test"]);
    let policies = vec![policy(&[], None), policy(&["mtls.test"], Some((&devices, REQUIRED)))];
    let table = TlsTable::new(Settings { policies, ..settings(&[&pair]) }).unwrap();
    for versions in [ONLY_12, ONLY_13] {
        let sharing = |config: &mut ClientConfig| {
            let sessions = Arc::new(rustls::client::ClientSessionMemoryCache::new(8));
            config.resumption = Resumption::store(Arc::new(Shared(sessions)));
        };
        let client = Client::with(&authority, versions, None, sharing);
        assert_eq!(client.shake(&table, "open.test").unwrap().policy, 0);
        assert!(client.shake(&table, "open.test").unwrap().is_resumed(), "the store works");
        assert!(client.shake(&table, "mtls.test").is_err(), "no certificate, no handshake");
        // The session keys themselves differ, whatever else would have stopped it.
        let (open, mtls) = (table.choose(Some("open.test")).unwrap(), table.choose(Some("mtls.test")).unwrap());
        let ticket = open.config.ticketer.encrypt(b"session").unwrap();
        assert!(open.config.ticketer.decrypt(&ticket).is_some() && mtls.config.ticketer.decrypt(&ticket).is_none());
        assert!(!Arc::ptr_eq(&open.config.session_storage, &mtls.config.session_storage));
    }
}

#[test]
fn a_session_does_not_outlive_the_certificate_it_was_opened_with() {
    let (authority, devices) = (Authority::new("ca"), Authority::new("devices"));
    let pair = authority.sign(&["a.test"]);
    let device = devices.sign_with(&["device"], |params| params.not_after = rcgen::date_time_ymd(2050, 1, 1));
    let stranger = authority.sign(&["device"]);
    for mode in [REQUIRED, OPTIONAL] {
        let policies = vec![policy(&[], Some((&devices, mode)))];
        let table = TlsTable::new(Settings { policies, ..settings(&[&pair]) }).unwrap();
        let host = table.choose(None).unwrap();
        for versions in [ONLY_12, ONLY_13] {
            let client = Client::with(&authority, versions, Some(&device), |_| {});
            client.shake(&table, "a.test").unwrap();
            let resumed = client.shake(&table, "a.test").unwrap();
            assert!(resumed.is_resumed());
            let chain = [resumed.client.unwrap()];
            assert!(host.still_admits(Some(&chain)), "rustls remembers the certificate");
            let end = u64::try_from(device.pair().facts.validity.to).unwrap();
            let at = |second| {
                host.admits_at(Some(&chain), UnixTime::since_unix_epoch(std::time::Duration::from_secs(second)))
            };
            assert!(at(end) && !at(end + 1));
        }
        assert!(!host.still_admits(Some(stranger.pair().chain())));
        assert_eq!((host.still_admits(None), host.still_admits(Some(&[]))), (mode == OPTIONAL, mode == OPTIONAL));
    }
    let open = TlsTable::new(settings(&[&pair])).unwrap();
    assert!(open.choose(None).unwrap().still_admits(None));
}

#[test]
fn nothing_is_sent_or_taken_before_the_handshake_is_over() {
    let pair = Authority::new("ca").sign(&["a.test"]);
    let table = TlsTable::new(settings(&[&pair])).unwrap();
    let config = &table.choose(None).unwrap().config;
    assert_eq!((config.max_early_data_size, config.send_half_rtt_data), (0, false));
}
