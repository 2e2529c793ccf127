//! An upstream that holds what it is told to hold, and counts what it has at a time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{Answer, PATIENCE, Upstream};

/// Requests for `/hold...` wait until they are let go; others are answered at once with their target.
pub struct Gate {
    upstream: Upstream,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    inside: AtomicUsize,
    most: AtomicUsize,
    open: AtomicUsize,
    order: Mutex<Vec<String>>,
}

impl Gate {
    pub fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let upstream = {
            let shared = Arc::clone(&shared);
            Upstream::start(move |request| {
                shared.most.fetch_max(shared.inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                shared.order.lock().unwrap().push(request.target.clone());
                if request.target.starts_with("/hold") {
                    shared.wait();
                }
                shared.inside.fetch_sub(1, Ordering::SeqCst);
                Answer::ok(&request.target)
            })
        };
        Self { upstream, shared }
    }

    pub fn address(&self) -> &str {
        self.upstream.address()
    }

    /// Requests there now.
    pub fn inside(&self) -> usize {
        self.shared.inside.load(Ordering::SeqCst)
    }

    /// Most requests that were there at a time.
    pub fn most(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    /// The targets, in the order they came.
    pub fn order(&self) -> Vec<String> {
        self.shared.order.lock().unwrap().clone()
    }

    /// Lets so many go that are held, or will be.
    pub fn let_go(&self, count: usize) {
        self.shared.open.fetch_add(count, Ordering::SeqCst);
    }
}

impl Shared {
    fn wait(&self) {
        let began = std::time::Instant::now();
        while began.elapsed() < PATIENCE {
            let one = self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| open.checked_sub(1));
            if one.is_ok() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.let_go(usize::MAX / 2);
    }
}
