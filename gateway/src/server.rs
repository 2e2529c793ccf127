//! The process: one runtime, the listeners, signals.

use std::{
    collections::HashSet,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use anyhow::Context as _;

use arc_swap::ArcSwap;
use crossway_plugin_api::{Clock, Deps};
use pingora_core::{connectors::ConnectorOptions, server::configuration::ServerConf};
use pingora_proxy::HttpProxy;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    admin,
    config::error::ConfigError,
    drain::{Drained, drain},
    fetch::Client,
    front::{
        admission::Admission,
        listeners::Listeners,
        pressure::{self, Pressure},
        tls::Tables,
    },
    gateway::{Connections, Gateway, Readiness},
    keys::Keys,
    proxy::Proxy,
    reload::{self, Origin, Reloader},
    snapshot::{Snapshot, Surroundings},
    store::{Scripts, StoreError, Stores},
    telemetry::{
        Logs,
        access_log::AccessLog,
        audit::{AuditLog, Event, Outcome, Who, note_process},
        metrics::Metrics,
    },
    upgrade::{Giver, Inherited, Succession},
    upstream::{Registry, exchange::Exchange},
};

/// Pools of idle connections to upstreams in each worker: that of the stream, and of the exchange one for each version.
const POOLS: usize = 3;
/// Most attempts Pingora makes for one request; the retry rules of an upstream end them long before.
const MAX_TRIES: usize = 16;

/// How long a start waits for the keys of a server.
const KEYS_PATIENCE: Duration = Duration::from_secs(2);

/// Why the process could not start, or how it ended.
#[derive(Debug)]
pub enum Ended {
    /// The configuration is wrong, or what it names cannot be had.
    Config(ConfigError),
    /// Something else.
    Failed(anyhow::Error),
    /// Told to, and done.
    Done,
}

/// Signals, taken over before anything else: a SIGHUP that comes early must not kill the process.
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the signals over. Needs a runtime.
    pub fn take() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Metrics and pools of a process that does not serve: enough to compile a configuration and see what is wrong with it.
pub fn compile_only(origin: &Origin) -> Result<Snapshot, ConfigError> {
    Lasting::default().first(origin)
}

/// What a process keeps from one configuration to the next.
pub struct Lasting {
    registry: Arc<Registry>,
    tables: Arc<Tables>,
    metrics: Arc<Metrics>,
    keys: Arc<Keys>,
    scripts: Scripts,
    lent: Deps,
}

impl Default for Lasting {
    fn default() -> Self {
        let metrics = Metrics::new();
        let keys = Arc::new(Keys::new(Clock::default()));
        let scripts = Scripts::default();
        let lent = Deps {
            issued: Arc::<Keys>::clone(&keys),
            fetch: Arc::new(Client::default()),
            shared: Some(Arc::new(scripts.clone())),
            metrics: metrics.plugin_events.clone(),
            ..Deps::default()
        };
        Self { registry: Arc::default(), tables: Arc::default(), metrics, keys, scripts, lent }
    }
}

impl Lasting {
    /// Loads and compiles the first configuration.
    pub fn first(&self, origin: &Origin) -> Result<Snapshot, ConfigError> {
        let Self { registry, tables, metrics, lent, .. } = self;
        Snapshot::compile(reload::load(origin)?, &Surroundings { registry, tables, metrics, lent, generation: 1 })
    }
}

/// A gateway with its first configuration, not listening yet.
pub struct Server {
    gateway: Arc<Gateway>,
    listeners: Arc<Listeners>,
    reloader: Arc<Reloader>,
}

impl Server {
    /// Builds the gateway around a compiled configuration.
    pub fn new(snapshot: Snapshot, lasting: Lasting, origin: Origin, threads: usize) -> Self {
        let Lasting { registry, tables, metrics, keys, scripts, lent } = lasting;
        let admission = Admission::default();
        let conf = Arc::new(ServerConf {
            threads,
            upstream_keepalive_pool_size: admission.idle(POOLS * threads),
            max_retries: MAX_TRIES,
            ..ServerConf::default()
        });
        let exchange = Exchange::new(&ConnectorOptions::from_server_conf(&conf));
        let gateway = Arc::new(Gateway {
            snapshot: ArcSwap::from_pointee(snapshot),
            registry,
            tables,
            exchange,
            lent,
            stores: OnceLock::new(),
            scripts,
            keys,
            access_log: AccessLog::new(&metrics),
            audit: AuditLog::new(&metrics),
            metrics,
            connections: Connections::default(),
            admission,
            pressure: Pressure::default(),
            readiness: Readiness::default(),
            handing_over: AtomicBool::new(false),
        });
        let mut proxy = HttpProxy::new(Proxy::new(Arc::clone(&gateway)), conf);
        proxy.handle_init_modules();
        let listeners = Arc::new(Listeners::new(Arc::clone(&gateway), Arc::new(proxy)));
        let reloader = Arc::new(Reloader::new(Arc::clone(&gateway), Arc::clone(&listeners), origin));
        Self { gateway, listeners, reloader }
    }

