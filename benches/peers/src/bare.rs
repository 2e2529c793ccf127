//! Pingora proxying to one origin and doing nothing else: what Crossway's own work is measured against.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use pingora_core::{
    Result,
    apps::ServerApp,
    listeners::{L4BufferSettings, ListenerConfig, tls::TlsSettings},
    protocols::Stream,
    server::{ShutdownWatch, configuration::ServerConf},
    services::{Service as _, listening::Service},
    upstreams::peer::HttpPeer,
};
use pingora_proxy::{HttpProxy, ProxyHttp, Session};
use tokio::sync::watch;

/// Where the proxy listens, where it sends requests, and the settings that Crossway has too. The defaults are
/// Crossway's.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// Address of the origin.
    #[arg(long)]
    origin: SocketAddr,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Unused connections kept to the origin.
    #[arg(long, default_value_t = 512)]
    pool: usize,
    /// Bytes of a client connection's read buffer.
    #[arg(long, default_value_t = 2048)]
    read_buffer: usize,
    /// Bytes of a client connection's write buffer.
    #[arg(long, default_value_t = 1460)]
    write_buffer: usize,
    /// Speak TLS with this certificate (PEM).
    #[arg(long, requires = "key")]
    certificate: Option<String>,
    /// The key of the certificate (PEM).
    #[arg(long)]
    key: Option<String>,
}

/// Runs the proxy until the process is ended.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let conf =
        ServerConf { threads: settings.threads, upstream_keepalive_pool_size: settings.pool, ..ServerConf::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(settings.threads).enable_all().build()?;
    runtime.block_on(async {
        let mut proxy = HttpProxy::new(Bare { peer: peer(settings.origin) }, Arc::new(conf));
        proxy.handle_init_modules();
        let mut service = Service::new("listener".into(), App(Arc::new(proxy)));
        let buffers = L4BufferSettings::new(settings.read_buffer, settings.write_buffer);
        let mut listener = ListenerConfig::tcp(settings.listen.to_string()).l4_buffer(buffers);
        if let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) {
            listener = listener.tls(TlsSettings::intermediate(certificate, key)?);
        }
        service.endpoints().add_listener(listener);
        let (_stop, stopped) = watch::channel(false);
        // On a worker, like every other task: `block_on` would poll it on the main thread.
        tokio::spawn(async move { service.start_service(None, stopped, 1).await }).await?;
        Ok(())
    })
}

#[expect(clippy::disallowed_methods, reason = "an address needs no resolving, so this can neither block nor panic")]
fn peer(origin: SocketAddr) -> HttpPeer {
    HttpPeer::new(origin, false, String::new())
}

struct Bare {
    peer: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }
}

struct App(Arc<HttpProxy<Bare>>);

#[async_trait]
impl ServerApp for App {
    async fn process_new(self: &Arc<Self>, io: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        self.0.process_new(io, shutdown).await
    }
}
