//! A server that speaks HTTP/2, and gRPC over it: each path is something that servers do.
//!
//! | path | answer |
//! |---|---|
//! | `/echo.Echo/Unary` | the messages of the request, once all have come |
//! | `/echo.Echo/ServerStream` | as many messages as the request's first one says in text: `5`; each is its number |
//! | `/echo.Echo/ClientStream` | one message: how many came, and their bytes: `3 42` |
//! | `/echo.Echo/Bidi` | each message at once |
//! | `/echo.Echo/Held` | one message, and another after [`H2Upstream::release`] |
//! | `/echo.Echo/Status` | no message; status and message from the fields `x-status` and `x-message` |
//! | `/echo.Echo/Only` | the same in the header, without trailers |
//! | `/echo.Echo/NoStatus` | the messages, and an end without trailers |
//! | `/echo.Echo/Silent` | nothing, until the stream is reset |
//! | `/refuse/N`, `/reset/N` | the first N times `RST_STREAM` (`REFUSED_STREAM`, `INTERNAL_ERROR`), then plain |
//! | `/unknown/N` | the first N times 401, then plain |
//! | `/short` | fewer bytes than its length says |
//! | `/cut` | a header and a piece of body, then `RST_STREAM` |
//! | `/leave` | plain, and the connection says `GOAWAY` |
//! | `/page` | 503 with a page in HTML |
//! | anything else | plain: what came as JSON, as the stream way's echo does |
//!
//! Fields `x-echo-*` of a call come back in the header, `x-trail-*` in the trailers.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

/// The name in the certificate.
pub const TLS_NAME: &str = "erp.internal";

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub scheme: String,
    pub authority: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Whether the client took the stream back before its end.
    pub cancelled: bool,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    begun: AtomicUsize,
    connections: AtomicUsize,
    closed: AtomicUsize,
    /// How often a path has been asked for.
    asked: Mutex<HashMap<String, usize>>,
    errors: Mutex<Vec<String>>,
}

/// The server; ends when dropped.
pub struct H2Upstream {
    address: String,
    shared: Arc<Shared>,
    released: watch::Sender<bool>,
    folder: TempDir,
    // Dropping it ends every task.
    _runtime: tokio::runtime::Runtime,
}

impl H2Upstream {
    /// Without TLS: HTTP/2 by prior knowledge.
    pub fn plain() -> Self {
        Self::start(None)
    }

    /// With TLS and these protocols in ALPN.
    pub fn tls(alpn: &[&str]) -> Self {
        Self::start(Some(alpn.iter().map(|name| name.as_bytes().to_vec()).collect()))
    }

