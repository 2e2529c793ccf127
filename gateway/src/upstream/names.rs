//! Questions to the domain name system (RFC 1035): addresses, and the places of a service (RFC 2782).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    lookup::Lookup,
    net::runtime::TokioRuntimeProvider,
    proto::rr::{Name, RData},
};

/// A resolver that has not answered by then counts as failed.
const LOOKUP: Duration = Duration::from_secs(10);
/// How long an answer is used, whatever its time to live says.
const USED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// Who is asked for names: these servers, or those of the system where there are none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Names {
    servers: Vec<SocketAddr>,
}

/// One place of a service.
#[derive(Debug)]
pub struct Service {
    /// The host that serves.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Lower is used first.
    pub priority: u16,
    /// Its share among those of the same priority.
    pub weight: u16,
}

/// An answer, and how long it may be used.
pub type Answer<T> = Result<(Vec<T>, Duration), String>;

impl Names {
    /// Asks these servers; those of the system where there are none.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers }
    }

    /// The addresses of a host: of version 4 and 6, from the hosts file or the domain name system.
    pub async fn addresses(&self, host: &str) -> Answer<IpAddr> {
        let resolver = self.resolver().await?;
        let lookup = in_time(resolver.lookup_ip(name(host)?)).await?;
        let addresses: Vec<IpAddr> = lookup.iter().collect();
        if addresses.is_empty() { Err("no address".into()) } else { Ok((addresses, used(lookup.as_lookup()))) }
    }

    /// The places of a service.
    pub async fn services(&self, service: &str) -> Answer<Service> {
        let resolver = self.resolver().await?;
        let lookup = in_time(resolver.srv_lookup(name(service)?)).await?;
        let service = |data: &RData| match data {
            RData::SRV(srv) if srv.target.is_root() => None,
            RData::SRV(srv) => {
                let mut host = srv.target.to_ascii();
                host.truncate(host.trim_end_matches('.').len());
                Some(Service { host, port: srv.port, priority: srv.priority, weight: srv.weight })
            }
            _ => None,
        };
        let services: Vec<Service> = lookup.answers().iter().filter_map(|record| service(&record.data)).collect();
        let services: Vec<Service> = services.into_iter().filter(|service| service.port != 0).collect();
        if services.is_empty() { Err("no place of the service".into()) } else { Ok((services, used(&lookup))) }
    }

    /// Made anew for each question, in the background: what the system says may have changed.
    async fn resolver(&self) -> Result<TokioResolver, String> {
        let servers = self.servers.clone();
        let made = tokio::task::spawn_blocking(move || resolver(&servers)).await;
        made.map_err(|error| error.to_string())?
    }
}

/// Underscores may stand in names of hosts too, as some systems give them.
fn name(text: &str) -> Result<Name, String> {
    Name::from_ascii(text).map_err(|error| error.to_string())
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, String> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| format!("the system's resolver: {error}"))?
    } else {
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    // How long answers are used is decided here.
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build().map_err(|error| error.to_string())
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
    server
}

async fn in_time<T, E: std::fmt::Display>(lookup: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    let answer = tokio::time::timeout(LOOKUP, lookup).await.map_err(|_| "no answer in time".to_owned())?;
    answer.map_err(|error| error.to_string())
}

fn used(lookup: &Lookup) -> Duration {
    let least = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
    Duration::from_secs(least.into()).clamp(USED.0, USED.1)
}
