//! A session with an endpoint, on loan from the exchange's pool.

use std::{sync::Arc, time::Duration};

use crossway_plugin_api::Fault;
use pingora_core::protocols::http::{client::HttpSession, v2::client::Http2Session};

use super::{Endpoint, exchange::Exchange, fault};

/// Why the session is always there.
const PRESENT: &str = "only the end of the loan takes the session out";

/// A session on loan. An HTTP/1.1 connection ends with a loan that is dropped; of an HTTP/2 connection only the stream
/// does, and the connection goes back to the pool, however the loan ends.
pub struct Lease {
    session: Option<Box<HttpSession>>,
    endpoint: Arc<Endpoint>,
    exchange: Arc<Exchange>,
    idle: Duration,
}

impl Lease {
    /// A loan of a session; an unused connection is kept for `idle`.
    pub(super) fn new(session: HttpSession, endpoint: Arc<Endpoint>, exchange: Arc<Exchange>, idle: Duration) -> Self {
        // Boxed: a session is large, and is passed on with the answer.
        Self { session: Some(Box::new(session)), endpoint, exchange, idle }
    }

    pub(super) fn session(&mut self) -> &mut HttpSession {
        self.session.as_mut().expect(PRESENT)
    }

    /// Whether the body that is being read has come to its end. A stream that broke off looks ended too, so an HTTP/2
    /// session is asked how it did.
    pub fn is_body_read(&mut self) -> Result<bool, Fault> {
        match self.session() {
            HttpSession::H2(stream) => stream.check_response_end_or_error().map_err(|error| fault::upstream(&error)),
            other => Ok(other.response_done()),
        }
    }

    /// The HTTP/2 stream that is on loan.
    pub fn http2(&mut self) -> Result<&mut Http2Session, Fault> {
        match self.session() {
            HttpSession::H2(stream) => Ok(stream),
            _ => Err(Fault::Connect(fault::NOT_HTTP2.to_owned())),
        }
    }

    /// Gives the connection back for the next request, if `complete`; ends it otherwise.
    pub async fn end(mut self, complete: bool) {
        let Some(mut session) = self.session.take() else { return };
        if complete || matches!(*session, HttpSession::H2(_)) {
            self.exchange.give_back(*session, &self.endpoint, self.idle).await;
        } else {
            session.shutdown().await;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(session) = self.session.take().filter(|session| matches!(**session, HttpSession::H2(_))) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (exchange, endpoint, idle) = (Arc::clone(&self.exchange), Arc::clone(&self.endpoint), self.idle);
            runtime.spawn(async move { exchange.give_back(*session, &endpoint, idle).await });
        }
    }
}
