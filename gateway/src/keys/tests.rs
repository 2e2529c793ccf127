//! Keys over a store in a file; what a server does is tried from outside.

use std::collections::BTreeMap;

use prometheus::{IntCounterVec, IntGaugeVec, Opts};

use super::*;
use crate::store::{self, local::Place};

struct Fixture {
    keys: Arc<Keys>,
    clock: Clock,
    consumers: ConsumerDirectory,
    stores: Stores,
    _folder: Option<tempfile::TempDir>,
}

const PLAN: Plan = Plan { store: StoreKind::Local, most: 5 };

fn stores(path: &std::path::Path) -> Stores {
    let plan =
        store::Plan { local: Some(Place { path: path.join("store"), max_size: 64 << 20 }), ..store::Plan::default() };
    let errors = IntCounterVec::new(Opts::new("errors", "errors"), &["store"]).unwrap();
    let up = IntGaugeVec::new(Opts::new("up", "up"), &["store"]).unwrap();
    Stores::new(&plan, &errors, &up).unwrap()
}

async fn open(path: &std::path::Path, clock: &Clock) -> Fixture {
    let stores = stores(path);
    let keys = Arc::new(Keys::new(clock.clone()));
    let tasks = Tasks::default();
    keys.open(PLAN, &stores, &tasks, Duration::ZERO).await.unwrap();
    let mut consumers = ConsumerDirectory::default();
    consumers.add(&Arc::new(Consumer::new("acme", &[], BTreeMap::new()).unwrap()));
    Fixture { keys, clock: clock.clone(), consumers, stores, _folder: None }
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let made = open(folder.path(), &Clock::fixed(Duration::from_secs(1_000_000))).await;
    Fixture { _folder: Some(folder), ..made }
}

impl Fixture {
    fn asks(&self, text: &str) -> Result<&str, NoHolder> {
        let holder = self.keys.holder(text.as_bytes(), &format::sha256(text.as_bytes()), &self.consumers);
        holder.map(|consumer| consumer.name())
    }

    async fn create(&self, consumer: &str, lifetime: Option<u64>) -> Result<(Shown, String), KeyError> {
        let lifetime = lifetime.map(Duration::from_secs);
        self.keys.create(Wanted { consumer: consumer.into(), label: None, lifetime }).await
    }

    async fn listed(&self) -> Vec<Shown> {
        let filter = Filter { most: 100, ..Filter::default() };
        self.keys.list(&filter, &self.consumers).await.unwrap().keys
    }
}

#[tokio::test]
async fn a_key_is_good_until_it_ends() {
    let made = fixture().await;
    let (shown, text) = made.create("acme", Some(60)).await.unwrap();
    assert_eq!(made.asks(&text), Ok("acme"));
    assert_eq!((shown.state, shown.last_used, shown.expires), (State::Active, None, Some(1_000_060)));
    assert_eq!(made.listed().await[0].last_used, Some(1_000_000));
    made.clock.advance(Duration::from_secs(59));
    assert_eq!(made.asks(&text), Ok("acme"));
    made.clock.advance(Duration::from_secs(1));
    assert_eq!(made.asks(&text), Err(NoHolder::Refused("the key has expired")));
    assert_eq!(made.listed().await[0].state, State::Expired);
    assert_eq!(made.listed().await[0].last_used, Some(1_000_059), "a refused use is none");
}

#[tokio::test]
async fn a_replaced_key_is_good_for_the_overlap_only() {
    let made = fixture().await;
    let (old, old_text) = made.create("acme", Some(1000)).await.unwrap();
    made.clock.advance(Duration::from_secs(100));
    let (new, new_text) = made.keys.rotate(&old.id, Duration::from_secs(50), None).await.unwrap();
    assert_eq!((made.asks(&old_text), made.asks(&new_text)), (Ok("acme"), Ok("acme")));
    assert_eq!(new.expires, Some(1_000_100 + 1000), "the whole lifetime again");
    let again = made.keys.rotate(&old.id, Duration::ZERO, None).await;
    assert_eq!(again.unwrap_err(), KeyError::Replaced);
    made.clock.advance(Duration::from_secs(50));
    assert_eq!(made.asks(&old_text), Err(NoHolder::Refused("the key has expired")));
    assert_eq!(made.asks(&new_text), Ok("acme"));
    assert_eq!(made.keys.rotate(&old.id, Duration::ZERO, None).await.unwrap_err(), KeyError::Ended);
    // An overlap makes no key live longer than it was meant to.
    let (short, _) = made.create("acme", Some(10)).await.unwrap();
    let lifetime = Some(Duration::from_secs(5));
    let (next, _) = made.keys.rotate(&short.id, Duration::from_secs(99), lifetime).await.unwrap();
    let listed = made.listed().await;
    let found = listed.iter().find(|key| key.id == short.id).unwrap();
    assert_eq!((found.expires, found.replaced_by.as_ref()), (short.expires, Some(&next.id)));
    assert_eq!(next.expires, Some(made.clock.unix() + 5));
}

