//! Listeners that come and go while the others go on.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    os::fd::{IntoRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use pingora_core::{
    listeners::{L4BufferSettings, ListenerConfig},
    modules::http::HttpModules,
    server::Fds,
    services::{Service as _, listening::Service},
};
use pingora_proxy::HttpProxy;
use tokio::{net::TcpSocket, sync::watch, task::JoinHandle};

use super::{Front, READ_BUFFER, WRITE_BUFFER, accept::Door};
use crate::{flow::Steps, gateway::Gateway, proxy::Proxy};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// The listeners that are open now.
pub struct Listeners {
    gateway: Arc<Gateway>,
    proxy: Arc<HttpProxy<Proxy>>,
    open: Mutex<HashMap<String, Open>>,
    /// Sockets of the process that this one replaces, by address as configured.
    inherited: Mutex<HashMap<String, std::net::TcpListener>>,
    closed: AtomicBool,
}

struct Open {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    local: SocketAddr,
    /// Another descriptor of the socket, for a process that replaces this one.
    spare: std::net::TcpListener,
}

/// Sockets bound for a configuration that is not in force yet. Dropping it closes them.
#[derive(Default)]
pub struct Bound {
    sockets: Vec<(String, std::net::TcpListener)>,
}

impl Listeners {
    /// None open yet.
    pub fn new(gateway: Arc<Gateway>, proxy: Arc<HttpProxy<Proxy>>) -> Self {
        let (open, inherited) = (Mutex::default(), Mutex::default());
        Self { gateway, proxy, open, inherited, closed: AtomicBool::new(false) }
    }

    /// Keeps sockets of the process that this one replaces, for [`bind`](Self::bind).
    pub fn inherit(&self, sockets: HashMap<String, OwnedFd>) -> io::Result<()> {
        let mut inherited = self.inherited.lock();
        for (address, socket) in sockets {
            let socket = std::net::TcpListener::from(socket);
            socket.set_nonblocking(true)?;
            inherited.insert(address, socket);
        }
        Ok(())
    }

    /// Lets go of inherited sockets that nothing has used.
    pub fn disinherit(&self) {
        self.inherited.lock().clear();
    }

    /// Another descriptor of each socket, with its address as configured.
    pub fn duplicates(&self) -> io::Result<Vec<(String, std::net::TcpListener)>> {
        let open = self.open.lock();
        open.iter().map(|(address, listener)| Ok((address.clone(), listener.spare.try_clone()?))).collect()
    }

    /// Binds those of the wanted addresses that are not open, and changes nothing else. The error names the index.
    pub fn bind<'a>(&self, wanted: impl IntoIterator<Item = &'a str>) -> Result<Bound, (usize, io::Error)> {
        let open = self.open.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err((0, io::Error::other("the gateway is draining")));
        }
        let mut bound = Bound::default();
        for (at, address) in wanted.into_iter().enumerate() {
            if !open.contains_key(address) {
                let socket = match self.inherited.lock().remove(address) {
                    Some(socket) => socket,
                    None => bind(address).map_err(|e| (at, e))?,
                };
                bound.sockets.push((address.to_owned(), socket));
            }
        }
        Ok(bound)
    }

    /// Opens what was bound, and closes what is not wanted any more. Called right after the configuration is in force.
    pub fn apply(&self, bound: Bound, wanted: &HashSet<&str>) {
        let mut open = self.open.lock();
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        open.retain(|address, listener| {
            let stays = wanted.contains(address.as_str());
            if !stays {
                tracing::info!(%address, "listener closed");
                listener.stop.send_replace(true);
            }
            stays
        });
        for (address, socket) in bound.sockets {
            match self.start(&address, socket) {
                Ok(listener) => {
                    tracing::info!(%address, local = %listener.local, "listening");
                    open.insert(address, listener);
                }
                Err(error) => tracing::error!(%address, %error, "a bound listener cannot be opened"),
            }
        }
    }

    /// Closes all of them and waits until none accepts any more.
    pub async fn close_all(&self) {
        let closing: Vec<Open> = {
            let mut open = self.open.lock();
            // From here on a reload opens nothing any more.
            self.closed.store(true, Ordering::Release);
            open.drain().map(|(_, listener)| listener).collect()
        };
        for listener in &closing {
            listener.stop.send_replace(true);
        }
        for listener in closing {
            let _ = listener.task.await;
        }
    }

    /// Addresses as configured, with those really bound (which differ for port 0).
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.open.lock().iter().map(|(address, listener)| (address.clone(), listener.local)).collect()
    }

    fn start(&self, address: &str, socket: std::net::TcpListener) -> io::Result<Open> {
        let (local, spare) = (socket.local_addr()?, socket.try_clone()?);
        // Pingora looks a bound socket up by the very text of the address it is given.
        let mut fds = Fds::new();
        fds.add(address.to_owned(), socket.into_raw_fd());
        let fds = Arc::new(Mutex::new(fds));
        let (gateway, proxy) = (Arc::clone(&self.gateway), Arc::clone(&self.proxy));
        let door = Door { address: address.to_owned(), gateway: Arc::clone(&gateway) };
        let (steps, modules) = (Steps::new(Arc::clone(&gateway)), HttpModules::new());
        let front = Front { address: address.to_owned(), gateway, proxy, steps, modules };
        let mut service = Service::new("listener".into(), front);
        service.set_connection_filter(Arc::new(door));
        let buffers = L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER);
        service.endpoints().add_listener(ListenerConfig::tcp(address).l4_buffer(buffers));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move { service.start_service(Some(fds), stopped, 1).await });
        Ok(Open { stop, task, local, spare })
    }
}

/// Binds at once, so that an address that is taken is an error of the configuration, not a panic later.
fn bind(address: &str) -> io::Result<std::net::TcpListener> {
    let address: SocketAddr = address.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}