    /// Opens everything and serves until a signal ends it. `started` learns the listeners' addresses.
    /// With `take_over`, from the process that runs, if one does.
    pub async fn run(self, mut signals: Signals, take_over: bool, started: impl FnOnce(&Listeners)) -> Ended {
        let (succession, mut serving) = match self.begin(take_over).await {
            Ok(begun) => begun,
            Err(ended) => return ended,
        };
        tokio::spawn(pressure::watch(Arc::downgrade(&self.gateway)));
        self.gateway.readiness.set_ready();
        note_process(&self.gateway, Event::ProcessStarted, Outcome::Success, Who::PROCESS, None);
        let successor = match self.await_successor(succession, &mut serving).await {
            Ok(successor) => successor,
            Err(error) => {
                self.end(Outcome::Failure, Who::PROCESS, "the upgrade has failed");
                return Ended::Failed(error);
            }
        };
        started(&self.listeners);
        let replaced = loop {
            tokio::select! {
                Some(()) = signals.hangup.recv() => drop(self.reloader.reload(Who::signal("SIGHUP")).await),
                Some(()) = signals.interrupt.recv() => {
                    self.end(Outcome::Success, Who::signal("SIGINT"), "told to end at once");
                    return Ended::Done;
                }
                Some(()) = signals.terminate.recv() => break false,
                () = gone(successor.as_ref()) => break true,
            }
        };
        if replaced {
            tracing::info!("a new process has taken over");
            note_process(&self.gateway, Event::ProcessHandedOver, Outcome::Success, Who::PROCESS, None);
            serving.stop().await;
        }
        let (outcome, why) = self.leave(signals, replaced).await;
        self.gateway.keys.keep_uses().await;
        self.end(outcome, if replaced { Who::PROCESS } else { Who::signal("SIGTERM") }, why);
        Ended::Done
    }

    /// The last words, and the end of the logs.
    fn end(&self, outcome: Outcome, who: Who<'_>, why: &str) {
        note_process(&self.gateway, Event::ProcessEnded, outcome, who, Some(why));
        self.gateway.access_log.close();
        self.gateway.audit.close();
    }

    /// Opens everything, with the sockets of the process that runs if it is to be replaced.
    async fn begin(&self, take_over: bool) -> Result<(Option<Succession>, admin::Serving), Ended> {
        self.gateway.lent.tasks.start(&tokio::runtime::Handle::current());
        let snapshot = self.gateway.snapshot.load_full();
        let stores = self.stores(&snapshot)?;
        let upgrade = snapshot.loaded.config.runtime.upgrade.as_ref();
        let (succession, mut inherited) = match upgrade {
            None if take_over => {
                return Err(Ended::Failed(anyhow::anyhow!("--take-over needs `runtime.upgrade` in the configuration")));
            }
            None => (None, Inherited::default()),
            Some(upgrade) => {
                let local = stores.local.clone();
                let (mut succession, inherited) = Succession::begin(upgrade.socket.as_ref(), local, take_over).await?;
                // Before anything is served: the first request may bring a key that is in the store.
                succession.take().await.map_err(Ended::Failed)?;
                (Some(succession), inherited)
            }
        };
        self.keys(&snapshot, &stores).await?;
        let failed = |error: std::io::Error| Ended::Failed(error.into());
        self.listeners.inherit(inherited.take_all("listener")).map_err(failed)?;
        let serving = self.open(&mut inherited).await?;
        self.listeners.disinherit();
        Ok((succession, serving))
    }

    fn stores(&self, snapshot: &Snapshot) -> Result<Stores, Ended> {
        let metrics = &self.gateway.metrics;
        let stores = Stores::new(&snapshot.stores, &metrics.store_errors, &metrics.store_up)
            .map_err(|error| refused(snapshot, "/stores/shared", error))?;
        if let Some(server) = &stores.shared {
            self.gateway.scripts.run_on(Arc::clone(server));
        }
        Ok(self.gateway.stores.get_or_init(|| stores).clone())
    }

    /// Reads the keys that were issued.
    async fn keys(&self, snapshot: &Snapshot, stores: &Stores) -> Result<(), Ended> {
        let Some(plan) = snapshot.keys else { return Ok(()) };
        let tasks = &self.gateway.lent.tasks;
        self.gateway.keys.open(plan, stores, tasks, KEYS_PATIENCE).await.map_err(|error| match error {
            StoreError::Full => refused(snapshot, "/stores/local/max_size", "is less than the file needs".into()),
            error => refused(snapshot, "/stores/local/path", format!("cannot be opened: {error}")),
        })
    }

