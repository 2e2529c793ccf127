//! What Pingora's errors mean, in our words.

use crossway_plugin_api::Fault;
use pingora_core::{Error, ErrorSource, ErrorType};

/// An error while a connection, or a stream on one, was being made: nothing of the request has been sent.
pub fn connecting(error: &Error) -> Fault {
    let cause = error.root_cause();
    match upstream(error) {
        Fault::Tls(_) if has_no_protocol(error) => Fault::Connect(NOT_HTTP2.to_owned()),
        Fault::Reset(detail) | Fault::Unprocessed(detail) | Fault::UpstreamProtocol(detail) => Fault::Connect(detail),
        // Pingora's name for a failed beginning of HTTP/2 too.
        Fault::Tls(detail) if cause.downcast_ref::<h2::Error>().is_some() => Fault::Connect(detail),
        other => other,
    }
}

/// What is wrong with an endpoint that has not agreed to HTTP/2.
pub const NOT_HTTP2: &str = "the endpoint does not speak HTTP/2";

/// Whether the endpoint has ended the handshake because it knows no protocol that was offered (RFC 7301, section 3.2).
/// Pingora keeps the text of the TLS library's error only.
fn has_no_protocol(error: &Error) -> bool {
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol).to_string();
    says(error, &alert)
}

fn says(error: &Error, text: &str) -> bool {
    error.context.as_ref().is_some_and(|context| context.as_str().contains(text))
}

/// An error on the way to or from an endpoint.
pub fn upstream(error: &Error) -> Fault {
    let detail = || error.root_cause().to_string();
    if let Some(cause) = error.root_cause().downcast_ref::<h2::Error>() {
        return http2(cause);
    }
    match error.etype() {
        // An endpoint that does not answer a ping loses its connection.
        &pingora_core::protocols::http::v2::client::PING_TIMEDOUT => Fault::Reset("no answer to a ping".to_owned()),
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Fault::ConnectTimeout,
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::SocketError
        | ErrorType::ConnectProxyFailure => Fault::Connect(detail()),
        ErrorType::TLSHandshakeFailure
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError
        | ErrorType::TLSWantX509Lookup => Fault::Tls(detail()),
        // Pingora writes to a stream that the endpoint has ended; why, nobody has read by then.
        ErrorType::H2Error if says(error, "cannot reserve capacity") => Fault::Reset("the stream has ended".to_owned()),
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Fault::UpstreamTimeout,
        ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed => Fault::Reset(detail()),
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::H2Error | ErrorType::InvalidH2 => {
            Fault::UpstreamProtocol(detail())
        }
        // Kinds that Pingora keeps to itself, but for their names.
        kind if matches!(kind.as_str(), "InvalidChunk" | "InvalidTrailerEnd") => Fault::UpstreamProtocol(detail()),
        _ => Fault::Internal(detail()),
    }
}

/// What ended an HTTP/2 stream.
fn http2(cause: &h2::Error) -> Fault {
    let detail = cause.to_string();
    if !cause.is_remote() {
        return if cause.is_io() { Fault::Reset(detail) } else { Fault::UpstreamProtocol(detail) };
    }
    // Only streams beyond the last one that the endpoint names in GOAWAY end with it; both kinds were not processed
    // (RFC 9113, section 8.7).
    if cause.is_go_away() || cause.reason() == Some(h2::Reason::REFUSED_STREAM) {
        Fault::Unprocessed(detail)
    } else {
        Fault::Reset(detail)
    }
}

/// Any error that ended a proxied request.
pub fn of(error: &Error) -> Fault {
    if *error.esource() != ErrorSource::Downstream {
        return upstream(error);
    }
    match error.etype() {
        ErrorType::ReadTimedout => Fault::ClientTimeout,
        ErrorType::InvalidHTTPHeader => Fault::RequestFraming(error.root_cause().to_string()),
        _ => Fault::ClientGone,
    }
}
