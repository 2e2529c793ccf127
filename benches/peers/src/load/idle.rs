//! Connections that make one request each and then stay idle, to see what an idle connection costs.

use std::{io::Read as _, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use serde_json::json;

use super::{
    client::{Client, Request},
    print_line,
    wire::Dialer,
};

/// How long opening all of them may take.
const OPEN_TIME: Duration = Duration::from_mins(1);

/// How many idle connections, and where to.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// Address of the proxy.
    #[arg(long)]
    target: SocketAddr,
    /// Connections to open.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(..=60_000))]
    connections: u64,
    /// Speak TLS, and trust this certificate (PEM).
    #[arg(long)]
    authority: Option<PathBuf>,
    /// A further request header field, written `Name: value`. Can be given more than once.
    #[arg(long = "header")]
    headers: Vec<String>,
}

/// Opens the connections, prints `{"open": N}`, waits until standard input ends, and prints the same line with the
/// number of those that are still open.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clients = runtime
        .block_on(async { tokio::time::timeout(OPEN_TIME, open(settings)).await })
        .context("the connections could not be opened in time")??;
    print_line(&json!({ "open": clients.len() }))?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let open = clients.into_iter().map(Client::was_idle).filter(|idle| *idle).count();
    print_line(&json!({ "open": open }))
}

/// One after the other, so that the proxy needs one connection to the origin and the rest is the clients' cost.
async fn open(settings: &Settings) -> anyhow::Result<Vec<Client>> {
    let request = Request::new(settings.target, &settings.headers)?;
    let dialer = Dialer::new(settings.target, settings.authority.as_deref())?;
    let mut clients = Vec::new();
    for number in 0..settings.connections {
        let mut client = Client::connect(&dialer, request.clone()).await?;
        client.exchange(number).await.with_context(|| format!("connection {number}"))?;
        clients.push(client);
    }
    Ok(clients)
}
