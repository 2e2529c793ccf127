//! What operators do with keys: issue, list, rotate, revoke.

use std::{sync::Arc, time::Duration};

use crossway_plugin_api::ConsumerDirectory;

use super::{
    Keys, NoRandom, Open, format,
    kept::{Change, NotMade},
    record::{Ended, Issued, Record},
};
use crate::store::StoreError;

/// A key that somebody wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Whose it shall be; the caller has checked that there is such a consumer.
    pub consumer: String,
    /// What its owner calls it.
    pub label: Option<String>,
    /// How long it shall be good; for ever without.
    pub lifetime: Option<Duration>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no store for keys.
    #[error("no store for keys is configured")]
    Off,
    /// There is no key of this id.
    #[error("there is no such key")]
    Unknown,
    /// The key has expired or is revoked.
    #[error("the key has ended")]
    Ended,
    /// The key has been replaced already.
    #[error("the key has been replaced already")]
    Replaced,
    /// Somebody else has changed the key at the same time.
    #[error("the key has changed meanwhile")]
    Changed,
    /// There are as many keys as there may be.
    #[error("there are as many keys as there may be")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No key could be made.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// What a key is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Good.
    Active,
    /// Its time is over.
    Expired,
    /// Taken back.
    Revoked,
    /// The configuration has no such consumer.
    NoConsumer,
}

/// A key as operators see it. All times are seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its public part.
    pub id: String,
    /// Whose it is.
    pub consumer: String,
    /// What its owner calls it.
    pub label: Option<String>,
    /// What it is worth.
    pub state: State,
    /// When it was made.
    pub created: u64,
    /// When it ends.
    pub expires: Option<u64>,
    /// When it was revoked.
    pub revoked: Option<u64>,
    /// When it was last used, on any gateway as far as the store knows.
    pub last_used: Option<u64>,
    /// The key that has come in its place.
    pub replaced_by: Option<String>,
}

/// Which keys to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those of this consumer.
    pub consumer: Option<String>,
    /// Only those with a later id.
    pub after: String,
    /// At most so many.
    pub most: usize,
}

/// Some keys, by id.
#[derive(Debug)]
pub struct Page {
    /// The keys.
    pub keys: Vec<Shown>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

impl Keys {
    /// Makes a key. The text is in no other place from now on.
    pub async fn create(&self, wanted: Wanted) -> Result<(Shown, String), KeyError> {
        let open = self.open.get().ok_or(KeyError::Off)?;
        let now = self.clock.unix();
        let fresh = format::fresh()?;
        let record = Record {
            sha256: format::sha256(fresh.text.as_bytes()),
            id: fresh.id.into(),
            consumer: wanted.consumer.into(),
            created: now,
            expires: wanted.lifetime.map(|lifetime| now.saturating_add(lifetime.as_secs())),
            revoked: None,
            label: wanted.label.map(Into::into),
            replaced_by: None,
        };
        let id = record.id.clone();
        self.change(open, |_| Ok(vec![Change { record, from: 0 }])).await?;
        tracing::info!(id = &*id, "an API key is made");
        Ok((self.shown(&id)?, fresh.text))
    }

    /// Makes a key in another one's place, which is good for `overlap` more at most. The new one is good as long as the old
    /// one was meant to be, counted from now, unless a lifetime is given.
    pub async fn rotate(
        &self,
        id: &str,
        overlap: Duration,
        lifetime: Option<Duration>,
    ) -> Result<(Shown, String), KeyError> {
        let open = self.open.get().ok_or(KeyError::Off)?;
        let now = self.clock.unix();
        let fresh = format::fresh()?;
        let (new_id, sha256) = (Box::<str>::from(fresh.id), format::sha256(fresh.text.as_bytes()));
        let made = |old: &Record| {
            let meant = old.expires.map(|expires| expires.saturating_sub(old.created));
            let seconds = lifetime.map(|lifetime| lifetime.as_secs()).or(meant);
            let expires = seconds.map(|seconds| now.saturating_add(seconds));
            Record { id: new_id.clone(), sha256, created: now, expires, ..old.clone() }
        };
        self.change(open, |keys| {
            let old = keys.usable(id, now)?;
            if old.record.replaced_by.is_some() {
                return Err(KeyError::Replaced);
            }
            let end = now.saturating_add(overlap.as_secs());
            let expires = Some(old.record.expires.map_or(end, |expires| expires.min(end)));
            let replaced = Record { expires, replaced_by: Some(new_id.clone()), ..old.record.clone() };
            Ok(vec![Change { record: made(&old.record), from: 0 }, Change { record: replaced, from: old.version }])
        })
        .await?;
        tracing::info!(id, by = &*new_id, "an API key is replaced");
        Ok((self.shown(&new_id)?, fresh.text))
    }

