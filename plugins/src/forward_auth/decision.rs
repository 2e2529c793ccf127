//! What the service is asked, and what its answers mean.

use std::sync::Arc;

use crossway_plugin_api::{Ask, Consumer, Content, Ctx, Reply, Told};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use pingora_http::RequestHeader;
use ring::digest::{Context, SHA256};

use super::Asker;

const METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A decision to let a request pass.
pub(super) struct Granted {
    /// What the upstream is told.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) consumer: Option<Arc<Consumer>>,
}

impl Granted {
    /// Bytes that it takes, about.
    pub(super) fn weight(&self) -> u32 {
        let fields: usize = self.headers.iter().map(|(name, value)| 96 + name.as_str().len() + value.len()).sum();
        u32::try_from(256 + fields).unwrap_or(u32::MAX)
    }
}

/// The decisions about one request, by the addresses of who asked for them.
#[derive(Clone, Default)]
pub(super) struct Grants(Vec<(usize, Arc<Granted>)>);

impl Grants {
    pub(super) fn put(&mut self, whose: usize, granted: Arc<Granted>) {
        self.0.push((whose, granted));
    }

    pub(super) fn of(&self, whose: usize) -> Option<&Arc<Granted>> {
        self.0.iter().find(|(address, _)| *address == whose).map(|(_, granted)| granted)
    }
}

/// Whether an answer says that it is not to be kept (RFC 9111, section 5.2.2.5).
pub(super) fn is_private(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CACHE_CONTROL).iter().map(|line| line.to_str().unwrap_or("no-store"));
    lines.flat_map(|line| line.split(',')).any(|word| word.trim().eq_ignore_ascii_case("no-store"))
}

fn target(req: &RequestHeader, ctx: &Ctx) -> String {
    match req.uri.query() {
        Some(query) => format!("{}?{query}", ctx.path),
        None => ctx.path.to_string(),
    }
}

/// The host as the client wrote it, with its port; it was checked with the request.
fn host(req: &RequestHeader) -> Option<&HeaderValue> {
    req.headers.get(header::HOST)
}

impl Asker {
    /// The question about a request.
    pub(super) fn question(&self, req: &RequestHeader, ctx: &Ctx) -> Ask {
        let mut headers = HeaderMap::with_capacity(self.request_headers.len() + 6);
        for name in &self.request_headers {
            for value in req.headers.get_all(name) {
                headers.append(name, value.clone());
            }
        }
        // Each of these comes from a checked request, and is a field value.
        let mut say = |name: HeaderName, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        say(METHOD, req.method.as_str());
        say(PROTO, ctx.scheme);
        say(URI, &target(req, ctx));
        say(FOR, &ctx.client.to_string());
        say(REQUEST_ID, ctx.request_id.as_str());
        if let Some(host) = host(req) {
            headers.insert(HOST, host.clone());
        }
        let (method, timeout, max_body) = (self.method.clone(), self.timeout, self.max_body);
        Ask { method, headers, timeout, max_body, ..Ask::get(self.url.as_str()) }
    }

    /// What a decision about a request is remembered by: all that the service sees, but for the request's id.
    pub(super) fn key(&self, req: &RequestHeader, ctx: &Ctx) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        // With its length before each part no two requests have the same text.
        let mut add = |part: &[u8]| {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        };
        add(req.method.as_str().as_bytes());
        add(ctx.scheme.as_bytes());
        add(host(req).map_or(&[], HeaderValue::as_bytes));
        add(target(req, ctx).as_bytes());
        add(ctx.client.to_string().as_bytes());
        for name in &self.keyed {
            add(&(req.headers.get_all(name).iter().count() as u64).to_be_bytes());
            req.headers.get_all(name).iter().for_each(|value| add(value.as_bytes()));
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        key
    }

    /// What an answer of 2xx grants; the reply where it names a consumer that is none.
    pub(super) fn granted(&self, told: &Told) -> Result<Granted, Reply> {
        let consumer =
            match &self.consumer_header {
                None => None,
                Some(name) => {
                    let mut named = told.headers.get_all(name).iter();
                    let one = named.next().filter(|_| named.next().is_none()).and_then(|value| value.to_str().ok());
                    let found = one.and_then(|name| self.consumers.named(name));
                    let detail = "The caller of this request is not known here.";
                    Some(found.cloned().ok_or_else(|| {
                        Reply::problem(StatusCode::FORBIDDEN, "forward_auth_consumer_unknown", detail)
                    })?)
                }
            };
        let values = |name: &HeaderName| {
            let named = told.headers.get_all(name).iter();
            named.map(|value| (name.clone(), value.clone())).collect::<Vec<_>>()
        };
        Ok(Granted { headers: self.upstream_headers.iter().flat_map(values).collect(), consumer })
    }

    /// The service's answer as the client gets it.
    pub(super) fn denied(&self, told: Told) -> Reply {
        let Told { status, headers, body } = told;
        let media_type = headers.get(header::CONTENT_TYPE).cloned();
        let mut reply = Reply { content: Content::Other { media_type, body }, ..Reply::empty(status) };
        let passed = self.client_headers.iter().filter(|name| **name != header::CONTENT_TYPE);
        // The coding belongs to the body, whatever is passed on.
        let coding = [header::CONTENT_ENCODING];
        for name in passed.chain(coding.iter().filter(|name| !self.client_headers.contains(name))) {
            for value in headers.get_all(name) {
                reply = reply.header(name.clone(), value.clone());
            }
        }
        if !reply.headers.iter().any(|(name, _)| name == header::CACHE_CONTROL) {
            reply = reply.header(header::CACHE_CONTROL, NO_STORE);
        }
        reply
    }
}
