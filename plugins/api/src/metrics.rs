//! What plugins count.

use prometheus::{IntCounter, IntCounterVec, Opts};

/// Counts events of plugins, as `crossway_plugin_events_total{plugin,event}`. Both labels come from closed sets.
#[derive(Debug, Clone)]
pub struct MetricsScope(IntCounterVec);

impl MetricsScope {
    /// Name of the metric.
    pub const NAME: &'static str = "crossway_plugin_events_total";

    /// Counts into this vector, with the labels `plugin` and `event`.
    pub fn new(events: IntCounterVec) -> Self {
        Self(events)
    }

    /// The counter of one event. Made once, when a plugin is built.
    pub fn counter(&self, plugin: &'static str, event: &'static str) -> IntCounter {
        self.0.with_label_values(&[plugin, event])
    }
}

impl Default for MetricsScope {
    /// Counts for nobody.
    fn default() -> Self {
        let opts = Opts::new(Self::NAME, "Events in plugins, by plugin and event.");
        Self(IntCounterVec::new(opts, &["plugin", "event"]).expect("the name and the labels are valid"))
    }
}
