//! HTTP/2 from clients: what a client gets, what an upstream sees, and how a connection ends.

mod attacks;
mod ends;
mod refusals;
mod slow;

use std::{io::Write as _, time::Duration};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Version};

use crate::harness::{Answer, Connection, Gateway, PATIENCE, Response, Upstream, eventually, frames};

const LISTENER: &str = "listeners: [{ name: public, address: \"127.0.0.1:0\", http2: true }]\n";

/// A gateway that speaks HTTP/2 in front of this upstream.
fn start(upstream: &str, settings: &str, plugins: &str, rest: &str) -> Gateway {
    Gateway::start(&format!(
        "{LISTENER}upstreams: {{ back: {{ endpoints: [{{ address: \"{upstream}\" }}], {settings} }} }}
routes: [{{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back, plugins: [{plugins}] }}]\n{rest}"
    ))
}

/// Runs `work` with a client on a connection of its own.
fn talk<T>(address: &str, work: impl AsyncFnOnce(SendRequest<Bytes>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let io = tokio::net::TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::Builder::new().initial_window_size(1 << 20).handshake(io).await.unwrap();
        let driver = tokio::spawn(connection);
        let done = tokio::time::timeout(PATIENCE, work(client)).await.expect("done in time");
        driver.abort();
        done
    })
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).version(Version::HTTP_2).uri(format!("http://gateway.test{path}"))
}

/// Sends a request, with a body in pieces, and reads the answer.
async fn ask(
    client: &SendRequest<Bytes>,
    request: http::request::Builder,
    pieces: &[Bytes],
) -> Result<Response, h2::Error> {
    let mut client = client.clone().ready().await?;
    let (answer, mut body) = client.send_request(request.body(()).unwrap(), pieces.is_empty())?;
    for (at, piece) in pieces.iter().enumerate() {
        body.send_data(piece.clone(), at + 1 == pieces.len())?;
    }
    read(answer.await?).await
}

async fn read(answer: http::Response<h2::RecvStream>) -> Result<Response, h2::Error> {
    assert_eq!(answer.version(), Version::HTTP_2);
    let (head, mut body) = answer.into_parts();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let mut response = Response { status: head.status.as_u16(), headers, ..Response::default() };
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        response.body.extend_from_slice(&piece);
    }
    body.trailers().await?;
    response.complete = true;
    Ok(response)
}

/// A GET on a connection of its own.
fn get(gateway: &Gateway, path: &str) -> Response {
    talk(&gateway.address(), async |client| ask(&client, request("GET", path), &[]).await.unwrap())
}

#[test]
fn a_request_arrives_as_one_of_http1_and_its_answer_comes_back() {
    let upstream = Upstream::start(|request| match request.method.as_str() {
        "HEAD" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-Kind: head\r\n\r\n"),
        _ => Answer::new(200, &[("X-Kind", "plain"), ("Connection", "keep-alive")], &request.body),
    });
    let gateway = start(upstream.address(), "", "{ request_id: {} }", "");
    talk(&gateway.address(), async |client| {
        let plain =
            request("GET", "/a/../b?x=1").header("te", "trailers").header("cookie", "a=1").header("cookie", "b=2");
        let answer = ask(&client, plain, &[]).await.unwrap();
        assert_eq!((answer.status, answer.header("x-kind"), answer.header("connection")), (200, Some("plain"), None));
        let id = answer.header("x-request-id").unwrap().to_owned();
        let known = request("POST", "/known").header("content-length", "10");
        assert_eq!(
            ask(&client, known, &[Bytes::from("hello"), Bytes::from("world")]).await.unwrap().text(),
            "helloworld"
        );
        let unknown = ask(&client, request("POST", "/unknown"), &[Bytes::from("hi"), Bytes::new()]).await.unwrap();
        assert_eq!(unknown.text(), "hi");
        let head = ask(&client, request("HEAD", "/head"), &[]).await.unwrap();
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("1234"), 0));
        let [first, known, unknown, head] = &upstream.received()[..] else { panic!("{:?}", upstream.received()) };
        assert_eq!((first.method.as_str(), first.target.as_str()), ("GET", "/b?x=1"));
        assert_eq!(first.header("cookie"), Some("a=1; b=2"));
        assert_eq!(first.header("x-request-id"), Some(id.as_str()));
        assert_eq!(first.header("via"), Some("2 crossway"), "{first:?}");
        assert_eq!(first.header("x-forwarded-host"), Some("gateway.test"));
        assert_eq!(
            (first.header("te"), first.header("content-length"), first.header("transfer-encoding")),
            (None, None, None)
        );
        assert_eq!((known.header("content-length"), known.header("transfer-encoding")), (Some("10"), None));
        assert_eq!((unknown.header("content-length"), unknown.header("transfer-encoding")), (None, Some("chunked")));
        assert_eq!((head.method.as_str(), head.body.len()), ("HEAD", 0));
    });
    assert_eq!(upstream.errors(), 0);
}

