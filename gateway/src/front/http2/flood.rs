//! Frames that cost the gateway work and bring no request forward: how many of them a client may send.

use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Such frames a client may send at once.
const BURST: i64 = 1000;
/// And a second, over time. A client that takes a response may send one more for each KiB of it: it has windows to open.
const A_SECOND: u64 = 100;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// The account of one connection. The limits that the protocol's library keeps are about memory; this one is about work:
/// rapid resets (CVE-2023-44487), and floods of PING, SETTINGS, PRIORITY, WINDOW_UPDATE, CONTINUATION, empty DATA and
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
    frames: FrameHeaders,
}

impl Flood {
    pub(super) fn new(preface: usize) -> Self {
        let frames = FrameHeaders { skip: preface as u64, ..FrameHeaders::default() };
        Self { state: Mutex::new(State { left: BURST, since: Instant::now(), frames }), exceeded: Notify::new() }
    }

    /// Takes note of bytes from the client; `false` if it has sent too many frames.
    pub(super) fn received(&self, bytes: &[u8]) -> bool {
        let mut state = self.state.lock();
        let idle_frames = state.frames.count_idle(bytes);
        state.left = state.left.saturating_sub(idle_frames);
        if state.left < 0 {
            let earned = state.since.elapsed().as_millis() as u64 * A_SECOND / 1000;
            state.left = state.left.saturating_add(i64::try_from(earned).unwrap_or(BURST)).min(BURST);
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
    pub(super) fn sent(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.left = state.left.saturating_add((bytes >> 10) as i64).min(BURST);
    }

    /// Resolves when the client has sent too many frames.
    pub(super) async fn exceeded(&self) {
        self.exceeded.notified().await;
    }
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
    /// How many frames begin in these bytes that bring nothing forward.
    fn count_idle(&mut self, mut bytes: &[u8]) -> i64 {
        let mut idle = 0;
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
                let useful = kind == HEADERS || kind == DATA && (self.skip > 0 || flags & END_STREAM != 0);
                idle += i64::from(!useful);
            }
        }
        idle
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
            let idle: i64 = stream.chunks(cut).map(|piece| frames.count_idle(piece)).sum();
            assert_eq!(idle, 4, "cut {cut}");
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
        for _ in 0..10_000 {
            taker.sent(16 << 10);
            assert!(taker.received(&window_update) && taker.received(&window_update));
        }
    }
}
