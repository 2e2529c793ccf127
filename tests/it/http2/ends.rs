//! How streams and connections end: when they should, and without harm to others.

use std::time::{Duration, Instant};

use super::{get, start};
use crate::harness::{
    Answer, Gateway, Silent, Upstream, eventually,
    frames::{self, End, GOAWAY, Http2, PING, RST_STREAM, WINDOW_UPDATE, block, frame, request},
    pass,
};

/// What is left of a connection: its end, however it comes.
fn is_gone(gateway: &Gateway) {
    eventually("the connection is gone", || (gateway.status()["connections"] == 0).then_some(()));
}

/// Reads until the other side closes. Answers PING where `polite`. The streams answered, and what each GOAWAY said.
fn rest(http2: &mut Http2, polite: bool) -> (Vec<u32>, Vec<u32>) {
    let (mut answered, mut reasons) = (Vec::new(), Vec::new());
    while let Some(next) = http2.read() {
        match next.kind {
            PING if polite => {
                http2.send(&frame(PING, 1, 0, &next.payload));
            }
            GOAWAY => reasons.push(next.reason()),
            frames::DATA | frames::HEADERS if next.flags & frames::END_STREAM != 0 => answered.push(next.stream),
            _ => {}
        }
    }
    (answered, reasons)
}

#[test]
fn after_so_many_requests_the_connection_ends_and_none_is_lost() {
    let upstream = Upstream::start(|_| {
        pass(Duration::from_millis(200));
        Answer::ok("fine")
    });
    let gateway = start(upstream.address(), "", "", "limits: { client: { requests_per_connection: 5 } }\n");
    let mut http2 = Http2::open(&gateway.address());
    for at in 0..5 {
        http2.ask(2 * at + 1, &request("GET", "/"));
    }
    let (mut answered, reasons) = rest(&mut http2, true);
    answered.sort_unstable();
    assert_eq!(answered, [1, 3, 5, 7, 9]);
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| *reason == 0), "{reasons:?}");
}

#[test]
fn a_client_that_does_not_want_to_leave_has_to() {
    let upstream = Upstream::start(|_| Answer::ok("fine"));
    let gateway =
        start(upstream.address(), "", "", "limits: { client: { requests_per_connection: 1 }, http2: { stall: 1s } }\n");
    // It never answers the PING that asks whether it has heard.
    let mut deaf = Http2::open(&gateway.address());
    deaf.ask(1, &request("GET", "/"));
    let began = Instant::now();
    assert_eq!(rest(&mut deaf, false).0, [1]);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    is_gone(&gateway);
    let mut stubborn = Http2::open(&gateway.address());
    let began = Instant::now();
    for stream in (1..).step_by(2) {
        if !stubborn.ask(stream, &request("GET", "/")) || !matches!(stubborn.end_of(stream), End::Answer(_)) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{stream} streams");
        pass(Duration::from_millis(20));
    }
    drop(stubborn);
    is_gone(&gateway);
}

#[test]
fn a_drain_lets_streams_finish_and_then_the_process_ends() {
    let upstream = Upstream::start(|_| {
        pass(Duration::from_millis(700));
        Answer::ok("late")
    });
    let runtime = "runtime: { threads: 2, drain: { readiness_delay: 0s, deadline: 60s } }\n";
    let mut gateway = start(upstream.address(), "", "", runtime);
    let mut busy = Http2::open(&gateway.address());
    busy.ask(1, &request("GET", "/"));
    let mut idle = Http2::open(&gateway.address());
    eventually("the request is in flight", || (gateway.metric("crossway_requests_in_flight") == 1.0).then_some(()));
    eventually("both are connected", || (gateway.status()["connections"] == 2).then_some(()));
    gateway.signal("TERM");
    assert_eq!(rest(&mut idle, true).1.last(), Some(&0));
    let (answered, reasons) = rest(&mut busy, true);
    assert_eq!(answered, [1]);
    assert!(!reasons.is_empty() && reasons.iter().all(|reason| *reason == 0), "{reasons:?}");
    let told = Instant::now();
    assert!(gateway.wait().success());
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
}

#[test]
fn a_drain_does_not_wait_for_a_client_that_is_deaf() {
    let upstream = Upstream::start(|_| Answer::ok("fine"));
    let rest =
        "runtime: { threads: 2, drain: { readiness_delay: 0s, deadline: 60s } }\nlimits: { http2: { stall: 1s } }\n";
    let mut gateway = start(upstream.address(), "", "", rest);
    let mut deaf = Http2::open(&gateway.address());
    deaf.ask(1, &request("GET", "/"));
    assert!(matches!(deaf.end_of(1), End::Answer(_)));
    let told = Instant::now();
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
}

