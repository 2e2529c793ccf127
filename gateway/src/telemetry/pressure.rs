//! The metrics of memory.

use prometheus::{IntGauge, Registry};

use super::metrics::registered;

/// What is known of memory; written when somebody looks.
pub struct PressureMetrics {
    used: IntGauge,
    most: IntGauge,
    high: IntGauge,
}

impl PressureMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| registered(registry, IntGauge::new(name, help));
        Self {
            used: gauge("crossway_memory_used_bytes", "Memory that counts against the bound."),
            most: gauge("crossway_memory_max_bytes", "All the memory there is; 0 for no bound."),
            high: gauge("crossway_memory_pressure", "1 while new requests are turned away for want of memory."),
        }
    }

    /// Writes what is known.
    pub fn show(&self, (used, most): (u64, u64), is_high: bool) {
        self.used.set(i64::try_from(used).unwrap_or(i64::MAX));
        self.most.set(i64::try_from(most).unwrap_or(i64::MAX));
        self.high.set(is_high.into());
    }
}
