//! Frames that cost the gateway work and bring no request forward: how many of them a client may send.

use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Such frames a client may send at once.
const BURST: i64 = 1000;
/// And a second, over time.
const A_SECOND: u64 = 100;
/// More of them for each frame that does bring something forward, either way, and for each KiB to the client: there are
/// windows to open, and round trips to measure.
const FOR_A_FRAME: i64 = 4;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// The account of one connection. The limits that the protocol's library keeps are about memory; this one is about work:
/// rapid resets (CVE-2023-44487), and floods of PING, SETTINGS, PRIORITY, `WINDOW_UPDATE`, CONTINUATION, empty DATA and
/// unknown frames.
#[derive(Debug)]
pub(super) struct Flood {
    state: Mutex<State>,
    exceeded: Notify,
}

#[derive(Debug)]
struct State {
    left: i64,
    since: Instant,
    received: FrameHeaders,
    sent: FrameHeaders,
}

impl State {
    fn earn(&mut self, frames: i64) {
        self.left = self.left.saturating_add(frames).min(BURST);
    }
}

impl Flood {
    pub(super) fn new(preface: usize) -> Self {
        let received = FrameHeaders { skip: preface as u64, ..FrameHeaders::default() };
        let state = State { left: BURST, since: Instant::now(), received, sent: FrameHeaders::default() };
        Self { state: Mutex::new(state), exceeded: Notify::new() }
    }

    /// Takes note of bytes from the client; `false` if it has sent too many frames.
    pub(super) fn received(&self, bytes: &[u8]) -> bool {
        let mut state = self.state.lock();
        let frames = state.received.count(bytes);
        state.left = state.left.saturating_sub(frames.idle);
        state.earn(frames.data.saturating_mul(FOR_A_FRAME));
        if state.left < 0 {
            let earned = u64::try_from(state.since.elapsed().as_millis()).unwrap_or(u64::MAX) / (1000 / A_SECOND);
            state.earn(i64::try_from(earned).unwrap_or(BURST));
            state.since = Instant::now();
        }
        let fine = state.left >= 0;
        drop(state);
        if !fine {
            self.exceeded.notify_one();
        }
        fine
    }

    /// Takes note of bytes to the client.
    pub(super) fn sent(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        let frames = state.sent.count(bytes);
        let kibs = i64::try_from(bytes.len() >> 10).unwrap_or(BURST);
        state.earn((frames.data + frames.headers).saturating_mul(FOR_A_FRAME).saturating_add(kibs));
    }

    /// Resolves when the client has sent too many frames.
    pub(super) async fn exceeded(&self) {
        self.exceeded.notified().await;
    }
}

/// How many frames of a kind began.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    /// With a piece of a body.
    data: i64,
    /// With a header or trailers.
    headers: i64,
    /// That bring nothing forward.
    idle: i64,
}

/// Finds the frame headers in a stream of bytes (RFC 9113, section 4.1).
#[derive(Debug, Default)]
struct FrameHeaders {
    /// Bytes of payload still to come.
    skip: u64,
    header: [u8; 9],
    have: usize,
}

impl FrameHeaders {
    /// The frames that begin in these bytes.
    fn count(&mut self, mut bytes: &[u8]) -> Count {
        let mut count = Count::default();
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
                self.skip -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = bytes.len().min(self.header.len() - self.have);
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == self.header.len() {
                self.have = 0;
                let [a, b, c, kind, flags, ..] = self.header;
                self.skip = u64::from(u32::from_be_bytes([0, a, b, c]));
                match kind {
                    HEADERS => count.headers += 1,
                    DATA if self.skip > 0 => count.data += 1,
                    DATA if flags & END_STREAM != 0 => {}
                    _ => count.idle += 1,
                }
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], &vec![0; payload]].concat()
    }

    #[test]
    fn frames_are_told_apart_however_the_bytes_are_cut() {
        let stream = [
            frame(HEADERS, 4, 30),
            frame(DATA, 0, 1000),
            frame(DATA, 0, 0),
            frame(DATA, END_STREAM, 0),
            frame(6, 0, 8),
            frame(3, 0, 4),
            frame(200, 0, 3),
        ]
        .concat();
        for cut in [1, 2, 8, 9, 10, 4096] {
            let mut frames = FrameHeaders::default();
            let counts: Vec<_> = stream.chunks(cut).map(|piece| frames.count(piece)).collect();
            let sum = |of: fn(&Count) -> i64| counts.iter().map(of).sum::<i64>();
            assert_eq!((sum(|c| c.headers), sum(|c| c.data), sum(|c| c.idle)), (1, 1, 4), "cut {cut}");
        }
    }

    #[test]
    fn a_flood_is_noticed_and_a_client_that_takes_a_response_is_none() {
        let ping = frame(6, 0, 8);
        let flood = Flood::new(0);
        let sent = (0..10_000).take_while(|_| flood.received(&ping)).count();
        assert!((1000..2000).contains(&sent), "{sent}");
        let taker = Flood::new(0);
        let window_update = frame(8, 0, 4);
        let (small, large) = (frame(DATA, 0, 10), frame(DATA, 0, 16 << 10));
        for _ in 0..10_000 {
            taker.sent(&large);
            assert!(taker.received(&window_update) && taker.received(&window_update));
            taker.sent(&small);
            assert!(taker.received(&window_update) && taker.received(&ping));
        }
    }
}
