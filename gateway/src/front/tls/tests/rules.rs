//! Which policy, which authority, which table.

use super::*;

const REQUIRED: ClientAuthMode = ClientAuthMode::Required;
const OPTIONAL: ClientAuthMode = ClientAuthMode::Optional;

fn table(own: Option<ClientAuthMode>) -> TlsTable {
    let authority = Authority::new("ca");
    let auth = |mode| (&authority, mode);
    let pair = authority.sign(&["api.test", "*.devices.test"]);
    let mut settings = settings(&[&pair]);
    settings.policies = vec![
        policy(&[], own.map(auth)),
        policy(&["mtls.test", "*.devices.test"], Some(auth(REQUIRED))),
        policy(&["Open.test.", "open.devices.test"], None),
    ];
    TlsTable::new(settings).unwrap()
}

#[test]
fn the_name_decides_about_client_certificates() {
    let table = table(Some(OPTIONAL));
    for (sni, policy, client_auth) in [
        (None, 0, Some(OPTIONAL)),
        (Some("api.test"), 0, Some(OPTIONAL)),
        (Some("unknown.test"), 0, Some(OPTIONAL)),
        (Some("devices.test"), 0, Some(OPTIONAL)),
        (Some("mtls.test"), 1, Some(REQUIRED)),
        (Some("MTLS.Test."), 1, Some(REQUIRED)),
        (Some("a.devices.test"), 1, Some(REQUIRED)),
        (Some("a.b.devices.test"), 0, Some(OPTIONAL)),
        (Some("open.test"), 2, None),
        (Some("open.devices.test"), 2, None),
    ] {
        let host = table.choose(sni).unwrap();
        assert_eq!((host.policy, host.client_auth), (policy, client_auth), "{sni:?}");
    }
}

#[test]
fn unknown_names_are_refused_where_that_is_asked_for() {
    let pair = Authority::new("ca").sign(&["api.test", "*.wild.test", "192.0.2.1"]);
    let mut settings = settings(&[&pair]);
    settings.unknown_names = UnknownNames::Refuse;
    let table = TlsTable::new(settings).unwrap();
    for (sni, served) in [
        (None, true),
        (Some("api.test"), true),
        (Some("API.test."), true),
        (Some("a.wild.test"), true),
        (Some("a.b.wild.test"), false),
        (Some("wild.test"), false),
        (Some("other.test"), false),
        (Some("192.0.2.1"), false),
        (Some(""), false),
    ] {
        assert_eq!(table.choose(sni).is_some(), served, "{sni:?}");
    }
}

#[test]
fn without_client_certificates_every_host_may_come_on_every_connection() {
    let pair = Authority::new("ca").sign(&["api.test"]);
    let table = TlsTable::new(settings(&[&pair])).unwrap();
    for sni in [None, Some("api.test"), Some("x.test")] {
        for host in ["api.test", "other.test", "192.0.2.1", "[2001:db8::1]", ""] {
            assert!(table.same_authority(sni, host), "{sni:?} {host}");
        }
    }
}

/// The name of the handshake, the host of the request, and whether they go together.
type Case = (Option<&'static str>, &'static str, bool);

/// The listener asks for none; some hosts do.
const OPEN_LISTENER: [Case; 14] = [
    (Some("api.test"), "api.test", true),
    (Some("api.test"), "other.test", true),
    (Some("open.test"), "api.test", true),
    (Some("api.test"), "mtls.test", false),
    (Some("open.test"), "mtls.test", false),
    (Some("api.test"), "a.devices.test", false),
    (Some("mtls.test"), "api.test", false),
    (Some("mtls.test"), "mtls.test", true),
    (Some("MTLS.test."), "mtls.test", true),
    (Some("a.devices.test"), "a.devices.test", true),
    (Some("a.devices.test"), "b.devices.test", false),
    (None, "mtls.test", false),
    (None, "api.test", true),
    (None, "192.0.2.1", true),
];

/// The listener demands one; some hosts ask for none.
const STRICT_LISTENER: [Case; 14] = [
    (Some("api.test"), "api.test", true),
    (Some("api.test"), "other.test", false),
    (Some("open.test"), "api.test", false),
    (Some("open.test"), "open.test", true),
    (Some("open.test"), "open.devices.test", true),
    (Some("api.test"), "open.test", false),
    (Some("api.test"), "mtls.test", false),
    (Some("api.test"), "192.0.2.1", false),
    (Some("api.test"), "", false),
    (None, "api.test", false),
    (None, "open.test", false),
    (None, "", false),
    (None, "192.0.2.1", true),
    (None, "[2001:db8::1]", true),
];

