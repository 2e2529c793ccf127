//! `impl ProxyHttp`: each phase delegates. The one adapter to Pingora's hooks, so that its next release changes one file.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora_core::{Error, Result, modules::http::HttpModules, upstreams::peer::HttpPeer};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use crate::{
    flow::{self, Flight, Steps},
    gateway::Gateway,
};

/// Pingora's view of the gateway.
pub struct Proxy {
    steps: Steps,
}

impl Proxy {
    /// The gateway as Pingora's hooks see it.
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Self { steps: Steps::new(gateway) }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Flight;

    fn new_ctx(&self) -> Flight {
        Flight::default()
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, flight: &mut Flight) -> Result<bool> {
        self.steps.request(session, flight).await
    }

    async fn upstream_peer(&self, session: &mut Session, flight: &mut Flight) -> Result<Box<HttpPeer>> {
        self.steps.peer(session, flight).await
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        flight: &mut Flight,
        error: Box<Error>,
    ) -> Box<Error> {
        self.steps.connect_failed(session, flight, error)
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        req: &mut RequestHeader,
        flight: &mut Flight,
    ) -> Result<()> {
        self.steps.upstream_request(req, flight)
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        piece: &mut Option<Bytes>,
        end: bool,
        flight: &mut Flight,
    ) -> Result<()> {
        self.steps.request_body(piece, end, flight)
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        res: &mut ResponseHeader,
        flight: &mut Flight,
    ) -> Result<()> {
        self.steps.upstream_response(session, res, flight).await
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        res: &mut ResponseHeader,
        flight: &mut Flight,
    ) -> Result<()> {
        self.steps.response(session, res, flight)
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        piece: &mut Option<Bytes>,
        end: bool,
        flight: &mut Flight,
    ) -> Result<Option<Duration>> {
        Steps::upstream_response_body(end, flight);
        Steps::response_body(piece, end, flight).map(|()| None)
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        flight: &mut Flight,
    ) -> Result<Option<Bytes>> {
        flow::clean_trailers(trailers);
        Steps::response_trailers(flight)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        flight: &mut Flight,
        reused: bool,
    ) -> Box<Error> {
        self.steps.proxy_failed(session, flight, error, reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, flight: &mut Flight) -> FailToProxy {
        let error_code = self.steps.fail(session, flight, error).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, flight: &mut Flight) {
        self.steps.finish(session, flight, error);
    }

    fn suppress_error_log(&self, _session: &Session, _flight: &Flight, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _flight: &Flight,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
