//! Routes, checked and put into the router.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crossway_plugin_api::config::{FieldName, Glob, HumanDuration};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use super::{Compiler, HostRewrite, Route, Target, Way};
use crate::{
    chain::Chain,
    config::{
        error::Diagnostic,
        listener::Listener,
        route::{Auth, Match, Redirect, Rewrite, Route as Config},
    },
    request,
    router::{self, Conflict, ConflictKind, HostPattern, PathPattern, Router, Rule, Template},
    upstream::Upstream,
};

/// The largest request body that Pingora keeps for another attempt. A larger one that a plugin wants whole goes by
/// exchange.
const STREAM_BODY: u64 = 64 << 10;

/// How requests with this chain reach an upstream. On the stream way Pingora does not ask for a body that a plugin makes
/// where there was none, if the upstream speaks HTTP/2.
fn way(chain: &Chain, http2: bool) -> Way {
    match (chain.request_body, chain.response_body) {
        (_, Some(_)) => Way::Exchange("a plugin wants the whole response body"),
        (Some(max), None) if max > STREAM_BODY => Way::Exchange("a plugin wants the whole of a large request body"),
        (Some(_), None) if http2 => Way::Exchange("a plugin wants the whole request body, and it goes by HTTP/2"),
        _ => Way::Stream,
    }
}

/// A route in the configuration, and the names that its templates may use.
#[derive(Clone, Copy)]
struct Place<'a> {
    pointer: &'a str,
    params: &'a [Arc<str>],
}

/// The methods a route takes, in the order `Allow` lists them.
fn taken(named: &[String]) -> Vec<Method> {
    let mut methods: Vec<Method> = named.iter().filter_map(|name| name.parse().ok()).collect();
    if named.is_empty() {
        methods = router::DEFAULT_METHODS.to_vec();
    }
    if methods.contains(&Method::GET) {
        methods.push(Method::HEAD);
    }
    methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    methods.dedup();
    methods
}

fn has_upstream(config: &Config) -> bool {
    config.upstream.is_some() || config.split.is_some()
}

/// Names of path parameters.
type Params = Arc<[Arc<str>]>;

/// The parameters that a path which cannot be used seems to have: enough to check the rest of the route.
fn named_in(path: &str) -> Params {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split(['}', '.']).next());
    names.map(Arc::from).collect()
}

pub(super) type Upstreams = BTreeMap<String, Arc<Upstream>>;

