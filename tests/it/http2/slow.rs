//! Streams that a client feeds or takes too slowly: each ends at its deadline, and the others of its connection go on.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use super::LISTENER;
use crate::harness::{
    Answer, Finish, Gateway, PATIENCE, Silent, Upstream, eventually,
    frames::{DATA, END_HEADERS, END_STREAM, End, HEADERS, Http2, RST_STREAM, WINDOW_UPDATE, block, frame, request},
    pass,
};

const TICK: Duration = Duration::from_millis(400);

fn start(upstream: &str, limits: &str) -> Gateway {
    Gateway::start(&format!(
        "{LISTENER}limits: {{ {limits} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{upstream}\" }}], retry: {{ attempts: 0 }} }} }}
routes:
  - {{ name: own, match: {{ path: /own }}, auth: none, plugins: [{{ respond: {{ status: 200, body: here }} }}] }}
  - {{ name: all, match: {{ path: \"/{{rest...}}\" }}, auth: none, upstream: back }}\n"
    ))
}

/// Does something again and again while the rest of a test goes on.
fn while_doing<T>(http2: &mut Http2, piece: &[u8], rest: impl FnOnce(&mut Http2) -> T) -> T {
    let (done, mut stream) = (std::sync::atomic::AtomicBool::new(false), http2.stream().try_clone().unwrap());
    std::thread::scope(|scope| {
        let _finish = Finish(&done);
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) && stream.write_all(piece).is_ok() {
                pass(TICK);
            }
        });
        rest(http2)
    })
}

/// How each of these streams ended, in the order in which they did.
fn ends(http2: &mut Http2, streams: &[u32]) -> Vec<(u32, End)> {
    let (mut open, mut ended) = (streams.to_vec(), Vec::new());
    let mut bodies = std::collections::HashMap::<u32, Vec<u8>>::new();
    let began = Instant::now();
    while !open.is_empty() {
        assert!(began.elapsed() < PATIENCE, "{open:?} have not ended");
        let next = http2.read().expect("the connection goes on");
        let body = bodies.entry(next.stream).or_default();
        let end = match next.kind {
            RST_STREAM => Some(End::Reset(next.reason())),
            DATA | HEADERS => {
                if next.kind == DATA {
                    body.extend_from_slice(&next.payload);
                }
                (next.flags & END_STREAM != 0).then(|| End::Answer(body.clone()))
            }
            _ => None,
        };
        if let Some(end) = end.filter(|_| open.contains(&next.stream)) {
            open.retain(|stream| *stream != next.stream);
            ended.push((next.stream, end));
        }
    }
    ended
}

#[test]
fn uploads_that_drip_or_stall_end_alone() {
    let upstream = Upstream::start(|request| Answer::ok(request.body.len().to_string()));
    let gateway = start(upstream.address(), "client: { idle: 2s, min_rate: 10KiB/s }");
    let mut http2 = Http2::open(&gateway.address());
    for stream in [1, 3, 5] {
        http2.send(&frame(HEADERS, END_HEADERS, stream, &block(&request("POST", "/"))));
        http2.send(&frame(DATA, 0, stream, b"x"));
    }
    let began = Instant::now();
    // The first drips, the second has stopped, and the third is fast enough.
    let beat = [frame(DATA, 0, 1, b"x"), frame(DATA, 0, 5, &[b'x'; 10 << 10])].concat();
    while_doing(&mut http2, &beat, |http2| {
        for (stream, end) in ends(http2, &[1, 3]) {
            assert_eq!(end.code().as_deref(), Some("request_timeout"), "{stream}: {end:?}");
        }
        let took = began.elapsed();
        assert!((Duration::from_millis(1500)..Duration::from_secs(12)).contains(&took), "{took:?}");
        http2.ask(7, &request("GET", "/own"));
        assert_eq!(http2.end_of(7), End::Answer(b"here".to_vec()));
    });
    http2.send(&frame(DATA, END_STREAM, 5, b""));
    let End::Answer(length) = http2.end_of(5) else { panic!("the third was cut") };
    assert!(String::from_utf8(length).unwrap().parse::<usize>().unwrap() > 10 << 10);
    assert_eq!(upstream.received().len(), 1);
    assert_eq!(gateway.metric("crossway_faults_total{code=\"request_timeout\"}"), 2.0);
}

/// An answer in small pieces that none of these clients takes whole.
fn pieces() -> Silent {
    let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..2000 {
        bytes.extend_from_slice(&[&b"3e8\r\n"[..], &[b'x'; 1000], b"\r\n"].concat());
    }
    Silent::start(&bytes)
}

#[test]
fn downloads_that_drip_or_stall_end_alone() {
    let upstream = pieces();
    let gateway = start(upstream.address(), "client: { min_rate: 64KiB/s }, http2: { stall: 2s }");
    // Every window is closed but that of the connection.
    let mut http2 = Http2::open_with(&gateway.address(), &[0, 4, 0, 0, 0, 0]);
    http2.send(&frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 24).to_be_bytes()));
    for stream in [1, 3] {
        http2.ask(stream, &request("GET", "/"));
        upstream.has_request();
    }
    let began = Instant::now();
    // Each piece is taken long before the window has been closed for too long.
    while_doing(&mut http2, &frame(WINDOW_UPDATE, 0, 1, &1000_u32.to_be_bytes()), |http2| {
        for (stream, end) in ends(http2, &[1, 3]) {
            assert!(matches!(end, End::Reset(_)), "{stream}: {end:?}");
        }
        let took = began.elapsed();
        assert!((Duration::from_millis(1500)..Duration::from_secs(12)).contains(&took), "{took:?}");
    });
    http2.ask(5, &request("GET", "/own"));
    http2.send(&frame(WINDOW_UPDATE, 0, 5, &1000_u32.to_be_bytes()));
    assert_eq!(http2.end_of(5), End::Answer(b"here".to_vec()));
    upstream.is_freed();
    upstream.is_freed();
    assert_eq!(gateway.metric("crossway_faults_total{code=\"client_gone\"}"), 2.0);
}

#[test]
fn a_download_at_the_slowest_rate_may_take_longer_than_a_stall() {
    let upstream = pieces();
    let gateway = start(upstream.address(), "client: { min_rate: 1KiB/s }, http2: { stall: 2s }");
    let mut http2 = Http2::open_with(&gateway.address(), &[0, 4, 0, 0, 0, 0]);
    http2.ask(1, &request("GET", "/"));
    upstream.has_request();
    let began = Instant::now();
    while_doing(&mut http2, &frame(WINDOW_UPDATE, 0, 1, &2000_u32.to_be_bytes()), |http2| {
        while began.elapsed() < Duration::from_secs(5) {
            let next = http2.read().expect("the connection goes on");
            assert!(next.kind != RST_STREAM, "cut after {:?}", began.elapsed());
        }
    });
    drop(http2);
    eventually("nothing is left", || (gateway.metric("crossway_requests_in_flight") == 0.0).then_some(()));
}
