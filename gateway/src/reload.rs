//! From files to a configuration in force: load, compile, bind, resolve, then swap one pointer. Any failure before that
//! changes nothing and says why.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::Mutex;

use crate::{
    config::{self, Loaded, error::ConfigError},
    front::listeners::Listeners,
    gateway::Gateway,
    snapshot::{Snapshot, Surroundings},
    telemetry::{
        Logs,
        audit::{self, Event, Record, Value, Who},
    },
};

/// How long a reload waits for names that were never resolved before; it goes on without them.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(2);

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A file or a directory, read again on every reload.
    Path(PathBuf),
    /// A text made by the program itself; a reload finds the same.
    Text(String),
}

/// Reloads the configuration, one reload at a time.
pub struct Reloader {
    gateway: Arc<Gateway>,
    listeners: Arc<Listeners>,
    origin: Origin,
    last: Mutex<Option<Outcome>>,
}

/// How a reload ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// This generation is in force.
    Applied {
        /// Its number.
        generation: u64,
        /// What an operator should know, rendered.
        warnings: String,
    },
    /// The old configuration serves on.
    Refused(ConfigError),
}

/// Reads the configuration.
pub fn load(origin: &Origin) -> Result<Loaded, ConfigError> {
    match origin {
        Origin::Path(path) => config::load(path),
        Origin::Text(text) => config::load_text("command line", text),
    }
}

impl Reloader {
    /// Reloads from `origin`.
    pub fn new(gateway: Arc<Gateway>, listeners: Arc<Listeners>, origin: Origin) -> Self {
        Self { gateway, listeners, origin, last: Mutex::new(None) }
    }

    /// Loads, compiles and applies what is there now, as `who` has asked. Callers wait for each other.
    pub async fn reload(&self, who: Who<'_>) -> Outcome {
        let mut last = self.last.lock().await;
        let log = self.gateway.audit.now();
        let outcome = match self.try_reload().await {
            Ok((generation, warnings)) => Outcome::Applied { generation, warnings },
            Err(error) => Outcome::Refused(error),
        };
        self.gateway.metrics.reloaded(matches!(outcome, Outcome::Applied { .. }));
        self.gateway.metrics.keep_only(&self.gateway.snapshot.load().names());
        match &outcome {
            Outcome::Applied { generation, .. } => tracing::info!(generation, "configuration applied"),
            Outcome::Refused(error) => {
                tracing::error!(
                    errors = error.diagnostics.len(),
                    "configuration refused; the old one serves on\n{}",
                    error.render(false)
                );
            }
        }
        self.note(log, who, &outcome);
        *last = Some(outcome.clone());
        outcome
    }

    fn note(&self, log: audit::Earlier, who: Who<'_>, outcome: &Outcome) {
        let (errors, outcome, reason) = match outcome {
            Outcome::Applied { .. } => (0, audit::Outcome::Success, None),
            Outcome::Refused(error) => {
                let reason = "the configuration is refused; the old one serves on";
                (error.diagnostics.len(), audit::Outcome::Failure, Some(reason))
            }
        };
        let snapshot = self.gateway.snapshot.load();
        let more = [
            ("generation", Value::Number(snapshot.generation)),
            ("config_hash", Value::Text(&snapshot.hash)),
            ("errors", Value::Number(errors as u64)),
        ];
        let (event, target) = (Event::ConfigReloaded, "configuration");
        self.gateway.audit.write_over(log, &Record { event, outcome, who, target, reason, more: &more });
    }

    /// How the last reload ended, if there was one.
    pub async fn last(&self) -> Option<Outcome> {
        self.last.lock().await.clone()
    }

    async fn try_reload(&self) -> Result<(u64, String), ConfigError> {
        let current = self.gateway.snapshot.load_full();
        if self.gateway.is_draining() {
            let message = "the gateway is draining: nothing is reloaded any more";
            return Err(ConfigError { diagnostics: vec![current.loaded.sources.error_of_all(message)] });
        }
        if self.gateway.handing_over.load(Ordering::Acquire) {
            let message = "a new process is taking over: nothing is reloaded until it has, or has failed";
            return Err(ConfigError { diagnostics: vec![current.loaded.sources.error_of_all(message)] });
        }
        let (origin, gateway) = (self.origin.clone(), Arc::clone(&self.gateway));
        let generation = current.generation + 1;
        let compile = move || {
            let Gateway { registry, tables, metrics, lent, .. } = &*gateway;
            Snapshot::compile(load(&origin)?, &Surroundings { registry, tables, metrics, lent, generation })
        };
        // A large configuration takes a while: not on a worker that serves requests.
        let compiled = tokio::task::spawn_blocking(compile).await;
        let next = compiled.map_err(|panic| {
            let message = format!("the configuration cannot be compiled: {panic}");
            ConfigError { diagnostics: vec![current.loaded.sources.error("", message)] }
        })??;
        refuse_fixed(&current, &next)?;
        let ready = self.ready(&next)?;
        resolve(&next, &self.gateway).await;
        Ok(self.apply(next, ready))
    }

