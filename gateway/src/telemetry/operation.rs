//! The log of operation: start, reload, drain, faults. Written to standard error.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::config::telemetry::{Log, LogFormat, LogLevel};

/// Starts the log. Pingora's own lines come through at `warn` and above: it logs an error for each failed request, and
/// those have their place in the access log and the metrics.
pub fn start(log: Log) {
    let level = match log.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    let filter = EnvFilter::new(format!(
        "{level},pingora_proxy=off,pingora_core=off,pingora_cache=off,pingora_pool=off,rustls=warn,hyper=warn"
    ));
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match log.format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json()).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "the log was started before");
    }
}
