//! Binds the admin and probe addresses and serves them.

use std::{
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use axum::Router;
use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::{State, api};
use crate::config::admin::Admin;

/// Opens the admin listener, and the one for probes if there is one. The error names the place in the configuration.
pub async fn serve(config: &Admin, mut state: State) -> Result<(), (&'static str, String)> {
    state.token = Arc::from(config.token.expose().as_bytes());
    let wrong = |error: std::io::Error| format!("cannot be bound: {error}");
    let probes = match &config.probes {
        Some(probes) => {
            let listener = bind(&probes.address).await.map_err(|e| ("/admin/probes/address", wrong(e)))?;
            Some((listener, api::probes(state.clone(), probes.metrics)))
        }
        None => None,
    };
    let pages = api::admin(state);
    match config.address.strip_prefix("unix:") {
        Some(path) => {
            let listener = bind_unix(Path::new(path)).await.map_err(|e| ("/admin/address", wrong(e)))?;
            tokio::spawn(async move { ended(axum::serve(listener, pages).await) });
        }
        None => {
            let listener = bind(&config.address).await.map_err(|e| ("/admin/address", wrong(e)))?;
            spawn(listener, pages);
        }
    }
    if let Some((listener, pages)) = probes {
        spawn(listener, pages);
    }
    Ok(())
}

fn spawn(listener: TcpListener, pages: Router) {
    tokio::spawn(async move { ended(axum::serve(listener, pages).await) });
}

fn ended(result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::error!(%error, "the admin listener has ended");
    }
}

async fn bind(address: &str) -> std::io::Result<TcpListener> {
    let address: SocketAddr = address.parse().map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let listener = TcpListener::bind(address).await?;
    tracing::info!(local = %listener.local_addr()?, "admin listening");
    Ok(listener)
}

/// Binds a socket that only this user can open. A socket left by a process that is gone is replaced; one that answers,
/// or anything that is not a socket, is not touched.
async fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() || UnixStream::connect(path).await.is_ok() {
            return Err(std::io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    tracing::info!(path = %path.display(), "admin listening");
    Ok(listener)
}