    fn start(alpn: Option<Vec<Vec<u8>>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let acceptor = alpn.map(|alpn| {
            let made = rcgen::generate_simple_self_signed([TLS_NAME.to_owned()]).unwrap();
            std::fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
            let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let mut config =
                builder.unwrap().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
            config.alpn_protocols = alpn;
            TlsAcceptor::from(Arc::new(config))
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::<Shared>::default();
        let (released, release) = watch::channel(false);
        runtime.spawn(accept(listener, acceptor, Arc::clone(&shared), release));
        Self { address, shared, released, folder, _runtime: runtime }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// PEM file of the certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Requests that have ended, in the order of their ends.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The only request so far that has ended.
    #[track_caller]
    pub fn only(&self) -> Seen {
        let all = self.seen();
        assert_eq!(all.len(), 1, "{all:?}");
        all.into_iter().next().unwrap()
    }

    /// Requests that have begun.
    pub fn begun(&self) -> usize {
        self.shared.begun.load(Ordering::SeqCst)
    }

    /// Connections accepted.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.connections() - self.shared.closed.load(Ordering::SeqCst)
    }

    /// What was wrong on connections.
    pub fn errors(&self) -> Vec<String> {
        self.shared.errors.lock().unwrap().clone()
    }

    /// Lets every `/echo.Echo/Held` go on.
    pub fn release(&self) {
        self.released.send_replace(true);
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    release: watch::Receiver<bool>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (acceptor, shared, release) = (acceptor.clone(), Arc::clone(&shared), release.clone());
        tokio::spawn(async move {
            let served = match acceptor {
                None => serve(stream, &shared, release).await,
                Some(acceptor) => serve_tls(&acceptor, stream, &shared, release).await,
            };
            shared.closed.fetch_add(1, Ordering::SeqCst);
            if let Err(error) = served {
                shared.errors.lock().unwrap().push(error);
            }
        });
    }
}

async fn serve_tls(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    shared: &Arc<Shared>,
    release: watch::Receiver<bool>,
) -> Result<(), String> {
    let stream = acceptor.accept(stream).await.map_err(|e| format!("TLS: {e}"))?;
    serve(stream, shared, release).await
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    shared: &Arc<Shared>,
    release: watch::Receiver<bool>,
) -> Result<(), String> {
    let mut conn = h2::server::handshake(stream).await.map_err(|e| format!("handshake: {e}"))?;
    while let Some(accepted) = conn.accept().await {
        let (request, respond) = accepted.map_err(|e| format!("connection: {e}"))?;
        shared.begun.fetch_add(1, Ordering::SeqCst);
        if request.uri().path() == "/leave" {
            conn.graceful_shutdown();
        }
        let (shared, release) = (Arc::clone(shared), release.clone());
        tokio::spawn(async move {
            let mut stream = Stream::new(request, respond);
            let outcome = stream.answer(&shared, release).await;
            stream.seen.cancelled = outcome.is_err();
            shared.seen.lock().unwrap().push(stream.seen);
        });
    }
    Ok(())
}

/// One stream being served.
struct Stream {
    seen: Seen,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    /// Read and not yet taken as messages.
    held: BytesMut,
}

/// The stream is at its end before its time.
struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

impl Stream {
    fn new(request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Self {
        let (head, body) = request.into_parts();
        let seen = Seen {
            method: head.method.to_string(),
            scheme: head.uri.scheme_str().unwrap_or_default().to_owned(),
            authority: head.uri.authority().map(ToString::to_string).unwrap_or_default(),
            path: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            headers: head.headers,
            body: Vec::new(),
            cancelled: false,
        };
        Self { seen, body, respond, held: BytesMut::new() }
    }

    async fn answer(&mut self, shared: &Shared, mut release: watch::Receiver<bool>) -> Result<(), Gone> {
        let path = self.seen.path.clone();
        let Some(method) = path.strip_prefix("/echo.Echo/") else { return self.plain(shared, &path).await };
        match method {
            "Status" | "Only" => {
                self.read_all().await?;
                return self.status(method == "Only");
            }
            "Silent" => {
                std::future::poll_fn(|cx| self.respond.poll_reset(cx)).await?;
                return Err(Gone);
            }
            _ => {}
        }
        let mut out = None;
        self.talk(method, &mut out, &mut release).await?;
        let Some(mut sent) = out else { return self.status(true) };
        if method == "NoStatus" {
            sent.send_data(Bytes::new(), true)?;
        } else {
            sent.send_trailers(self.trailers(&self.verdict("0")))?;
        }
        Ok(())
    }

    /// The messages of a call; nothing for a method that there is not.
    async fn talk(
        &mut self,
        method: &str,
        out: &mut Option<SendStream<Bytes>>,
        release: &mut watch::Receiver<bool>,
    ) -> Result<(), Gone> {
        match method {
            "Unary" | "NoStatus" => {
                let messages = self.messages().await?;
                let sent = self.begin(out)?;
                for message in messages {
                    send(sent, frame(&message)).await?;
                }
            }
            "ServerStream" => {
                let count = self.message().await?.unwrap_or_default();
                let count: usize = String::from_utf8_lossy(&count).parse().unwrap_or(1);
                let sent = self.begin(out)?;
                for at in 0..count {
                    send(sent, frame(at.to_string().as_bytes())).await?;
                }
            }
            "ClientStream" => {
                let messages = self.messages().await?;
                let bytes: usize = messages.iter().map(Bytes::len).sum();
                send(self.begin(out)?, frame(format!("{} {bytes}", messages.len()).as_bytes())).await?;
            }
            "Bidi" => {
                self.begin(out)?;
                while let Some(message) = self.message().await? {
                    send(self.begin(out)?, frame(&message)).await?;
                }
            }
            "Held" => {
                send(self.begin(out)?, frame(b"first")).await?;
                let gone = std::future::poll_fn(|cx| out.as_mut().unwrap().poll_reset(cx));
                tokio::select! {
                    _ = gone => return Err(Gone),
                    _ = release.wait_for(|released| *released) => {}
                }
                send(self.begin(out)?, frame(b"second")).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The header of an answer to a call, once.
    fn begin<'s>(&mut self, out: &'s mut Option<SendStream<Bytes>>) -> Result<&'s mut SendStream<Bytes>, Gone> {
        if out.is_none() {
            let mut response = Response::new(());
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
            self.copy("x-echo-", response.headers_mut());
            *out = Some(self.respond.send_response(response, false)?);
        }
        out.as_mut().ok_or(Gone)
    }

    fn copy(&self, prefix: &str, to: &mut HeaderMap) {
        for (name, value) in &self.seen.headers {
            if name.as_str().starts_with(prefix) {
                to.append(name.clone(), value.clone());
            }
        }
    }

    fn trailers(&self, status: &str) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_str(status).unwrap());
        self.copy("x-trail-", &mut trailers);
        // What must not pass is asked for by name.
        for name in self.seen.header("x-bad-trailers").unwrap_or_default().split_whitespace() {
            trailers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("bad"));
        }
        trailers
    }

    /// The status to end with: UNAUTHENTICATED for the credentials named in the call, or the one that it asks for.
    fn verdict(&self, otherwise: &str) -> String {
        let refused = self.seen.header("x-refused");
        if refused.is_some() && refused == self.seen.header("authorization") {
            return "16".into();
        }
        self.seen.header("x-status").unwrap_or(otherwise).to_owned()
    }

    fn status(&mut self, in_header: bool) -> Result<(), Gone> {
        let status = self.verdict("12");
        let message = self.seen.headers.get("x-message").cloned();
        let mut fields = self.trailers(&status);
        if let Some(message) = message {
            fields.insert("grpc-message", message);
        }
        let mut response = Response::new(());
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        if in_header {
            response.headers_mut().extend(fields);
            self.respond.send_response(response, true)?;
        } else {
            self.respond.send_response(response, false)?.send_trailers(fields)?;
        }
        Ok(())
    }

    async fn plain(&mut self, shared: &Shared, path: &str) -> Result<(), Gone> {
        let before = {
            let mut asked = shared.asked.lock().unwrap();
            let count = asked.entry(path.to_owned()).or_default();
            *count += 1;
            *count - 1
        };
        let times = |prefix: &str| path.strip_prefix(prefix).and_then(|n| n.parse::<usize>().ok()).unwrap_or_default();
        if before < times("/refuse/") {
            self.respond.send_reset(Reason::REFUSED_STREAM);
            return Ok(());
        }
        self.read_all().await?;
        if before < times("/reset/") {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        let mut response = Response::new(());
        if before < times("/unknown/") {
            *response.status_mut() = http::StatusCode::UNAUTHORIZED;
            return self.respond.send_response(response, true).map(drop).map_err(Gone::from);
        }
        if path == "/page" {
            *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert("content-type", HeaderValue::from_static("text/html"));
            let mut out = self.respond.send_response(response, false)?;
            send(&mut out, Bytes::from_static(b"<p>later</p>")).await?;
            out.send_data(Bytes::new(), true)?;
            return Ok(());
        }
        let headers: Vec<_> =
            self.seen.headers.iter().map(|(n, v)| format!("{n}: {}", String::from_utf8_lossy(v.as_bytes()))).collect();
        let echo = serde_json::json!({
            "method": self.seen.method, "target": path, "headers": headers,
            "authority": self.seen.authority, "body": String::from_utf8_lossy(&self.seen.body),
        });
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        if path == "/short" {
            response.headers_mut().insert("content-length", HeaderValue::from_static("100000"));
        }
        let mut out = self.respond.send_response(response, false)?;
        send(&mut out, echo.to_string().into()).await?;
        if path == "/cut" {
            // What was sent before must be on its way.
            tokio::task::yield_now().await;
            out.send_reset(Reason::INTERNAL_ERROR);
        } else {
            out.send_data(Bytes::new(), true)?;
        }
        Ok(())
    }

    /// Reads on; `false` at the end.
    async fn read(&mut self) -> Result<bool, Gone> {
        let Some(piece) = self.body.data().await else { return Ok(false) };
        let piece = piece?;
        self.body.flow_control().release_capacity(piece.len())?;
        self.seen.body.extend_from_slice(&piece);
        self.held.extend_from_slice(&piece);
        Ok(true)
    }

    async fn read_all(&mut self) -> Result<(), Gone> {
        while self.read().await? {}
        Ok(())
    }

    /// The next message; `None` at the end.
    async fn message(&mut self) -> Result<Option<Bytes>, Gone> {
        loop {
            if let Some(message) = take_message(&mut self.held) {
                return Ok(Some(message));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    async fn messages(&mut self) -> Result<Vec<Bytes>, Gone> {
        let mut all = Vec::new();
        while let Some(message) = self.message().await? {
            all.push(message);
        }
        Ok(all)
    }
}

/// Sends as the client gives room.
async fn send(out: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), Gone> {
    while bytes.has_remaining() {
        out.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| out.poll_capacity(cx)).await.ok_or(Gone)??;
        out.send_data(bytes.split_to(room.min(bytes.len())), false)?;
    }
    Ok(())
}

/// A message in its frame.
pub fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}

fn take_message(held: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(held.get(1..5)?.try_into().ok()?) as usize;
    if held.len() < 5 + length {
        return None;
    }
    held.advance(5);
    Some(held.split_to(length).freeze())
}

/// The frames of a gRPC or gRPC-web body: first byte and content of each.
pub fn frames(body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[1..5].try_into().unwrap()) as usize;
        all.push((rest[0], rest[5..5 + length].to_vec()));
        rest = &rest[5 + length..];
    }
    all
}
