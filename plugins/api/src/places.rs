//! A bounded number of places, and a bounded queue before them.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// How many may be in at a time, and how many more may wait for how long. Comes with each that wants in, because a reload
/// may change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Places.
    pub most: usize,
    /// How many may wait for one.
    pub queue: usize,
    /// How long each of them may wait.
    pub patience: Duration,
}

/// Places that are taken and given back. Whoever has none may wait for one, in a queue: first come, first served.
///
/// What holds at all times: nobody waits who could go in. So whoever finds a place may take it, and overtakes nobody.
#[derive(Debug, Default)]
pub struct Places(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    taken: usize,
    waiting: VecDeque<Waiter>,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    /// There were to be so many places when it came.
    most: usize,
    tell: oneshot::Sender<()>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// As many wait as may wait.
    Full,
    /// None came free in time.
    Late,
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "there is no place in the queue",
            Self::Late => "no place came free in time",
        })
    }
}

/// A place; given back when dropped.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub struct Place(Arc<Places>);

impl Place {
    /// Whether it is one of these.
    pub fn is_of(&self, places: &Arc<Places>) -> bool {
        Arc::ptr_eq(&self.0, places)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().leave();
    }
}

impl Places {
    /// A place, if one is free.
    pub fn try_enter(self: &Arc<Self>, most: usize) -> Option<Place> {
        self.lock().take(most).then(|| Place(Arc::clone(self)))
    }

    /// A place, as soon as one is free. Waits no longer than the room allows, and not beyond `until`. Gives its place in the
    /// queue up when dropped.
    pub async fn enter(self: &Arc<Self>, room: &Room, until: Option<Instant>) -> Result<Place, NoPlace> {
        let (mut waiting, told) = {
            let mut state = self.lock();
            if state.take(room.most) {
                return Ok(Place(Arc::clone(self)));
            }
            if state.waiting.len() >= room.queue {
                return Err(NoPlace::Full);
            }
            let (tell, told) = oneshot::channel();
            let number = state.next;
            state.next += 1;
            state.waiting.push_back(Waiter { number, most: room.most, tell });
            (Waiting { places: self, number: Some(number) }, told)
        };
        let patience = tokio::time::Instant::now() + room.patience;
        let until = until.map_or(patience, |until| patience.min(until.into()));
        match tokio::time::timeout_at(until, told).await {
            Ok(Ok(())) => {
                waiting.number = None;
                Ok(Place(Arc::clone(self)))
            }
            _ => Err(NoPlace::Late),
        }
    }

    /// Places that are taken.
    pub fn taken(&self) -> usize {
        self.lock().taken
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, most: usize) -> bool {
        let is_free = self.taken < most;
        self.taken += usize::from(is_free);
        is_free
    }

    /// Gives a place back, to the first that can use it.
    fn leave(&mut self) {
        self.taken -= 1;
        let Some(first) = self.waiting.iter().position(|waiter| self.taken < waiter.most) else { return };
        if let Some(waiter) = self.waiting.remove(first) {
            self.taken += 1;
            // Where nobody listens any more, `Waiting` is about to give the place back.
            let _ = waiter.tell.send(());
        }
    }
}

