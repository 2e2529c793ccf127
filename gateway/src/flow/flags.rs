//! What happened to a request, for the access log.

use crossway_plugin_api::Fault;
use http::StatusCode;

use super::Admitted;
use crate::{
    request,
    telemetry::flags::{Flag, Flags},
};

impl Admitted {
    /// What happened, once the request is over; `status` is what the client got.
    pub(super) fn flags(&self, status: Option<StatusCode>) -> Flags {
        let mut flags = Flags::default();
        let code = |known: &str| self.outcome.code == Some(known);
        flags.add_if(code(request::NO_ROUTE.code), Flag::NoRoute);
        flags.add_if(code(request::OVERLOADED.code), Flag::Shed);
        flags.add_if(self.chain.stopped_by(self.entered).is_some(), Flag::Refused);
        flags.add_if(self.attempts.made > 1, Flag::Retried);
        flags.add_if(!self.attempts.queued.is_zero(), Flag::Queued);
        flags.add_if(self.outcome.cut, Flag::Cut);
        let fault = self.outcome.fault.as_ref().filter(|_| self.outcome.code.is_some());
        match fault.and_then(of) {
            Some(flag) => flags.add(flag),
            None => flags.add_if(self.is_upstreams(status), Flag::UpstreamError),
        }
        flags
    }

    /// Whether an error is what the upstream has answered, and nobody else.
    fn is_upstreams(&self, status: Option<StatusCode>) -> bool {
        self.outcome.code.is_none() && self.attempts.made > 0 && status.is_some_and(|status| status.is_server_error())
    }
}

/// The flag of a fault.
fn of(fault: &Fault) -> Option<Flag> {
    Some(match fault {
        Fault::NoEndpoint => Flag::NoEndpoint,
        Fault::CircuitOpen { .. } => Flag::CircuitOpen,
        Fault::Busy(_) => Flag::Busy,
        Fault::Connect(_) | Fault::ConnectTimeout | Fault::Tls(_) => Flag::ConnectFailed,
        Fault::Reset(_) | Fault::Unprocessed(_) => Flag::Reset,
        Fault::UpstreamTimeout | Fault::AttemptTimeout => Flag::Timeout,
        Fault::UpstreamProtocol(_) => Flag::Protocol,
        Fault::ResponseTooLarge { .. } => Flag::TooLarge,
        Fault::Deadline => Flag::Deadline,
        Fault::ClientTimeout => Flag::ClientSlow,
        Fault::RequestTooLarge { .. } | Fault::RequestFraming(_) => Flag::BadRequest,
        Fault::ClientGone => Flag::ClientGone,
        // The code says all there is to say.
        Fault::Loop | Fault::Dependency(_) | Fault::UpstreamAuth { .. } | Fault::Internal(_) => return None,
    })
}