#[test]
fn refusals_are_problem_documents() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&format!(
        "{LISTENER}upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
limits: {{ request: {{ body: 1KiB }} }}
routes:
  - {{ name: a, match: {{ path: /a, methods: [POST] }}, auth: none, upstream: back }}
  - {{ name: b, match: {{ path: /b }}, auth: none, upstream: back, plugins: [{{ ip_allow: {{ deny: [127.0.0.0/8] }} }}] }}\n",
        upstream.address()
    ));
    talk(&gateway.address(), async |client| {
        let big = [Bytes::from(vec![b'x'; 2000])];
        ask(&client, request("GET", "/nowhere"), &[]).await.unwrap().assert_problem(404, "no_route");
        let wrong = ask(&client, request("GET", "/a"), &[]).await.unwrap();
        wrong.assert_problem(405, "method_not_allowed");
        assert_eq!(wrong.header("allow"), Some("POST"));
        ask(&client, request("GET", "/b"), &[]).await.unwrap().assert_problem(403, "ip_denied");
        ask(&client, request("POST", "/a"), &big).await.unwrap().assert_problem(413, "body_too_large");
        let told = request("POST", "/a").header("content-length", "2000");
        ask(&client, told, &big).await.unwrap().assert_problem(413, "body_too_large");
        assert_eq!(ask(&client, request("POST", "/a"), &[Bytes::from("x")]).await.unwrap().status, 200);
    });
    assert_eq!(upstream.received().iter().filter(|r| r.body.len() > 1024).count(), 0);
}

#[test]
fn a_hundred_streams_at_a_time() {
    let upstream = Upstream::start(|request| Answer::ok(&request.target));
    let gateway = start(upstream.address(), "", "", "");
    talk(&gateway.address(), async |client| {
        let mut open = Vec::new();
        for at in 0..100 {
            let mut client = client.clone().ready().await.unwrap();
            let asked = request("GET", &format!("/{at}")).body(()).unwrap();
            open.push(client.send_request(asked, true).unwrap().0);
        }
        for (at, answer) in open.into_iter().enumerate() {
            let answer = read(answer.await.unwrap()).await.unwrap();
            assert_eq!((answer.status, answer.text()), (200, format!("/{at}")));
        }
    });
    assert_eq!(upstream.received().len(), 100);
}

#[test]
fn large_bodies_pass_both_ways() {
    let upstream = Upstream::start(|request| Answer::ok(&request.body));
    let gateway = start(upstream.address(), "", "", "");
    let body: Vec<u8> = (0..5_u32 << 20).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let sent = Bytes::from(body.clone());
    let answer = talk(&gateway.address(), async |client| ask(&client, request("PUT", "/"), &[sent]).await.unwrap());
    assert!(answer.status == 200 && answer.body == body, "{} {} bytes", answer.status, answer.body.len());
}

#[test]
fn trailers_do_no_harm_and_a_broken_answer_never_looks_whole() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n";
    let upstream = Upstream::start(move |request| match request.target.as_str() {
        "/broken" => Answer::raw(chunked),
        "/short" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello"),
        _ => Answer::raw(format!("{chunked}0\r\nX-Sum: 5\r\n\r\n")),
    });
    let gateway = start(upstream.address(), "", "", "");
    talk(&gateway.address(), async |client| {
        let answer = ask(&client, request("GET", "/"), &[]).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str(), answer.header("x-sum")), (200, "hello", None));
        for path in ["/broken", "/short"] {
            let error = ask(&client, request("GET", path), &[]).await.unwrap_err();
            assert!(error.is_reset(), "{path}: {error}");
        }
        assert_eq!(ask(&client, request("GET", "/"), &[]).await.unwrap().text(), "hello", "the connection lives on");
    });
}

