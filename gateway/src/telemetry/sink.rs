//! A file or standard stream that log lines go to: a buffer shared by the workers, emptied by one thread.
//!
//! A worker copies its line under a lock that is held for the copy only, and wakes the writer only when the buffer was
//! empty or is getting full: at thousands of lines a second that is one wake-up for hundreds of lines.

use std::{fs::OpenOptions, io::Write, path::PathBuf, sync::Arc, thread, time::Duration};

use parking_lot::{Condvar, Mutex};

/// Most bytes waiting to be written; lines beyond are dropped and counted.
const CAPACITY: usize = 4 << 20;
/// The writer is woken at once when this much is waiting.
const HURRY: usize = 256 << 10;
/// How long a line may wait for company.
const LINGER: Duration = Duration::from_millis(50);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// A queue of lines with a thread behind it. Dropping it writes what is left.
pub(super) struct Sink {
    shared: Arc<Shared>,
    writer: Option<thread::JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    reopen: bool,
    closed: bool,
}

impl Sink {
    /// Opens the target and starts the writer.
    pub(super) fn open(target: Target) -> std::io::Result<Self> {
        let output = open(&target)?;
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Condvar::new() });
        let thread = thread::Builder::new().name("access-log".into());
        let writer = thread.spawn({
            let shared = Arc::clone(&shared);
            move || write_all(&shared, output, &target)
        })?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Queues a line that ends in a line feed; `false` if there was no room.
    pub(super) fn push(&self, line: &[u8]) -> bool {
        let mut state = self.shared.state.lock();
        let before = state.lines.len();
        if before + line.len() > CAPACITY {
            return false;
        }
        state.lines.extend_from_slice(line);
        let after = state.lines.len();
        drop(state);
        if before == 0 || (before < HURRY && after >= HURRY) {
            self.shared.wake.notify_one();
        }
        true
    }

    /// Opens a file target anew before the next line, so that a rotated file is let go.
    pub(super) fn reopen(&self) {
        self.shared.state.lock().reopen = true;
        self.shared.wake.notify_one();
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

type Output = Box<dyn Write + Send>;

fn open(target: &Target) -> std::io::Result<Output> {
    Ok(match target {
        Target::Stdout => Box::new(std::io::stdout()),
        Target::Stderr => Box::new(std::io::stderr()),
        Target::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
    })
}

fn write_all(shared: &Shared, mut output: Output, target: &Target) {
    let mut batch = Vec::new();
    loop {
        let (reopen, closed) = next_batch(shared, &mut batch);
        if let Err(error) = output.write_all(&batch).and_then(|()| output.flush()) {
            tracing::warn!(%error, "access log lines are lost");
        }
        batch.clear();
        batch.shrink_to(HURRY);
        if reopen && matches!(target, Target::File(_)) {
            match open(target) {
                Ok(opened) => output = opened,
                Err(error) => tracing::error!(%error, "the access log cannot be opened anew; the old file is kept"),
            }
        }
        if closed {
            return;
        }
    }
}

/// Waits for lines, lets more gather for a moment, and takes them all.
fn next_batch(shared: &Shared, batch: &mut Vec<u8>) -> (bool, bool) {
    let mut state = shared.state.lock();
    shared.wake.wait_while(&mut state, |s| s.lines.is_empty() && !s.reopen && !s.closed);
    shared.wake.wait_while_for(&mut state, |s| s.lines.len() < HURRY && !s.reopen && !s.closed, LINGER);
    std::mem::swap(&mut state.lines, batch);
    (std::mem::take(&mut state.reopen), state.closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_in_order_and_a_rotated_file_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let sink = Sink::open(Target::File(path.clone())).unwrap();
        assert!(sink.push(b"one\n") && sink.push(b"two\n"));
        while std::fs::read_to_string(&path).unwrap() != "one\ntwo\n" {
            thread::yield_now();
        }
        std::fs::rename(&path, &rotated).unwrap();
        sink.reopen();
        while !path.exists() {
            thread::yield_now();
        }
        assert!(sink.push(b"three\n"));
        drop(sink);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Condvar::new() });
        let sink = Sink { shared, writer: None };
        assert!(sink.push(&vec![b'x'; CAPACITY]));
        assert!(!sink.push(b"x"));
    }
}
