//! Floods: cheap for a client, dear for a server that lets them happen. Each must end early, and hurt nobody else.

use std::time::{Duration, Instant};

use super::{get, start};
use crate::harness::{
    Answer, Connection, Gateway, Upstream, eventually,
    frames::{
        self, DATA, End, HEADERS, Http2, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, request,
        text,
    },
};

fn victim() -> (Upstream, Gateway) {
    let upstream = Upstream::start(|_| Answer::ok("fine"));
    let gateway = start(upstream.address(), "", "", "");
    (upstream, gateway)
}

/// Sends `piece` so many times, or until the other side closes; whether that closed in the end.
fn is_stopped(http2: &mut Http2, times: u32, piece: impl Fn(u32) -> Vec<u8>) -> bool {
    let mut stream = http2.stream().try_clone().unwrap();
    // What comes back is thrown away, so that nothing blocks.
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        let end = std::io::Read::read_to_end(&mut stream, &mut all);
        !end.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    });
    let _ = (0..times).find(|at| !http2.send(&piece(*at)));
    reader.join().unwrap()
}

/// The gateway lives, serves others, and has let go of the attacker.
#[track_caller]
fn is_well(gateway: &Gateway) {
    let began = Instant::now();
    assert_eq!(get(gateway, "/canary").text(), "fine");
    assert_eq!(gateway.get("/canary").text(), "fine");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    eventually("nothing is left of it", || {
        let left = gateway.status()["connections"] == 0 && gateway.metric("crossway_requests_in_flight") == 0.0;
        left.then_some(())
    });
    assert_eq!(gateway.metric("crossway_panics_total"), 0.0);
}

/// Memory in use by the gateway, in KiB.
fn resident(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn rapid_resets_end_the_connection() {
    let (upstream, gateway) = victim();
    let mut http2 = Http2::open(&gateway.address());
    let block = block(&request("GET", "/reset"));
    let reset = 8_u32.to_be_bytes();
    let stopped = is_stopped(&mut http2, 20_000, |at| {
        let stream = 2 * at + 1;
        let both = frames::END_STREAM | frames::END_HEADERS;
        [frame(HEADERS, both, stream, &block), frame(RST_STREAM, 0, stream, &reset)].concat()
    });
    assert!(stopped, "20000 resets were taken");
    let reached = upstream.received().len();
    assert!(reached < 2000, "{reached} requests reached the upstream");
    is_well(&gateway);
}

#[test]
fn a_flood_is_told_to_calm_down() {
    let (_upstream, gateway) = victim();
    let mut http2 = Http2::open(&gateway.address());
    http2.send(&frame(PING, 0, 0, &[0; 8]).repeat(1500));
    assert_eq!(http2.drained().0, Some(frames::ENHANCE_YOUR_CALM));
    assert_eq!(gateway.metric("crossway_refused_total{code=\"http2_flood\"}"), 1.0);
    is_well(&gateway);
}

#[test]
fn streams_that_a_client_makes_the_gateway_reset_end_the_connection() {
    let (upstream, gateway) = victim();
    let both = frames::END_STREAM | frames::END_HEADERS;
    let block = block(&request("GET", "/made"));
    let provocations: [fn(u32) -> Vec<u8>; 3] = [
        |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4]),
        |stream| frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes()),
        |stream| frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[0]].concat()),
    ];
    for provocation in provocations {
        let mut http2 = Http2::open(&gateway.address());
        let stopped = is_stopped(&mut http2, 10_000, |at| {
            let stream = 2 * at + 1;
            [frame(HEADERS, both, stream, &block), provocation(stream)].concat()
        });
        assert!(stopped, "10000 provoked resets were taken");
    }
    let mut http2 = Http2::open(&gateway.address());
    let stopped = is_stopped(&mut http2, 10_000, |at| {
        let stream = 2 * at + 1;
        [frame(HEADERS, both, stream, &block), frame(DATA, 0, stream, b"x")].concat()
    });
    assert!(stopped, "DATA on 10000 streams that had ended was taken");
    assert!(upstream.received().len() < 10_000, "{}", upstream.received().len());
    is_well(&gateway);
}

