//! Bounds on the checking of passwords, which costs milliseconds of computing and megabytes of memory each time.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::Semaphore, task};

/// Most requests that are checked or wait for it.
const PLACES: usize = 128;
/// Most of them from one client, so that one that guesses leaves room for others.
const PER_CLIENT: usize = 16;

/// Where all requests of the process wait for a check of their password.
pub(super) struct Gate {
    running: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    all: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// There is no place for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

impl Default for Gate {
    /// Half of the processors compute hashes, so that the others serve.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { running: Arc::new(Semaphore::new((processors / 2).max(1))), waiting: Mutex::default() }
    }
}

impl Gate {
    /// Runs a check for this client when its turn comes; at most 128 wait, 16 of one client.
    pub(super) async fn run(
        &self,
        client: IpAddr,
        check: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<bool, Full> {
        let _place = self.take_place(client)?;
        let turn = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Full)?;
        let work = move || {
            // Held to the end of the work, even if nobody waits for it any more.
            let _turn = turn;
            check()
        };
        // A check that panics has not succeeded.
        Ok(task::spawn_blocking(work).await.unwrap_or(false))
    }

    fn take_place(&self, client: IpAddr) -> Result<Place<'_>, Full> {
        let mut waiting = self.waiting();
        let own = waiting.by_client.get(&client).copied().unwrap_or(0);
        if waiting.all >= PLACES || own >= PER_CLIENT {
            return Err(Full);
        }
        waiting.all += 1;
        waiting.by_client.insert(client, own + 1);
        Ok(Place { gate: self, client })
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue; given back when dropped.
struct Place<'g> {
    gate: &'g Gate,
    client: IpAddr,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.gate.waiting();
        waiting.all -= 1;
        if let Some(own) = waiting.by_client.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                waiting.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn client(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    /// Places that are taken, and clients that have one.
    fn taken(gate: &Gate) -> (usize, usize) {
        let waiting = gate.waiting();
        (waiting.all, waiting.by_client.len())
    }

    #[tokio::test]
    async fn a_check_runs_and_gives_its_place_back() {
        let gate = Gate::default();
        assert_eq!(gate.run(client(1), || true).await, Ok(true));
        assert_eq!(gate.run(client(1), || false).await, Ok(false));
        assert_eq!(gate.run(client(1), || panic!("a defect")).await, Ok(false));
        assert_eq!(taken(&gate), (0, 0));
    }

    #[tokio::test]
    async fn places_are_few_and_one_client_has_not_all_of_them() {
        let gate = Gate::default();
        let mut places: Vec<_> = (0..PER_CLIENT).map(|_| gate.take_place(client(1)).unwrap()).collect();
        assert_eq!(gate.run(client(1), || true).await, Err(Full));
        assert_eq!(gate.run(client(2), || true).await, Ok(true));
        for number in 2_u8.. {
            let Ok(place) = gate.take_place(client(number)) else { break };
            places.push(place);
        }
        assert_eq!(places.len(), PLACES);
        assert_eq!(gate.run(client(255), || true).await, Err(Full));
        places.clear();
        assert_eq!(gate.run(client(1), || true).await, Ok(true));
    }

    #[tokio::test]
    async fn a_request_that_goes_away_leaves_no_trace() {
        let gate = Gate::default();
        let turns = gate.running.available_permits();
        let held = Arc::clone(&gate.running).acquire_many_owned(u32::try_from(turns).unwrap()).await.unwrap();
        let mut waits = Box::pin(gate.run(client(1), || true));
        assert!((&mut waits).now_or_never().is_none());
        assert_eq!(gate.waiting().all, 1);
        drop(waits);
        assert_eq!(taken(&gate), (0, 0));
        drop(held);
        assert_eq!(gate.run(client(1), || true).await, Ok(true));
    }
}
