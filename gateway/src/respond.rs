//! The only place where a reply, a refusal or a fault becomes bytes.

use std::{borrow::Cow, io::Write as _};

use bytes::Bytes;
use crossway_plugin_api::{Content, Fault, Problem, Reply, RequestId};
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora_core::{Result, protocols::http::HttpTask};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use crate::{flow::grpc, request::Refusal};

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// `Retry-After` where nobody knows when there will be room (RFC 9110, section 10.2.3): seconds.
const SOON: HeaderValue = HeaderValue::from_static("1");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The answer to a fault. What the client learns is a fixed sentence; the detail is in the log.
pub fn fault_reply(fault: &Fault) -> Reply {
    let (status, detail) = match fault {
        Fault::NoEndpoint => (StatusCode::SERVICE_UNAVAILABLE, "No upstream server is available."),
        Fault::CircuitOpen { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "The upstream server has failed too often, and is given time to recover.")
        }
        Fault::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "The upstream server has as many requests as it may."),
        Fault::Connect(_) => (StatusCode::BAD_GATEWAY, "The upstream server could not be reached."),
        Fault::ConnectTimeout => (StatusCode::GATEWAY_TIMEOUT, "The upstream server could not be reached in time."),
        Fault::Tls(_) => (StatusCode::BAD_GATEWAY, "The upstream server could not be trusted."),
        Fault::Reset(_) => (StatusCode::BAD_GATEWAY, "The upstream server broke the connection."),
        Fault::Unprocessed(_) => (StatusCode::SERVICE_UNAVAILABLE, "The upstream server did not take the request."),
        Fault::UpstreamTimeout | Fault::AttemptTimeout => {
            (StatusCode::GATEWAY_TIMEOUT, "The upstream server did not answer in time.")
        }
        Fault::UpstreamProtocol(_) => (StatusCode::BAD_GATEWAY, "The upstream server's answer is not valid HTTP."),
        Fault::ResponseTooLarge { .. } => (StatusCode::BAD_GATEWAY, "The upstream server's answer is too large."),
        Fault::Deadline => (StatusCode::GATEWAY_TIMEOUT, "The request took longer than it may."),
        Fault::ClientTimeout => (StatusCode::REQUEST_TIMEOUT, "The request did not arrive in time."),
        Fault::RequestTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "The request body is larger than allowed."),
        Fault::RequestFraming(_) => (StatusCode::BAD_REQUEST, "The request body's framing is not valid."),
        Fault::Loop => (StatusCode::LOOP_DETECTED, "The request goes in circles."),
        Fault::ClientGone => (CLIENT_GONE, "The client closed the connection."),
        Fault::Dependency(_) => (StatusCode::SERVICE_UNAVAILABLE, "A service that this request needs did not answer."),
        Fault::UpstreamAuth { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "The gateway cannot sign in at the upstream server now.")
        }
        Fault::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "The gateway failed to handle this request."),
    };
    let reply = Reply::problem(status, fault.code(), detail);
    match fault {
        Fault::UpstreamAuth { retry_after } | Fault::CircuitOpen { retry_after } => {
            reply.header(header::RETRY_AFTER, HeaderValue::from(*retry_after))
        }
        Fault::Busy(_) => reply.header(header::RETRY_AFTER, SOON),
        _ => reply,
    }
}

/// Status of a request whose client has gone: never sent, only logged (nginx's number for it).
pub const CLIENT_GONE: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

/// The answer to a request that is refused before a route is chosen.
pub fn refusal_reply(refusal: &Refusal) -> Reply {
    let reply = Reply::problem(refusal.status, refusal.code, refusal.detail);
    if is_passing(refusal) { reply.header(header::RETRY_AFTER, SOON) } else { reply }
}

/// Whether the same request may well be taken a little later.
fn is_passing(refusal: &Refusal) -> bool {
    refusal.status == StatusCode::SERVICE_UNAVAILABLE
}

/// A problem document (RFC 9457).
fn problem_bytes(status: StatusCode, problem: &Problem, id: &RequestId) -> Vec<u8> {
    let title = status.canonical_reason().unwrap_or("Error");
    let mut document = serde_json::json!({
        "type": "about:blank",
        "title": title,
        "status": status.as_u16(),
        "code": problem.code,
        "detail": problem.detail,
        "request_id": id.as_str(),
    });
    for (name, value) in &problem.members {
        document[*name] = value.clone();
    }
    document.to_string().into_bytes()
}