impl Compiler<'_> {
    pub(super) fn routes(&mut self, upstreams: &Upstreams) -> Router<Arc<Route>> {
        let loaded = self.loaded;
        let entries: HashMap<&str, u32> = loaded.config.listeners.iter().map(|l| l.name.as_str()).zip(0..).collect();
        let mut rules = Vec::new();
        let mut places = Vec::new();
        for (at, config) in loaded.config.routes.iter().enumerate() {
            let pointer = format!("/routes/{at}");
            let (rule, params) = self.rule(&format!("{pointer}/match"), &config.r#match, &entries);
            let route = self.route(&pointer, config, params, upstreams);
            if let Some(rule) = rule {
                rules.push((rule, Arc::new(route)));
                places.push(at);
            }
        }
        let (router, conflicts) = Router::build(rules);
        for conflict in conflicts {
            self.conflict(&conflict, &places);
        }
        router
    }

    fn conflict(&mut self, conflict: &Conflict, places: &[usize]) {
        let (Some(&first), Some(&second)) = (places.get(conflict.first), places.get(conflict.second)) else { return };
        let routes = &self.loaded.config.routes;
        let (winner, loser) = (&routes[first].name, &routes[second].name);
        let message = match conflict.kind {
            ConflictKind::Same => format!("the route `{loser}` takes the same requests as the route `{winner}`"),
            ConflictKind::Shadowed => {
                format!("the route `{loser}` can never be reached: the route `{winner}` takes all its requests")
            }
        };
        let diagnostic: Diagnostic = self.loaded.sources.error(&format!("/routes/{second}/match"), message).also(
            &self.loaded.sources,
            &format!("/routes/{first}/match"),
            "it stands here",
        );
        self.found.push(diagnostic);
    }

    fn rule(&mut self, pointer: &str, config: &Match, entries: &HashMap<&str, u32>) -> (Option<Rule>, Params) {
        let path = PathPattern::parse(&config.path).map_err(|wrong| self.error(&format!("{pointer}/path"), wrong)).ok();
        let mut hosts = Vec::new();
        for (at, host) in config.hosts.iter().enumerate() {
            match HostPattern::parse(host) {
                Ok(host) => hosts.push(host),
                Err(wrong) => self.error(&format!("{pointer}/hosts/{at}"), wrong),
            }
        }
        let methods = self.methods(&format!("{pointer}/methods"), &config.methods);
        let headers = self.header_globs(&format!("{pointer}/headers"), &config.headers);
        let listed = self.entries(pointer, config, entries);
        let params = match &path {
            Some(path) => path.names().iter().map(|n| Arc::from(n.as_ref())).collect(),
            None => named_in(&config.path),
        };
        let query = config.query.clone().into_iter().collect();
        (path.map(|path| Rule { hosts, path, methods, headers, query, entries: listed }), params)
    }

    /// The numbers of the listeners a route is on; `None` for all of them.
    fn entries(&mut self, pointer: &str, config: &Match, entries: &HashMap<&str, u32>) -> Option<Vec<u32>> {
        if let Some(source) = &config.source {
            self.error(&format!("{pointer}/source"), format!("there is no source `{source}`"));
        }
        let mut listed = Vec::new();
        for (at, name) in config.listeners.iter().enumerate() {
            match entries.get(name.as_str()) {
                Some(&entry) => listed.push(entry),
                None => {
                    let known: Vec<&str> = entries.keys().copied().collect();
                    self.unknown(&format!("{pointer}/listeners/{at}"), "listener", name, &known);
                }
            }
        }
        (!config.listeners.is_empty()).then_some(listed)
    }

    pub(super) fn header_globs(&mut self, pointer: &str, globs: &BTreeMap<String, Glob>) -> Vec<(HeaderName, Glob)> {
        let mut compiled = Vec::new();
        for (name, glob) in globs {
            match FieldName::parse(name) {
                Ok(FieldName(name)) => compiled.push((name, glob.clone())),
                Err(wrong) => self.error(&super::below(pointer, name), wrong),
            }
        }
        compiled
    }

    fn route(&mut self, pointer: &str, config: &Config, params: Params, upstreams: &Upstreams) -> Route {
        let (chain, is_whole) = self.route_chain(pointer, config, &params);
        if is_whole {
            self.check_auth(pointer, config, &chain);
            self.check_certificates(pointer, config, &chain);
        }
        if config.timeout.is_some_and(|t| t.0.is_zero()) {
            self.error(&format!("{pointer}/timeout"), "must be more than zero");
        }
        self.route_limits(pointer, config);
        let target = self.target(Place { pointer, params: &params }, config, chain.answers || !is_whole, upstreams);
        if is_whole {
            self.check_split(pointer, config, &params, &chain);
        }
        let http2 = self.check_protocols(pointer, config, &target);
        Route {
            name: config.name.as_str().into(),
            params,
            way: way(&chain, http2),
            fallback: self.fallback(pointer, config, &target, upstreams),
            target,
            grpc_web: config.grpc_web,
            methods: taken(&config.r#match.methods),
            timeout: config.timeout.map(|t| t.0),
            max_request_body: config.limits.request.body.map(|b| b.0),
            max_buffered_body: config.limits.request.buffered_body.map(|b| b.0),
            client_idle: config.limits.client.idle.map(|d| d.0),
            client_min_rate: config.limits.client.min_rate.map(|r| r.0),
            websocket: config.websocket.as_ref().map(|websocket| websocket.idle.0),
            compression: self.route_compression(pointer, config),
            encoded_slashes: config.encoded_slashes,
            metrics: self.around.metrics.route(&config.name),
            chain: Arc::new(chain),
        }
    }

    /// What a route serves, every upstream that it may choose must serve. Whether one of them is spoken to in HTTP/2.
    fn check_protocols(&mut self, pointer: &str, config: &Config, target: &Target) -> bool {
        let Target::Upstream { to, .. } = target else {
            let is_unknown = has_upstream(config) && matches!(target, Target::Answered);
            if config.grpc_web && !is_unknown {
                self.error(&format!("{pointer}/grpc_web"), "needs an upstream with `http2: true`");
            }
            return false;
        };
        if config.grpc_web
            && let Some(old) = to.all().find(|upstream| !upstream.http2)
        {
            let message = format!("needs an upstream with `http2: true`, which `{}` does not have", old.name);
            self.error(&format!("{pointer}/grpc_web"), message);
        }
        let http2 = to.all().find(|upstream| upstream.http2);
        if let Some(new) = http2.filter(|_| config.websocket.is_some()) {
            let message = format!("needs an upstream without `http2: true`, which `{}` has", new.name);
            self.error(&format!("{pointer}/websocket"), message);
        }
        http2.is_some()
    }

    /// The limits of its own, and of its WebSockets.
    fn route_limits(&mut self, pointer: &str, config: &Config) {
        let zero = |time: Option<HumanDuration>| time.is_some_and(|time| time.0.is_zero());
        if zero(config.limits.client.idle) {
            self.error(&format!("{pointer}/limits/client/idle"), "must be more than zero");
        }
        if zero(config.websocket.as_ref().map(|websocket| websocket.idle)) {
            self.error(&format!("{pointer}/websocket/idle"), "must be more than zero");
        }
        if config.websocket.is_some() && !has_upstream(config) {
            self.error(&format!("{pointer}/websocket"), "has no effect without an upstream");
        }
    }

    /// Nobody is served by oversight: a route says who may call, or that everybody may.
    fn check_auth(&mut self, pointer: &str, config: &Config, chain: &Chain) {
        match (config.auth, chain.authenticates) {
            (None, false) => self.error_with_help(
                pointer,
                format!("the route `{}` has no authentication plugin", config.name),
                "add one, such as `api_key`, without `when`, `on_error: allow` and `required: false`; or write `auth: none` to serve everybody",
            ),
            (Some(Auth::None), true) => self.error(
                &format!("{pointer}/auth"),
                "`none` contradicts the route's authentication plugin: remove one of the two",
            ),
            _ => {}
        }
        if chain.authenticates_by_body && (chain.answers || config.redirect.is_some()) {
            let message =
                format!("the route `{}` answers before a body is read, which a plugin authenticates by", config.name);
            self.error_with_help(pointer, message, "give it an upstream, or another authentication plugin");
        }
    }

    /// A plugin that looks at client certificates needs listeners that ask for them.
    fn check_certificates(&mut self, pointer: &str, config: &Config, chain: &Chain) {
        if !chain.client_certificate {
            return;
        }
        let loaded = self.loaded;
        let serves = |listener: &&Listener| {
            config.r#match.listeners.is_empty() || config.r#match.listeners.contains(&listener.name)
        };
        let (asking, others): (Vec<_>, Vec<_>) =
            loaded.config.listeners.iter().filter(serves).partition(|listener| listener.asks_for_certificates());
        let help = "set `tls.client_auth` on the listener or on one of its `tls.hosts`, or list the right ones in `match.listeners`";
        if asking.is_empty() {
            let message = format!("no listener of the route `{}` asks clients for certificates", config.name);
            self.error_with_help(pointer, message, help);
        } else if let [first, ..] = others[..] {
            let message =
                format!("the listener `{}` asks no client for a certificate, which this route looks at", first.name);
            let diagnostic = self.loaded.sources.warning(pointer, message).help(help);
            self.add(pointer, diagnostic);
        }
    }

    fn target(&mut self, place: Place<'_>, config: &Config, is_answered: bool, upstreams: &Upstreams) -> Target {
        let pointer = place.pointer;
        match (has_upstream(config), &config.redirect) {
            (true, Some(_)) => {
                self.error(&format!("{pointer}/redirect"), "stands beside an upstream: keep one of the two");
            }
            (false, Some(redirect)) => return self.redirect(place, config, redirect),
            (true, None) => return self.upstream_target(place, config, upstreams),
            (false, None) if is_answered => {}
            (false, None) => self.error_with_help(
                pointer,
                format!("the route `{}` has no upstream", config.name),
                "name one, or add a `redirect`, or a plugin that always answers, such as `respond`",
            ),
        }
        if config.rewrite.is_some() {
            self.error(&format!("{pointer}/rewrite"), "has no effect without an upstream");
        }
        Target::Answered
    }

    fn redirect(&mut self, place: Place<'_>, config: &Config, redirect: &Redirect) -> Target {
        let Place { pointer, params } = place;
        if config.rewrite.is_some() {
            self.error(&format!("{pointer}/rewrite"), "has no effect beside a redirect");
        }
        let to = self.template(&format!("{pointer}/redirect/to"), &redirect.to, params);
        let status = StatusCode::from_u16(redirect.status.0).unwrap_or(StatusCode::PERMANENT_REDIRECT);
        to.map_or(Target::Answered, |to| Target::Redirect { to, status })
    }

    fn upstream_target(&mut self, place: Place<'_>, config: &Config, upstreams: &Upstreams) -> Target {
        let Place { pointer, params } = place;
        let (path, host) = self.rewrite(pointer, config.rewrite.as_ref(), params);
        let to = self.destination(pointer, config, upstreams);
        to.map_or(Target::Answered, |to| Target::Upstream { to, path, host })
    }

    fn rewrite(
        &mut self,
        pointer: &str,
        rewrite: Option<&Rewrite>,
        params: &[Arc<str>],
    ) -> (Option<Template>, HostRewrite) {
        let Some(rewrite) = rewrite else { return (None, HostRewrite::Endpoint) };
        let path = rewrite.path.as_ref().and_then(|text| {
            let place = format!("{pointer}/rewrite/path");
            if !text.starts_with('/') {
                self.error(&place, "is not a path: it must begin with `/`");
            }
            self.template(&place, text, params)
        });
        let host = match rewrite.host.as_deref() {
            None => HostRewrite::Endpoint,
            Some("preserve") => HostRewrite::Preserve,
            Some(text) => match (request::canonical_host(text), HeaderValue::from_str(text)) {
                (Ok(_), Ok(value)) => HostRewrite::Fixed(value),
                _ => {
                    self.error(&format!("{pointer}/rewrite/host"), "is neither `preserve` nor a host name");
                    HostRewrite::Endpoint
                }
            },
        };
        (path, host)
    }

    fn template(&mut self, pointer: &str, text: &str, params: &[Arc<str>]) -> Option<Template> {
        Template::parse(text, params).map_err(|wrong| self.error(pointer, wrong)).ok()
    }
}
