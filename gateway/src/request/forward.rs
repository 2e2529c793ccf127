//! Which header fields cross the gateway, and what it says about itself.

use std::{fmt::Write as _, net::IpAddr};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora_http::ResponseHeader;

use super::{Host, Refusal, authority::default_port, octets::trim};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Our name in `Via` (RFC 9110, section 7.6.3).
const PSEUDONYM: &str = "crossway";
/// Most proxies a request may have passed.
const MAX_VIA: usize = 20;
/// How often a request may have passed through a gateway of this name.
const MAX_PASSES: usize = 10;
/// Longest name of a field that only the gateway may say; longer ones are compared by their start.
const MAX_CLAIM: usize = 32;

const LOOP: Refusal = Refusal::new(
    StatusCode::LOOP_DETECTED,
    "loop_detected",
    "The request has passed through too many proxies, or several times through this gateway.",
);

/// The hop from the client to the gateway, as upstreams are told about it.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The address the request came from: the client's own, or the last proxy's.
    pub peer: IpAddr,
    /// `http` or `https`, as the client used it.
    pub scheme: &'static str,
    /// The host the client asked for.
    pub host: &'a Host<'a>,
    /// The version of HTTP the request came with.
    pub version: Version,
}

/// Takes out of a request what only the gateway may say: who the caller is, where the request came from, and which
/// method or path it is really for. Names count with `_` in place of `-` too. Allocates nothing if there is nothing.
pub fn strip_client_claims(fields: &mut HeaderMap) {
    let claims: Vec<HeaderName> = fields.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in &claims {
        fields.remove(name);
    }
}

/// Whether a field says what only the gateway may say, by its name in lower case.
pub fn is_claim(name: &str) -> bool {
    // Most fields are told apart by their first letters.
    match name.as_bytes() {
        [b'x', b'-' | b'_', ..] | [b'f' | b't' | b'c' | b's' | b'p', ..] => {}
        _ => return false,
    }
    let mut buffer = [0; MAX_CLAIM];
    let mut length = 0;
    for (slot, byte) in buffer.iter_mut().zip(name.bytes()) {
        *slot = if byte == b'_' { b'-' } else { byte };
        length += 1;
    }
    let dashed = &buffer[..length];
    match dashed.strip_prefix(b"x-") {
        Some(rest) => is_extension_claim(rest),
        None => {
            let whole = name.len() <= MAX_CLAIM;
            dashed.starts_with(b"ssl-client-")
                || whole
                    && matches!(
                        dashed,
                        b"forwarded"
                            | b"fastly-client-ip"
                            | b"true-client-ip"
                            | b"cf-connecting-ip"
                            | b"client-cert"
                            | b"client-cert-chain"
                            | b"proxy"
                            | b"proxy-authorization"
                    )
        }
    }
}

/// The same for names that begin with `x-`, which is cut off here.
fn is_extension_claim(rest: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 4] = [b"forwarded-", b"consumer-", b"client-cert", b"ssl-"];
    matches!(
        rest,
        b"forwarded"
            | b"real-ip"
            | b"client-ip"
            | b"cluster-client-ip"
            | b"http-method-override"
            | b"method-override"
            | b"http-method"
            | b"original-url"
            | b"rewrite-url"
    ) || PREFIXES.iter().any(|prefix| rest.starts_with(prefix))
}

/// What upstreams are told about a hop, in the form of header values. The requests of one connection mostly come from
/// one client for one host: the values are made once and kept with the connection.
#[derive(Debug)]
pub struct Told {
    client: IpAddr,
    host: Box<str>,
    port: Option<u16>,
    forwarded_for: Option<HeaderValue>,
    forwarded_host: Option<HeaderValue>,
    forwarded_port: Option<HeaderValue>,
    forwarded: Option<HeaderValue>,
}

impl Told {
    /// Makes the values.
    pub fn of(hop: &Hop<'_>) -> Self {
        // All values are parts of one buffer: it fits in all but the longest cases.
        let mut text = BytesMut::with_capacity(256);
        let (client, peer) = (hop.client.to_canonical(), hop.peer.to_canonical());
        write(&mut text, format_args!("{client}"));
        if peer != client {
            write(&mut text, format_args!(", {peer}"));
        }
        let forwarded_for = value(&mut text);
        write_host(&mut text, hop.host);
        let forwarded_host = value(&mut text).filter(|host| !host.is_empty());
        // The port of the URL the client used, which is not the listener's behind a port mapping.
        let port = hop.host.port.or_else(|| default_port(hop.scheme));
        let forwarded_port = port.map(HeaderValue::from);
        write_forwarded(&mut text, hop, client, peer);
        let forwarded = value(&mut text);
        let (host, port) = (hop.host.name.as_ref().into(), hop.host.port);
        Self { client: hop.client, host, port, forwarded_for, forwarded_host, forwarded_port, forwarded }
    }

