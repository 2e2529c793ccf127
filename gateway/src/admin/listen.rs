//! Binds the admin and probe addresses and serves them.

use std::{
    net::SocketAddr,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{FileTypeExt as _, PermissionsExt as _},
    },
    path::Path,
    sync::Arc,
};

use axum::Router;
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    task::JoinHandle,
};

use super::{State, api, audit::Peer};
use crate::{
    config::admin::Admin,
    upgrade::{Inherited, Spare},
};

/// Opens the admin listener, and the one for probes if there is one. The error names the place in the configuration.
///
/// Sockets of the process that this one replaces are used where the address is the same. Gives back another descriptor of
/// each socket, and the tasks that serve.
pub async fn serve(
    config: &Admin,
    mut state: State,
    inherited: &mut Inherited,
) -> Result<Serving, (&'static str, String)> {
    state.token = Arc::from(config.token.expose().as_bytes());
    let wrong = |error: std::io::Error| format!("cannot be bound: {error}");
    let mut serving = Serving::default();
    let pages = api::admin(state.clone());
    let known = inherited.take(ADMIN, &config.address);
    let bound = socket(&config.address, known).await.map_err(|e| ("/admin/address", wrong(e)))?;
    serving.start(ADMIN, &config.address, bound, pages).map_err(|e| ("/admin/address", wrong(e)))?;
    if let Some(probes) = &config.probes {
        let place = "/admin/probes/address";
        let known = inherited.take(PROBES, &probes.address);
        let bound = socket(&probes.address, known).await.map_err(|e| (place, wrong(e)))?;
        let pages = api::probes(state, probes.metrics);
        serving.start(PROBES, &probes.address, bound, pages).map_err(|e| (place, wrong(e)))?;
    }
    Ok(serving)
}

/// What a listening socket is for, in a hand-over.
const ADMIN: &str = "admin";
const PROBES: &str = "probes";

/// The listeners for operators, at work.
#[derive(Default)]
pub struct Serving {
    /// Another descriptor of each socket.
    pub spares: Vec<Spare>,
    tasks: Vec<JoinHandle<()>>,
}

impl Serving {
    fn start(&mut self, kind: &str, address: &str, socket: Socket, pages: Router) -> std::io::Result<()> {
        let descriptor = match &socket {
            Socket::Tcp(listener) => listener.as_fd().try_clone_to_owned()?,
            Socket::Unix(listener) => listener.as_fd().try_clone_to_owned()?,
        };
        self.spares.push(Spare { name: format!("{kind} {address}"), descriptor });
        let pages = pages.into_make_service_with_connect_info::<Peer>();
        self.tasks.push(tokio::spawn(async move {
            match socket {
                Socket::Tcp(listener) => ended(axum::serve(listener, pages).await),
                Socket::Unix(listener) => ended(axum::serve(listener, pages).await),
            }
        }));
        Ok(())
    }

    /// Stops accepting: another process has taken over.
    pub async fn stop(&mut self) {
        self.spares.clear();
        for task in self.tasks.drain(..) {
            task.abort();
            // It ends with the error of having been told to.
            let _ = task.await;
        }
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The socket of the process that this one replaces, or a new one.
async fn socket(address: &str, known: Option<OwnedFd>) -> std::io::Result<Socket> {
    match (address.strip_prefix("unix:"), known) {
        (Some(_), Some(known)) => {
            let listener = std::os::unix::net::UnixListener::from(known);
            listener.set_nonblocking(true)?;
            Ok(Socket::Unix(UnixListener::from_std(listener)?))
        }
        (None, Some(known)) => {
            let listener = std::net::TcpListener::from(known);
            listener.set_nonblocking(true)?;
            Ok(Socket::Tcp(TcpListener::from_std(listener)?))
        }
        (Some(path), None) => bind_unix(Path::new(path)).await.map(Socket::Unix),
        (None, None) => bind(address).await.map(Socket::Tcp),
    }
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
