//! Which responses are compressed, and what their headers then say.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use pingora_http::{RequestHeader, ResponseHeader};
use prometheus::IntCounter;

use super::{Algorithm, DIGESTS, Encoder, is_stream, items, media_type, negotiate::negotiate, weak};

/// How responses are compressed: the compiled form of the section `compression`.
pub struct Compression {
    /// The algorithms, the preferred first, each with its count of responses.
    algorithms: Box<[(Algorithm, IntCounter)]>,
    min_size: u64,
    types: Box<[TypePattern]>,
}

/// Media types, in lower case.
enum TypePattern {
    /// `type/subtype`.
    Exactly(Box<str>),
    /// Every type with this end, such as `+json`.
    Suffix(Box<str>),
    /// Every type with this beginning, such as `text/`.
    Prefix(Box<str>),
}

impl TypePattern {
    fn of(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.into()),
            None if text.starts_with('+') => Self::Suffix(text.into()),
            None => Self::Exactly(text.into()),
        }
    }

    fn takes(&self, essence: &[u8]) -> bool {
        let same = |part: Option<&[u8]>, text: &str| part.is_some_and(|p| p.eq_ignore_ascii_case(text.as_bytes()));
        match self {
            Self::Exactly(text) => same(Some(essence), text),
            Self::Prefix(text) => same(essence.get(..text.len()), text),
            Self::Suffix(text) => same(essence.len().checked_sub(text.len()).map(|at| &essence[at..]), text),
        }
    }
}

/// What has become of a response.
pub enum Coded {
    /// Nothing: it goes out as it is.
    Not,
    /// It answers HEAD with the header of a compressed response, which says no length.
    HeaderOnly,
    /// Its body goes through this encoder.
    Through(Encoder),
}

/// What is known of a response's body when its header is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// The whole body is at hand, and has this length.
    Whole(u64),
    /// What the header says; the body streams.
    AsDeclared,
}

impl Compression {
    /// Of these algorithms and types; smaller bodies than `min_size` bytes are left as they are.
    pub fn new(algorithms: Vec<(Algorithm, IntCounter)>, min_size: u64, types: &[String]) -> Self {
        Self {
            algorithms: algorithms.into(),
            min_size,
            types: types.iter().map(|text| TypePattern::of(text)).collect(),
        }
    }

    /// Decides about a response, and changes its header to what is then sent. To be called last, when nobody changes the
    /// header any more.
    pub fn apply(&self, req: &RequestHeader, res: &mut ResponseHeader, framing: Framing) -> Coded {
        if res.status == StatusCode::NOT_MODIFIED {
            self.not_modified(req, res);
            return Coded::Not;
        }
        let length = match framing {
            Framing::Whole(length) => Some(length),
            Framing::AsDeclared => declared_length(&res.headers),
        };
        if !may_have_coding(res) || !self.wants(&res.headers) || length.is_some_and(|l| l == 0 || l < self.min_size) {
            return Coded::Not;
        }
        vary(res);
        let Some((algorithm, count)) = self.chosen(&req.headers) else { return Coded::Not };
        if req.method == Method::HEAD {
            // It gets the header that GET gets (RFC 9110, section 9.3.2).
            restate(res, *algorithm);
            return Coded::HeaderOnly;
        }
        let Ok(encoder) = Encoder::new(*algorithm, length.is_none()) else { return Coded::Not };
        restate(res, *algorithm);
        count.inc();
        if req.version != Version::HTTP_10 {
            // What a client of HTTP/1.0 gets ends with the connection.
            let _ = res.insert_header(header::TRANSFER_ENCODING, "chunked");
        }
        Coded::Through(encoder)
    }

    /// A 304 carries the validator and the `Vary` of the 200 (RFC 9110, section 15.4.5): a strong validator would fit
    /// nothing that a cache has kept. It often does not say its type.
    fn not_modified(&self, req: &RequestHeader, res: &mut ResponseHeader) {
        let typed = res.headers.contains_key(header::CONTENT_TYPE);
        if has_own_coding(&res.headers) || (typed && !self.wants(&res.headers)) {
            return;
        }
        vary(res);
        if self.chosen(&req.headers).is_some() {
            weaken(res);
        }
    }

    fn chosen(&self, asked: &HeaderMap) -> Option<&(Algorithm, IntCounter)> {
        negotiate(asked, self.algorithms.iter().map(|(algorithm, _)| *algorithm)).map(|at| &self.algorithms[at])
    }

    fn wants(&self, headers: &HeaderMap) -> bool {
        let listed = |essence| self.types.iter().any(|pattern| pattern.takes(essence));
        media_type(headers).is_some_and(listed) && !is_stream(headers)
    }
}

/// Whether status and header leave room for a coding of ours.
fn may_have_coding(res: &ResponseHeader) -> bool {
    let status = res.status;
    let bodiless = status.is_informational() || matches!(status.as_u16(), 204..=206);
    !bodiless && !has_own_coding(&res.headers) && !res.headers.contains_key(header::CONTENT_RANGE)
}

/// Whether the upstream has chosen a coding, or forbids that somebody else does (RFC 9111, section 5.2.2.6).
fn has_own_coding(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONTENT_ENCODING)
        || items(headers, &header::CACHE_CONTROL).any(|item| item.eq_ignore_ascii_case(b"no-transform"))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Tells caches what the response depends on (RFC 9110, section 12.5.5).
fn vary(res: &mut ResponseHeader) {
    let named = |item: &[u8]| item == b"*" || item.eq_ignore_ascii_case(b"accept-encoding");
    if !items(&res.headers, &header::VARY).any(named) {
        let _ = res.append_header(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

pub(super) fn weaken(res: &mut ResponseHeader) {
    if let Some(etag) = res.headers.get(header::ETAG).and_then(weak) {
        let _ = res.insert_header(header::ETAG, etag);
    }
}

/// Takes back what is true of other bytes only, and names the coding.
fn restate(res: &mut ResponseHeader, algorithm: Algorithm) {
    weaken(res);
    for name in DIGESTS.iter().chain([&header::CONTENT_LENGTH, &header::ACCEPT_RANGES]) {
        res.remove_header(name);
    }
    let _ = res.insert_header(header::CONTENT_ENCODING, HeaderValue::from_static(algorithm.name()));
}
