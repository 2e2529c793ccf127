//! What Pingora's errors mean, in our words.

use crossway_plugin_api::Fault;
use pingora_core::{Error, ErrorSource, ErrorType};

/// An error on the way to or from an endpoint.
pub fn upstream(error: &Error) -> Fault {
    let detail = || error.root_cause().to_string();
    match error.etype() {
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
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Fault::UpstreamTimeout,
        ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed => Fault::Reset(detail()),
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::H2Error | ErrorType::InvalidH2 => {
            Fault::UpstreamProtocol(detail())
        }
        _ => Fault::Internal(detail()),
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
