//! What the core and the plugins share about one request.

use std::{borrow::Cow, fmt, net::IpAddr, ops::Range, sync::Arc, time::Instant};

use http::Extensions;

use crate::{Claims, ClientCertificate, Consumer, Reply};

/// Per-request state shared by every phase and every plugin. Named fields for what is shared; a plugin's own state goes
/// into `extensions`, keyed by its type.
#[derive(Debug)]
pub struct Ctx {
    /// The name of this request, in every log line and problem document.
    pub request_id: RequestId,
    /// The client's address: the peer's, or what a trusted proxy said; never an IPv4-mapped IPv6 address.
    pub client: IpAddr,
    /// `http` or `https`: how the request came to the gateway.
    pub scheme: &'static str,
    /// Host the request is for, lower case, without port; empty if the client named none.
    pub host: String,
    /// The one path that was matched, is logged, and goes upstream unless rewritten; always in canonical form.
    pub path: Arc<str>,
    /// Name of the matched route, once there is one.
    pub route: Option<Arc<str>>,
    /// The matched route's path parameters.
    pub params: PathParams,
    /// Who is calling, once an authentication plugin has established it.
    pub consumer: Option<Arc<Consumer>>,
    /// What the caller's token says, once a plugin has verified it.
    pub claims: Option<Arc<Claims>>,
    /// The certificate that the client has shown, verified by the listener.
    pub client_certificate: Option<Arc<ClientCertificate>>,
    /// Why a credential or a caller was refused: for the logs, never for the client.
    pub refusal: Option<Cow<'static, str>>,
    /// What a caller is told who needs a credential after all, where a plugin that authenticates has let it go on without:
    /// 401 with the challenges of those plugins (RFC 9110, section 15.5.2).
    pub challenge: Option<Box<Reply>>,
    /// Largest request body this request may have, in bytes.
    pub max_request_body: u64,
    /// When the request must have its response headers.
    pub deadline: Option<Instant>,
    /// State of single plugins between phases.
    pub extensions: Extensions,
}

impl Ctx {
    /// The context of a request that no route has claimed yet.
    pub fn new(client: IpAddr, host: String, path: Arc<str>) -> Self {
        Self {
            request_id: RequestId::default(),
            client: client.to_canonical(),
            scheme: "http",
            host,
            path,
            route: None,
            params: PathParams::default(),
            consumer: None,
            claims: None,
            client_certificate: None,
            refusal: None,
            challenge: None,
            max_request_body: u64::MAX,
            deadline: None,
            extensions: Extensions::new(),
        }
    }

    /// Keeps what a plugin that authenticates would have answered, had the caller to have a credential of its kind.
    pub fn keep_challenge(&mut self, reply: Reply) {
        let all = match self.challenge.take() {
            Some(earlier) => earlier.or(&reply),
            None => reply,
        };
        self.challenge = Some(Box::new(all));
        self.refusal = None;
    }

    /// A path parameter of the matched route, in canonical form (reserved characters stay percent-encoded).
    pub fn param(&self, name: &str) -> Option<&str> {
        let at = self.params.names.iter().position(|n| **n == *name)?;
        self.params.values.get(at).and_then(|range| self.path.get(range.clone()))
    }
}

/// Names of the matched route's parameters and where their values stand in the path.
#[derive(Debug, Clone, Default)]
pub struct PathParams {
    /// Names, in the order of the pattern. Shared with the route: cloning allocates nothing.
    pub names: Arc<[Arc<str>]>,
    /// Byte ranges of the values in `Ctx::path`, in the same order.
    pub values: Vec<Range<usize>>,
}

/// A request's name: 1 to 64 characters of `A-Z a-z 0-9 . _ -`, held in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    length: u8,
    text: [u8; Self::MAX],
}

impl RequestId {
    /// The longest name accepted.
    pub const MAX: usize = 64;

    /// Takes a text that has the allowed form; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(allowed) {
            return None;
        }
        let mut id = Self { length: 0, text: [0; Self::MAX] };
        id.text[..text.len()].copy_from_slice(text.as_bytes());
        id.length = u8::try_from(text.len()).ok()?;
        Some(id)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self {
            length: 1,
            text: {
                let mut t = [0; Self::MAX];
                t[0] = b'-';
                t
            },
        }
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