    /// What can still fail once a configuration is compiled.
    fn ready(&self, next: &Snapshot) -> Result<Ready, ConfigError> {
        let sources = &next.loaded.sources;
        let refuse =
            |pointer: &str, message: String| ConfigError { diagnostics: vec![sources.error(pointer, message)] };
        let config = &next.loaded.config;
        let logs = Logs::open(&self.gateway, next).map_err(|(place, wrong)| refuse(place, wrong))?;
        let bound = self.listeners.bind(config.listeners.iter().map(|l| l.address.as_str()));
        let bound = bound
            .map_err(|(at, error)| refuse(&format!("/listeners/{at}/address"), format!("cannot be bound: {error}")))?;
        Ok(Ready { logs, bound })
    }

    fn apply(&self, next: Snapshot, ready: Ready) -> (u64, String) {
        let (generation, hash) = (next.generation, next.hash.clone());
        let warnings = warn(&next);
        let next = Arc::new(next);
        self.gateway.snapshot.store(Arc::clone(&next));
        ready.logs.apply(&self.gateway);
        let wanted: HashSet<&str> = next.listeners.keys().map(String::as_str).collect();
        self.listeners.apply(ready.bound, &wanted);
        self.gateway.metrics.config_applied(generation, &hash);
        self.gateway.metrics.certificates(&next.certificates());
        (generation, warnings)
    }
}

struct Ready {
    logs: Logs,
    bound: crate::front::listeners::Bound,
}

/// Logs what an operator should know of a configuration that is put in force, and gives it back, rendered.
pub fn warn(snapshot: &Snapshot) -> String {
    let rendered = ConfigError { diagnostics: snapshot.warnings.clone() }.render(false);
    if !rendered.is_empty() {
        tracing::warn!(warnings = snapshot.warnings.len(), "the configuration has warnings\n{rendered}");
    }
    rendered
}

/// Starts resolving the names of new upstreams and watching their endpoints, and waits a while for the first names.
pub async fn resolve(snapshot: &Snapshot, gateway: &Gateway) {
    let pools: Vec<_> = snapshot.upstreams.values().map(|upstream| Arc::clone(&upstream.pool)).collect();
    for upstream in snapshot.upstreams.values() {
        upstream.start(&gateway.exchange);
    }
    let wait = async {
        for pool in &pools {
            pool.wait_resolved(RESOLVE_PATIENCE).await;
        }
    };
    let _ = tokio::time::timeout(RESOLVE_PATIENCE, wait).await;
}

/// What is fixed at start cannot be changed by a reload: it says so, rather than not applying it.
fn refuse_fixed(current: &Snapshot, next: &Snapshot) -> Result<(), ConfigError> {
    let (old, new) = (&current.loaded.config, &next.loaded.config);
    let same_admin = match (&old.admin, &new.admin) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            let probes = |c: &config::admin::Admin| c.probes.as_ref().map(|p| (p.address.clone(), p.metrics));
            a.address == b.address && a.token == b.token && probes(a) == probes(b)
        }
        _ => false,
    };
    let changed = [
        ("/runtime/threads", old.runtime.threads == new.runtime.threads),
        ("/runtime/upgrade", old.runtime.upgrade == new.runtime.upgrade),
        ("/stores", old.stores == new.stores),
        ("/keys", old.keys == new.keys),
        ("/telemetry/log", old.telemetry.log == new.telemetry.log),
        ("/admin", same_admin),
    ];
    let diagnostics: Vec<_> = changed
        .iter()
        .filter(|(_, same)| !same)
        .map(|(pointer, _)| next.loaded.sources.error(pointer, "is fixed at start: restart the gateway to change it"))
        .collect();
    if diagnostics.is_empty() { Ok(()) } else { Err(ConfigError { diagnostics }) }
}
