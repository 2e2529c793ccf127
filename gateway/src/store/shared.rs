//! The store that several gateways share: a Redis or Valkey server, or a cluster of them.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, Pipeline, RedisError, RedisFuture,
    RedisResult, TlsCertificates, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    cluster::{ClusterClient, ClusterConfig},
    cluster_async::ClusterConnection,
};
use tokio::{sync::Notify, time::timeout};

use super::{StoreError, circuit::Circuit};

/// Time to connect, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest pause between two attempts to connect, and the one between two questions to a server that is down.
const RECONNECT: Duration = Duration::from_millis(200);
/// How many of these questions fail until another connection is tried: the old one may lead to nowhere, or to a server that
/// is no longer the right one.
const RENEW: u32 = 5;
/// The key that is written to see whether the server is back, where no other is known.
const PROBE: &[u8] = b"crossway:{probe}";

/// Where the server is, checked.
#[derive(Clone)]
pub struct Server {
    nodes: Vec<ConnectionInfo>,
    cluster: bool,
    /// PEM text of the authorities to trust.
    ca: Option<Vec<u8>>,
    timeout: Duration,
}

/// What is wrong with one of the URLs, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAServer {
    /// It is no URL of a server.
    Url(usize),
    /// It is not of TLS, though there are authorities to trust.
    Plain(usize),
}

impl Server {
    /// A server, or nodes of a cluster.
    pub fn new(urls: &[&str], cluster: bool, ca: Option<Vec<u8>>, timeout: Duration) -> Result<Self, NotAServer> {
        let mut nodes = Vec::with_capacity(urls.len());
        for (at, url) in urls.iter().enumerate() {
            let node = url.into_connection_info().map_err(|_| NotAServer::Url(at))?;
            if ca.is_some() && !matches!(node.addr(), ConnectionAddr::TcpTls { .. }) {
                return Err(NotAServer::Plain(at));
            }
            nodes.push(node);
        }
        Ok(Self { nodes, cluster, ca, timeout })
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        self.ca.clone().map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) })
    }
}

impl fmt::Debug for Server {
    /// Addresses only: the rest holds a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes.iter().map(ConnectionInfo::addr)).finish()
    }
}

/// A server that gateways share. It connects when it is first used, and again whenever the connection is lost; its
/// connection carries many exchanges at a time. When it fails, it is followed in the background until it is back.
pub struct Shared {
    server: Server,
    connection: ArcSwap<Connection>,
    errors: IntCounter,
    up: IntGauge,
    circuit: Circuit,
    /// Tells who follows the server that it is down, or that nobody wants it any more.
    wake: Arc<Notify>,
    /// A key near the one that failed last.
    probe: Mutex<Vec<u8>>,
    /// When the last failure was logged, in milliseconds after `began`, plus one.
    complained: AtomicU64,
    /// A failure was logged, and not yet that the server is back.
    failing: AtomicBool,
    began: Instant,
}

/// A handle to the server; cloning it costs little.
#[derive(Clone)]
pub enum Connection {
    /// One server.
    Single(ConnectionManager),
    /// Many, of which each has some of the keys.
    Cluster(ClusterConnection),
}

impl Shared {
    /// Connects to nothing yet. Needs a runtime.
    pub fn new(server: &Server, errors: IntCounter, up: IntGauge) -> Result<Arc<Self>, String> {
        let connection = connection(server).map_err(|error| error.to_string())?;
        up.set(1);
        let shared = Arc::new(Self {
            server: server.clone(),
            connection: ArcSwap::from_pointee(connection),
            errors,
            up,
            circuit: Circuit::default(),
            wake: Arc::default(),
            probe: Mutex::new(PROBE.to_vec()),
            complained: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            began: Instant::now(),
        });
        tokio::spawn(follow(Arc::downgrade(&shared), Arc::clone(&shared.wake)));
        Ok(shared)
    }

    /// A handle for commands, pipelines and scripts. What they give goes to [`Self::within`].
    pub fn connection(&self) -> Connection {
        Connection::clone(&self.connection.load())
    }

    /// Whether the server is known to be down. Who can do without it does not ask it then; it is back once it has answered
    /// to who follows it.
    pub fn is_down(&self) -> bool {
        self.circuit.is_open()
    }

