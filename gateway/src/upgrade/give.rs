//! The old process's side.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::Notify,
    task::JoinHandle,
};

use super::{END, Exclusive, GO, GONE, GREETING, NEXT, RELEASE, RELEASED, socket, wire::Wire};
use crate::{front::listeners::Listeners, gateway::Gateway};

/// A listening socket of something other than the data plane, kept to be passed on.
pub struct Spare {
    /// What it is for, and its address as configured, with a space between.
    pub name: String,
    /// Another descriptor of it.
    pub descriptor: OwnedFd,
}

/// Waits for a new process, and gives it what it needs.
pub struct Giver {
    gateway: Arc<Gateway>,
    listeners: Arc<Listeners>,
    exclusive: Arc<Exclusive>,
    spares: Vec<Spare>,
    gone: Notify,
}

impl Giver {
    /// What there is to give.
    pub fn new(
        gateway: Arc<Gateway>,
        listeners: Arc<Listeners>,
        exclusive: Arc<Exclusive>,
        spares: Vec<Spare>,
    ) -> Arc<Self> {
        Arc::new(Self { gateway, listeners, exclusive, spares, gone: Notify::new() })
    }

    /// Listens for new processes. Errors: the socket cannot be bound, or is that of a process that is running.
    pub fn listen(self: &Arc<Self>, path: &Path) -> io::Result<JoinHandle<()>> {
        let listener = UnixListener::from_std(socket::bind(path)?)?;
        let giver = Arc::clone(self);
        Ok(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let giver = Arc::clone(&giver);
                tokio::task::spawn_blocking(move || giver.serve(stream));
            }
        }))
    }

    /// Resolves when a new process has taken over.
    pub async fn gone(&self) {
        self.gone.notified().await;
    }

    fn serve(&self, stream: UnixStream) {
        let talked = stream.into_std().and_then(Wire::new).and_then(|wire| self.talk(&wire));
        if let Err(error) = talked {
            tracing::warn!(%error, "an upgrade broke off; this process serves on");
        }
    }

    fn talk(&self, wire: &Wire) -> io::Result<()> {
        wire.expect(GREETING)?;
        let under_way = &self.gateway.handing_over;
        if self.gateway.is_draining() {
            return wire.say("it is draining", None);
        }
        if under_way.swap(true, Ordering::AcqRel) {
            return wire.say("an upgrade is under way", None);
        }
        let _under_way = UnderWay(under_way);
        tracing::info!("a new process takes over");
        self.give_sockets(wire)?;
        wire.expect(RELEASE)?;
        // What the next process reads is to be the newest there is. This is a thread of its own, which may wait.
        tokio::runtime::Handle::current().block_on(self.gateway.keys.keep_uses());
        let back = TakeBack(&self.exclusive);
        self.exclusive.release();
        wire.say(RELEASED, None)?;
        wire.expect(GO)?;
        // From here on the new process has everything.
        std::mem::forget(back);
        self.gateway.readiness.set_draining();
        wire.say(GONE, None)?;
        self.gone.notify_one();
        Ok(())
    }

    fn give_sockets(&self, wire: &Wire) -> io::Result<()> {
        let mut sockets = Vec::new();
        for (address, socket) in self.listeners.duplicates()? {
            sockets.push((format!("listener {address}"), OwnedFd::from(socket)));
        }
        for spare in &self.spares {
            sockets.push((spare.name.clone(), spare.descriptor.try_clone()?));
        }
        for (name, descriptor) in sockets {
            wire.say(&name, Some(descriptor.as_fd()))?;
            wire.expect(NEXT)?;
        }
        wire.say(END, None)
    }
}

/// An upgrade is under way until this is dropped.
struct UnderWay<'a>(&'a AtomicBool);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Takes back what was released, if the new process does not come to take over.
struct TakeBack<'a>(&'a Exclusive);

impl Drop for TakeBack<'_> {
    fn drop(&mut self) {
        // The new process holds it until it has ended; one that only hangs is cut off by its own deadline.
        for _ in 0..500 {
            match self.0.try_take() {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::park_timeout(std::time::Duration::from_millis(10));
                }
                Err(error) => return tracing::error!(%error, "what was released cannot be taken back"),
            }
        }
        tracing::error!("what was released is held by another process");
    }
}
