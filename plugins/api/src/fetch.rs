//! Requests of the gateway's own to the services it depends on: keys, introspection, tokens, decisions.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

/// A request to a service. Redirects are never followed.
#[derive(Clone)]
pub struct Ask {
    /// Method.
    pub method: Method,
    /// Absolute URL, `https` or `http`.
    pub url: String,
    /// Header fields beside those of the framing.
    pub headers: HeaderMap,
    /// Body; empty for none.
    pub body: Bytes,
    /// Time for all of it, the body of the answer included.
    pub timeout: Duration,
    /// Largest body of an answer, in bytes; a larger one is an error.
    pub max_body: usize,
}

impl Ask {
    /// A GET with a bound of 5 s and 1 MiB.
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            url: url.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: Duration::from_secs(5),
            max_body: 1 << 20,
        }
    }

    /// A POST of `application/x-www-form-urlencoded` pairs, with the same bounds.
    pub fn form(url: impl Into<String>, body: impl Into<Bytes>) -> Self {
        let mut ask = Self { method: Method::POST, body: body.into(), ..Self::get(url) };
        let form = http::HeaderValue::from_static("application/x-www-form-urlencoded");
        ask.headers.insert(http::header::CONTENT_TYPE, form);
        ask
    }
}

impl fmt::Debug for Ask {
    /// Neither fields nor body: both carry secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url)
    }
}

/// What a service answered.
#[derive(Debug, Clone)]
pub struct Told {
    /// Status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer: for the log, never for a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// Not in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer's body is larger than asked for.
    #[error("an answer of more than {0} bytes")]
    TooLarge(usize),
    /// Anything else: no connection, TLS, broken HTTP.
    #[error("{0}")]
    Failed(String),
}

/// Whether a service that must be the right one may be asked there: over TLS, or on this machine, or where `plain_http`
/// allows it. The error is the rest of a sentence.
pub fn check_secure_url(url: &str, plain_http: bool) -> Result<(), &'static str> {
    let parsed: http::Uri = url.parse().map_err(|_| "is not a URL")?;
    let host = parsed.host().unwrap_or_default();
    let local = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match parsed.scheme_str() {
        _ if host.is_empty() || url.contains(['@', '#']) => {
            Err("is not a URL with a host, and without user and fragment")
        }
        Some("https") => Ok(()),
        Some("http") if plain_http || local => Ok(()),
        Some("http") => {
            Err("is a URL without TLS: who is on the way could read and change what is said; see `plain_http`")
        }
        _ => Err("is not a URL of https"),
    }
}

/// The gateway's one client for such requests.
#[async_trait]
pub trait Fetch: fmt::Debug + Send + Sync {
    /// Sends a request and reads the whole answer, whatever its status.
    async fn fetch(&self, ask: Ask) -> Result<Told, NoAnswer>;
}

/// Fetches nothing: where a configuration is only checked.
#[derive(Debug, Default)]
pub struct NoFetch;

#[async_trait]
impl Fetch for NoFetch {
    async fn fetch(&self, _: Ask) -> Result<Told, NoAnswer> {
        Err(NoAnswer::Failed("nothing is fetched while a configuration is checked".into()))
    }
}
