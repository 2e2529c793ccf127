//! `crossway reload`

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::FAILED;
use crate::config;

/// Longest a reload may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Largest answer that is read.
const MAX_ANSWER: usize = 4 << 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration of the running gateway: says where its admin listener is and which token it wants.
    #[arg(short, long, value_name = "PATH", env = "CROSSWAY_CONFIG", required_unless_present = "admin")]
    config: Option<PathBuf>,
    /// Address of the admin listener, in place of the configuration's: `127.0.0.1:9900` or `unix:/path`.
    #[arg(long, value_name = "ADDRESS", requires = "token")]
    admin: Option<String>,
    /// The admin token, in place of the configuration's.
    #[arg(long, value_name = "TOKEN", env = "CROSSWAY_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Asks the gateway and waits: 0 when the new configuration is in force, 1 with the located errors when not.
pub(super) fn reload(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (address, token) = admin(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(&address, &token)).await });
    let (status, answer) = asked.context("the gateway did not answer in time")??;
    match status {
        StatusCode::OK => {
            super::say(answer["warnings"].as_str().unwrap_or_default());
            super::say(&format!("generation {} is in force\n", answer["generation"]));
            Ok(ExitCode::SUCCESS)
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            super::say(answer["rendered"].as_str().unwrap_or("the configuration was refused\n"));
            super::say("the old configuration serves on\n");
            Ok(ExitCode::from(FAILED))
        }
        StatusCode::UNAUTHORIZED => bail!("the gateway does not take this token"),
        other => bail!("the gateway answered {other}: {}", answer["detail"].as_str().unwrap_or_default()),
    }
}

fn admin(arguments: &Arguments) -> anyhow::Result<(String, String)> {
    if let (Some(address), Some(token)) = (&arguments.admin, &arguments.token) {
        return Ok((address.clone(), token.clone()));
    }
    let path = arguments.config.as_ref().context("--config or --admin is needed")?;
    let admin = config::admin_of(path).with_context(|| {
        format!("{} names no admin listener that can be read; use --admin and --token, or send SIGHUP", path.display())
    })?;
    let token = arguments.token.clone().unwrap_or_else(|| admin.token.expose().to_owned());
    Ok((admin.address, token))
}

async fn ask(address: &str, token: &str) -> anyhow::Result<(StatusCode, Value)> {
    let unreachable = || format!("no gateway answers at {address}");
    match address.strip_prefix("unix:") {
        Some(path) => post(tokio::net::UnixStream::connect(path).await.with_context(unreachable)?, token).await,
        None => post(tokio::net::TcpStream::connect(address).await.with_context(unreachable)?, token).await,
    }
}

async fn post(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    token: &str,
) -> anyhow::Result<(StatusCode, Value)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::post("/api/reload")
        .header(header::HOST, "localhost")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|e| anyhow::anyhow!(e))?.to_bytes();
    Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}