    /// Whether these are the values for this hop, on the same connection.
    pub fn fits(&self, hop: &Hop<'_>) -> bool {
        self.client == hop.client && self.port == hop.host.port && *self.host == *hop.host.name
    }
}

/// Tells the upstream about the hop: `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`, `Forwarded` (RFC 7239) and `Via`
/// (RFC 9110, section 7.6.3), once for each attempt on that attempt's own header. [`strip_client_claims`] comes first.
///
/// Errors: 508 if the request goes in circles.
pub fn say_forwarded(fields: &mut HeaderMap, hop: &Hop<'_>, told: &Told) -> Result<(), Refusal> {
    check_loop(fields)?;
    let values = [
        (X_FORWARDED_FOR, &told.forwarded_for),
        (X_FORWARDED_HOST, &told.forwarded_host),
        (X_FORWARDED_PORT, &told.forwarded_port),
        (header::FORWARDED, &told.forwarded),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            fields.insert(name, value.clone());
        }
    }
    fields.insert(X_FORWARDED_PROTO, HeaderValue::from_static(hop.scheme));
    fields.append(header::VIA, HeaderValue::from_static(via(hop.version)));
    Ok(())
}

/// `Forwarded`: the client first, and with it what it asked for; then the last proxy (RFC 7239, section 4).
fn write_forwarded(text: &mut BytesMut, hop: &Hop<'_>, client: IpAddr, peer: IpAddr) {
    write_node(text, client);
    match (hop.host.name.is_empty(), hop.host.port.is_some() || hop.host.name.starts_with('[')) {
        (true, _) => {}
        (false, true) => {
            write(text, format_args!(";host=\""));
            write_host(text, hop.host);
            write(text, format_args!("\""));
        }
        (false, false) => write(text, format_args!(";host={}", hop.host.name)),
    }
    write(text, format_args!(";proto={}", hop.scheme));
    if peer != client {
        write(text, format_args!(", "));
        write_node(text, peer);
    }
}

fn write_node(text: &mut BytesMut, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => write(text, format_args!("for={v4}")),
        IpAddr::V6(v6) => write(text, format_args!("for=\"[{v6}]\"")),
    }
}

fn write_host(text: &mut BytesMut, host: &Host<'_>) {
    write(text, format_args!("{}", host.name));
    if let Some(port) = host.port {
        write(text, format_args!(":{port}"));
    }
}

fn write(text: &mut BytesMut, what: std::fmt::Arguments<'_>) {
    // A buffer that grows has no way to fail.
    let _ = text.write_fmt(what);
}

/// Takes the buffer's content as a value.
fn value(text: &mut BytesMut) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(text.split().freeze()).ok()
}

const fn via(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0 crossway",
        Version::HTTP_2 => "2 crossway",
        _ => "1.1 crossway",
    }
}

fn check_loop(fields: &HeaderMap) -> Result<(), Refusal> {
    let mut proxies = 0;
    let mut passes = 0;
    for entry in fields.get_all(header::VIA).iter().flat_map(|field| field.as_bytes().split(|&b| b == b',')) {
        let mut words = trim(entry).split(|&b| b == b' ' || b == b'\t').filter(|word| !word.is_empty());
        let received_by = words.nth(1);
        proxies += 1;
        passes += usize::from(received_by.is_some_and(|name| name.eq_ignore_ascii_case(PSEUDONYM.as_bytes())));
    }
    if proxies > MAX_VIA || passes >= MAX_PASSES { Err(LOOP) } else { Ok(()) }
}

/// Takes out of a response what belongs to the upstream's connection (RFC 9110, section 7.6.1). `Transfer-Encoding` is
/// the proxy engine's to replace; a 101 keeps what the upgrade needs. Allocates nothing if there is nothing.
pub fn strip_hop_by_hop(res: &mut ResponseHeader) {
    let switches = res.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut gone: Vec<HeaderName> = Vec::new();
    for name in res.headers.keys() {
        match name.as_str() {
            "connection" | "upgrade" if switches => {}
            "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "upgrade" => gone.push(name.clone()),
            _ => {}
        }
    }
    for field in res.headers.get_all(header::CONNECTION) {
        for option in field.as_bytes().split(|&b| b == b',').map(trim) {
            if let Ok(name) = HeaderName::from_bytes(option)
                && res.headers.contains_key(&name)
                && is_connection_field(&name, switches)
            {
                gone.push(name);
            }
        }
    }
    for name in &gone {
        res.remove_header(name);
    }
}

/// Whether `Connection` may take this field with it: not those that say what the message is, or that everybody on the
/// way must see.
fn is_connection_field(name: &HeaderName, switches: bool) -> bool {
    let name = name.as_str();
    match name {
        "transfer-encoding" | "cache-control" | "date" | "location" | "set-cookie" | "vary" | "www-authenticate" => {
            false
        }
        "upgrade" => !switches,
        _ => !name.starts_with("content-"),
    }
}