#[test]
fn an_idle_connection_is_closed_and_one_with_a_request_is_not() {
    let upstream = Upstream::start(|_| {
        pass(Duration::from_millis(1500));
        Answer::ok("late")
    });
    let gateway = start(upstream.address(), "", "", "limits: { http2: { idle: 400ms } }\n");
    let mut silent = Http2::open(&gateway.address());
    let began = Instant::now();
    assert_eq!(rest(&mut silent, true).1.last(), Some(&0));
    assert!(began.elapsed() > Duration::from_millis(300), "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    // PING is no request.
    let mut pinging = Http2::open(&gateway.address());
    let began = Instant::now();
    while pinging.send(&frame(PING, 0, 0, &[0; 8])) {
        assert!(began.elapsed() < Duration::from_secs(8), "a client that only pings is idle");
        pass(Duration::from_millis(50));
    }
    let mut busy = Http2::open(&gateway.address());
    busy.ask(1, &request("GET", "/"));
    assert_eq!(rest(&mut busy, true).0, [1]);
}

#[test]
fn a_body_that_drips_is_cut() {
    let upstream = Upstream::echo();
    let gateway = start(upstream.address(), "", "", "limits: { client: { idle: 1s, min_rate: 1KiB/s } }\n");
    for length in [None, Some(("content-length", "1000"))] {
        let mut slow = Http2::open(&gateway.address());
        let fields = [request("POST", "/"), length.into_iter().collect()].concat();
        slow.send(&frame(frames::HEADERS, frames::END_HEADERS, 1, &block(&fields)));
        let began = Instant::now();
        let (dripping, stream) = (std::sync::atomic::AtomicBool::new(true), slow.stream().try_clone().unwrap());
        let end = std::thread::scope(|scope| {
            scope.spawn(|| {
                while dripping.load(std::sync::atomic::Ordering::SeqCst) && began.elapsed() < Duration::from_secs(15) {
                    let _ = std::io::Write::write_all(&mut &stream, &frame(frames::DATA, 0, 1, b"x"));
                    pass(Duration::from_millis(200));
                }
            });
            let end = slow.end_of(1);
            dripping.store(false, std::sync::atomic::Ordering::SeqCst);
            end
        });
        assert_eq!(end.code().as_deref(), Some("request_timeout"), "{end:?}");
        let took = began.elapsed();
        assert!((Duration::from_millis(700)..Duration::from_secs(5)).contains(&took), "{took:?}");
    }
    assert!(upstream.received().is_empty());
}

#[test]
fn a_client_that_pauses_for_longer_than_idle_is_cut_and_one_that_is_fast_enough_is_not() {
    let upstream = Upstream::start(|request| Answer::ok(request.body.len().to_string()));
    let gateway = start(upstream.address(), "", "", "limits: { client: { idle: 1s, min_rate: 1KiB/s } }\n");
    let mut steady = Http2::open(&gateway.address());
    steady.send(&frame(frames::HEADERS, frames::END_HEADERS, 1, &block(&request("POST", "/"))));
    for _ in 0..8 {
        steady.send(&frame(frames::DATA, 0, 1, &[b'x'; 1024]));
        pass(Duration::from_millis(400));
    }
    steady.send(&frame(frames::DATA, frames::END_STREAM, 1, b""));
    assert_eq!(steady.end_of(1), End::Answer(b"8192".to_vec()));
    steady.send(&frame(frames::HEADERS, frames::END_HEADERS, 3, &block(&request("POST", "/"))));
    let began = Instant::now();
    assert_eq!(steady.end_of(3).code().as_deref(), Some("request_timeout"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

fn large() -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n".to_vec(), vec![b'x'; 20_000_000]].concat()
}

#[test]
fn a_window_that_stays_closed_costs_its_stream_and_frees_the_upstream() {
    let upstream = Silent::start(&large());
    let gateway = start(upstream.address(), "", "", "limits: { http2: { stall: 700ms } }\n");
    let closed = [0, 4, 0, 0, 0, 0];
    let mut stalled = Http2::open_with(&gateway.address(), &closed);
    stalled.ask(1, &request("GET", "/"));
    upstream.has_request();
    let began = Instant::now();
    assert!(matches!(stalled.end_of(1), End::Reset(_)));
    assert!(began.elapsed() > Duration::from_millis(500), "{:?}", began.elapsed());
    upstream.is_freed();
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    eventually("nothing is in flight", || (gateway.metric("crossway_requests_in_flight") == 0.0).then_some(()));
}

#[test]
fn a_client_that_takes_a_response_by_the_byte_is_cut() {
    let upstream = Silent::start(&large());
    let limits = "limits: { client: { min_rate: 64KiB/s }, http2: { stall: 1s } }\n";
    let gateway = start(upstream.address(), "", "", limits);
    let mut slow = Http2::open_with(&gateway.address(), &[0, 4, 0, 0, 0, 0]);
    slow.ask(1, &request("GET", "/"));
    upstream.has_request();
    let began = Instant::now();
    let stream = slow.stream().try_clone().unwrap();
    let (go, done) = std::sync::mpsc::sync_channel::<()>(1);
    let dripping = std::thread::spawn(move || {
        while done.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let _ = std::io::Write::write_all(&mut &stream, &frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()));
            pass(Duration::from_millis(50));
        }
    });
    let end = slow.end_of(1);
    drop(go);
    dripping.join().unwrap();
    assert!(matches!(end, End::Reset(_)), "{end:?}");
    upstream.is_freed();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_request_that_its_client_gives_up_ends_at_the_upstream_too() {
    let upstream = Silent::start(b"");
    let gateway = start(upstream.address(), "", "", "");
    let mut fickle = Http2::open(&gateway.address());
    fickle.ask(1, &request("GET", "/"));
    upstream.has_request();
    fickle.send(&frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
    upstream.is_freed();
    fickle.ask(3, &request("GET", "/"));
    upstream.has_request();
    drop(fickle);
    upstream.is_freed();
    is_gone(&gateway);
}

#[test]
fn settings_of_a_route_reach_its_streams() {
    let upstream = Upstream::start(|request| Answer::ok(request.body.len().to_string()));
    let gateway = Gateway::start(&format!(
        "{}upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
limits: {{ client: {{ idle: 300ms }} }}
routes:
  - {{ name: slow, match: {{ path: /slow }}, auth: none, upstream: back, limits: {{ client: {{ idle: 20s, min_rate: off }} }} }}
  - {{ name: fast, match: {{ path: /fast }}, auth: none, upstream: back }}\n",
        super::LISTENER,
        upstream.address()
    ));
    let mut http2 = Http2::open(&gateway.address());
    for (stream, path) in [(1, "/slow"), (3, "/fast")] {
        http2.send(&frame(frames::HEADERS, frames::END_HEADERS, stream, &block(&request("POST", path))));
    }
    assert_eq!(http2.end_of(3).code().as_deref(), Some("request_timeout"));
    pass(Duration::from_millis(700));
    http2.send(&frame(frames::DATA, frames::END_STREAM, 1, b"x"));
    assert_eq!(http2.end_of(1), End::Answer(b"1".to_vec()));
    assert_eq!(get(&gateway, "/none").status, 404);
}

#[test]
fn a_listener_that_a_reload_takes_away_lets_its_connections_finish() {
    let upstream = Upstream::start(|_| {
        pass(Duration::from_millis(500));
        Answer::ok("late")
    });
    let config = |listener: &str| {
        format!(
            "listeners: [{listener}]
limits: {{ http2: {{ stall: 1s }} }}
upstreams: {{ back: {{ endpoints: [{{ address: \"{}\" }}] }} }}
routes: [{{ name: all, match: {{ path: / }}, auth: none, upstream: back }}]\n",
            upstream.address()
        )
    };
    // An address of its own: the same one would be the same listener.
    let other = crate::harness::closed_address();
    let mut gateway = Gateway::start(&config("{ name: public, address: \"127.0.0.1:0\", http2: true }"));
    let (mut busy, mut deaf) = (Http2::open(&gateway.address()), Http2::open(&gateway.address()));
    busy.ask(1, &request("GET", "/"));
    deaf.ask(1, &request("GET", "/"));
    eventually("both are in flight", || (gateway.metric("crossway_requests_in_flight") == 2.0).then_some(()));
    let answer = gateway.reload(&config(&format!("{{ name: other, address: \"{other}\" }}")));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(rest(&mut busy, true).0, [1]);
    assert_eq!(rest(&mut deaf, false).0, [1]);
    is_gone(&gateway);
}
