//! Servers of the demo, each on a thread of its own.

use anyhow::Context as _;
use axum::Router;

/// Serves pages, which may know their address, on loopback; returns the address.
pub(super) fn serve(name: &str, pages: impl FnOnce(&str) -> anyhow::Result<Router>) -> anyhow::Result<String> {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free port")?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?.to_string();
    let pages = pages(&address)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = async move { axum::serve(tokio::net::TcpListener::from_std(socket)?, pages).await };
    std::thread::Builder::new().name(name.into()).spawn(move || runtime.block_on(serve))?;
    Ok(address)
}
