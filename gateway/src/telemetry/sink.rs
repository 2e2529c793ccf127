//! A file or standard stream that log lines go to: a buffer shared by the workers, emptied by one thread.
//!
//! A worker copies its line under a lock that is held for the copy only, and wakes the writer only when the buffer was
//! empty or is getting full: at thousands of lines a second that is one wake-up for hundreds of lines. Nobody but the
//! writer ever waits for the target, and the writer gives up on one that takes nothing when it is to end.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;

use super::target::{Output, Target};

/// The writer is woken at once when this much is waiting.
const HURRY: usize = 256 << 10;
/// How long a line may wait for company.
const LINGER: Duration = Duration::from_millis(50);
/// How long a target that takes nothing is waited for when the writer is to end.
const GRACE: Duration = Duration::from_secs(2);
/// Pause between two words on lost lines.
const BETWEEN_WORDS: Duration = Duration::from_secs(1);

/// What tells one log's sink from another's.
#[derive(Debug)]
pub(super) struct Kind {
    /// Name of the log, in messages.
    pub(super) name: &'static str,
    /// Name of the writer's thread.
    pub(super) thread: &'static str,
    /// Most bytes waiting to be written; lines beyond are lost, and counted.
    pub(super) capacity: usize,
    /// Permissions of a file that is made, less what the process's mask takes away.
    pub(super) mode: u32,
}

/// The account of lines that did not get where they should.
pub(super) struct Loss {
    counter: IntCounter,
    /// Not yet told in the log of operation.
    untold: AtomicU64,
    /// Not yet told in the log itself.
    unrecorded: AtomicU64,
}

impl Loss {
    pub(super) fn new(counter: IntCounter) -> Arc<Self> {
        Arc::new(Self { counter, untold: AtomicU64::new(0), unrecorded: AtomicU64::new(0) })
    }

    fn add(&self, lines: u64) {
        self.counter.inc_by(lines);
        self.untold.fetch_add(lines, Ordering::Relaxed);
        self.unrecorded.fetch_add(lines, Ordering::Relaxed);
    }

    /// Lines that were lost since this was last asked.
    pub(super) fn take_unrecorded(&self) -> u64 {
        if self.unrecorded.load(Ordering::Relaxed) == 0 { 0 } else { self.unrecorded.swap(0, Ordering::Relaxed) }
    }

    /// What was taken could not be written down.
    pub(super) fn give_back(&self, lines: u64) {
        self.unrecorded.fetch_add(lines, Ordering::Relaxed);
    }
}

/// A queue of lines with a thread behind it, which writes what is left when this is dropped, and ends.
pub(super) struct Sink {
    target: Target,
    kind: &'static Kind,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    done: Condvar,
    loss: Arc<Loss>,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    /// Takes the place of what is written to, after so many bytes of `lines`.
    fresh: Option<(Output, usize)>,
    closed: bool,
    done: bool,
}

/// A sink that can be put in force, with its target open.
pub(super) struct Ready {
    sink: Arc<Sink>,
    fresh: Option<Output>,
    /// Device and number of a regular file.
    file: Option<(u64, u64)>,
}

impl Ready {
    /// Opens a target. `current` is kept where it has the same one; nothing changes for it yet.
    pub(super) fn open(
        target: Target,
        current: Option<&Arc<Sink>>,
        kind: &'static Kind,
        loss: &Arc<Loss>,
    ) -> io::Result<Self> {
        let output = Output::open(&target, kind.mode)?;
        let is_path = matches!(target, Target::File(_));
        let file = output.regular_file().filter(|_| is_path);
        if let Some(sink) = current.filter(|sink| sink.target == target) {
            return Ok(Self { sink: Arc::clone(sink), fresh: is_path.then_some(output), file });
        }
        let shared = Shared { state: Mutex::default(), wake: Condvar::new(), done: Condvar::new(), loss: loss.clone() };
        let sink = Sink { target, kind, shared: Arc::new(shared) };
        sink.start(output)?;
        Ok(Self { sink: Arc::new(sink), fresh: None, file })
    }

    /// The sink, writing to what was opened.
    pub(super) fn apply(self) -> Arc<Sink> {
        if let Some(fresh) = self.fresh {
            let mut state = self.sink.shared.state.lock();
            state.fresh = Some((fresh, state.lines.len()));
            drop(state);
            self.sink.shared.wake.notify_one();
        }
        self.sink
    }

    /// Whether both would write to one file.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        self.file.is_some() && self.file == other.file
    }
}