#[test]
fn frames_without_a_request_end_the_connection() {
    let (upstream, gateway) = victim();
    let one = 1_u32.to_be_bytes();
    let kinds = [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("PING with ACK", frame(PING, 1, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &one)),
        ("unknown", frame(0xEE, 0, 0, b"x")),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0])),
    ];
    for (name, bytes) in kinds {
        let mut http2 = Http2::open(&gateway.address());
        let batch = bytes.repeat(100);
        let stopped = is_stopped(&mut http2, 1000, |_| batch.clone());
        assert!(stopped, "100000 frames {name} were taken");
    }
    assert!(upstream.received().is_empty());
    is_well(&gateway);
}

#[test]
fn empty_data_ends_the_connection() {
    let (upstream, gateway) = victim();
    let before = resident(&gateway);
    let mut http2 = Http2::open(&gateway.address());
    http2.send(&frame(HEADERS, frames::END_HEADERS, 1, &block(&request("POST", "/"))));
    let batch = frame(DATA, 0, 1, b"").repeat(100);
    assert!(is_stopped(&mut http2, 10_000, |_| batch.clone()), "a million empty frames were taken");
    // Frames of nothing but padding are no better.
    let mut http2 = Http2::open(&gateway.address());
    http2.send(&frame(HEADERS, frames::END_HEADERS, 1, &block(&request("POST", "/"))));
    let padded = frame(DATA, 8, 1, &[0]).repeat(100);
    let stopped = is_stopped(&mut http2, 1000, |_| padded.clone());
    assert!(stopped, "100000 frames of padding were taken");
    assert!(resident(&gateway) < before + (64 << 10), "{before} {}", resident(&gateway));
    assert!(upstream.received().is_empty(), "no request was complete");
    is_well(&gateway);
}

#[test]
fn continuation_without_end_ends_the_connection() {
    let (upstream, gateway) = victim();
    let before = resident(&gateway);
    let mut field = vec![0];
    text(&mut field, b"x-a");
    text(&mut field, &[b'a'; 1000]);
    for piece in [field, vec![b'a'], Vec::new()] {
        let mut http2 = Http2::open(&gateway.address());
        http2.send(&frame(HEADERS, frames::END_STREAM, 1, &block(&request("GET", "/"))));
        let bytes = frame(frames::CONTINUATION, 0, 1, &piece).repeat(10);
        let stopped = is_stopped(&mut http2, 10_000, |_| bytes.clone());
        assert!(stopped, "100000 frames of {} bytes were taken", piece.len());
    }
    assert!(resident(&gateway) < before + (64 << 10), "{before} {}", resident(&gateway));
    assert!(upstream.received().is_empty());
    is_well(&gateway);
}

#[test]
fn a_small_block_that_names_a_large_field_again_and_again_is_bounded() {
    let (upstream, gateway) = victim();
    let before = resident(&gateway);
    let mut http2 = Http2::open(&gateway.address());
    // One field into the table, then thousands of references to it: 4 KB become 60 MB.
    let mut bomb = block(&request("GET", "/"));
    bomb.push(0x40);
    text(&mut bomb, b"x-a");
    text(&mut bomb, &[b'a'; 3900]);
    bomb.extend([0xBE; 12_000]);
    let mut peak = 0;
    for at in 0..50 {
        let both = frames::END_STREAM | frames::END_HEADERS;
        if !http2.send(&frame(HEADERS, both, 2 * at + 1, &bomb)) {
            break;
        }
        match http2.end_of(2 * at + 1) {
            End::Answer(body) => assert!(body != b"fine", "served"),
            End::Reset(_) => {}
            End::GoAway(_) | End::Closed => break,
        }
        peak = peak.max(resident(&gateway));
    }
    println!("HPACK bomb: {before} KiB before, {peak} KiB at most");
    assert!(peak < before + (64 << 10), "{before} {peak}");
    assert!(upstream.received().is_empty());
    drop(http2);
    is_well(&gateway);
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let upstream = Upstream::start(|_| Answer::silence());
    let gateway = start(upstream.address(), "", "", "limits: { http2: { streams: 10 } }\n");
    let mut http2 = Http2::open(&gateway.address());
    // The bound holds once the client has acknowledged the settings.
    http2.ask(1, &request("GET", "/"));
    eventually("the first is in flight", || (upstream.received().len() == 1).then_some(()));
    while http2.read().is_some_and(|next| next.kind != SETTINGS || next.flags != 0) {}
    for at in 1..15 {
        http2.ask(2 * at + 1, &request("GET", "/"));
    }
    assert_eq!(http2.end_of(2 * 14 + 1), End::Reset(7), "REFUSED_STREAM");
    eventually("ten are in flight", || (upstream.received().len() == 10).then_some(()));
    drop(http2);
    eventually("none is left", || (gateway.metric("crossway_requests_in_flight") == 0.0).then_some(()));
}

