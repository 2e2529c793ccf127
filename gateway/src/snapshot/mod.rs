//! The compiled, immutable form of a configuration. [`Snapshot::compile`] is its only constructor.

mod balance;
mod chains;
mod compression;
mod consumers;
mod fallback;
mod identity;
mod listeners;
mod routes;
mod split;
mod stores;
mod tls;
mod upstreams;
mod watched;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use crossway_plugin_api::{
    ConsumerDirectory, Deps,
    config::{ByteSize, Network},
};

use crate::{
    certificate::Facts,
    chain::Chain,
    coding::Compression,
    config::{
        Loaded,
        error::{ConfigError, Diagnostic, Severity},
        limits::{ClientLimits, Limits},
        route::EncodedSlashes,
    },
    front::tls::{Tables, TlsTable},
    keys,
    proxy_status::ProxyStatus,
    request::HeaderLimits,
    router::{Router, Template},
    store,
    telemetry::line::Secrets,
    telemetry::metrics::{Expiry, ListenerMetrics, Metrics, NO_ROUTE, Names, RouteMetrics},
    upstream::{Registry, Upstream},
};

pub use fallback::{Failure, Fallback, Instead};
pub use split::{Destination, Target as SplitTarget};

/// One configuration, ready to serve.
pub struct Snapshot {
    /// Number of this configuration, counted from 1; 0 if it was only checked.
    pub generation: u64,
    /// SHA-256 over the names and texts of its files.
    pub hash: String,
    /// Listeners by their address.
    pub listeners: HashMap<String, Arc<ListenerState>>,
    /// Which route takes a request.
    pub router: Router<Arc<Route>>,
    /// Upstreams by name.
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    /// The plugins of every route, for requests that no route takes.
    pub global: Arc<Chain>,
    /// Compression of answers to requests that no route takes.
    pub compression: Option<Arc<Compression>>,
    /// What clients are told of faults.
    pub proxy_status: ProxyStatus,
    /// Named callers.
    pub consumers: Arc<ConsumerDirectory>,
    /// Where state is kept.
    pub stores: store::Plan,
    /// Where keys that are issued at run time are kept, if anywhere.
    pub keys: Option<keys::Plan>,
    /// Metrics of requests that no route takes.
    pub no_route: RouteMetrics,
    /// The configuration as written.
    pub loaded: Loaded,
    /// What an operator should know about the configuration, though it is valid.
    pub warnings: Vec<Diagnostic>,
}

/// One listener, as a configuration has it.
pub struct ListenerState {
    /// Name in the configuration.
    pub name: String,
    /// Number that the router knows it by.
    pub entry: u32,
    /// Limits of this listener.
    pub limits: Limits,
    /// TLS; without it connections are plain.
    pub tls: Option<Arc<TlsTable>>,
    /// Whether HTTP/2 is spoken, beside HTTP/1.1.
    pub http2: bool,
    /// Proxies whose word on the client's address is taken.
    pub trusted_proxies: Vec<Network>,
    /// Every connection begins with a PROXY header.
    pub proxy_protocol: bool,
    /// Counters and gauges.
    pub metrics: ListenerMetrics,
}

impl ListenerState {
    /// The scheme of the URLs that lead here.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Bounds on a request header.
    pub fn header_limits(&self) -> HeaderLimits {
        let request = &self.limits.request;
        let bytes = |size: ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
        HeaderLimits {
            bytes: bytes(request.header_bytes),
            fields: request.header_fields as usize,
            uri: bytes(request.uri),
        }
    }
}

/// One route, compiled.
pub struct Route {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Names of its path parameters.
    pub params: Arc<[Arc<str>]>,
    /// Its plugins: the global ones, the named chain's, its own.
    pub chain: Arc<Chain>,
    /// How its requests reach the upstream.
    pub way: Way,
    /// What follows the chain.
    pub target: Target,
    /// What comes in place of its upstream's failures, if anything.
    pub fallback: Option<Fallback>,
    /// Methods it takes.
    pub methods: Vec<http::Method>,
    /// Time until the response header, if the route bounds it.
    pub timeout: Option<Duration>,
    /// Largest request body.
    pub max_request_body: Option<u64>,
    /// Largest body a plugin may hold.
    pub max_buffered_body: Option<u64>,
    /// Longest pause of a client within a body, if the route bounds it.
    pub client_idle: Option<Duration>,
    /// Slowest rate of a client in bytes a second, if the route bounds it; 0 for none.
    pub client_min_rate: Option<u64>,
    /// How long a WebSocket may be silent; `None` where the route serves none.
    pub websocket: Option<Duration>,
    /// Whether it takes gRPC-web.
    pub grpc_web: bool,
    /// How responses are compressed; `None` where they are not.
    pub compression: Option<Arc<Compression>>,
    /// What an encoded slash means.
    pub encoded_slashes: EncodedSlashes,
    /// Counters and histograms.
    pub metrics: RouteMetrics,
}

impl Route {
    /// The bounds on a client that sends or takes a body, where they are not the listener's: bytes a second (0 for none),
    /// and the longest pause.
    pub fn client_pace(&self, listener: &ClientLimits) -> Option<(u64, Duration)> {
        (self.client_idle.is_some() || self.client_min_rate.is_some())
            .then(|| (self.client_min_rate.unwrap_or(listener.min_rate.0), self.client_idle.unwrap_or(listener.idle.0)))
    }
}

/// How requests reach an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Pingora passes bytes on as they come.
    Stream,
    /// One request, one response, buffered where a plugin wants the whole; and which body made it so.
    Exchange(&'static str),
}

