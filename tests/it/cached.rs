//! What the cache will stand on: Pingora stores the upstream's answer as it came, and runs the response phase, where the
//! chain's `on_response` runs, on what it takes out again. So a stored object is the upstream's, and each answer made
//! from it passes through the plugins anew.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use pingora_cache::{
    CacheKey, CacheMetaDefaults, MemCache, RespCacheable, cache_control::CacheControl, filters::resp_cacheable,
};
use pingora_core::{
    Result, apps::ServerApp, listeners::ListenerConfig, modules::http::HttpModules, protocols::Stream,
    server::ShutdownWatch, services::Service as _, services::listening::Service, upstreams::peer::HttpPeer,
};
use pingora_http::ResponseHeader;
use pingora_proxy::{HttpProxy, ProxyHttp, Session};

use crate::harness::{Answer, Connection, Upstream, closed_address, eventually};

/// A proxy with a cache and one response phase, which numbers the answers.
struct Cached {
    peer: HttpPeer,
    answers: AtomicUsize,
}

#[async_trait]
impl ProxyHttp for Cached {
    type CTX = ();
    fn new_ctx(&self) {}
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }

    fn request_cache_filter(&self, session: &mut Session, (): &mut ()) -> Result<()> {
        static STORE: std::sync::LazyLock<MemCache> = std::sync::LazyLock::new(MemCache::new);
        session.cache.enable(&*STORE, None, None, None, None);
        Ok(())
    }

    fn cache_key_callback(&self, session: &Session, (): &mut ()) -> Result<CacheKey> {
        Ok(CacheKey::new(session.req_header().uri.path().to_owned(), String::new()))
    }

    fn response_cache_filter(&self, _: &Session, res: &ResponseHeader, (): &mut ()) -> Result<RespCacheable> {
        const DEFAULTS: CacheMetaDefaults = CacheMetaDefaults::new(|_| None, 0, 0);
        Ok(resp_cacheable(CacheControl::from_resp_headers(res).as_ref(), res.clone(), false, &DEFAULTS))
    }

    async fn response_filter(&self, _: &mut Session, res: &mut ResponseHeader, (): &mut ()) -> Result<()> {
        let number = self.answers.fetch_add(1, Ordering::SeqCst) + 1;
        res.append_header("X-Answer", number.to_string()).map(drop)
    }
}

struct App(Arc<HttpProxy<Cached>>);

#[async_trait]
impl ServerApp for App {
    async fn process_new(self: &Arc<Self>, io: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        self.0.process_new(io, shutdown).await
    }
}

#[expect(clippy::disallowed_methods, reason = "an address needs no resolving")]
fn peer(address: &str) -> HttpPeer {
    HttpPeer::new(address.parse::<std::net::SocketAddr>().unwrap(), false, String::new())
}

#[test]
fn what_is_stored_is_the_upstreams_answer() {
    let upstream =
        Upstream::start(|_| Answer::new(200, &[("Cache-Control", "max-age=60"), ("X-Own", "upstream")], b"body"));
    let mut proxy =
        HttpProxy::new(Cached { peer: peer(upstream.address()), answers: AtomicUsize::new(0) }, Arc::default());
    proxy.handle_init_modules();
    let address = closed_address();
    let mut service = Service::new("cached".into(), App(Arc::new(proxy)));
    service.endpoints().add_listener(ListenerConfig::tcp(&address));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    runtime.spawn(async move { service.start_service(None, stopped, 1).await });
    eventually("it listens", || std::net::TcpStream::connect(&address).is_ok().then_some(()));
    for number in 1..=3 {
        let mut connection = Connection::open(&address);
        connection.send(b"GET /stored HTTP/1.1\r\nHost: t\r\n\r\n");
        let answer = connection.read("GET").unwrap();
        // `header` refuses a field that stands twice: had the first answer's mark been stored, it would.
        assert_eq!(answer.header("x-answer"), Some(number.to_string().as_str()), "{answer:?}");
        assert_eq!((answer.header("x-own"), answer.text().as_str()), (Some("upstream"), "body"));
    }
    assert_eq!(upstream.received().len(), 1, "two of three answers came from the cache");
    runtime.shutdown_background();
}