impl Sink {
    fn start(&self, output: Output) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let writer = Writer { shared, output, target: self.target.clone(), kind: self.kind, torn: false, told: None };
        thread::Builder::new().name(self.kind.thread.into()).spawn(move || writer.run()).map(drop)
    }

    /// Queues lines, each of which ends in a line feed; `false` if there was no room, which is counted.
    pub(super) fn push(&self, lines: &[u8]) -> bool {
        let mut state = self.shared.state.lock();
        let before = state.lines.len();
        if before + lines.len() > self.kind.capacity {
            drop(state);
            self.shared.loss.add(1);
            return false;
        }
        state.lines.extend_from_slice(lines);
        let after = state.lines.len();
        drop(state);
        if before == 0 || (before < HURRY && after >= HURRY) {
            self.shared.wake.notify_one();
        }
        true
    }

    /// Lets go of a sink, and waits, but no longer than this, until what it has is written.
    pub(super) fn finish(sink: Arc<Self>, patience: Duration) {
        let shared = Arc::clone(&sink.shared);
        drop(sink);
        let mut state = shared.state.lock();
        shared.done.wait_while_for(&mut state, |state| !state.done, patience);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

/// The thread behind a sink.
struct Writer {
    shared: Arc<Shared>,
    output: Output,
    target: Target,
    kind: &'static Kind,
    /// The last line that was written has no end.
    torn: bool,
    /// When lost lines were last told of.
    told: Option<Instant>,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let (fresh, closed) = next_batch(&self.shared, &mut batch);
            match fresh {
                None => self.write(&batch),
                Some((fresh, at)) => {
                    self.write(&batch[..at]);
                    self.output = fresh;
                    self.torn = false;
                    self.write(&batch[at..]);
                }
            }
            batch.clear();
            batch.shrink_to(HURRY);
            if closed {
                self.told = None;
            }
            self.tell();
            if closed {
                self.shared.state.lock().done = true;
                self.shared.done.notify_all();
                return;
            }
        }
    }

    /// Writes whole lines; what cannot be written is lost, and counted.
    fn write(&mut self, batch: &[u8]) {
        // Whoever writes to the same stream does not come in between.
        let _stdout = (self.target == Target::Stdout).then(|| io::stdout().lock());
        let _stderr = (self.target == Target::Stderr).then(|| io::stderr().lock());
        let mut rest = batch;
        let mut stuck: Option<Instant> = None;
        while !rest.is_empty() {
            let written = if self.torn && rest.len() == batch.len() {
                self.output.write(b"\n").map(|ended| (0, ended == 0))
            } else {
                self.output.write(rest).map(|written| (written, written == 0))
            };
            match written {
                Ok((0, false)) => self.torn = false,
                Ok((0, true)) => match self.wait(*stuck.get_or_insert_with(Instant::now)) {
                    Waited::On => {}
                    Waited::Switched if self.torn => rest = self.skip(rest, batch.len()),
                    Waited::Switched => stuck = None,
                    Waited::InVain => return self.lose(rest, &"the target takes nothing"),
                },
                Ok((written, _)) => {
                    self.torn = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                    stuck = None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.lose(rest, &error),
            }
        }
    }

    /// Leaves the rest of a line out whose beginning is elsewhere.
    fn skip<'b>(&mut self, rest: &'b [u8], whole: usize) -> &'b [u8] {
        self.torn = false;
        if rest.len() == whole {
            return rest;
        }
        self.shared.loss.add(1);
        memchr::memchr(b'\n', rest).map_or(&[], |end| &rest[end + 1..])
    }

    /// The target takes nothing: whether to go on waiting for it.
    fn wait(&mut self, since: Instant) -> Waited {
        if self.target != Target::Stderr {
            self.tell();
        }
        let mut state = self.shared.state.lock();
        let (fresh, closed) = (state.fresh.take(), state.closed);
        drop(state);
        match fresh {
            Some((fresh, _)) => {
                self.output = fresh;
                Waited::Switched
            }
            None if closed && since.elapsed() >= GRACE => Waited::InVain,
            None => Waited::On,
        }
    }

    fn lose(&mut self, rest: &[u8], why: &dyn std::fmt::Display) {
        let lines = memchr::memchr_iter(b'\n', rest).count() as u64;
        self.shared.loss.add(lines);
        if self.may_tell() {
            tracing::error!(%why, "the {} cannot be written", self.kind.name);
        }
    }

    fn may_tell(&self) -> bool {
        self.told.is_none_or(|told| told.elapsed() >= BETWEEN_WORDS)
    }

    /// Says how many lines were lost, once in a while.
    fn tell(&mut self) {
        let untold = &self.shared.loss.untold;
        if untold.load(Ordering::Relaxed) > 0 && self.may_tell() {
            let lines = untold.swap(0, Ordering::Relaxed);
            tracing::error!(lines, "lines of the {} are lost", self.kind.name);
            self.told = Some(Instant::now());
        }
    }
}

enum Waited {
    On,
    /// There is another output.
    Switched,
    InVain,
}

