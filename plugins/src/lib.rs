//! The built-in plugins: one folder each, registered here.

use std::sync::Arc;

use crossway_plugin_api::{Deps, InvalidConfig, Plugin, PluginConfig};
use schemars::JsonSchema;
use serde::Deserialize;

pub mod respond;

/// One entry of a list of plugins: the plugin's name, and its settings.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnyPlugin {
    /// Gives a fixed answer.
    Respond(respond::Config),
}

impl AnyPlugin {
    /// The plugin's name in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Respond(_) => "respond",
        }
    }
}

impl PluginConfig for AnyPlugin {
    fn build(self, deps: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        match self {
            Self::Respond(config) => config.build(deps),
        }
    }
}