/// The listener asks for one.
const ASKING_LISTENER: [Case; 14] = [
    (Some("api.test"), "api.test", true),
    (Some("api.test"), "other.test", false),
    (Some("other.test"), "api.test", false),
    (Some("other.test"), "other.test", true),
    (Some("open.test"), "open.devices.test", true),
    (Some("mtls.test"), "mtls.test", true),
    (Some("mtls.test"), "api.test", false),
    (Some("api.test"), "192.0.2.1", false),
    (None, "[::1]", true),
    (None, "::1", true),
    (None, "127.1", false),
    (None, "localhost", false),
    (None, "mtls.test", false),
    (None, "a.devices.test", false),
];

#[test]
fn with_client_certificates_name_and_host_are_one() {
    for (own, cases) in [(None, OPEN_LISTENER), (Some(REQUIRED), STRICT_LISTENER), (Some(OPTIONAL), ASKING_LISTENER)] {
        let table = table(own);
        for (sni, host, same) in cases {
            assert_eq!(table.same_authority(sni, host), same, "{own:?}: {sni:?} {host}");
        }
    }
}

#[test]
fn wildcards_stand_for_one_label() {
    let mut names = ByName::default();
    for (pattern, value) in [("*.a.test", 1), ("x.a.test", 2), ("*.b.a.test", 3), ("Test.", 4)] {
        assert_eq!(names.add(pattern, value), None, "{pattern}");
    }
    for (name, value) in [
        ("y.a.test", Some(1)),
        ("x.a.test", Some(2)),
        ("y.b.a.test", Some(3)),
        ("b.a.test", Some(1)),
        ("a.test", None),
        ("test", Some(4)),
        ("z.y.b.a.test", None),
        ("", None),
        (".a.test", Some(1)),
    ] {
        assert_eq!(names.get(name), value, "{name}");
    }
    assert_eq!((names.add("X.A.test", 9), names.add("*.A.test", 9)), (Some(2), Some(1)));
    for (pattern, covered) in
        [("*.a.test", true), ("*.test", false), ("q.a.test", true), ("*.c.test", false), ("x.c.test", false)]
    {
        assert_eq!(names.covers(pattern), covered, "{pattern}");
    }
    assert!(names.add("only.d.test", 5).is_none() && names.covers("*.d.test"));
    for (pattern, good) in [
        ("a.test", true),
        ("*.a.test", true),
        ("_a.test", true),
        ("*", false),
        ("*.", false),
        ("a.*.test", false),
        ("f*.test", false),
        ("*.*.test", false),
        ("192.0.2.1", false),
        ("[::1]", false),
        ("a b", false),
        ("a:443", false),
        ("", false),
    ] {
        assert_eq!(is_name(pattern), good, "{pattern}");
    }
}

#[test]
fn a_table_stays_while_its_settings_stay() {
    let (authority, other) = (Authority::new("ca"), Authority::new("other"));
    let (one, two) = (authority.sign(&["a.test"]), authority.sign(&["a.test"]));
    let tables = Tables::default();
    let first = tables.table("public", settings(&[&one])).unwrap();
    let same = |settings: Settings| Arc::ptr_eq(&first, &tables.table("public", settings).unwrap());
    assert!(same(settings(&[&one])));
    let with = |change: fn(&mut Settings)| {
        let mut settings = settings(&[&one]);
        change(&mut settings);
        settings
    };
    assert!(!same(settings(&[&two])), "the certificate was renewed");
    assert!(!same(with(|s| s.min_version = MinVersion::Tls13)));
    assert!(!same(with(|s| s.ciphers = Some(vec![CipherSuite(0x1301), CipherSuite(0xc02b)]))));
    assert!(!same(with(|s| s.unknown_names = UnknownNames::Refuse)));
    assert!(!same(with(|s| s.session_tickets = false)));
    assert!(!same(with(|s| s.http2 = false)));
    assert!(!same(with(|s| s.policies.push(policy(&["b.test"], None)))));
    let demanding = |by: &Authority, mode| {
        let mut settings = settings(&[&one]);
        settings.policies = vec![policy(&[], Some((by, mode)))];
        settings
    };
    let demanded = tables.table("public", demanding(&authority, REQUIRED)).unwrap();
    let again = |settings| Arc::ptr_eq(&demanded, &tables.table("public", settings).unwrap());
    assert!(again(demanding(&authority, REQUIRED)));
    assert!(!again(demanding(&authority, OPTIONAL)) && !again(demanding(&other, REQUIRED)));
    assert!(!Arc::ptr_eq(&first, &tables.table("second", settings(&[&one])).unwrap()), "listeners share nothing");
    assert!(same(settings(&[&one])), "whatever was tried in between");
    drop(first);
    let fresh = tables.table("public", settings(&[&one])).unwrap();
    assert!(Arc::ptr_eq(&fresh, &tables.table("public", settings(&[&one])).unwrap()));
}