#[test]
fn broken_frames_close_the_connection() {
    let (upstream, gateway) = victim();
    let both = frames::END_STREAM | frames::END_HEADERS;
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: t\r\n\r\n".to_vec(),
        [&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1][..], &[0; 1000]].concat(),
        frame(PING, 0, 0, &[0; 7]),
        frame(PING, 0, 1, &[0; 8]),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        frame(SETTINGS, 1, 0, &[0; 6]),
        frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
        frame(RST_STREAM, 0, 1, &[0; 4]),
        frame(RST_STREAM, 0, 0, &[0; 4]),
        frame(DATA, 0, 0, b"x"),
        frame(DATA, 0, 1, b"x"),
        frame(frames::CONTINUATION, frames::END_HEADERS, 1, b""),
        frame(HEADERS, both, 0, &block(&request("GET", "/"))),
        frame(HEADERS, both, 2, &block(&request("GET", "/"))),
        frame(HEADERS, both, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        frame(HEADERS, both, 1, &[0x80]),
        frame(HEADERS, both | 8, 1, &[200, 0]),
        frame(5, frames::END_HEADERS, 1, &[0, 0, 0, 2]),
        [frame(HEADERS, frames::END_STREAM, 1, &block(&request("GET", "/"))), frame(PING, 0, 0, &[0; 8])].concat(),
    ] {
        let mut http2 = Http2::open(&gateway.address());
        http2.send(&bytes);
        let (reason, took) = http2.drained();
        assert!(reason != Some(0), "{bytes:?}");
        assert!(took < Duration::from_secs(5), "{took:?} {bytes:?}");
    }
    assert!(upstream.received().is_empty());
    is_well(&gateway);
}

#[test]
fn a_preface_within_http1_is_no_request() {
    let (upstream, gateway) = victim();
    let mut connection = Connection::open(&gateway.address());
    connection.send(b"GET /first HTTP/1.1\r\nHost: t\r\n\r\n");
    assert_eq!(connection.read("GET").unwrap().status, 200);
    connection.send(frames::PREFACE);
    connection.read("PRI").unwrap().assert_problem(505, "version_not_supported");
    assert!(connection.is_closed());
    let mut inside = Connection::open(&gateway.address());
    inside.send(b"POST /body HTTP/1.1\r\nHost: t\r\nContent-Length: 24\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(inside.read("POST").unwrap().status, 200);
    assert_eq!(upstream.received().len(), 2);
    drop(inside);
    is_well(&gateway);
}

#[test]
fn requests_that_break_the_protocol_again_and_again_end_the_connection() {
    let (upstream, gateway) = victim();
    let mut http2 = Http2::open(&gateway.address());
    let bad = [request("GET", "/"), vec![("connection", "close")]].concat();
    let stopped = is_stopped(&mut http2, 10_000, |at| {
        frame(HEADERS, frames::END_STREAM | frames::END_HEADERS, 2 * at + 1, &block(&bad))
    });
    assert!(stopped, "10000 malformed requests were taken");
    assert!(upstream.received().is_empty());
    is_well(&gateway);
}
