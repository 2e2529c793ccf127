//! Gives a fixed answer.
//!
//! Without `instead_of` it answers every request itself; later plugins and the upstream never see one. With it, requests
//! go on, and an answer of the upstream whose status is listed is replaced, body and all. For that the gateway holds the
//! upstream's answers whole, up to 1 MiB: a larger one, whatever its status, is answered 502. Answers that the gateway
//! makes itself (refusals, an upstream that cannot be reached) are left as they are.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use crossway_plugin_api::{
    BodyNeed, Content, Ctx, Decision, Deps, Fault, InvalidConfig, Needs, Plugin, PluginConfig, Reply,
    config::{FieldValue, StatusSet},
};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{self, CONTENT_TYPE},
};
use pingora_http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::fields;

/// Largest answer of the upstream that is held, in bytes.
const MAX_REPLACED: u64 = 1 << 20;

/// Fields that describe the content that is dropped (RFC 9110, sections 8 and 14; RFC 9530; RFC 6266).
const ABOUT_CONTENT: [HeaderName; 13] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_DISPOSITION,
    header::CONTENT_RANGE,
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// Settings of `respond`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Status of the answer, 200 to 599 (RFC 9110, section 15). 204, 205 and 304 have no body.
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// The body, as text. Default none.
    pub body: Option<String>,
    /// `Content-Type` of the body. Default `text/plain; charset=utf-8`, with `json` `application/json`.
    pub content_type: Option<FieldValue>,
    /// The body, as JSON; in place of `body`.
    pub json: Option<Value>,
    /// Header fields of the answer.
    #[serde(default)]
    pub headers: BTreeMap<String, FieldValue>,
    /// Let requests through, and replace the upstream's answers with these statuses. Answers of more than 1 MiB are
    /// refused then, whatever their status. Default: answer every request.
    #[schemars(length(min = 1))]
    pub instead_of: Option<Vec<StatusSet>>,
}

impl PluginConfig for Config {
    fn build(self, _deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        let Self { status, body, content_type, json, headers, instead_of } = self;
        let answer = Fixed { status, body, content_type, json, headers }.build()?;
        if instead_of.as_ref().is_some_and(Vec::is_empty) {
            return Err(InvalidConfig::new("instead_of", "names no status"));
        }
        Ok(match instead_of {
            None => Arc::new(Always(answer)),
            Some(statuses) => Arc::new(InsteadOf { statuses: statuses.into(), answer }),
        })
    }
}

/// A fixed answer, as it stands in other places of a configuration. Serde cannot both flatten this into the settings above
/// and refuse unknown keys, so they repeat it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    /// Status of the answer, 200 to 599 (RFC 9110, section 15). 204, 205 and 304 have no body.
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// The body, as text. Default none.
    pub body: Option<String>,
    /// `Content-Type` of the body. Default `text/plain; charset=utf-8`, with `json` `application/json`.
    pub content_type: Option<FieldValue>,
    /// The body, as JSON; in place of `body`.
    pub json: Option<Value>,
    /// Header fields of the answer.
    #[serde(default)]
    pub headers: BTreeMap<String, FieldValue>,
}

impl Fixed {
    /// The answer, checked; an error names the field of these that is wrong.
    pub fn reply(self) -> Result<Reply, InvalidConfig> {
        self.build().map(|answer| answer.reply())
    }

    fn build(self) -> Result<Answer, InvalidConfig> {
        let status = StatusCode::from_u16(self.status).ok().filter(|_| (200..=599).contains(&self.status));
        let Some(status) = status else {
            return Err(InvalidConfig::new("status", "is not a status of a whole answer: 200 to 599"));
        };
        let (media_type, body) = content(status, self.body, self.json, self.content_type)?;
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, place, value) in fields::parse_keys(self.headers, "headers")? {
            fields::check_framing(&name, &place)?;
            if name == CONTENT_TYPE {
                return Err(InvalidConfig::new(place, "has a setting of its own: `content_type`"));
            }
            headers.push((name, value.0));
        }
        Ok(Answer { status, media_type, body, headers })
    }
}

/// The body with its type; both empty if there is none.
fn content(
    status: StatusCode,
    text: Option<String>,
    json: Option<Value>,
    content_type: Option<FieldValue>,
) -> Result<(Option<HeaderValue>, Bytes), InvalidConfig> {
    let (place, default, body) = match (text, json) {
        (Some(_), Some(_)) => return Err(InvalidConfig::new("json", "stands beside `body`: give one of them")),
        (Some(text), None) => ("body", "text/plain; charset=utf-8", text),
        (None, Some(json)) => ("json", "application/json", json.to_string()),
        (None, None) if content_type.is_some() => {
            return Err(InvalidConfig::new("content_type", "is the type of a body that is not there"));
        }
        (None, None) => return Ok((None, Bytes::new())),
    };
    if matches!(status.as_u16(), 204 | 205 | 304) {
        return Err(InvalidConfig::new(place, format!("cannot be sent: an answer with status {status} has no body")));
    }
    let media_type = content_type.map_or(HeaderValue::from_static(default), |given| given.0);
    Ok((Some(media_type), body.into()))
}

struct Answer {
    status: StatusCode,
    media_type: Option<HeaderValue>,
    body: Bytes,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Answer {
    fn reply(&self) -> Reply {
        let content = match &self.media_type {
            None => Content::Empty,
            media_type => Content::Other { media_type: media_type.clone(), body: self.body.clone() },
        };
        Reply { status: self.status, headers: self.headers.clone(), content }
    }

    fn replace(&self, body: &mut Bytes, res: &mut ResponseHeader) -> Result<(), Fault> {
        for name in &ABOUT_CONTENT {
            res.remove_header(name);
        }
        res.set_status(self.status).map_err(broken)?;
        // The upstream's own words for another status would stay otherwise.
        res.set_reason_phrase(None).map_err(broken)?;
        if let Some(media_type) = &self.media_type {
            res.insert_header(CONTENT_TYPE, media_type.clone()).map_err(broken)?;
        }
        for (name, value) in &self.headers {
            res.insert_header(name.clone(), value.clone()).map_err(broken)?;
        }
        *body = self.body.clone();
        Ok(())
    }
}

struct Always(Answer);

#[async_trait]
impl Plugin for Always {
    fn needs(&self) -> Needs {
        Needs { request: true, answers: true, ..Needs::default() }
    }

    async fn on_request(&self, _req: &mut RequestHeader, _ctx: &mut Ctx) -> Result<Decision, Fault> {
        Ok(Decision::Respond(self.0.reply()))
    }
}

struct InsteadOf {
    statuses: Box<[StatusSet]>,
    answer: Answer,
}

#[async_trait]
impl Plugin for InsteadOf {
    fn needs(&self) -> Needs {
        let whole = BodyNeed { statuses: self.statuses.to_vec(), ..BodyNeed::any(MAX_REPLACED) };
        Needs { response_body: Some(whole), ..Needs::default() }
    }

    async fn on_response_body(&self, body: &mut Bytes, res: &mut ResponseHeader, _ctx: &mut Ctx) -> Result<(), Fault> {
        if self.statuses.iter().any(|set| set.contains(res.status)) { self.answer.replace(body, res) } else { Ok(()) }
    }
}

fn broken(error: impl std::fmt::Display) -> Fault {
    Fault::Internal(format!("the answer cannot be replaced: {error}"))
}

#[cfg(test)]
mod tests;
