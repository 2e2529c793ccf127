//! The store that several gateways share: a Redis or Valkey server, or a cluster of them.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use prometheus::IntCounter;
use redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, Pipeline, RedisError, RedisFuture,
    RedisResult, TlsCertificates, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    cluster::{ClusterClient, ClusterConfig},
    cluster_async::ClusterConnection,
};

use super::StoreError;

/// Time to connect, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest pause between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(200);

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
/// connection carries many exchanges at a time.
pub struct Shared {
    connection: Connection,
    errors: IntCounter,
    timeout: Duration,
    /// When the last failure was logged, in milliseconds after `began`, plus one.
    complained: AtomicU64,
    down: AtomicBool,
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
    pub fn new(server: &Server, errors: IntCounter) -> Result<Self, String> {
        let connection = connection(server).map_err(|error| error.to_string())?;
        let (complained, down) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self { connection, errors, timeout: server.timeout, complained, down, began: Instant::now() })
    }

    /// A handle for commands, pipelines and scripts. What they give goes to [`Self::within`].
    pub fn connection(&self) -> Connection {
        self.connection.clone()
    }

    /// The answer of an exchange, if it comes in time. That the server is down is logged, at most once a second, and so is
    /// that it is back.
    pub async fn within<T>(&self, exchange: impl Future<Output = RedisResult<T>>) -> Result<T, StoreError> {
        let answered = match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answered) => answered.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        };
        match answered {
            Ok(answer) => {
                if self.down.load(Ordering::Relaxed) && self.down.swap(false, Ordering::Relaxed) {
                    tracing::info!("the shared store answers again");
                }
                Ok(answer)
            }
            Err(error) => {
                self.complain(&error);
                Err(StoreError::Failed(error))
            }
        }
    }

    fn complain(&self, error: &str) {
        self.errors.inc();
        self.down.store(true, Ordering::Relaxed);
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let last = self.complained.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= 1000;
        if due && self.complained.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::error!(error, "the shared store fails");
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("timeout", &self.timeout).finish_non_exhaustive()
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
