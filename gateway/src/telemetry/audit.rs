//! Who did what, from where, and what came of it: one JSON line for each refusal of a caller, each act of an operator, and
//! each turn in the life of the process.

mod record;

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;

pub use record::{Actor, Event, Outcome, Record, Source, Value, Who, trace_id};

use super::{
    AT_THE_END, ON_THE_WAY,
    metrics::Metrics,
    sink::{Kind, Loss, Ready, Sink},
    target::Target,
};
use crate::{
    config::{Sources, telemetry::AuditLog as Config},
    gateway::Gateway,
};

/// Where the configuration says what is written to.
pub(super) const PLACE: &str = "/telemetry/audit_log/to";

static KIND: Kind = Kind { name: "audit log", thread: "audit-log", capacity: 16 << 20, mode: 0o600 };

/// The audit log of the process; where it goes follows the configuration in force.
pub struct AuditLog {
    current: ArcSwapOption<Sink>,
    loss: Arc<Loss>,
}

/// A log that is ready to be put in force.
pub(super) struct Prepared(pub(super) Ready);

/// The log as it was at some time.
pub struct Earlier(Option<Arc<Sink>>);

impl AuditLog {
    /// A log that writes nothing until a configuration is applied.
    pub fn new(metrics: &Metrics) -> Self {
        Self { current: ArcSwapOption::empty(), loss: Loss::new(metrics.audit_log_dropped.clone()) }
    }

    /// Opens what the configuration asks for. Changes nothing for what is open already.
    pub(super) fn prepare(&self, config: &Config, sources: &Sources) -> Result<Prepared, String> {
        let target = Target::of(&config.to, sources, PLACE)?;
        let ready = Ready::open(target, self.current.load().as_ref(), &KIND, &self.loss);
        ready.map(Prepared).map_err(|error| format!("cannot be opened: {error}"))
    }

    /// Puts a prepared log in force.
    pub(super) fn apply(&self, prepared: Option<Prepared>) {
        self.current.store(prepared.map(|Prepared(ready)| ready.apply()));
    }

    /// Writes what is left and stops.
    pub fn close(&self) {
        Earlier(self.current.swap(None)).end(AT_THE_END);
    }

    /// Whether anything is recorded at all.
    pub fn is_on(&self) -> bool {
        self.current.load().is_some()
    }

    /// The log as it is now, for a last record should it be replaced.
    pub fn now(&self) -> Earlier {
        Earlier(self.current.load_full())
    }

    /// Writes one record. Never waits: what the queue has no room for is counted.
    pub fn write(&self, record: &Record<'_>) {
        if let Some(sink) = self.current.load().as_ref() {
            self.write_to(sink, record);
        }
    }

    /// Writes a record to the log as it is, and where it was another one before, there too: what ended it is its last word.
    pub fn write_over(&self, earlier: Earlier, record: &Record<'_>) {
        self.write(record);
        let current = self.current.load_full();
        let Some(old) = &earlier.0 else { return };
        if current.is_none_or(|current| !Arc::ptr_eq(&current, old)) {
            self.write_to(old, record);
            earlier.end(ON_THE_WAY);
        }
    }

    fn write_to(&self, sink: &Sink, record: &Record<'_>) {
        thread_local! { static BUFFER: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) }; }
        BUFFER.with_borrow_mut(|(line, lines)| {
            lines.clear();
            let now = SystemTime::now();
            let lost = self.loss.take_unrecorded();
            if lost > 0 {
                let more = [("records", Value::Number(lost))];
                let (event, outcome, who) = (Event::RecordsLost, Outcome::Failure, Who::PROCESS);
                Record { event, outcome, who, target: "audit_log", reason: None, more: &more }.compose(line, now);
                lines.extend_from_slice(line);
            }
            record.compose(line, now);
            lines.extend_from_slice(line);
            if !sink.push(lines) {
                self.loss.give_back(lost);
            }
        });
    }
}

impl Earlier {
    fn end(self, patience: Duration) {
        if let Some(sink) = self.0 {
            Sink::finish(sink, patience);
        }
    }
}

/// Notes a turn in the life of the process.
pub fn note_process(gateway: &Gateway, event: Event, outcome: Outcome, who: Who<'_>, reason: Option<&str>) {
    let snapshot = gateway.snapshot.load();
    let more = [
        ("pid", Value::Number(std::process::id().into())),
        ("version", Value::Text(env!("CARGO_PKG_VERSION"))),
        ("generation", Value::Number(snapshot.generation)),
        ("config_hash", Value::Text(&snapshot.hash)),
        ("connections", Value::Number(gateway.connections.count() as u64)),
    ];
    gateway.audit.write(&Record { event, outcome, who, target: "gateway", reason, more: &more });
}
