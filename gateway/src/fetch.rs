//! The one client for requests of the gateway's own: keys, introspection, tokens, decisions. No redirects, no proxy from
//! the environment, bounds on time and size.

use std::{error::Error as _, sync::OnceLock, time::Duration};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use crossway_plugin_api::{Ask, Fetch, NoAnswer, Told};
use reqwest::redirect;

/// Connections that are kept for each service.
const KEPT: usize = 32;
/// How long an unused one is kept.
const IDLE: Duration = Duration::from_secs(30);
/// Time to connect, TLS included.
const CONNECT: Duration = Duration::from_secs(5);

/// Sends the gateway's own requests. Trusts the certificates that the system trusts.
#[derive(Debug, Default)]
pub struct Client(OnceLock<Result<reqwest::Client, String>>);

impl Client {
    /// Made at the first request: a configuration that is only checked needs none.
    fn ready(&self) -> Result<&reqwest::Client, NoAnswer> {
        let made = self.0.get_or_init(|| make().map_err(|error| error.to_string()));
        made.as_ref().map_err(|error| NoAnswer::Failed(error.clone()))
    }
}

fn make() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(KEPT)
        .user_agent(concat!("crossway/", env!("CARGO_PKG_VERSION")))
        .build()
}

#[async_trait]
impl Fetch for Client {
    async fn fetch(&self, ask: Ask) -> Result<Told, NoAnswer> {
        let client = self.ready()?;
        let work = async {
            let Ask { method, url, headers, body, max_body, .. } = ask;
            let mut response =
                client.request(method, url).headers(headers).body(body).send().await.map_err(|e| failed(&e))?;
            let body = read(&mut response, max_body).await?;
            Ok(Told { status: response.status(), headers: std::mem::take(response.headers_mut()), body })
        };
        tokio::time::timeout(ask.timeout, work).await.map_err(|_| NoAnswer::Timeout)?
    }
}

async fn read(response: &mut reqwest::Response, max: usize) -> Result<Bytes, NoAnswer> {
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(|e| failed(&e))? {
        if body.len() + piece.len() > max {
            return Err(NoAnswer::TooLarge(max));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// The error with its causes, without the URL: a URL may hold a secret.
fn failed(error: &reqwest::Error) -> NoAnswer {
    if error.is_timeout() {
        return NoAnswer::Timeout;
    }
    let mut text = if error.is_connect() { "no connection".to_owned() } else { "the exchange failed".to_owned() };
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    NoAnswer::Failed(text)
}
