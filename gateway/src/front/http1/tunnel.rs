//! A connection that has become a WebSocket (RFC 6455): frames both ways, an idle time of its own, and a word of farewell.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pingora_core::server::ShutdownWatch;

use super::frames::Frames;
use crate::front::alarm::Alarm;

/// Close frame with code 1001, "going away" (RFC 6455, section 7.4.1), as a server sends it.
pub(super) const FAREWELL: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];
/// The same as a client sends it, under a mask of zeros.
pub(super) const CLIENT_FAREWELL: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE9];
/// How long a client may take to answer a farewell.
const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Not wanted.
    No,
    /// As soon as a frame ends; so many bytes of the farewell are written.
    Wanted(usize),
    /// The client has been told, and has until then to hang up.
    Told(Instant),
}

/// See the module's documentation.
pub(super) struct Tunnel {
    idle: Duration,
    moved: Instant,
    alarm: Alarm,
    /// In a mutex only to be `Sync`: nobody else ever locks it.
    stop: Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>,
    pub(super) to_client: Frames,
    pub(super) from_client: Frames,
    pub(super) leaving: Leaving,
    /// The upstream has been told.
    pub(super) upstream_told: bool,
}

impl Tunnel {
    /// A tunnel that begins with the header of the switch on its way to the client.
    pub(super) fn new(idle: Duration, mut stop: ShutdownWatch) -> Self {
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        Self {
            idle,
            moved: Instant::now(),
            alarm: Alarm::default(),
            stop: Mutex::new(Box::pin(stopped)),
            to_client: Frames::after_header(),
            from_client: Frames::new(),
            leaving: Leaving::No,
            upstream_told: false,
        }
    }

    /// Bytes have moved, one way or the other.
    pub(super) fn moved(&mut self) {
        self.moved = Instant::now();
    }

    /// Looks whether it is time to leave: the gateway stops, or nothing has moved for too long. Wakes the task when it is.
    pub(super) fn poll_leave(&mut self, cx: &mut Context<'_>) {
        if self.leaving == Leaving::No {
            let stopped = self.stop.get_mut().as_mut().poll(cx).is_ready();
            if stopped || self.alarm.has_passed(cx, self.moved + self.idle) {
                self.leaving = Leaving::Wanted(0);
            }
        }
    }

    /// The client has been told.
    pub(super) fn told(&mut self) {
        self.leaving = Leaving::Told(Instant::now() + FAREWELL_TIME);
    }

    /// Whether a client that was told has had its time.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        match self.leaving {
            Leaving::Told(until) => self.alarm.has_passed(cx, until),
            _ => false,
        }
    }
}

/// Turns the end of a write into what is left to do.
pub(super) fn progress(polled: Poll<std::io::Result<usize>>) -> Result<Option<usize>, std::io::Error> {
    match polled {
        Poll::Ready(Ok(0)) => Err(std::io::ErrorKind::WriteZero.into()),
        Poll::Ready(Ok(written)) => Ok(Some(written)),
        Poll::Ready(Err(error)) => Err(error),
        Poll::Pending => Ok(None),
    }
}
