//! Bulkheads: how many requests an upstream has at a time, so that one that hangs does not take the gateway with it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossway_plugin_api::{Fault, NoPlace, Place, Places, Room};

use super::Upstream;
use crate::telemetry::bulkheads::BulkheadMetrics;

/// How many requests an upstream may have, and those that it has. The count outlives configurations.
pub struct Bulkhead {
    /// Bounds of this configuration.
    pub room: Room,
    /// What is taken, whatever configuration took it.
    pub places: Arc<Places>,
    /// Counters.
    pub metrics: BulkheadMetrics,
}

/// The place that a request holds at its upstream, over all attempts and the waits between them.
#[derive(Default)]
pub struct Hold(Option<Place>);

impl Hold {
    /// Takes a place, unless it is held already; how long that took. Where the upstream is another than before, as after a
    /// fallback, the old place is given back.
    pub async fn take(&mut self, upstream: &Upstream, until: Instant) -> Result<Duration, Fault> {
        let Some(Bulkhead { room, places, metrics }) = &upstream.bulkhead else {
            self.0 = None;
            return Ok(Duration::ZERO);
        };
        if self.0.as_ref().is_some_and(|place| place.is_of(places)) {
            return Ok(Duration::ZERO);
        }
        self.0 = places.try_enter(room.most);
        if self.0.is_some() {
            return Ok(Duration::ZERO);
        }
        let began = Instant::now();
        match places.enter(room, Some(until)).await {
            Ok(place) => {
                metrics.queued.inc();
                self.0 = Some(place);
                Ok(began.elapsed())
            }
            Err(NoPlace::Late) if Instant::now() >= until => {
                metrics.late.inc();
                Err(Fault::Deadline)
            }
            Err(why) => {
                match why {
                    NoPlace::Full => metrics.full.inc(),
                    NoPlace::Late => metrics.late.inc(),
                }
                Err(Fault::Busy(why))
            }
        }
    }
}
