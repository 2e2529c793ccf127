//! What outlives a plugin.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

type Kept = HashMap<(TypeId, String), Weak<dyn Any + Send + Sync>>;

/// State that survives a reload: found again by its type and a key, for as long as some plugin holds it. The key says all
/// that would make it another state: the route or the plugin's `id`, and the settings that it depends on.
#[derive(Clone, Default)]
pub struct SharedState(Arc<Mutex<Kept>>);

impl SharedState {
    /// The state of this type and key, made now if nobody holds one.
    pub fn get_or_make<T: Any + Send + Sync>(&self, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (TypeId::of::<T>(), key.to_owned());
        let held = kept.get(&name).and_then(Weak::upgrade).and_then(|state| state.downcast::<T>().ok());
        if let Some(state) = held {
            return state;
        }
        let state = Arc::new(make());
        kept.retain(|_, state| state.strong_count() > 0);
        let weak: Weak<T> = Arc::downgrade(&state);
        kept.insert(name, weak);
        state
    }
}

impl fmt::Debug for SharedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedState")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_found_again_while_it_is_held() {
        let shared = SharedState::default();
        let first = shared.get_or_make("a", || 1_u32);
        assert_eq!(*shared.get_or_make("a", || 2_u32), 1);
        assert_eq!(*shared.get_or_make("b", || 3_u32), 3);
        assert_eq!(*shared.get_or_make("a", || 4_u64), 4, "another type is another state");
        drop(first);
        assert_eq!(*shared.get_or_make("a", || 5_u32), 5);
    }
}
