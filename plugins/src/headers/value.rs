//! Field values with placeholders.

use std::{borrow::Cow, fmt, io::Write as _};

use bytes::Bytes;
use crossway_plugin_api::{Ctx, Fault};
use http::HeaderValue;
use schemars::JsonSchema;
use serde::Deserialize;

/// A field value as it is written, placeholders included. It may be a credential, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ValueText(pub String);

impl fmt::Debug for ValueText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl JsonSchema for ValueText {
    fn schema_name() -> Cow<'static, str> {
        "ValueText".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string", "writeOnly": true,
            "description": "The value of a header field; may hold placeholders such as {request_id}.",
            "examples": ["{request_id}"],
        })
    }
}

/// A compiled value.
pub(super) enum Value {
    /// Without placeholders.
    Constant(HeaderValue),
    /// Put together for each request.
    Built(Box<[Part]>),
}

/// A piece of a value.
pub(super) enum Part {
    Text(Box<str>),
    RequestId,
    Client,
    Consumer,
    Route,
    Path(Box<str>),
}

impl Value {
    /// Compiles a text. The error is the rest of a sentence and does not repeat the text.
    pub(super) fn compile(text: &str) -> Result<Self, &'static str> {
        if !text.bytes().all(|b| matches!(b, b'\t' | b' '..=b'~')) {
            return Err("is not a header field value: visible ASCII characters, spaces and tabs only");
        }
        let parts = parts(text)?;
        let literal = match &*parts {
            [] => "",
            [Part::Text(literal)] => literal,
            _ => return Ok(Self::Built(parts.into())),
        };
        HeaderValue::from_str(literal).map(Self::Constant).map_err(|_| "is not a header field value")
    }

    /// The value for this request.
    pub(super) fn render(&self, ctx: &Ctx) -> Result<HeaderValue, Fault> {
        let parts = match self {
            Self::Constant(value) => return Ok(value.clone()),
            Self::Built(parts) => parts,
        };
        let mut out = Vec::with_capacity(64);
        for part in parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::RequestId => push(&mut out, ctx.request_id.as_str()),
                // Writing to a vector cannot fail.
                Part::Client => drop(write!(out, "{}", ctx.client)),
                Part::Consumer => push(&mut out, ctx.consumer.as_ref().map_or("", |consumer| consumer.name())),
                Part::Route => push(&mut out, ctx.route.as_deref().unwrap_or_default()),
                Part::Path(name) => push(&mut out, ctx.param(name).unwrap_or_default()),
            }
        }
        HeaderValue::from_maybe_shared(Bytes::from(out))
            .map_err(|error| Fault::Internal(format!("a field value cannot be built: {error}")))
    }
}

fn parts(text: &str) -> Result<Vec<Part>, &'static str> {
    const UNKNOWN: &str = "has an unknown placeholder: there are {request_id}, {client}, {consumer}, {route} and \
                           {path.NAME}; write {{ for a literal brace";
    let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find('{') {
        literal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('{') {
            literal.push('{');
            rest = after;
            continue;
        }
        let (name, after) = rest.split_once('}').ok_or("has a placeholder that does not end")?;
        if !literal.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut literal).into()));
        }
        parts.push(match name {
            "request_id" => Part::RequestId,
            "client" => Part::Client,
            "consumer" => Part::Consumer,
            "route" => Part::Route,
            _ => Part::Path(name.strip_prefix("path.").filter(|name| is_parameter(name)).ok_or(UNKNOWN)?.into()),
        });
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(Part::Text(literal.into()));
    }
    Ok(parts)
}

/// Whether a route could have a path parameter of this name.
fn is_parameter(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    first && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Appends what a request brought: all but visible ASCII and spaces is percent-encoded (RFC 3986, section 2.1).
fn push(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}
