//! Answers that the gateway makes itself.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

/// A response made by the gateway: a decision, not an error.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status of the response.
    pub status: StatusCode,
    /// Further header fields, such as `WWW-Authenticate` or `Allow`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What the body says.
    pub content: Content,
}

/// The body of a reply.
#[derive(Debug, Clone)]
pub enum Content {
    /// No body.
    Empty,
    /// `application/problem+json` (RFC 9457).
    Problem(Problem),
    /// Anything else.
    Other {
        /// `Content-Type`, if any.
        media_type: Option<HeaderValue>,
        /// The bytes.
        body: Bytes,
    },
}

/// What a problem document says (RFC 9457); the title comes from the status, the instance from the request id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable, documented name of this kind of refusal, such as `api_key_invalid`.
    pub code: &'static str,
    /// One sentence for the caller; never internal detail.
    pub detail: String,
}

impl Reply {
    /// A refusal as a problem document. `code` is stable and documented; `detail` is for the caller.
    pub fn problem(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), content: Content::Problem(Problem { code, detail: detail.into() }) }
    }

    /// A reply without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), content: Content::Empty }
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The problem's code, if the body is one.
    pub fn code(&self) -> Option<&'static str> {
        match &self.content {
            Content::Problem(problem) => Some(problem.code),
            _ => None,
        }
    }
}