/// The header and body of a reply, in the form that a gRPC call takes where it is the answer to one; the response phases
/// of the chain come after this.
pub fn parts(reply: &Reply, id: &RequestId, wire: Option<grpc::Wire>) -> Result<(ResponseHeader, Bytes)> {
    if let Some(wire) = wire
        && let Some(head) = grpc::parts(reply, wire)?
    {
        return Ok((head, Bytes::new()));
    }
    let mut head = ResponseHeader::build_no_case(reply.status, Some(8 + reply.headers.len()))?;
    let (media_type, body): (Option<Cow<'_, HeaderValue>>, Bytes) = match &reply.content {
        Content::Empty => (None, Bytes::new()),
        Content::Problem(problem) => {
            head.insert_header(header::CACHE_CONTROL, NO_STORE)?;
            (Some(Cow::Owned(PROBLEM)), problem_bytes(reply.status, problem, id).into())
        }
        Content::Other { media_type, body } => (media_type.as_ref().map(Cow::Borrowed), body.clone()),
    };
    if let Some(media_type) = media_type {
        head.insert_header(header::CONTENT_TYPE, media_type.into_owned())?;
    }
    for (name, value) in &reply.headers {
        head.append_header(name.clone(), value.clone())?;
    }
    Ok((head, body))
}

/// Sets the framing of a response whose whole body is known (RFC 9110, section 8.6).
pub fn frame(head: &mut ResponseHeader, length: usize) -> Result<()> {
    head.remove_header(&header::TRANSFER_ENCODING);
    head.remove_header(&header::CONTENT_LENGTH);
    if !matches!(head.status.as_u16(), 204 | 304) {
        head.insert_header(header::CONTENT_LENGTH, length)?;
    }
    Ok(())
}

/// Gives a response its `Date`, where it has none (RFC 9110, section 6.6.1).
pub fn date(head: &mut ResponseHeader) -> Result<()> {
    if !head.headers.contains_key(header::DATE) {
        head.insert_header(header::DATE, httpdate::fmt_http_date(std::time::SystemTime::now()))?;
    }
    Ok(())
}

/// Sends a response whose whole body is known. Returns the number of body bytes sent.
pub async fn send(session: &mut Session, mut head: ResponseHeader, body: Bytes) -> Result<u64> {
    frame(&mut head, body.len())?;
    date(&mut head)?;
    let bodiless = session.req_header().method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
    let silent = bodiless || body.is_empty();
    if silent && session.req_header().version == Version::HTTP_2 {
        // A caller of gRPC takes a status in a header only if the stream ends with that header; any other call of Pingora's
        // ends it with a frame of its own. Such an answer has no content that could have a length.
        if head.headers.contains_key(grpc::STATUS) {
            head.remove_header(&header::CONTENT_LENGTH);
        }
        session.write_response_tasks(vec![HttpTask::Header(Box::new(head), true)]).await?;
        return Ok(0);
    }
    session.write_response_header(Box::new(head), silent).await?;
    if silent {
        return Ok(0);
    }
    let length = body.len() as u64;
    session.write_response_body(Some(body), true).await?;
    Ok(length)
}

/// The header and body of the answer to an HTTP/2 request that never became one of Pingora's.
pub fn refusal_parts(refusal: &Refusal, id: &RequestId, req: &RequestHeader) -> Result<(ResponseHeader, Bytes)> {
    let call = grpc::Call::native(req, Version::HTTP_2);
    let (mut head, body) = parts(&refusal_reply(refusal), id, call.map(|call| call.wire))?;
    head.insert_header(REQUEST_ID, id.as_str())?;
    if !body.is_empty() {
        frame(&mut head, body.len())?;
    }
    Ok((head, body))
}

/// The whole response to something that never became a request of Pingora's, closing the connection.
pub fn refusal_bytes(refusal: &Refusal, id: &RequestId) -> Vec<u8> {
    let problem = Problem { code: refusal.code, detail: refusal.detail.to_owned(), members: Vec::new() };
    let body = problem_bytes(refusal.status, &problem, id);
    let mut bytes = Vec::with_capacity(256 + body.len());
    let reason = refusal.status.canonical_reason().unwrap_or("Error");
    let retry = if is_passing(refusal) { "retry-after: 1\r\n" } else { "" };
    // Writing to a vector cannot fail.
    let _ = write!(
        bytes,
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\ncache-control: no-store\r\nx-request-id: {id}\r\n{retry}date: {}\r\nconnection: close\r\n\r\n",
        refusal.status.as_u16(),
        body.len(),
        httpdate::fmt_http_date(std::time::SystemTime::now()),
    );
    bytes.extend_from_slice(&body);
    bytes
}