    /// Sends the old process away, if there is one, and listens for the one that will replace this.
    async fn await_successor(
        &self,
        succession: Option<Succession>,
        serving: &mut admin::Serving,
    ) -> anyhow::Result<Option<Arc<Giver>>> {
        let Some(succession) = succession else { return Ok(None) };
        let replaces = succession.replaces();
        let (path, exclusive) = succession.finish().await?;
        if replaces {
            note_process(&self.gateway, Event::ProcessTakenOver, Outcome::Success, Who::PROCESS, None);
        }
        let spares = std::mem::take(&mut serving.spares);
        let (gateway, listeners) = (Arc::clone(&self.gateway), Arc::clone(&self.listeners));
        let giver = Giver::new(gateway, listeners, exclusive, spares);
        giver.listen(&path).with_context(|| format!("the upgrade socket {} cannot be bound", path.display()))?;
        Ok(Some(giver))
    }

    async fn open(&self, inherited: &mut Inherited) -> Result<admin::Serving, Ended> {
        let snapshot = self.gateway.snapshot.load_full();
        let config = &snapshot.loaded.config;
        let refuse = |pointer: &str, message: String| refused(&snapshot, pointer, message);
        let logs = Logs::open(&self.gateway, &snapshot).map_err(|(place, wrong)| refuse(place, wrong))?;
        let bound = self.listeners.bind(config.listeners.iter().map(|l| l.address.as_str()));
        let bound = bound
            .map_err(|(at, error)| refuse(&format!("/listeners/{at}/address"), format!("cannot be bound: {error}")))?;
        reload::resolve(&snapshot, &self.gateway).await;
        let mut serving = admin::Serving::default();
        if let Some(config) = &config.admin {
            let state =
                admin::State::new(Arc::clone(&self.gateway), Arc::clone(&self.listeners), Arc::clone(&self.reloader));
            let served = admin::serve(config, state, inherited).await;
            serving = served.map_err(|(pointer, message)| refuse(pointer, message))?;
        }
        logs.apply(&self.gateway);
        self.gateway.metrics.config_applied(snapshot.generation, &snapshot.hash);
        self.gateway.metrics.certificates(&snapshot.certificates());
        let wanted: HashSet<&str> = snapshot.listeners.keys().map(String::as_str).collect();
        self.listeners.apply(bound, &wanted);
        Ok(serving)
    }

    /// Drains; a second signal ends it at once. Once replaced, there is nothing to wait for before: the addresses go on
    /// being served.
    async fn leave(&self, mut signals: Signals, replaced: bool) -> (Outcome, &'static str) {
        let times = &self.gateway.snapshot.load_full().loaded.config.runtime.drain;
        let delay: Duration = if replaced { Duration::ZERO } else { times.readiness_delay.0 };
        let deadline: Duration = times.deadline.0;
        tokio::select! {
            drained = drain(&self.gateway, &self.listeners, delay, deadline) => match drained {
                Drained::Complete => {
                    tracing::info!("drained");
                    (Outcome::Success, "drained")
                }
                Drained::Cut(connections) => {
                    tracing::warn!(connections, "the drain deadline has passed; connections are cut");
                    (Outcome::Failure, "the drain deadline has passed; connections are cut")
                }
            },
            Some(()) = signals.interrupt.recv() => {
                tracing::warn!("interrupted while draining");
                (Outcome::Failure, "interrupted while draining")
            }
            Some(()) = signals.terminate.recv() => {
                tracing::warn!("told again to end while draining");
                (Outcome::Failure, "told again to end while draining")
            }
        }
    }
}

/// What a place of the configuration names cannot be had.
fn refused(snapshot: &Snapshot, pointer: &str, message: String) -> Ended {
    Ended::Config(ConfigError { diagnostics: vec![snapshot.loaded.sources.error(pointer, message)] })
}

/// Resolves when a new process has taken over.
async fn gone(giver: Option<&Arc<Giver>>) {
    match giver {
        Some(giver) => giver.gone().await,
        None => std::future::pending().await,
    }
}

/// Keeps an early SIGHUP from ending the process, until [`Signals::take`] listens for it: once a handler is installed it
/// stays for the whole process. Nothing is lost: the configuration is read after this.
pub fn hold_hangup() -> std::io::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let _ = signal(SignalKind::hangup())?;
    drop(entered);
    Ok(runtime)
}

/// One crypto provider in the whole program: ring. Whoever needs TLS later finds it installed.
pub fn install_crypto() {
    // It fails only if one is installed already, which is then the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
