//! What a plugin is, and how one is made.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::{
    Clock, ConsumerDirectory, Ctx, Fault, Fetch, IssuedKeys, MetricsScope, Needs, NoFetch, NoIssuedKeys, Reply,
    SharedState, SharedStore, Tasks, suggest,
};

/// The configuration of one plugin, and the only way to make one.
pub trait PluginConfig {
    /// Checks what the types cannot, and builds the plugin.
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig>;
}

/// One link of a route's chain. The core calls only the phases that [`Plugin::needs`] names.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// Which phases and bodies this plugin takes part in. Asked once, when the configuration is compiled.
    fn needs(&self) -> Needs;

    /// Sees the request header, before an upstream is chosen.
    async fn on_request(&self, _req: &mut RequestHeader, _ctx: &mut Ctx) -> Result<Decision, Fault> {
        Ok(Decision::Continue)
    }

    /// Sees the whole request body, bounded by `needs().request_body`, before an upstream is chosen.
    async fn on_request_body(
        &self,
        _body: &mut Bytes,
        _req: &mut RequestHeader,
        _ctx: &mut Ctx,
    ) -> Result<Decision, Fault> {
        Ok(Decision::Continue)
    }

    /// Last touch before the upstream, once per attempt: identity headers and upstream credentials go in here only,
    /// because whatever the client could name in `Connection` is gone by now.
    fn on_upstream_request(&self, _req: &mut RequestHeader, _ctx: &mut Ctx) -> Result<(), Fault> {
        Ok(())
    }

    /// Sees the response header before it goes to the client. Runs on every answer: the upstream's, a cached one, a
    /// reply, a fault; in reverse chain order, for the plugins that saw the request.
    fn on_response(&self, _res: &mut ResponseHeader, _ctx: &mut Ctx) -> Result<(), Fault> {
        Ok(())
    }

    /// Sees the upstream's whole response body, bounded by `needs().response_body`; may replace status, headers and body.
    async fn on_response_body(
        &self,
        _body: &mut Bytes,
        _res: &mut ResponseHeader,
        _ctx: &mut Ctx,
    ) -> Result<(), Fault> {
        Ok(())
    }

    /// Runs once when the request is over, however it ended.
    fn on_done(&self, _outcome: &Outcome, _ctx: &Ctx) {}
}

/// What the chain does after a plugin has seen a request.
#[derive(Debug)]
pub enum Decision {
    /// Hand the request to the next plugin.
    Continue,
    /// Answer now: later plugins and the upstream never see the request.
    Respond(Reply),
    /// From a plugin that authenticates: the request carries no credential of its kind. The answer, unless the caller may
    /// stay anonymous or may identify itself in another way. A credential that is not valid is never absent.
    Absent(Reply),
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome {
    /// The status sent to the client, if any was.
    pub status: Option<StatusCode>,
    /// Stable code of the refusal or fault that ended the request, if one did.
    pub code: Option<&'static str>,
    /// From the complete request header to the end of the response.
    pub duration: Duration,
    /// Body bytes received from the client.
    pub request_bytes: u64,
    /// Body bytes sent to the client.
    pub response_bytes: u64,
}

/// What the gateway lends to plugins while they are built.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The consumers of the configuration, found by their credentials.
    pub consumers: Arc<ConsumerDirectory>,
    /// API keys that were issued at run time.
    pub issued: Arc<dyn IssuedKeys>,
    /// The time of day.
    pub clock: Clock,
    /// Requests to the services that the plugin depends on.
    pub fetch: Arc<dyn Fetch>,
    /// State that survives a reload.
    pub state: SharedState,
    /// The server that gateways share, where the configuration names one.
    pub shared: Option<Arc<dyn SharedStore>>,
    /// Work in the background.
    pub tasks: Tasks,
    /// What the plugin counts.
    pub metrics: MetricsScope,
    /// Which entry of which list the plugin is built for: the entry's `id`, else the list it stands in and the plugin's
    /// name. A reload does not change it, and the routes that share a chain have the same. For the keys of `state`.
    pub entry: Arc<str>,
}

impl Default for Deps {
    /// Nobody may call, nothing is fetched, nothing is started: enough to check a configuration.
    fn default() -> Self {
        Self {
            consumers: Arc::default(),
            issued: Arc::new(NoIssuedKeys),
            clock: Clock::default(),
            fetch: Arc::new(NoFetch),
            state: SharedState::default(),
            shared: None,
            tasks: Tasks::default(),
            metrics: MetricsScope::default(),
            entry: Arc::default(),
        }
    }
}

/// Why a plugin could not be built from its configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {reason}")]
pub struct InvalidConfig {
    /// The offending field as a path below the plugin's own settings, such as `origins/0`; empty for the whole.
    pub field: String,
    /// What is wrong, as the rest of a sentence that begins with the field.
    pub reason: String,
}

impl InvalidConfig {
    /// `field` as a path below the plugin's settings, `reason` as the rest of the sentence.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// `field` names something that is not among `known`; what is near to it is added to the reason.
    pub fn unknown<'a>(
        field: impl Into<String>,
        reason: impl Into<String>,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let near = suggest(name, known).map(|near| format!(": did you mean `{near}`?")).unwrap_or_default();
        Self::new(field, reason.into() + &near)
    }
}