    /// The answer of an exchange, if it comes in time. That the server is down is logged, at most once a second, and so is
    /// that it is back.
    pub async fn within<T>(&self, exchange: impl Future<Output = RedisResult<T>>) -> Result<T, StoreError> {
        self.within_at(None, exchange).await
    }

    /// The same, of an exchange about this key: it says where in a cluster a failure is.
    pub async fn within_at<T>(
        &self,
        key: Option<&[u8]>,
        exchange: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, StoreError> {
        let answered = match timeout(self.server.timeout, exchange).await {
            Ok(answered) => answered.map_err(|error| (is_broken(&error), error.to_string())),
            Err(_) => Err((false, format!("no answer within {:?}", self.server.timeout))),
        };
        match answered {
            Ok(answer) => {
                self.circuit.succeeded();
                if !self.is_down() {
                    self.note_return();
                }
                Ok(answer)
            }
            Err((broken, error)) => {
                self.complain(&error);
                if self.circuit.failed(broken) {
                    *self.probe.lock() = key.map_or_else(|| PROBE.to_vec(), |key| [tagged(key), b":probe"].concat());
                    self.up.set(0);
                    self.wake.notify_one();
                }
                Err(StoreError::Failed(error))
            }
        }
    }

    fn note_return(&self) {
        if self.failing.load(Ordering::Relaxed) && self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the shared store answers again");
        }
    }

    fn complain(&self, error: &str) {
        self.errors.inc();
        self.failing.store(true, Ordering::Relaxed);
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let last = self.complained.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= 1000;
        if due && self.complained.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::error!(error, "the shared store fails");
        }
    }

    /// Whether the server can be reached, takes what is written, and answers in time.
    async fn is_back(&self) -> bool {
        let (mut connection, key) = (self.connection(), self.probe.lock().clone());
        let mut write = redis::cmd("SET");
        write.arg(key).arg(1).arg("PX").arg(1000);
        // Nobody waits for this one: a connection may take longer than an exchange.
        let reached = timeout(CONNECT, write.exec_async(&mut connection)).await;
        matches!(reached, Ok(Ok(())))
            && matches!(timeout(self.server.timeout, write.exec_async(&mut connection)).await, Ok(Ok(())))
    }

    /// Begins again with a new connection.
    fn renew(&self) {
        if let Ok(connection) = connection(&self.server) {
            self.connection.store(Arc::new(connection));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

/// Asks a server that is down again and again, until it is back; and waits until it is down again.
async fn follow(shared: Weak<Shared>, wake: Arc<Notify>) {
    loop {
        wake.notified().await;
        let mut failed = 0_u32;
        loop {
            let Some(shared) = shared.upgrade() else { return };
            if shared.is_back().await {
                shared.up.set(1);
                shared.circuit.close();
                shared.note_return();
                break;
            }
            failed = failed.wrapping_add(1);
            if failed.is_multiple_of(RENEW) {
                shared.renew();
            }
            drop(shared);
            tokio::time::sleep(RECONNECT).await;
        }
    }
}

/// Whether an error says that the connection is no good, and not that the server is slow or does not want to.
fn is_broken(error: &RedisError) -> bool {
    !error.is_timeout() && !matches!(error.kind(), ErrorKind::Server(_))
}

/// A key up to the end of its hash tag.
fn tagged(key: &[u8]) -> &[u8] {
    key.iter().position(|byte| *byte == b'}').map_or(key, |end| &key[..=end])
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("timeout", &self.server.timeout).finish_non_exhaustive()
    }
}

fn connection(server: &Server) -> RedisResult<Connection> {
    if server.cluster {
        let mut builder = ClusterClient::builder(server.nodes.clone()).retries(1);
        if let Some(certificates) = server.certificates() {
            builder = builder.certs(certificates);
        }
        let client = builder.connection_timeout(CONNECT).response_timeout(server.timeout).build()?;
        return Ok(Connection::Cluster(client.get_pending_async_connection_with_config(ClusterConfig::new())));
    }
    let node = server.nodes.first().cloned().ok_or_else(|| RedisError::from(std::io::Error::other("no server")))?;
    let client = match server.certificates() {
        Some(certificates) => Client::build_with_tls(node, certificates)?,
        None => Client::open(node)?,
    };
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_min_delay(RECONNECT / 4)
        .set_max_delay(RECONNECT)
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(server.timeout));
    Ok(Connection::Single(ConnectionManager::new_lazy_with_config(client, config)?))
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