/// Waits for lines, lets more gather for a moment, and takes them all.
fn next_batch(shared: &Shared, batch: &mut Vec<u8>) -> (Option<(Output, usize)>, bool) {
    let mut state = shared.state.lock();
    shared.wake.wait_while(&mut state, |s| s.lines.is_empty() && s.fresh.is_none() && !s.closed);
    shared.wake.wait_while_for(&mut state, |s| s.lines.len() < HURRY && s.fresh.is_none() && !s.closed, LINGER);
    std::mem::swap(&mut state.lines, batch);
    (state.fresh.take(), state.closed)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, OpenOptions},
        os::unix::fs::OpenOptionsExt as _,
        path::PathBuf,
    };

    use rustix::fs::OFlags;

    use super::*;

    static KIND: Kind = Kind { name: "log", thread: "log", capacity: 64 << 10, mode: 0o600 };

    fn loss() -> Arc<Loss> {
        Loss::new(IntCounter::new("lost", "lost").unwrap())
    }

    fn opened(path: &std::path::Path, current: Option<&Arc<Sink>>, loss: &Arc<Loss>) -> Arc<Sink> {
        Ready::open(Target::File(path.to_owned()), current, &KIND, loss).unwrap().apply()
    }

    #[test]
    fn lines_arrive_in_order_and_a_rotated_file_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let loss = loss();
        let sink = opened(&path, None, &loss);
        assert!(sink.push(b"one\n") && sink.push(b"two\n"));
        while std::fs::read_to_string(&path).unwrap() != "one\ntwo\n" {
            thread::yield_now();
        }
        std::fs::rename(&path, &rotated).unwrap();
        let again = opened(&path, Some(&sink), &loss);
        assert!(Arc::ptr_eq(&sink, &again));
        assert!(sink.push(b"three\n"));
        drop(again);
        Sink::finish(sink, Duration::from_secs(20));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "one\ntwo\n");
        assert_eq!(loss.counter.get(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_counted() {
        let loss = loss();
        let shared =
            Shared { state: Mutex::default(), wake: Condvar::new(), done: Condvar::new(), loss: Arc::clone(&loss) };
        let sink = Sink { target: Target::Stdout, kind: &KIND, shared: Arc::new(shared) };
        assert!(sink.push(&vec![b'x'; KIND.capacity]));
        assert!(!sink.push(b"x"));
        assert_eq!((loss.counter.get(), loss.take_unrecorded(), loss.take_unrecorded()), (1, 1, 0));
    }

    fn fifo(folder: &std::path::Path) -> PathBuf {
        let path = folder.join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    fn reader(path: &std::path::Path) -> File {
        OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path).unwrap()
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(folder.path());
        let loss = loss();
        assert!(Ready::open(Target::File(path.clone()), None, &KIND, &loss).is_err(), "without a reader");
        let _reader = reader(&path);
        let sink = opened(&path, None, &loss);
        let pushed = fill(&sink, &[&[b'x'; 1023][..], b"\n"].concat());
        let refused = loss.counter.get();
        let began = Instant::now();
        Sink::finish(sink, Duration::from_mins(1));
        let took = began.elapsed();
        assert!(took >= GRACE && took < Duration::from_secs(50), "{took:?}: the writer has given up");
        // The pipe has taken 64 KiB.
        let lost = loss.counter.get() - refused;
        assert!(lost >= pushed - 65, "{lost} of {pushed}: those that were waiting are lost too");
    }

    /// Pushes lines until one load fits the pipe, one is in the writer's hand, and one waits; how many they were.
    fn fill(sink: &Sink, line: &[u8]) -> u64 {
        let mut pushed = 0;
        for load in 0..3 {
            while sink.push(line) {
                pushed += 1;
            }
            while load < 2 && !sink.shared.state.lock().lines.is_empty() {
                thread::yield_now();
            }
        }
        pushed
    }

    #[test]
    fn a_full_pipe_is_left_for_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = fifo(folder.path());
        let loss = loss();
        let _reader = reader(&path);
        let sink = opened(&path, None, &loss);
        let line = [&[b'x'; 99][..], b"\n"].concat();
        fill(&sink, &line);
        std::fs::remove_file(&path).unwrap();
        drop(opened(&path, Some(&sink), &loss));
        Sink::finish(sink, Duration::from_secs(20));
        let text = std::fs::read(&path).unwrap();
        assert!(text.len() > KIND.capacity - 1000, "{}", text.len());
        assert!(text.split_inclusive(|&b| b == b'\n').all(|found| found == line), "only whole lines");
    }

    #[test]
    fn lines_that_a_target_refuses_are_counted() {
        let loss = loss();
        let sink = opened(std::path::Path::new("/dev/full"), None, &loss);
        assert!(sink.push(b"one\ntwo\n"));
        Sink::finish(sink, Duration::from_secs(20));
        assert_eq!(loss.counter.get(), 2);
    }
}
