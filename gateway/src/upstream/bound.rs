//! Until when something is waited for, and what it means when that has passed.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use crossway_plugin_api::Fault;
use futures_util::FutureExt as _;

/// The end of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// When.
    pub at: Instant,
    of: Of,
}

/// What is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Request,
    Attempt,
    Header,
}

impl Bound {
    /// Of the whole request.
    pub fn request(at: Instant) -> Self {
        Self { at, of: Of::Request }
    }

    /// Of one attempt.
    pub(super) fn attempt(at: Instant) -> Self {
        Self { at, of: Of::Attempt }
    }

    /// Of the wait for the response header alone.
    pub(super) fn header(at: Instant) -> Self {
        Self { at, of: Of::Header }
    }

    /// The sooner of two.
    #[must_use]
    pub(super) fn or(self, other: Self) -> Self {
        if other.at < self.at { other } else { self }
    }

    /// What is left.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// What it means when it has passed.
    pub fn fault(&self) -> Fault {
        match self.of {
            Of::Request => Fault::Deadline,
            Of::Attempt => Fault::AttemptTimeout,
            Of::Header => Fault::UpstreamTimeout,
        }
    }

    /// Waits. No `async fn`, which would keep the work in memory twice.
    pub(super) fn within<T>(self, work: impl Future<Output = T>) -> impl Future<Output = Result<T, Fault>> {
        tokio::time::timeout_at(self.at.into(), work).map(move |done| done.map_err(|_| self.fault()))
    }
}
