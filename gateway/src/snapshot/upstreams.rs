//! Upstreams, checked and connected to the pools in use.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crossway_plugin_api::{
    Room,
    config::{FieldName, Secret},
};

use super::{Compiler, below, identity::is_reserved};
use crate::{
    config::{
        balance::Balance,
        bulkhead,
        upstream::{Timeouts, Upstream as Config, UpstreamTls},
    },
    upstream::{
        Upstream,
        bulkhead::Bulkhead,
        choice::Rule,
        dns::Member,
        names::Names,
        peer::{PeerTls, Transport},
        pool::Settings,
        retry,
        sticky::{Sticky, Tags},
    },
};

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

impl Compiler<'_> {
    pub(super) fn upstreams(&mut self) -> BTreeMap<String, Arc<Upstream>> {
        let loaded = self.loaded;
        let names = self.names();
        loaded
            .config
            .upstreams
            .iter()
            .filter_map(|(name, config)| Some((name.clone(), Arc::new(self.upstream(name, config, &names)?))))
            .collect()
    }

    fn upstream(&mut self, name: &str, config: &Config, names: &Names) -> Option<Upstream> {
        let pointer = below("/upstreams", name);
        self.timeouts(&pointer, &config.timeouts);
        let retry = self.retry(&pointer, config);
        let members = self.members(&pointer, config);
        let watch = self.watch(&pointer, name, config);
        let tls = match &config.tls {
            None => None,
            Some(tls) => Some(self.tls(&pointer, tls)?),
        };
        self.balance(&pointer, config);
        let (rule, hash_on) = match &config.balance {
            Balance::RoundRobin => (Rule::InTurn, None),
            Balance::LeastInFlight => (Rule::LessBusy, None),
            Balance::Hash(hash) => (Rule::ByHash, Some(hash.on.clone())),
        };
        let tags = config.sticky.as_ref().map(|sticky| Tags::new(sticky.key.as_ref().map(Secret::expose)));
        let transport = Transport { tls, http2: config.http2 };
        let settings =
            Settings { transport, rule, slow_start: config.slow_start.map(|d| d.0), names: names.clone(), tags };
        Some(Upstream {
            name: name.into(),
            pool: self.around.registry.pool(name, members?, settings),
            http2: config.http2,
            hash_on,
            sticky: config.sticky.as_ref().map(|sticky| Sticky::new(&sticky.cookie)),
            timeouts: (&config.timeouts).into(),
            retry,
            budget: self.around.registry.budget(name),
            deadline_header: config.timeouts.deadline_header.as_ref().map(|name| name.0.clone()),
            bulkhead: self.bulkhead(&pointer, name, config),
            metrics: self.around.metrics.upstream(name),
            auth: self.identity(&pointer, name, config),
            watch: watch?,
        })
    }

    fn bulkhead(&mut self, pointer: &str, name: &str, config: &Config) -> Option<Bulkhead> {
        for (key, wrong) in bulkhead::check(config) {
            self.error(&format!("{pointer}/{key}"), wrong);
        }
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let room = Room {
            most: count(config.max_in_flight?),
            queue: count(config.queue.unwrap_or(0)),
            patience: config.queue_timeout.unwrap_or(bulkhead::PATIENCE).0,
        };
        let metrics = self.around.metrics.bulkhead(name);
        Some(Bulkhead { room, places: self.around.registry.places(name), metrics })
    }

    fn members(&mut self, pointer: &str, config: &Config) -> Option<Vec<Member>> {
        let default_port = if config.tls.is_some() { 443 } else { 80 };
        let mut members: Vec<Member> = Vec::new();
        let mut good = true;
        for (at, endpoint) in config.endpoints.iter().enumerate() {
            let place = format!("{pointer}/endpoints/{at}");
            let (place, member) = match (&endpoint.address, &endpoint.srv) {
                (Some(address), None) => (format!("{place}/address"), Member::parse(address, default_port)),
                (None, Some(name)) => (format!("{place}/srv"), Member::service(name, default_port)),
                _ => (place, Err("needs exactly one of `address` and `srv`".into())),
            };
            match member {
                Ok(member) if members.iter().any(|m| m.authority == member.authority) => {
                    self.error(&place, "stands twice in this upstream: give it more weight instead");
                    good = false;
                }
                Ok(member) => members.push(member.with(endpoint.weight, endpoint.priority)),
                Err(wrong) => {
                    self.error(&place, wrong);
                    good = false;
                }
            }
        }
        good.then_some(members)
    }

    fn tls(&mut self, pointer: &str, tls: &UpstreamTls) -> Option<PeerTls> {
        let client = tls.client.as_ref().map(|pair| self.key_pair(&format!("{pointer}/tls/client"), pair));
        let place = format!("{pointer}/tls/ca");
        let pem = match tls.ca.as_deref().map(|path| self.loaded.sources.read_file(&place, path)).transpose() {
            Ok(pem) => pem,
            Err(diagnostic) => {
                self.found.push(diagnostic);
                return None;
            }
        };
        if let Err(wrong) = PeerTls::new(&tls.server_name, None, None) {
            self.error(&format!("{pointer}/tls/server_name"), wrong);
            return None;
        }
        // A certificate that cannot be used must not become none.
        let client = match client {
            None => None,
            Some(read) => Some(read?),
        };
        let made = PeerTls::new(&tls.server_name, pem.as_deref(), client.as_ref());
        made.map_err(|wrong| self.error(&place, wrong)).ok()
    }

    fn timeouts(&mut self, pointer: &str, timeouts: &Timeouts) {
        let all = [
            ("connect", timeouts.connect),
            ("first_byte", timeouts.first_byte),
            ("idle", timeouts.idle),
            ("total", timeouts.total),
        ];
        for (key, length) in all {
            if length.0.is_zero() {
                self.error(&format!("{pointer}/timeouts/{key}"), "must be more than zero");
            }
        }
        if let Some(FieldName(name)) = &timeouts.deadline_header
            && (is_reserved(name) || *name == "grpc-timeout")
        {
            let message = format!("names `{name}`, a field with another meaning");
            self.error(&format!("{pointer}/timeouts/deadline_header"), message);
        }
    }

    fn retry(&mut self, pointer: &str, config: &Config) -> retry::Rules {
        let (retry, pointer) = (&config.retry, format!("{pointer}/retry"));
        for (key, length) in [("backoff/base", retry.backoff.base), ("backoff/max", retry.backoff.max)]
            .into_iter()
            .chain([("max_retry_after", retry.max_retry_after)])
            .chain(retry.per_try.map(|length| ("per_try", length)))
        {
            if length.0.is_zero() {
                self.error(&format!("{pointer}/{key}"), "must be more than zero");
            } else if length.0 > LONGEST_PAUSE && key != "per_try" {
                self.error(&format!("{pointer}/{key}"), "is longer than 60s");
            }
        }
        if retry.backoff.base > retry.backoff.max {
            self.error(&format!("{pointer}/backoff/base"), "is longer than `max`");
        }
        if retry.per_try.is_some_and(|per_try| per_try > config.timeouts.total) {
            self.error(&format!("{pointer}/per_try"), "is longer than `timeouts.total`, which bounds all attempts");
        }
        if retry.attempts > 0 && retry.budget.0 == 0 && retry.min_per_second == 0 {
            let help = "write `attempts: 0`, which says so";
            self.error_with_help(&format!("{pointer}/budget"), "must not be 0% where `min_per_second` is 0", help);
        }
        let methods = retry.methods.as_ref().map(|names| self.methods(&format!("{pointer}/methods"), names));
        retry::Rules::compile(retry, methods)
    }
}
