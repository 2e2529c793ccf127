//! The client of the admin listener.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::config;

/// Longest an answer may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// Largest answer that is read.
const MAX_ANSWER: usize = 4 << 20;

/// Which gateway is asked.
#[derive(Debug, Args)]
pub(super) struct Gateway {
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

/// What the gateway answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The body, if it is JSON.
    pub(super) body: Value,
}

impl Gateway {
    /// Asks, and waits for the answer.
    pub(super) fn ask(&self, method: Method, page: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let (address, token) = self.admin()?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(page)
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let asked = runtime.block_on(async { tokio::time::timeout(PATIENCE, send(&address, request)).await });
        let answer = asked.context("the gateway did not answer in time")??;
        if answer.status == StatusCode::UNAUTHORIZED {
            bail!("the gateway does not take this token");
        }
        Ok(answer)
    }

    fn admin(&self) -> anyhow::Result<(String, String)> {
        if let (Some(address), Some(token)) = (&self.admin, &self.token) {
            return Ok((address.clone(), token.clone()));
        }
        let path = self.config.as_ref().context("--config or --admin is needed")?;
        let admin = config::admin_of(path).with_context(|| {
            format!("{} names no admin listener that can be read; use --admin and --token", path.display())
        })?;
        let token = self.token.clone().unwrap_or_else(|| admin.token.expose().to_owned());
        Ok((admin.address, token))
    }
}

impl Answer {
    /// An answer that was not foreseen, as an error.
    pub(super) fn unexpected(&self) -> anyhow::Error {
        anyhow::anyhow!("the gateway answered {}: {}", self.status, self.text("detail"))
    }

    /// A text of the body; empty if there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }
}

async fn send(address: &str, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
    let unreachable = || format!("no gateway answers at {address}");
    match address.strip_prefix("unix:") {
        Some(path) => exchange(tokio::net::UnixStream::connect(path).await.with_context(unreachable)?, request).await,
        None => exchange(tokio::net::TcpStream::connect(address).await.with_context(unreachable)?, request).await,
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<Answer> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|e| anyhow::anyhow!(e))?;
    Ok(Answer { status, body: serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null) })
}
