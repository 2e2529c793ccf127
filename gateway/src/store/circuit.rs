//! Whether a server is known to be down. While it is, nobody waits for it; who follows it says when it is back.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Failures in a row, of a server that may only be slow, until it counts as down.
const FAILURES: u32 = 3;

/// Opens when the server fails, and is closed by who follows it.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    failures: AtomicU32,
    open: AtomicBool,
}

impl Circuit {
    /// Whether the server is known to be down.
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// It has done what it was asked.
    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// It has not; `broken` where the connection is no good. Whether it now counts as down, and did not before.
    pub(super) fn failed(&self, broken: bool) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        (broken || failures >= FAILURES) && !self.open.swap(true, Ordering::Relaxed)
    }

    /// It is back.
    pub(super) fn close(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.open.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_or_a_broken_connection_open_it_once() {
        let circuit = Circuit::default();
        assert!(!circuit.failed(false) && !circuit.failed(false));
        circuit.succeeded();
        assert!(!circuit.failed(false) && !circuit.failed(false) && !circuit.is_open());
        assert!(circuit.failed(false) && circuit.is_open());
        assert!(!circuit.failed(false) && !circuit.failed(true), "it is open already");
        circuit.succeeded();
        assert!(circuit.is_open(), "what was under way says nothing of what comes");
        circuit.close();
        assert!(!circuit.is_open() && !circuit.failed(false));
        assert!(circuit.failed(true) && circuit.is_open());
    }
}
