//! The keys that have requests in flight, and their places.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use crossway_plugin_api::{Ctx, Places};
use pingora_http::RequestHeader;

use crate::key::Parts;

const SHARDS: usize = 32;

/// All keys of one plugin. Those without a request are forgotten, so there are never more than requests in flight.
#[derive(Default)]
pub(super) struct Keys {
    shards: [Mutex<HashMap<u64, Weak<Key>>>; SHARDS],
    length: AtomicUsize,
    hashes: RandomState,
}

/// A key that has requests in flight, or that wait. Forgotten when nobody holds it any more.
pub(super) struct Key {
    pub(super) places: Arc<Places>,
    hash: u64,
    keys: Arc<Keys>,
}

impl Keys {
    /// What stands for a request's key: 64 bits, keyed at random, so that nobody can choose with whom to collide. `None` if
    /// the request lacks a part of it.
    pub(super) fn hash(&self, parts: &Parts, req: &RequestHeader, ctx: &Ctx) -> Option<u64> {
        let mut hasher = self.hashes.build_hasher();
        // Where the key itself has changed with a reload, nobody finds the places of another.
        parts.all.hash(&mut hasher);
        parts.hash(req, ctx, &mut hasher)?;
        Some(hasher.finish())
    }

    /// The key of this hash; `None` where it would be one more than `most`.
    pub(super) fn key(self: &Arc<Self>, hash: u64, most: usize) -> Option<Arc<Key>> {
        let mut shard = self.shard(hash);
        let known = shard.get(&hash);
        if let Some(key) = known.and_then(Weak::upgrade) {
            return Some(key);
        }
        if known.is_none() {
            if self.length.load(Ordering::Relaxed) >= most {
                return None;
            }
            self.length.fetch_add(1, Ordering::Relaxed);
        }
        let key = Arc::new(Key { places: Arc::default(), hash, keys: Arc::clone(self) });
        shard.insert(hash, Arc::downgrade(&key));
        Some(key)
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, HashMap<u64, Weak<Key>>> {
        let at = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let kept: usize = self.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert_eq!(kept, self.length.load(Ordering::Relaxed));
        kept
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let mut shard = self.keys.shard(self.hash);
        // Another may have come under the same hash since the last holder went.
        if shard.get(&self.hash).is_some_and(|key| key.strong_count() == 0) {
            shard.remove(&self.hash);
            self.keys.length.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded_and_forgotten() {
        let keys = Arc::new(Keys::default());
        let held: Vec<_> = (0..10).map(|hash| keys.key(hash, 10).unwrap()).collect();
        assert!(keys.key(10, 10).is_none());
        let again = keys.key(3, 10).unwrap();
        assert!(Arc::ptr_eq(&again, &held[3]));
        drop(held);
        assert_eq!(keys.len(), 1);
        let _place = again.places.try_enter(1).unwrap();
        assert!(keys.key(3, 1).unwrap().places.try_enter(1).is_none());
    }

    #[test]
    fn threads_that_come_and_go_leave_nothing() {
        let keys = Arc::new(Keys::default());
        let come_and_go = || {
            for turn in 0..20_000 {
                let key = keys.key(turn % 3, 100).unwrap();
                let place = key.places.try_enter(usize::MAX);
                assert!(place.is_some());
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(come_and_go))));
        assert_eq!(keys.len(), 0);
    }
}
