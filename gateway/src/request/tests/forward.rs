use std::net::IpAddr;

use crossway_plugin_api::config::Network;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use pingora_http::ResponseHeader;
use proptest::prelude::*;

use crate::request::{
    Hop, Refusal, Told, canonical_host, client_address, say_forwarded, strip_client_claims, strip_hop_by_hop,
};

fn client(peer: &str, fields: &[&str], trusted: &[&str]) -> String {
    let trusted: Vec<Network> = trusted.iter().map(|network| Network::parse(network).unwrap()).collect();
    client_address(peer.parse().unwrap(), fields.iter().map(|field| field.as_bytes()), &trusted).to_string()
}

#[test]
fn only_trusted_proxies_are_believed() {
    let trusted = ["10.0.0.0/8", "2001:db8::/32"];
    for (peer, fields, expected) in [
        ("192.0.2.1", &["127.0.0.1"][..], "192.0.2.1"),
        ("10.0.0.1", &[], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.7"], "192.0.2.7"),
        ("::ffff:10.0.0.1", &["::ffff:192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", &["127.0.0.1, 192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", &["127.0.0.1, 192.0.2.7", "10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", &["192.0.2.7:4711"], "192.0.2.7"),
        ("10.0.0.1", &["[2001:db9::1]:4711"], "2001:db9::1"),
        ("10.0.0.1", &["[2001:db9::1]"], "2001:db9::1"),
        ("2001:db8::1", &["2001:db9::1"], "2001:db9::1"),
        ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", &["192.0.2.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.7, _x, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", &["192.0.2.7,"], "10.0.0.1"),
        ("10.0.0.1", &[""], "10.0.0.1"),
        ("10.0.0.1", &["fe80::1%1"], "10.0.0.1"),
        ("10.0.0.1", &["192.0.2.7:x"], "10.0.0.1"),
    ] {
        assert_eq!(client(peer, fields, &trusted), expected, "{peer} {fields:?}");
    }
    assert_eq!(client("10.0.0.1", &["192.0.2.7"], &[]), "10.0.0.1");
}

#[test]
fn a_walk_ends_after_32_hops() {
    let list = |hops: usize| format!("192.0.2.7{}", ", 10.0.0.2".repeat(hops));
    assert_eq!(client("10.0.0.1", &[&list(31)], &["10.0.0.0/8"]), "192.0.2.7");
    assert_eq!(client("10.0.0.1", &[&list(32)], &["10.0.0.0/8"]), "10.0.0.2");
}

fn request(fields: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    let mut map = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        map.append(name, value);
    }
    map
}

fn names(headers: &http::HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn clients_cannot_speak_for_the_gateway() {
    for name in [
        "X-Consumer-Id",
        "X-Consumer-Groups",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Client-Cert",
        "X-Forwarded-Tls-Client-Cert",
        "X-Forwarded",
        "Forwarded",
        "X-Real-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Client-IP",
        "X-Cluster-Client-Ip",
        "Fastly-Client-IP",
        "X-Client-Cert",
        "X-Client-Cert-Dn",
        "X-SSL-Client-Verify",
        "Ssl-Client-Subject-Dn",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X-HTTP-Method",
        "X-Original-URL",
        "X-Rewrite-URL",
        "Proxy",
        "Proxy-Authorization",
        "Client-Cert",
        "x_consumer_id",
        "X_Forwarded-For",
        "ssl_client_cert",
        "true_client_ip",
        "X-Consumer-With-A-Name-That-Is-Longer-Than-The-Buffer",
    ] {
        let mut req = request(&[("Host", "t"), (name, "a"), (name, "b"), ("Accept", "*/*")]);
        strip_client_claims(&mut req);
        assert_eq!(names(&req), ["accept", "host"], "{name}");
    }
    let kept = [
        "Accept",
        "X-Request-Id",
        "X-Forwardedness",
        "X-Consumers",
        "Forwarded-By",
        "Proxy-Status",
        "Te",
        "Cf-Ray",
        "Sec-Fetch-Site",
        "True-Client-Ipv6",
        "X-Real-Ipx",
        "Client-Certificate",
        "X-Api-Key",
        "Fastly-Client-Ip-With-A-Name-Longer-Than-The-Buffer",
    ];
    let mut req = request(&kept.map(|name| (name, "a")));
    strip_client_claims(&mut req);
    assert_eq!(req.len(), kept.len());
}

fn hop<'a>(client: &str, peer: &str, host: &'a crate::request::Host<'a>) -> Hop<'a> {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    Hop { client: address(client), peer: address(peer), scheme: "https", host, version: Version::HTTP_11 }
}

#[test]
fn upstreams_are_told_about_the_hop() {
    let said = |client: &str, peer: &str, host: &str| {
        let mut req = request(&[]);
        tell(&mut req, &hop(client, peer, &canonical_host(host).unwrap())).unwrap();
        let value = |name: &str| req[name].to_str().unwrap().to_owned();
        ["x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "forwarded", "via"].map(value)
    };
    assert_eq!(
        said("192.0.2.7", "192.0.2.7", "t"),
        ["192.0.2.7", "t", "443", "https", "for=192.0.2.7;host=t;proto=https", "1.1 crossway"]
    );
    assert_eq!(
        said("2001:db8::1", "::ffff:10.0.0.1", "t:8443"),
        [
            "2001:db8::1, 10.0.0.1",
            "t:8443",
            "8443",
            "https",
            "for=\"[2001:db8::1]\";host=\"t:8443\";proto=https, for=10.0.0.1",
            "1.1 crossway",
        ]
    );
    assert_eq!(said("10.0.0.1", "10.0.0.1", "[::1]")[4], "for=10.0.0.1;host=\"[::1]\";proto=https");
}

#[test]
fn what_was_said_before_is_replaced_but_via_grows() {
    let mut req = request(&[("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "7.7.7.7"), ("Via", "1.0 edge")]);
    let host = canonical_host("t").unwrap();
    tell(&mut req, &Hop { version: Version::HTTP_2, ..hop("192.0.2.7", "192.0.2.7", &host) }).unwrap();
    assert_eq!(req.get_all("x-forwarded-for").iter().count(), 1);
    let via: Vec<_> = req.get_all("via").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(via, ["1.0 edge", "2 crossway"]);
}

#[test]
fn circles_end() {
    let answer = |via: &str| {
        let mut req = request(&[("Via", via)]);
        let host = canonical_host("t").unwrap();
        tell(&mut req, &hop("192.0.2.7", "192.0.2.7", &host)).map_err(|refusal| refusal.status.as_u16())
    };
    assert_eq!((answer(&["1.1 a"; 20].join(",")), answer(&["1.1 a"; 21].join(", "))), (Ok(()), Err(508)));
    assert_eq!((answer(&["1.1 crossway"; 9].join(",")), answer(&["2  Crossway"; 10].join(", "))), (Ok(()), Err(508)));
}

fn response(status: u16, fields: &[(&'static str, &'static str)]) -> ResponseHeader {
    let mut res = ResponseHeader::build(status, None).unwrap();
    for (name, value) in fields {
        res.append_header(*name, *value).unwrap();
    }
    res
}

#[test]
fn an_upstreams_connection_stays_its_own() {
    let mut res = response(
        200,
        &[
            ("Connection", "X-Secret, close, Content-Type, set-cookie, x-absent, ,a b"),
            ("Connection", "transfer-encoding,Content-Length"),
            ("X-Secret", "a"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authenticate", "Basic"),
            ("Proxy-Connection", "close"),
            ("Trailer", "X"),
            ("TE", "x"),
            ("Upgrade", "h2c"),
            ("Content-Type", "text/plain"),
            ("Content-Length", "1"),
            ("Transfer-Encoding", "chunked"),
            ("Set-Cookie", "a"),
            ("X-Other", "a"),
        ],
    );
    strip_hop_by_hop(&mut res);
    let kept = ["content-length", "content-type", "set-cookie", "transfer-encoding", "x-other"];
    assert_eq!(names(&res.headers), kept);
}

#[test]
fn an_upgrade_keeps_what_it_needs() {
    let mut res = response(
        101,
        &[("Connection", "Upgrade, X-Secret"), ("Upgrade", "websocket"), ("X-Secret", "a"), ("Keep-Alive", "x")],
    );
    strip_hop_by_hop(&mut res);
    assert_eq!(names(&res.headers), ["connection", "upgrade"]);
}

proptest! {
    #[test]
    fn no_list_is_too_odd(fields in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..4)) {
        let trusted = [Network::parse("10.0.0.0/8").unwrap()];
        let _ = client_address("10.0.0.1".parse().unwrap(), fields.iter().map(Vec::as_slice), &trusted);
    }
}

fn tell(req: &mut HeaderMap, hop: &Hop<'_>) -> Result<(), Refusal> {
    let told = Told::of(hop);
    assert!(told.fits(hop));
    say_forwarded(req, hop, &told)
}