/// Somebody who waits; leaves the queue when dropped.
struct Waiting<'a> {
    places: &'a Arc<Places>,
    /// Its number in the queue; `None` once it has its place.
    number: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut state = self.places.lock();
        match state.waiting.binary_search_by_key(&number, |waiter| waiter.number) {
            Ok(at) => drop(state.waiting.remove(at)),
            // It was given a place that it does not know of.
            Err(_) => state.leave(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    fn room(most: usize, queue: usize) -> Room {
        Room { most, queue, patience: LONG }
    }

    /// Lets everybody else go on as far as they can.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    fn enter(places: &Arc<Places>, room: Room) -> tokio::task::JoinHandle<Result<Place, NoPlace>> {
        let places = Arc::clone(places);
        tokio::spawn(async move { places.enter(&room, None).await })
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_there_are_and_first_come_first_served() {
        let places = Arc::new(Places::default());
        let held = places.enter(&room(1, 2), None).await.unwrap();
        assert!(places.try_enter(1).is_none());
        let first = enter(&places, room(1, 2));
        settle().await;
        let second = enter(&places, room(1, 2));
        settle().await;
        assert_eq!(places.enter(&room(1, 2), None).await.err(), Some(NoPlace::Full));
        assert_eq!((places.taken(), places.waiting()), (1, 2));
        drop(held);
        let held = first.await.unwrap().unwrap();
        settle().await;
        assert!(!second.is_finished() && places.taken() == 1);
        drop(held);
        drop(second.await.unwrap().unwrap());
        assert_eq!((places.taken(), places.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_goes_and_leaves_nothing_behind() {
        let places = Arc::new(Places::default());
        let held = places.try_enter(1).unwrap();
        let began = tokio::time::Instant::now();
        let short = Room { patience: Duration::from_millis(50), ..room(1, 1) };
        assert_eq!(places.enter(&short, None).await.err(), Some(NoPlace::Late));
        assert_eq!(began.elapsed(), Duration::from_millis(50));
        let until = Some((tokio::time::Instant::now() + Duration::from_millis(20)).into_std());
        assert_eq!(places.enter(&short, until).await.err(), Some(NoPlace::Late));
        assert!(began.elapsed() < Duration::from_millis(75));
        assert_eq!((places.taken(), places.waiting()), (1, 0));
        drop(held);
        assert_eq!(places.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_while_it_waits_takes_no_place_with_it() {
        let places = Arc::new(Places::default());
        let held = places.try_enter(1).unwrap();
        let gone = enter(&places, room(1, 2));
        settle().await;
        let stays = enter(&places, room(1, 2));
        settle().await;
        gone.abort();
        settle().await;
        assert_eq!(places.waiting(), 1);
        drop(held);
        drop(stays.await.unwrap().unwrap());

        // It goes when it has been told, and has not heard it yet.
        let held = places.try_enter(1).unwrap();
        let gone = enter(&places, room(1, 2));
        settle().await;
        let stays = enter(&places, room(1, 2));
        settle().await;
        drop(held);
        gone.abort();
        drop(stays.await.unwrap().unwrap());
        assert_eq!((places.taken(), places.waiting()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn each_goes_by_the_room_it_came_with() {
        let places = Arc::new(Places::default());
        let mut held: Vec<Place> = (0..3).map_while(|_| places.try_enter(3)).collect();
        let small = enter(&places, room(1, 5));
        settle().await;
        let large = places.enter(&room(4, 5), None).await.unwrap();
        let middle = enter(&places, room(3, 5));
        settle().await;
        drop(large);
        settle().await;
        assert!(!middle.is_finished(), "three are in");
        held.pop();
        let middle = middle.await.unwrap().unwrap();
        drop((held, middle));
        drop(small.await.unwrap().unwrap());
        assert_eq!((places.taken(), places.waiting()), (0, 0));
    }

    /// Takes a place again and again; counts those who are inside, and the most there ever were.
    async fn come_and_go(places: Arc<Places>, (inside, most): (Arc<AtomicUsize>, Arc<AtomicUsize>), number: u64) {
        for turn in 0..200_u64 {
            let patience = Duration::from_micros((number * 31 + turn * 17) % 300);
            let place = places.enter(&Room { most: 3, queue: 20, patience }, None).await;
            if place.is_err() {
                continue;
            }
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn whatever_happens_there_are_never_too_many_and_none_is_lost() {
        let places = Arc::new(Places::default());
        let (inside, most_seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let client = |number| come_and_go(Arc::clone(&places), (Arc::clone(&inside), Arc::clone(&most_seen)), number);
        let clients: Vec<_> = (0..64).map(|number| tokio::spawn(client(number))).collect();
        for client in clients {
            client.await.unwrap();
        }
        assert_eq!(most_seen.load(Ordering::SeqCst), 3);
        assert_eq!((places.taken(), places.waiting()), (0, 0));
    }
}
