//! All keys in memory: what a request looks into.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use crossway_plugin_api::Digest256;
use parking_lot::RwLock;

use super::record::{Issued, Record};

/// Parts of the table with a lock of their own: a change keeps only the requests of one part waiting, for one insertion.
const PARTS: usize = 64;

/// Keys by the digest of their text, and by their id.
#[derive(Debug)]
pub(super) struct Table {
    parts: [RwLock<HashMap<Digest256, Arc<Issued>>>; PARTS],
    names: RwLock<Names>,
}

/// What only operators need; always locked before a part.
#[derive(Debug, Default)]
struct Names {
    by_id: BTreeMap<Box<str>, Arc<Issued>>,
    /// The names of consumers, each once.
    consumers: HashSet<Arc<str>>,
}

impl Default for Table {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| RwLock::default()), names: RwLock::default() }
    }
}

impl Table {
    fn part(&self, digest: &Digest256) -> &RwLock<HashMap<Digest256, Arc<Issued>>> {
        &self.parts[usize::from(digest.0[0]) % PARTS]
    }

    /// The key whose text has this digest.
    pub(super) fn find(&self, digest: &Digest256) -> Option<Arc<Issued>> {
        self.part(digest).read().get(digest).map(Arc::clone)
    }

    /// The key of this id.
    pub(super) fn named(&self, id: &str) -> Option<Arc<Issued>> {
        self.names.read().by_id.get(id).map(Arc::clone)
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.names.read().by_id.len()
    }

    /// Up to `most` keys with ids after `after`, those that `wanted` takes, by id.
    pub(super) fn page(&self, after: &str, most: usize, wanted: impl Fn(&Record) -> bool) -> Vec<Arc<Issued>> {
        let names = self.names.read();
        let rest = names.by_id.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        rest.map(|(_, issued)| issued).filter(|issued| wanted(&issued.record)).take(most).map(Arc::clone).collect()
    }

    /// Those that `choose` gives something for.
    pub(super) fn choose<T>(&self, choose: impl Fn(&Arc<Issued>) -> Option<T>) -> Vec<T> {
        self.names.read().by_id.values().filter_map(choose).collect()
    }

    /// Takes a key in, or what has become of it, unless what is known is newer; `used` is what the store knows of its last
    /// use.
    pub(super) fn put(&self, record: Record, version: u64, used: u64) {
        let mut names = self.names.write();
        if names.by_id.get(&record.id).is_none_or(|known| known.version <= version) {
            self.place(&mut names, record, version, used);
        }
    }

    /// Takes a key in, whatever is known of it.
    pub(super) fn set(&self, record: Record, version: u64, used: u64) {
        self.place(&mut self.names.write(), record, version, used);
    }

    fn place(&self, names: &mut Names, mut record: Record, version: u64, used: u64) {
        match names.consumers.get(&record.consumer) {
            Some(known) => record.consumer = Arc::clone(known),
            None => drop(names.consumers.insert(Arc::clone(&record.consumer))),
        }
        let issued = match names.by_id.get(&record.id) {
            Some(known) => {
                let before = known.record.sha256;
                let changed = Arc::new(known.changed(record, version));
                changed.note_use(used);
                changed.saved(used);
                if before != changed.record.sha256 {
                    self.part(&before).write().remove(&before);
                }
                changed
            }
            None => Arc::new(Issued::new(record, version, used)),
        };
        let digest = issued.record.sha256;
        names.by_id.insert(issued.record.id.clone(), Arc::clone(&issued));
        self.part(&digest).write().insert(digest, issued);
    }

    /// Drops the keys that `keep` does not want.
    pub(super) fn retain(&self, keep: impl Fn(&Record) -> bool) {
        let mut names = self.names.write();
        let Names { by_id, consumers } = &mut *names;
        by_id.retain(|_, issued| {
            let kept = keep(&issued.record);
            if !kept {
                self.part(&issued.record.sha256).write().remove(&issued.record.sha256);
            }
            kept
        });
        consumers.retain(|name| Arc::strong_count(name) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::record::record;

    #[test]
    fn keys_come_change_and_go() {
        let table = Table::default();
        for id in ["c", "a", "b"] {
            table.put(record(id, "acme"), 1, 0);
        }
        let ids = |after: &str, most: usize| {
            table.page(after, most, |_| true).iter().map(|issued| issued.record.id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!((ids("", 2), ids("b", 9), table.len()), (vec!["a".into(), "b".into()], vec!["c".into()], 3));
        let digest = record("a", "acme").sha256;
        table.find(&digest).unwrap().note_use(70);
        table.put(Record { revoked: Some(5), ..record("a", "acme") }, 3, 60);
        table.put(record("a", "acme"), 2, 0);
        let found = table.find(&digest).unwrap();
        assert_eq!((found.record.revoked, found.version, found.last_used()), (Some(5), 3, Some(70)));
        assert!(Arc::ptr_eq(&found, &table.named("a").unwrap()));
        drop(found);
        table.retain(|record| &*record.id != "a");
        assert!(table.find(&digest).is_none() && table.named("a").is_none());
        assert_eq!(table.names.read().consumers.len(), 1);
        table.retain(|_| false);
        assert_eq!((table.len(), table.names.read().consumers.len()), (0, 0));
    }
}