#[tokio::test]
async fn a_revoked_key_stays_so_and_a_strangers_is_none() {
    let made = fixture().await;
    let (key, text) = made.create("acme", None).await.unwrap();
    made.keys.revoke(&key.id).await.unwrap();
    assert_eq!(made.asks(&text), Err(NoHolder::Refused("the key is revoked")));
    made.clock.advance(Duration::from_secs(9));
    assert_eq!(made.keys.revoke(&key.id).await.unwrap().revoked, Some(1_000_000), "the first time counts");
    assert_eq!(made.keys.revoke("abcdefghijkl").await.unwrap_err(), KeyError::Unknown);
    let (_, text) = made.create("stranger", None).await.unwrap();
    assert_eq!(made.asks(&text), Err(NoHolder::Refused("the key's consumer is gone")));
    assert!(made.listed().await.iter().any(|key| key.state == State::NoConsumer));
    assert!(matches!(made.asks("cw_abcdefghijkl_x"), Err(NoHolder::Refused(_))));
}

#[tokio::test]
async fn there_are_only_so_many_keys_and_old_ones_are_forgotten() {
    let made = fixture().await;
    for _ in 0..PLAN.most {
        made.create("acme", Some(10)).await.unwrap();
    }
    assert_eq!(made.create("acme", None).await.unwrap_err(), KeyError::TooMany);
    let id = made.listed().await[0].id.clone();
    made.keys.revoke(&id).await.unwrap();
    made.clock.advance(record::RETENTION + Duration::from_secs(10));
    made.keys.forget(made.keys.open.get().unwrap()).await;
    assert_eq!(made.keys.count(), 0);
    made.create("acme", None).await.unwrap();
}

#[tokio::test]
async fn what_is_kept_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(Duration::from_secs(1_000_000));
    let made = open(folder.path(), &clock).await;
    let (_, text) = made.create("acme", None).await.unwrap();
    let (revoked, revoked_text) = made.create("acme", None).await.unwrap();
    made.keys.revoke(&revoked.id).await.unwrap();
    made.asks(&text).unwrap();
    made.keys.keep_uses().await;
    made.stores.local.as_ref().unwrap().release();
    assert_eq!(made.asks(&text), Ok("acme"), "memory needs no store");
    assert_eq!(made.create("acme", None).await.unwrap_err(), KeyError::Store(StoreError::Released));
    let next = open(folder.path(), &clock).await;
    assert_eq!((next.asks(&text), next.asks(&revoked_text).is_err()), (Ok("acme"), true));
    assert!(next.listed().await.iter().any(|key| key.last_used == Some(1_000_000)));
    // The next one goes, and has changed something meanwhile.
    let id = next.listed().await.into_iter().find(|key| key.state == State::Active).unwrap().id;
    next.keys.revoke(&id).await.unwrap();
    next.stores.local.as_ref().unwrap().release();
    made.stores.local.as_ref().unwrap().take_back();
    made.keys.read(made.keys.open.get().unwrap()).await.unwrap();
    assert_eq!(made.asks(&text), Err(NoHolder::Refused("the key is revoked")));
    made.create("acme", None).await.unwrap();
}

/// Whether the file has the key as revoked.
async fn is_revoked_in_file(made: &Fixture, id: &str) -> bool {
    let id = id.to_owned();
    let store = made.stores.local.as_ref().unwrap();
    let text = store.read(move |file| Ok(file.open_table(local::KEYS)?.get(&*id)?.unwrap().value().to_vec()));
    String::from_utf8(text.await.unwrap()).unwrap().contains("revoked")
}

#[tokio::test]
async fn a_change_that_nobody_waited_for_is_seen_all_the_same() {
    for _ in 0..100 {
        let made = fixture().await;
        let (key, text) = made.create("acme", None).await.unwrap();
        {
            let revoking = made.keys.revoke(&key.id);
            tokio::pin!(revoking);
            assert!(futures_util::poll!(&mut revoking).is_pending(), "it waits for the store");
        }
        // Comes after what is under way.
        made.stores.local.as_ref().unwrap().write(|_| Ok(())).await.unwrap();
        if is_revoked_in_file(&made, &key.id).await {
            made.keys.read(made.keys.open.get().unwrap()).await.unwrap();
            assert_eq!(made.asks(&text), Err(NoHolder::Refused("the key is revoked")));
            return;
        }
    }
    panic!("no change was given up at the right moment");
}

#[tokio::test]
async fn without_a_store_there_are_no_keys() {
    let keys = Keys::new(Clock::default());
    let wanted = Wanted { consumer: "acme".into(), label: None, lifetime: None };
    assert_eq!(keys.create(wanted).await.unwrap_err(), KeyError::Off);
    let text = format::fresh().unwrap().text;
    let consumers = ConsumerDirectory::default();
    let found = keys.holder(text.as_bytes(), &format::sha256(text.as_bytes()), &consumers);
    assert_eq!(found.unwrap_err(), NoHolder::Refused("no such key"));
}
