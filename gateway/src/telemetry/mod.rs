//! What the gateway says about itself.

pub mod access_log;
pub mod audit;
pub mod line;
mod listeners;
pub mod metrics;
pub mod operation;
mod sink;
mod target;
mod upstreams;

use std::time::Duration;

use crate::{config::Sources, gateway::Gateway, snapshot::Snapshot};

/// How long a reload waits for a log that it ends.
const ON_THE_WAY: Duration = Duration::from_secs(1);
/// How long the end of the process waits for a log.
const AT_THE_END: Duration = Duration::from_secs(5);

/// The logs of a configuration, open, to be put in force.
pub struct Logs {
    access: Option<access_log::Prepared>,
    audit: Option<audit::Prepared>,
}

/// What keeps a log from being written: the place in the configuration, and the rest of a sentence about it.
pub type Wrong = (&'static str, String);

impl Logs {
    /// Opens what a configuration wants written. Changes nothing for what is open already.
    pub fn open(gateway: &Gateway, snapshot: &Snapshot) -> Result<Self, Wrong> {
        let (config, sources) = (&snapshot.loaded.config.telemetry, &snapshot.loaded.sources);
        let access = config.access_log.as_ref();
        let access = access.map(|config| gateway.access_log.prepare(config, sources, &snapshot.secrets()));
        let access = access.transpose().map_err(|wrong| (access_log::PLACE, wrong))?;
        let audit = config.audit_log.as_ref().map(|config| gateway.audit.prepare(config, sources));
        let audit = audit.transpose().map_err(|wrong| (audit::PLACE, wrong))?;
        if let (Some(access), Some(audit)) = (&access, &audit)
            && access.ready.is_same_file(&audit.0)
        {
            return Err((audit::PLACE, SAME_FILE.into()));
        }
        Ok(Self { access, audit })
    }

    /// Puts them in force.
    pub fn apply(self, gateway: &Gateway) {
        gateway.access_log.apply(self.access);
        gateway.audit.apply(self.audit);
    }
}

const SAME_FILE: &str = "names the file of `access_log`: each log needs one of its own";

/// Checks where logs are to go, without opening anything.
pub fn check(config: &crate::config::telemetry::Telemetry, sources: &Sources) -> Vec<Wrong> {
    let target = |to: Option<&String>, place: &'static str| {
        let target = to.map(|to| target::Target::of(to, sources, place));
        target.transpose().map_err(|wrong| (place, wrong))
    };
    let access = target(config.access_log.as_ref().map(|log| &log.to), access_log::PLACE);
    let audit = target(config.audit_log.as_ref().map(|log| &log.to), audit::PLACE);
    let mut wrong: Vec<Wrong> = [access.as_ref().err(), audit.as_ref().err()].into_iter().flatten().cloned().collect();
    if let (Ok(Some(access @ target::Target::File(_))), Ok(Some(audit))) = (&access, &audit)
        && access == audit
    {
        wrong.push((audit::PLACE, SAME_FILE.into()));
    }
    wrong
}
