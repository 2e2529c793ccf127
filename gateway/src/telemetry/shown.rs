//! Gauges that are worked out when somebody looks, so that they cost requests nothing.

use std::collections::HashSet;

use prometheus::{IntGaugeVec, core::Collector as _};

/// Gauges with two labels, of which only those that are in force are shown.
pub struct Shown {
    gauges: IntGaugeVec,
    labels: [&'static str; 2],
}

impl Shown {
    pub(super) fn new(gauges: IntGaugeVec, labels: [&'static str; 2]) -> Self {
        Self { gauges, labels }
    }

    /// Sets these, each with the values of its labels, and drops all others.
    pub fn show(&self, in_force: &[([&str; 2], i64)]) {
        for (values, value) in in_force {
            self.gauges.with_label_values(values).set(*value);
        }
        let known: HashSet<[&str; 2]> = in_force.iter().map(|(values, _)| *values).collect();
        for family in self.gauges.collect() {
            for metric in family.get_metric() {
                let label = |name| metric.get_label().iter().find(|pair| pair.name() == name).map_or("", |p| p.value());
                let values = self.labels.map(label);
                if !known.contains(&values) {
                    let _ = self.gauges.remove_label_values(&values);
                }
            }
        }
    }
}