#[test]
fn the_access_log_has_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let upstream = Upstream::echo();
    let log = format!("telemetry: {{ access_log: {{ to: \"file:{}\" }} }}\n", path.display());
    let gateway = start(upstream.address(), "", "", &log);
    talk(&gateway.address(), async |client| {
        ask(&client, request("POST", "/x/./y?q=1"), &[Bytes::from("hello")]).await.unwrap();
        ask(&client, request("GET", "/x").header("a_b", "1"), &[])
            .await
            .unwrap()
            .assert_problem(400, "underscore_header");
    });
    let lines: Vec<serde_json::Value> = eventually("the lines are written", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()).filter(|l: &Vec<_>| l.len() >= 2)
    });
    let of = |status: u64| lines.iter().find(|l| l["status"] == status).unwrap_or_else(|| panic!("{lines:?}"));
    for (key, value) in
        [("method", "POST"), ("path", "/x/y"), ("query", "q=1"), ("host", "gateway.test"), ("client", "127.0.0.1")]
    {
        assert_eq!(of(200)[key], value, "{key}: {}", of(200));
    }
    assert_eq!((&of(200)["request_bytes"], &of(200)["route"]), (&5.into(), &"all".into()));
    assert_eq!((&of(400)["code"], &of(400)["listener"]), (&"underscore_header".into(), &"public".into()));
    assert_eq!((&of(200)["protocol"], &of(400)["protocol"]), (&"HTTP/2".into(), &"HTTP/2".into()));
}

#[test]
fn both_versions_on_one_port_and_neither_where_it_is_not_wanted() {
    let upstream = Upstream::echo();
    let gateway = start(upstream.address(), "", "", "");
    assert_eq!((gateway.get("/one").status, get(&gateway, "/two").status), (200, 200));
    let vias: Vec<_> = upstream.received().iter().map(|r| r.header("via").unwrap().to_owned()).collect();
    assert_eq!(vias, ["1.1 crossway", "2 crossway"]);
    let old = Gateway::start(
        "routes: [{ name: a, match: { path: / }, auth: none, plugins: [{ respond: { status: 200 } }] }]\n",
    );
    let mut connection = Connection::open(&old.address());
    connection.send(frames::PREFACE);
    connection.read("PRI").unwrap().assert_problem(505, "version_not_supported");
    assert!(connection.is_closed());
}

#[test]
fn a_preface_in_pieces_is_one() {
    let upstream = Upstream::echo();
    let gateway = start(upstream.address(), "", "", "");
    let mut http2 = frames::Http2::connect(&gateway.address());
    for byte in frames::PREFACE.iter().chain(&frames::frame(frames::SETTINGS, 0, 0, &[])) {
        assert!(http2.send(&[*byte]));
    }
    http2.ask(1, &frames::request("GET", "/"));
    assert!(matches!(http2.end_of(1), frames::End::Answer(_)));
    assert_eq!(upstream.received().len(), 1);
}

#[test]
fn the_deadline_for_a_header_holds_for_a_preface() {
    let upstream = Upstream::echo();
    let gateway =
        start(upstream.address(), "", "", "limits: { client: { header_deadline: 300ms }, http2: { idle: 400ms } }\n");
    for start in [&frames::PREFACE[..10], frames::PREFACE, &[frames::PREFACE, &[0, 0, 9]].concat()] {
        let mut http2 = frames::Http2::connect(&gateway.address());
        http2.send(start);
        let mut all = Vec::new();
        let began = std::time::Instant::now();
        let _ = std::io::Read::read_to_end(&mut http2.stream(), &mut all);
        assert!(began.elapsed() < Duration::from_secs(5), "{start:?}: {:?}", began.elapsed());
        let _ = http2.stream().write_all(b"x");
    }
    eventually("all are closed", || (gateway.status()["connections"] == 0).then_some(()));
    assert_eq!(get(&gateway, "/").status, 200);
}

#[test]
fn time_outs_of_the_upstream_are_answered() {
    let upstream = Upstream::start(|_| Answer::silence());
    for (settings, code) in [
        ("timeouts: { first_byte: 300ms }, retry: { attempts: 0 }", "upstream_timeout"),
        ("timeouts: { total: 300ms }, retry: { attempts: 0 }", "deadline_exceeded"),
    ] {
        let gateway = start(upstream.address(), settings, "", "");
        get(&gateway, "/").assert_problem(504, code);
        let posted = talk(&gateway.address(), async |client| {
            ask(&client, request("POST", "/"), &[Bytes::from("x")]).await.unwrap()
        });
        posted.assert_problem(504, code);
    }
}
