//! Leaving calmly: readiness off, no new connections, what is in flight finishes, and not a moment longer.

use std::{sync::Arc, time::Duration};

use crate::{front::listeners::Listeners, gateway::Gateway};

/// How long a connection may take from being accepted to being counted.
const SETTLE: Duration = Duration::from_millis(100);

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every connection ended by itself.
    Complete,
    /// The deadline came first; this many connections were cut.
    Cut(usize),
}

/// Says "not ready", waits, closes the listeners, and waits for the connections to end.
pub async fn drain(
    gateway: &Arc<Gateway>,
    listeners: &Listeners,
    readiness_delay: Duration,
    deadline: Duration,
) -> Drained {
    gateway.readiness.set_draining();
    tracing::info!(connections = gateway.connections.count(), ?readiness_delay, ?deadline, "draining");
    // For load balancers that still send. It is kept even with nobody connected: who is about to connect cannot be known.
    tokio::time::sleep(readiness_delay).await;
    listeners.close_all().await;
    tracing::info!("the listeners are closed");
    // A connection that was accepted last may not have been counted yet.
    tokio::time::sleep(SETTLE).await;
    match tokio::time::timeout(deadline, gateway.connections.none_left()).await {
        Ok(()) => Drained::Complete,
        Err(_) => Drained::Cut(gateway.connections.count()),
    }
}