    /// Takes a key back, for ever. One that is revoked already stays so.
    pub async fn revoke(&self, id: &str) -> Result<Shown, KeyError> {
        let open = self.open.get().ok_or(KeyError::Off)?;
        let now = self.clock.unix();
        self.change(open, |keys| {
            let old = keys.table.named(id).ok_or(KeyError::Unknown)?;
            if old.record.revoked.is_some() {
                return Ok(Vec::new());
            }
            let record = Record { revoked: Some(now), ..old.record.clone() };
            Ok(vec![Change { record, from: old.version }])
        })
        .await?;
        tracing::info!(id, "an API key is revoked");
        self.shown(id)
    }

    /// Lists keys.
    pub async fn list(&self, filter: &Filter, consumers: &ConsumerDirectory) -> Result<Page, KeyError> {
        let open = self.open.get().ok_or(KeyError::Off)?;
        let wanted = |record: &Record| filter.consumer.as_deref().is_none_or(|consumer| *record.consumer == *consumer);
        let found = self.table.page(&filter.after, filter.most, wanted);
        let next = found.last().filter(|_| found.len() == filter.most).map(|issued| issued.record.id.to_string());
        let ids: Vec<Box<str>> = found.iter().map(|issued| issued.record.id.clone()).collect();
        // What other gateways know is of no use to wait for: without the store, this one's own knowledge is shown.
        let uses = if ids.is_empty() { Vec::new() } else { open.store.uses(&ids).await.unwrap_or_default() };
        let now = self.clock.unix();
        let keys = found.iter().enumerate().map(|(at, issued)| {
            let mut shown = show(issued, now);
            let elsewhere = uses.get(at).copied().filter(|used| *used > 0);
            shown.last_used = shown.last_used.max(elsewhere);
            if shown.state == State::Active && consumers.named(&shown.consumer).is_none() {
                shown.state = State::NoConsumer;
            }
            shown
        });
        Ok(Page { keys: keys.collect(), next })
    }

    /// The consumer of a key.
    pub fn consumer_of(&self, id: &str) -> Option<String> {
        self.table.named(id).map(|issued| issued.record.consumer.to_string())
    }

    /// Makes changes in the store, and then in the table. They are worked out on the newest state there is, one after
    /// another.
    async fn change(
        &self,
        open: &Open,
        work_out: impl FnOnce(&Self) -> Result<Vec<Change>, KeyError> + Send,
    ) -> Result<(), KeyError> {
        let mut seen = self.seen.lock().await;
        self.read_as(open, &mut seen).await?;
        let changes = work_out(self)?;
        if changes.is_empty() {
            return Ok(());
        }
        // If this is dropped on its way, or the store fails, nobody knows what is in a file: it is read again then. A
        // server says by itself what has changed.
        let epoch = open.is_local.then(|| std::mem::take(&mut seen.epoch));
        let written = open.store.write(&changes, open.most).await;
        if let Some(epoch) = epoch.filter(|_| !matches!(written, Err(NotMade::Store(_)))) {
            seen.epoch = epoch;
        }
        let versions = written.map_err(|error| match error {
            NotMade::Changed => KeyError::Changed,
            NotMade::TooMany => KeyError::TooMany,
            NotMade::Store(error) => KeyError::Store(error),
        })?;
        for (change, version) in changes.into_iter().zip(versions) {
            self.table.put(change.record, version, 0);
        }
        Ok(())
    }

    fn usable(&self, id: &str, now: u64) -> Result<Arc<Issued>, KeyError> {
        let issued = self.table.named(id).ok_or(KeyError::Unknown)?;
        if issued.record.ended(now).is_some() { Err(KeyError::Ended) } else { Ok(issued) }
    }

    fn shown(&self, id: &str) -> Result<Shown, KeyError> {
        Ok(show(&*self.table.named(id).ok_or(KeyError::Unknown)?, self.clock.unix()))
    }
}

fn show(issued: &Issued, now: u64) -> Shown {
    let record = &issued.record;
    Shown {
        id: record.id.to_string(),
        consumer: record.consumer.to_string(),
        label: record.label.as_deref().map(str::to_owned),
        state: match record.ended(now) {
            None => State::Active,
            Some(Ended::Expired) => State::Expired,
            Some(Ended::Revoked) => State::Revoked,
        },
        created: record.created,
        expires: record.expires,
        revoked: record.revoked,
        last_used: issued.last_used(),
        replaced_by: record.replaced_by.as_deref().map(str::to_owned),
    }
}
