//! `crossway run`

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::{
    front::listeners::Listeners,
    reload::{self, Origin},
    server::{Ended, Lasting, Server, Signals},
    telemetry::operation,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Configuration file, or directory of `*.yaml` files.
    #[arg(short, long, value_name = "PATH", required_unless_present = "upstream", env = "CROSSWAY_CONFIG")]
    config: Option<PathBuf>,
    /// Serve without a file: pass every request to this server.
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    upstream: Option<String>,
    /// Where to listen without a file.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", requires = "upstream")]
    listen: String,
    /// Replace the process that runs with this configuration's `runtime.upgrade.socket`, without losing a connection. If
    /// none runs, start.
    #[arg(long, conflicts_with = "upstream")]
    take_over: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let origin = match (arguments.config, arguments.upstream) {
        (Some(path), None) => Origin::Path(path),
        (None, Some(url)) => Origin::Text(proxy_text(&url, &arguments.listen)?),
        _ => bail!("either --config or --upstream is needed"),
    };
    serve(origin, arguments.take_over, |_| {})
}

/// Serves a configuration until a signal ends it.
pub(super) fn serve(origin: Origin, take_over: bool, started: impl FnOnce(&Listeners)) -> anyhow::Result<ExitCode> {
    let lasting = Lasting::default();
    let snapshot = match lasting.first(&origin) {
        Ok(snapshot) => snapshot,
        Err(error) => return Ok(super::say_config(&error)),
    };
    operation::start(snapshot.loaded.config.telemetry.log);
    reload::warn(&snapshot);
    raise_file_limit();
    let threads = threads(snapshot.loaded.config.runtime.threads);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("worker")
        .enable_all()
        .build()
        .context("no runtime")?;
    let ended = runtime.block_on(async {
        let signals = Signals::take().map_err(|e| Ended::Failed(e.into()))?;
        Ok(Server::new(snapshot, lasting, origin, threads).run(signals, take_over, started).await)
    });
    runtime.shutdown_background();
    match ended.unwrap_or_else(|failed| failed) {
        Ended::Done => Ok(ExitCode::SUCCESS),
        Ended::Config(error) => Ok(super::say_config(&error)),
        Ended::Failed(error) => Err(error),
    }
}

/// As many workers as asked for; 0 is one a core.
fn threads(configured: u32) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        some => some as usize,
    }
}

/// As many open files as the system lets this process have: each connection is one.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// The configuration of a proxy without a file.
fn proxy_text(url: &str, listen: &str) -> anyhow::Result<String> {
    let uri: http::Uri = url.parse().with_context(|| format!("`{url}` is not a URL such as http://host:port"))?;
    let host = uri.host().with_context(|| format!("`{url}` names no host"))?;
    let (port, tls) = match uri.scheme_str() {
        Some("http") => (80, String::new()),
        Some("https") => (443, format!("\n    tls: {{ server_name: {} }}", quoted(host.trim_matches(['[', ']'])))),
        _ => bail!("`{url}` is neither http:// nor https://"),
    };
    if uri.path().len() > 1 || uri.query().is_some() {
        bail!("`{url}` has a path: write a configuration with a `rewrite` for that");
    }
    let port = match uri.authority().and_then(|a| a.as_str().strip_prefix(host)).and_then(|rest| rest.strip_prefix(':'))
    {
        Some(written) => written.parse().with_context(|| format!("`{url}` has no valid port"))?,
        None => port,
    };
    let endpoint = quoted(&format!("{host}:{port}"));
    Ok(format!(
        "listeners:\n  - {{ name: default, address: {} }}\ntelemetry:\n  access_log: {{ to: stdout }}\nupstreams:\n  default:\n    endpoints:\n      - {{ address: {endpoint} }}{tls}\nroutes:\n  - name: default\n    match: {{ path: \"/{{rest...}}\" }}\n    auth: none\n    upstream: default\n",
        quoted(listen),
    ))
}

/// A YAML scalar that means just this text: JSON strings are YAML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace("${", "$${")).to_string()
}
