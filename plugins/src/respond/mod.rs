//! Gives a fixed answer.
use async_trait::async_trait;
use crossway_plugin_api::{Deps, InvalidConfig, Needs, Plugin, PluginConfig};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;

/// Settings of `respond`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Status of the answer.
    pub status: u16,
}
impl PluginConfig for Config {
    fn build(self, _: &Deps) -> Result<Arc<dyn Plugin>, InvalidConfig> {
        Ok(Arc::new(Respond))
    }
}
struct Respond;
#[async_trait]
impl Plugin for Respond {
    fn needs(&self) -> Needs {
        Needs::default()
    }
}
