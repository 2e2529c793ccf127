//! Responses are compressed for clients that take it; coded request bodies that a plugin wants whole are decoded, within
//! bounds.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::harness::{Answer, Connection, Gateway, Response, Upstream};

const TEXT: (&str, &str) = ("Content-Type", "text/plain");

/// The two ways to an upstream, by the plugin that makes a route go it.
const WAYS: [(&str, &str); 2] =
    [("stream", ""), ("exchange", "{ respond: { instead_of: [418], status: 200, body: replaced } }")];

fn config(upstream: &str, plugins: &str, extra: &str) -> String {
    format!(
        "upstreams: {{ back: {{ endpoints: [{{ address: \"{upstream}\" }}] }} }}
routes:
  - {{ name: plain, match: {{ path: \"/plain/{{rest...}}\" }}, auth: none, upstream: back, compression: false }}
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, plugins: [{plugins}], upstream: back }}\n{extra}"
    )
}

const ON: &str = "compression: {}\n";

fn body() -> Vec<u8> {
    (0..2000).flat_map(|n| format!("line {n} of the answer\n").into_bytes()).collect()
}

fn gunzip(coded: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(coded).read_to_end(&mut plain).unwrap();
    plain
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn brotli(plain: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    brotli::BrotliCompress(&mut &plain[..], &mut coded, &brotli::enc::BrotliEncoderParams::default()).unwrap();
    coded
}

fn plain(response: &Response) -> Vec<u8> {
    let coded = &response.body[..];
    match response.header("content-encoding") {
        None => coded.to_vec(),
        Some("gzip") => gunzip(coded),
        Some("br") => {
            let mut plain = Vec::new();
            brotli::BrotliDecompress(&mut &coded[..], &mut plain).unwrap();
            plain
        }
        Some("zstd") => zstd::decode_all(coded).unwrap(),
        Some(other) => panic!("{other}"),
    }
}

fn asks(gateway: &Gateway, request: &str, accept: &str) -> Response {
    gateway.send(request, &[("Accept-Encoding", accept)], b"")
}

#[test]
fn the_client_chooses_and_gets_back_what_the_upstream_said() {
    for (way, plugin) in WAYS {
        let upstream = Upstream::start(|_| {
            let fields = [
                TEXT,
                ("ETag", "\"strong\""),
                ("Accept-Ranges", "bytes"),
                ("Content-MD5", "abc"),
                ("Content-Digest", "sha-256=:abc=:"),
                ("Vary", "Origin"),
            ];
            Answer::new(200, &fields, &body())
        });
        let gateway = Gateway::start(&config(upstream.address(), plugin, ON));
        for (accept, expected) in [
            ("gzip", Some("gzip")),
            ("br", Some("br")),
            ("zstd", Some("zstd")),
            ("gzip, br, zstd", Some("br")),
            ("br;q=0.5, gzip;q=0.8, zstd;q=0.1", Some("gzip")),
            ("*;q=0.1", Some("br")),
            ("br;q=0, *", Some("gzip")),
            ("gzip;q=0", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0", None),
            ("deflate", None),
            ("", None),
        ] {
            let response = asks(&gateway, "GET /x", accept);
            let at = format!("{way} {accept:?} {:?}", response.headers);
            assert!(response.status == 200 && response.complete, "{at}");
            assert_eq!(response.header("content-encoding"), expected, "{at}");
            assert!(plain(&response) == body(), "{at}");
            let vary: Vec<_> = response.headers.iter().filter(|(n, _)| n == "vary").map(|(_, v)| v.as_str()).collect();
            assert_eq!(vary, ["Origin", "Accept-Encoding"], "{at}");
            let coded = expected.is_some();
            assert_eq!(response.header("content-length").is_none(), coded, "{at}");
            assert_eq!(response.header("transfer-encoding"), coded.then_some("chunked"), "{at}");
            assert_eq!(response.header("etag"), Some(if coded { "W/\"strong\"" } else { "\"strong\"" }), "{at}");
            for field in ["accept-ranges", "content-md5", "content-digest"] {
                assert_eq!(response.header(field).is_none(), coded, "{at}");
            }
            assert!(!coded || response.body.len() < body().len() / 3, "{at}");
        }
        let gzipped = gateway.metric("crossway_compressed_responses_total{algorithm=\"gzip\"}");
        assert_eq!(gzipped, 3.0, "{way}");
        let off = asks(&gateway, "GET /plain/x", "gzip");
        assert_eq!((off.header("content-encoding"), off.header("vary")), (None, Some("Origin")), "{way}");
    }
}

#[test]
fn without_the_section_nothing_is_compressed() {
    let upstream = Upstream::start(|_| Answer::ok(body()));
    let mut gateway = Gateway::start(&config(upstream.address(), "", ""));
    let response = asks(&gateway, "GET /x", "gzip");
    assert_eq!((response.header("content-encoding"), response.header("vary")), (None, None));
    let on = config(upstream.address(), "", "compression: { algorithms: [zstd, gzip] }\n");
    assert_eq!(gateway.reload(&on).status, 200);
    assert_eq!(asks(&gateway, "GET /x", "gzip, br, zstd").header("content-encoding"), Some("zstd"));
    assert_eq!(asks(&gateway, "GET /x", "br").header("content-encoding"), None);
}

/// An answer of the upstream, by the path: its status, its fields, its length.
fn scripted(path: &str) -> Answer {
    let json = ("Content-Type", "application/vnd.api+json; charset=utf-8");
    let long = body();
    match path {
        "/json" => Answer::new(200, &[json], &long),
        "/upper" => Answer::new(404, &[("Content-Type", "TEXT/HTML")], &long),
        "/just" => Answer::new(200, &[TEXT], &[b'x'; 1024]),
        "/below" => Answer::new(200, &[TEXT], &[b'x'; 1023]),
        "/empty" => Answer::new(200, &[TEXT], b""),
        "/image" => Answer::new(200, &[("Content-Type", "image/png")], &long),
        "/untyped" => Answer::new(200, &[], &long),
        "/two" => Answer::new(200, &[TEXT, TEXT], &long),
        "/coded" => Answer::new(200, &[TEXT, ("Content-Encoding", "gzip")], &gzip(&long)),
        "/fixed" => Answer::new(200, &[TEXT, ("Cache-Control", "public, No-Transform")], &long),
        "/part" => Answer::new(206, &[TEXT, ("Content-Range", "bytes 0-9/100")], &long),
        "/range" => Answer::new(200, &[TEXT, ("Content-Range", "bytes 0-9/100")], &long),
        "/events" => Answer::new(200, &[("Content-Type", "text/event-stream; charset=utf-8")], &long),
        "/grpc" => Answer::new(200, &[("Content-Type", "application/grpc+proto")], &long),
        "/none" => Answer::new(204, &[TEXT], b""),
        "/not-modified" => Answer::new(304, &[("ETag", "\"strong\"")], b""),
        "/vary" => Answer::new(200, &[TEXT, ("Vary", "Origin, ACCEPT-encoding")], &long),
        "/vary-all" => Answer::new(200, &[TEXT, ("Vary", "*")], &long),
        "/weak" => Answer::new(200, &[TEXT, ("ETag", "W/\"weak\"")], &long),
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_compressed_depends_on_type_size_status_and_header() {
    for (way, plugin) in WAYS {
        let upstream = Upstream::start(|request| scripted(&request.target));
        let gateway = Gateway::start(&config(
            upstream.address(),
            plugin,
            "compression: { types: [text/*, +json, application/grpc+proto] }\n",
        ));
        for (path, coding, vary) in [
            ("/json", Some("gzip"), Some("Accept-Encoding")),
            ("/upper", Some("gzip"), Some("Accept-Encoding")),
            ("/just", Some("gzip"), Some("Accept-Encoding")),
            ("/below", None, None),
            ("/empty", None, None),
            ("/image", None, None),
            ("/untyped", None, None),
            ("/two", None, None),
            ("/coded", Some("gzip"), None),
            ("/fixed", None, None),
            ("/part", None, None),
            ("/range", None, None),
            ("/events", None, None),
            ("/grpc", None, None),
            ("/none", None, None),
            ("/not-modified", None, Some("Accept-Encoding")),
            ("/vary", Some("gzip"), Some("Origin, ACCEPT-encoding")),
            ("/vary-all", Some("gzip"), Some("*")),
            ("/weak", Some("gzip"), Some("Accept-Encoding")),
        ] {
            let response = asks(&gateway, &format!("GET {path}"), "gzip");
            let at = format!("{way} {path} {:?}", response.headers);
            assert!(response.complete, "{at}");
            assert_eq!(response.header("content-encoding"), coding, "{at}");
            assert_eq!(response.header("vary"), vary, "{at}");
            if coding.is_some() && path != "/just" {
                assert!(plain(&response) == body(), "{at}");
            }
        }
        let weak = asks(&gateway, "GET /weak", "gzip");
        assert_eq!(weak.header("etag"), Some("W/\"weak\""), "{way}");
        for (accept, etag) in [("gzip", "W/\"strong\""), ("identity", "\"strong\"")] {
            assert_eq!(asks(&gateway, "GET /not-modified", accept).header("etag"), Some(etag), "{way}");
        }
    }
}

#[test]
fn head_gets_the_header_of_get_and_the_connection_lives_on() {
    for (way, plugin) in WAYS {
        let upstream = Upstream::start(|request| {
            let whole = body();
            let length = whole.len().to_string();
            if request.method != "HEAD" {
                return Answer::new(200, &[TEXT], &whole);
            }
            Answer::raw(format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"))
        });
        let gateway = Gateway::start(&config(upstream.address(), plugin, ON));
        let mut connection = Connection::open(&gateway.address());
        for _ in 0..2 {
            connection.send(b"HEAD /x HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\n\r\n");
            let head = connection.read("HEAD").unwrap();
            assert_eq!((head.status, head.header("content-encoding")), (200, Some("gzip")), "{way} {head:?}");
            assert_eq!(head.header("content-length"), None, "{way}");
            connection.send(b"GET /x HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\n\r\n");
            let get = connection.read("GET").unwrap();
            assert!(gunzip(&get.body) == body(), "{way}");
        }
        connection.send(b"HEAD /x HTTP/1.1\r\nHost: t\r\n\r\n");
        let head = connection.read("HEAD").unwrap();
        assert_eq!(head.header("content-length"), Some(body().len().to_string().as_str()), "{way} {head:?}");
        assert_eq!(gateway.metric("crossway_compressed_responses_total{algorithm=\"gzip\"}"), 2.0, "{way}");
    }
}

#[test]
fn a_client_of_http_1_0_reads_to_the_end() {
    for (way, plugin) in WAYS {
        let upstream = Upstream::start(|_| Answer::ok(body()));
        let gateway = Gateway::start(&config(upstream.address(), plugin, ON));
        let mut connection = Connection::open(&gateway.address());
        connection.send(b"GET /x HTTP/1.0\r\nHost: t\r\nConnection: keep-alive\r\nAccept-Encoding: gzip\r\n\r\n");
        let response = connection.read("GET").unwrap();
        assert_eq!(response.header("content-encoding"), Some("gzip"), "{way} {response:?}");
        assert_eq!((response.header("transfer-encoding"), response.header("content-length")), (None, None), "{way}");
        assert!(gunzip(&response.body) == body(), "{way}");
        assert!(connection.is_closed(), "{way}");
    }
}

#[test]
fn replies_of_the_gateway_are_compressed_too() {
    let text = "a sentence of an answer. ".repeat(100);
    let gateway = Gateway::start(&format!(
        "compression: {{}}\nroutes: [{{ name: fixed, match: {{ path: /x }}, auth: none, plugins: [{{ respond: {{ status: 200, body: \"{text}\" }} }}] }}]\n"
    ));
    let mut connection = Connection::open(&gateway.address());
    for (method, accept, coding) in
        [("GET", "br", Some("br")), ("GET", "gzip", Some("gzip")), ("HEAD", "gzip", Some("gzip")), ("GET", "x", None)]
    {
        connection.send(format!("{method} /x HTTP/1.1\r\nHost: t\r\nAccept-Encoding: {accept}\r\n\r\n").as_bytes());
        let response = connection.read(method).unwrap();
        assert_eq!(response.header("content-encoding"), coding, "{response:?}");
        assert_eq!(response.header("vary"), Some("Accept-Encoding"), "{response:?}");
        assert!(response.header("date").is_some() && response.complete, "{response:?}");
        assert!(method == "HEAD" || plain(&response) == text.as_bytes(), "{response:?}");
    }
    // A problem document is short, and stays as it is.
    let missing = asks(&gateway, "GET /nowhere", "gzip");
    missing.assert_problem(404, "no_route");
    assert_eq!(missing.header("vary"), None);
}

/// A server that answers one request with pieces that it is given one by one, chunked; and breaks off in the middle when
/// it is given no more before `None`.
fn piecewise(media_type: &'static str) -> (String, mpsc::SyncSender<Option<&'static str>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (send, pieces) = mpsc::sync_channel::<Option<&'static str>>(16);
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut header = Vec::new();
        while !header.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            header.push(byte[0]);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nTransfer-Encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        while let Ok(piece) = pieces.recv() {
            let text = piece.unwrap_or_default();
            stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).unwrap();
            if piece.is_none() {
                return;
            }
        }
    });
    (address, send)
}

/// Reads what a chunked response brings, chunk by chunk, through a decoder that shows what it has so far.
struct Pieces {
    stream: TcpStream,
    coded: Vec<u8>,
}

impl Pieces {
    fn open(gateway: &Gateway) -> Self {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
        stream.write_all(b"GET /x HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n").unwrap();
        Self { stream, coded: Vec::new() }
    }

    /// Reads until `text` has been seen, in what `decode` makes of everything so far.
    fn until(&mut self, text: &str, decode: fn(&[u8]) -> Vec<u8>) -> String {
        loop {
            let seen = String::from_utf8_lossy(&decode(&self.coded)).into_owned();
            if seen.contains(text) {
                return seen;
            }
            let mut buffer = [0; 4096];
            let read = self.stream.read(&mut buffer).unwrap();
            assert!(read > 0, "no {text:?} in {seen:?}");
            self.coded.extend_from_slice(&buffer[..read]);
        }
    }
}

/// The chunks of a response, without their sizes, as far as they have come.
fn unchunked(bytes: &[u8]) -> Vec<u8> {
    let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Vec::new() };
    let (mut rest, mut body) = (&bytes[at + 4..], Vec::new());
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = rest.get(end + 2..end + 2 + size) else { break };
        body.extend_from_slice(chunk);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
    body
}

fn gunzipped_so_far(bytes: &[u8]) -> Vec<u8> {
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    decoder.write_all(&unchunked(bytes)).unwrap();
    decoder.flush().unwrap();
    decoder.get_ref().clone()
}

#[test]
fn a_streamed_response_arrives_piece_by_piece() {
    for (way, plugin) in WAYS {
        // The exchange way holds what its plugin wants; with a status that it does not want, the answer streams.
        let (address, send) = piecewise("text/plain");
        let gateway = Gateway::start(&config(&address, plugin, ON));
        let mut pieces = Pieces::open(&gateway);
        for piece in ["first piece. ", "second piece. ", "third piece. "] {
            send.send(Some(piece)).unwrap();
            pieces.until(piece, gunzipped_so_far);
        }
        send.send(None).unwrap();
        pieces.stream.read_to_end(&mut pieces.coded).unwrap();
        let head = String::from_utf8_lossy(&pieces.coded).to_ascii_lowercase();
        assert!(head.contains("content-encoding: gzip"), "{way}");
        assert!(pieces.coded.ends_with(b"\r\n0\r\n\r\n"), "{way}: it ends as it should");
        assert_eq!(gunzip(&unchunked(&pieces.coded)), b"first piece. second piece. third piece. ", "{way}");
    }
}

#[test]
fn a_response_that_breaks_off_does_not_look_whole() {
    for (way, plugin) in WAYS {
        let (address, send) = piecewise("text/plain");
        let gateway = Gateway::start(&config(&address, plugin, ON));
        let mut pieces = Pieces::open(&gateway);
        send.send(Some("the beginning")).unwrap();
        pieces.until("the beginning", gunzipped_so_far);
        drop(send);
        let _ = pieces.stream.read_to_end(&mut pieces.coded);
        assert!(!pieces.coded.ends_with(b"0\r\n\r\n"), "{way}");
    }
}

#[test]
fn server_sent_events_pass_untouched_on_both_ways() {
    for (way, plugin) in [WAYS[0], ("held", "{ respond: { instead_of: [200], status: 200, body: replaced } }")] {
        let (address, send) = piecewise("text/event-stream");
        let gateway = Gateway::start(&config(&address, plugin, ON));
        let mut pieces = Pieces::open(&gateway);
        for event in ["data: one\n\n", "data: two\n\n"] {
            send.send(Some(event)).unwrap();
            pieces.until(event, unchunked);
        }
        send.send(None).unwrap();
        pieces.stream.read_to_end(&mut pieces.coded).unwrap();
        let head = String::from_utf8_lossy(&pieces.coded).to_ascii_lowercase();
        assert!(!head.contains("content-encoding") && !head.contains("vary"), "{way}: {head}");
    }
}

const BUFFERED: &str = "{ body_limit: { max: 1MiB, buffer: true } }";

fn post(gateway: &Gateway, coding: &str, body: &[u8]) -> Response {
    gateway.send("POST /x", &[("Content-Encoding", coding), TEXT, ("Content-Digest", "sha-256=:abc=:")], body)
}

#[test]
fn a_coded_request_body_is_decoded_where_a_plugin_wants_it() {
    for max in ["64KiB", "1MiB"] {
        let upstream = Upstream::echo();
        let plugin = format!("{{ body_limit: {{ max: {max}, buffer: true }} }}");
        let gateway = Gateway::start(&config(upstream.address(), &plugin, ""));
        let words = b"some words, some words, some more words";
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(words).unwrap();
        let cases: [(&str, Vec<u8>); 9] = [
            ("gzip", gzip(words)),
            ("X-GZIP", gzip(words)),
            ("deflate", zlib.finish().unwrap()),
            ("br", brotli(words)),
            ("zstd", zstd::encode_all(&words[..], 3).unwrap()),
            ("br, gzip", gzip(&brotli(words))),
            ("gzip, identity, gzip", gzip(&gzip(words))),
            ("identity", words.to_vec()),
            ("gzip", [gzip(&words[..9]), gzip(&words[9..])].concat()),
        ];
        for (coding, coded) in &cases {
            let response = post(&gateway, coding, coded);
            assert_eq!(response.status, 200, "{coding} {response:?} {}", response.text());
            let seen = upstream.received().pop().unwrap();
            assert_eq!(seen.body, words, "{coding}");
            assert_eq!(seen.header("content-length"), Some(words.len().to_string().as_str()), "{coding}");
            let changed = *coding != "identity";
            assert_eq!(seen.header("content-encoding").is_none(), changed, "{coding}");
            assert_eq!(seen.header("content-digest").is_none(), changed, "{coding}");
        }
        // Nobody wants the body of the other route: it passes as it came.
        let passed = gateway.send("POST /plain/x", &[("Content-Encoding", "gzip")], &gzip(words));
        assert_eq!(passed.status, 200);
        let seen = upstream.received().pop().unwrap();
        assert_eq!((seen.header("content-encoding"), gunzip(&seen.body)), (Some("gzip"), words.to_vec()));
    }
}

#[test]
fn what_cannot_be_decoded_is_refused() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&config(upstream.address(), BUFFERED, ""));
    let good = gzip(b"some words");
    for coding in ["compress", "gzip, exi", "gzip, gzip, gzip", "gzip;q=1", "*"] {
        let refused = post(&gateway, coding, &good);
        refused.assert_problem(415, "unsupported_content_coding");
        assert_eq!(refused.header("accept-encoding"), Some("gzip, deflate, br, zstd"), "{coding}");
    }
    let mut broken = good.clone();
    let at = broken.len() - 6;
    broken[at] ^= 1;
    let ahead = [&good[..], b"more"].concat();
    for (coding, body) in [
        ("gzip", &b"some words"[..]),
        ("gzip", &good[..good.len() - 1]),
        ("gzip", &broken),
        ("gzip", &ahead),
        ("deflate", &good),
        ("br", &b"\xff\xff\xff\xff"[..]),
        ("br", &brotli(&body())[..100]),
        ("zstd", &good),
        ("zstd", &zstd::encode_all(&body()[..], 3).unwrap()[..50]),
        ("gzip, gzip", &good),
    ] {
        post(&gateway, coding, body).assert_problem(400, "bad_content_coding");
    }
    // An empty body needs no decoding.
    assert_eq!(post(&gateway, "gzip", b"").status, 200);
    assert_eq!(upstream.received().len(), 1);
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn bombs_are_refused_in_little_memory() {
    let upstream = Upstream::echo();
    let gateway = Gateway::start(&config(upstream.address(), BUFFERED, ""));
    // What bodies cost that are as large as they may be, and what the decoders keep on each thread, stays out of the
    // account.
    let noisy: Vec<u8> = (0_u32..).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(256 << 10).collect();
    let largest = [&noisy[..], &vec![0; (1 << 20) - noisy.len()]].concat();
    let zstded = zstd::encode_all(&largest[..], 3).unwrap();
    let fair = [("identity", &largest), ("gzip", &gzip(&largest)), ("br", &brotli(&largest)), ("zstd", &zstded)];
    for _ in 0..8 {
        for (coding, body) in fair {
            assert_eq!(post(&gateway, coding, body).status, 200);
        }
    }
    let before = resident(gateway.pid());
    let zeros = vec![0; 16 << 20];
    let once = gzip(&zeros);
    let (twice, large) = (gzip(&once), once.repeat(50));
    let (brotlied, zstded) = (brotli(&zeros), zstd::encode_all(&zeros[..], 3).unwrap());
    // Less than 100 times what came, and still too much.
    let long = gzip(&[&noisy[..], &zeros[..2 << 20]].concat());
    for _ in 0..10 {
        for (coding, bomb) in [
            ("gzip", &once),
            ("gzip", &large),
            ("gzip, gzip", &twice),
            ("br", &brotlied),
            ("zstd", &zstded),
            ("gzip", &long),
        ] {
            post(&gateway, coding, bomb).assert_problem(413, "decompressed_body_too_large");
        }
        // Its inner stream is a bomb, though nothing of it would come out at the end.
        post(&gateway, "br, gzip", &once).assert_problem(400, "bad_content_coding");
    }
    let grown = resident(gateway.pid()).saturating_sub(before);
    assert!(grown < 20 << 10, "{grown} KiB");
    // A window beyond 8 MiB is not reserved: the frame's header alone is refused.
    let mut wide = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    wide.set_parameter(zstd::zstd_safe::CParameter::WindowLog(27)).unwrap();
    wide.write_all(&noisy).unwrap();
    post(&gateway, "zstd", &wide.finish().unwrap()).assert_problem(400, "bad_content_coding");
    assert!(resident(gateway.pid()).saturating_sub(before) < 20 << 10);
    assert_eq!(upstream.received().len(), 32);
}

#[test]
fn a_coded_answer_is_decoded_where_a_plugin_wants_it() {
    let upstream = Upstream::start(|request| {
        let coding = |name| [TEXT, ("Content-Encoding", name), ("ETag", "\"strong\"")];
        match request.target.as_str() {
            "/good" => Answer::new(200, &coding("gzip"), &gzip(&body())),
            "/bomb" => Answer::new(200, &coding("gzip"), &gzip(&vec![0; 16 << 20])),
            "/corrupt" => Answer::new(200, &coding("gzip"), b"not gzip"),
            _ => Answer::new(200, &coding("strange"), b"???"),
        }
    });
    let gateway = Gateway::start(&config(upstream.address(), WAYS[1].1, ""));
    let wanting = config(upstream.address(), "{ respond: { instead_of: [200], status: 203, body: replaced } }", "");
    let all = Gateway::start(&wanting);
    let replaced = all.get("/good");
    assert_eq!((replaced.status, replaced.text().as_str()), (203, "replaced"));
    assert_eq!(replaced.header("content-encoding"), None);
    all.get("/bomb").assert_problem(502, "upstream_response_too_large");
    all.get("/corrupt").assert_problem(502, "upstream_protocol");
    all.get("/strange").assert_problem(502, "upstream_protocol");
    // No plugin wants this status: nothing is decoded.
    let passed = gateway.get("/good");
    assert_eq!((passed.header("content-encoding"), gunzip(&passed.body)), (Some("gzip"), body()));
}
