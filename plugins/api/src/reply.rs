//! Answers that the gateway makes itself.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use serde_json::Value;

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
    /// Further members (RFC 9457, section 3.2), by names that the gateway itself does not use.
    pub members: Vec<(&'static str, Value)>,
}

impl Reply {
    /// A refusal as a problem document. `code` is stable and documented; `detail` is for the caller.
    pub fn problem(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content: Content::Problem(Problem { code, detail: detail.into(), members: Vec::new() }),
        }
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

    /// Adds a member to a problem document; no other reply has any.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: Value) -> Self {
        if let Content::Problem(problem) = &mut self.content {
            problem.members.push((name, value));
        }
        self
    }

    /// For a caller without a credential, where each of the two would do: 401 with the challenges of both (RFC 9110,
    /// section 11.6.1). Where neither has one, this reply alone.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        let mut challenges: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for field in self.headers.iter().chain(&other.headers).filter(|(name, _)| *name == WWW_AUTHENTICATE) {
            if !challenges.contains(field) {
                challenges.push(field.clone());
            }
        }
        if challenges.is_empty() {
            return self;
        }
        let detail = "This request needs a credential.";
        Self { headers: challenges, ..Self::problem(StatusCode::UNAUTHORIZED, "credential_missing", detail) }
    }

    /// The problem's code, if the body is one.
    pub fn code(&self) -> Option<&'static str> {
        match &self.content {
            Content::Problem(problem) => Some(problem.code),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ways_to_prove_oneself_are_one_answer() {
        let with = |code, challenges: &[&'static str]| {
            challenges.iter().fold(Reply::problem(StatusCode::UNAUTHORIZED, code, "."), |reply, text| {
                reply.header(WWW_AUTHENTICATE, HeaderValue::from_static(text))
            })
        };
        let values = |reply: &Reply| reply.headers.iter().map(|(_, v)| v.clone()).collect::<Vec<_>>();
        let both = with("a", &["Key", "Basic"]).or(&with("b", &["Bearer", "Key"]));
        assert_eq!((both.status, both.code()), (StatusCode::UNAUTHORIZED, Some("credential_missing")));
        assert_eq!(values(&both), ["Key", "Basic", "Bearer"]);
        let forbidden = Reply::problem(StatusCode::FORBIDDEN, "c", ".");
        assert_eq!(values(&forbidden.clone().or(&with("b", &["Bearer"]))), ["Bearer"]);
        assert_eq!(forbidden.or(&with("a", &[])).code(), Some("c"), "401 must have a challenge");
    }
}
