//! What plugins count.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

/// Counts events of plugins, as `crossway_plugin_events_total{plugin,event}`, and what they hold now, as
/// `crossway_plugin_level{plugin,level}`. All labels come from closed sets.
#[derive(Debug, Clone)]
pub struct MetricsScope {
    events: IntCounterVec,
    levels: IntGaugeVec,
}

impl MetricsScope {
    /// Name of the metric of events.
    pub const NAME: &'static str = "crossway_plugin_events_total";

    /// Counts into this vector, with the labels `plugin` and `event`, and shows levels nowhere.
    pub fn new(events: IntCounterVec) -> Self {
        let opts = Opts::new("crossway_plugin_level", "What plugins hold now, by plugin and level.");
        let levels = IntGaugeVec::new(opts, &["plugin", "level"]).expect("the name and the labels are valid");
        Self { events, levels }
    }

    /// Shows levels in this vector, with the labels `plugin` and `level`.
    #[must_use]
    pub fn with_levels(self, levels: IntGaugeVec) -> Self {
        Self { levels, ..self }
    }

    /// The counter of one event. Made once, when a plugin is built.
    pub fn counter(&self, plugin: &'static str, event: &'static str) -> IntCounter {
        self.events.with_label_values(&[plugin, event])
    }

    /// The gauge of one level, which all plugins of the name share. Made once, when a plugin is built.
    pub fn level(&self, plugin: &'static str, level: &'static str) -> IntGauge {
        self.levels.with_label_values(&[plugin, level])
    }
}

impl Default for MetricsScope {
    /// Counts for nobody.
    fn default() -> Self {
        let opts = Opts::new(Self::NAME, "Events in plugins, by plugin and event.");
        Self::new(IntCounterVec::new(opts, &["plugin", "event"]).expect("the name and the labels are valid"))
    }
}