/// What follows a route's chain.
pub enum Target {
    /// An upstream, with what is changed on the way.
    Upstream {
        /// Where requests go.
        to: Destination,
        /// The new path, if it is rewritten.
        path: Option<Template>,
        /// Which host the upstream is told.
        host: HostRewrite,
    },
    /// A redirect.
    Redirect {
        /// Where to.
        to: Template,
        /// Status of the answer.
        status: http::StatusCode,
    },
    /// Nothing: a plugin answers every request.
    Answered,
}

/// Which host an upstream is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRewrite {
    /// The endpoint's own name.
    Endpoint,
    /// The client's.
    Preserve,
    /// This one.
    Fixed(http::HeaderValue),
}

/// What a configuration is compiled with: what survives it.
pub struct Surroundings<'a> {
    /// Pools in use.
    pub registry: &'a Arc<Registry>,
    /// TLS of listeners in use.
    pub tables: &'a Arc<Tables>,
    /// Metrics of the process.
    pub metrics: &'a Arc<Metrics>,
    /// What plugins are lent, beside the consumers.
    pub lent: &'a Deps,
    /// Number of the new configuration.
    pub generation: u64,
}

/// Collects what is wrong while a configuration is compiled.
struct Compiler<'a> {
    loaded: &'a Loaded,
    around: &'a Surroundings<'a>,
    deps: Deps,
    compression: Option<Arc<Compression>>,
    found: Vec<Diagnostic>,
    said: HashSet<String>,
}

impl Snapshot {
    /// Builds everything, or says all that is wrong. Binds nothing, starts nothing.
    pub fn compile(loaded: Loaded, around: &Surroundings<'_>) -> Result<Self, ConfigError> {
        let mut compiler = Compiler {
            loaded: &loaded,
            around,
            deps: around.lent.clone(),
            compression: None,
            found: Vec::new(),
            said: HashSet::new(),
        };
        compiler.compression = compiler.compression();
        compiler.deps.consumers = Arc::new(compiler.consumers());
        compiler.admin();
        compiler.runtime();
        let stores = compiler.stores();
        if loaded.config.stores.shared.is_none() {
            compiler.deps.shared = None;
        }
        let keys = compiler.keys();
        let listeners = compiler.listeners();
        let upstreams = compiler.upstreams();
        let global = Arc::new(compiler.global_chain());
        compiler.unused_chains();
        let router = compiler.routes(&upstreams);
        let (found, compression, consumers) = (compiler.found, compiler.compression, compiler.deps.consumers);
        if found.iter().any(|d| d.severity == Severity::Error) {
            return Err(loaded.refused(found));
        }
        Ok(Self {
            generation: around.generation,
            hash: loaded.hash.clone(),
            listeners,
            router,
            upstreams,
            global,
            compression,
            proxy_status: ProxyStatus::compile(&loaded.config.telemetry.proxy_status),
            consumers,
            stores,
            keys,
            no_route: around.metrics.route(NO_ROUTE),
            warnings: found,
            loaded,
        })
    }

    /// The certificates that listeners serve with, for the metric of their expiry.
    pub fn certificates(&self) -> Vec<Expiry<'_>> {
        let tables = self.listeners.values().filter_map(|listener| Some((listener, listener.tls.as_ref()?)));
        tables
            .flat_map(|(listener, table)| {
                let expiry = |facts: &Facts| Expiry {
                    listener: &listener.name,
                    certificate: facts.label(),
                    not_after: facts.validity.to,
                };
                table.certificates().map(expiry)
            })
            .collect()
    }

    /// What carries secrets by the settings of plugins, and is never logged.
    pub fn secrets(&self) -> Secrets {
        let mut secrets = Secrets::default();
        let chains = self.router.values().map(|route| &route.chain).chain([&self.global]);
        for need in chains.flat_map(|chain| chain.needs()) {
            secrets.query.extend(need.secret_query.iter().cloned());
            secrets.headers.extend(need.secret_headers.iter().cloned());
        }
        secrets
    }

    /// The names that labels of metrics may have.
    pub fn names(&self) -> Names {
        Names {
            routes: self.loaded.config.routes.iter().map(|route| route.name.clone()).collect(),
            upstreams: self.upstreams.keys().cloned().collect(),
            listeners: self.listeners.values().map(|listener| listener.name.clone()).collect(),
        }
    }
}

impl Compiler<'_> {
    /// Reports an error at a place, once however often it is found.
    fn error(&mut self, pointer: &str, message: impl Into<String>) {
        let diagnostic = self.loaded.sources.error(pointer, message);
        self.add(pointer, diagnostic);
    }

    /// Takes a diagnostic about a place, once however often it is found.
    fn add(&mut self, pointer: &str, diagnostic: Diagnostic) {
        if self.said.insert(format!("{pointer}\0{}", diagnostic.message)) {
            self.found.push(diagnostic);
        }
    }

    /// Reports what is odd and keeps nothing from being used.
    fn warning(&mut self, pointer: &str, message: impl Into<String>) {
        let diagnostic = self.loaded.sources.warning(pointer, message);
        self.add(pointer, diagnostic);
    }

    fn error_with_help(&mut self, pointer: &str, message: impl Into<String>, help: impl Into<String>) {
        let diagnostic = self.loaded.sources.error(pointer, message).help(help);
        self.add(pointer, diagnostic);
    }

    /// A name that is not there, with the nearest one that is.
    fn unknown(&mut self, pointer: &str, kind: &str, name: &str, known: &[&str]) {
        let message = format!("there is no {kind} `{name}`");
        match crossway_plugin_api::suggest(name, known.iter().copied()) {
            Some(near) => self.error_with_help(pointer, message, format!("did you mean `{near}`?")),
            None => self.error(pointer, message),
        }
    }
}

/// A JSON Pointer below another (RFC 6901).
fn below(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}
