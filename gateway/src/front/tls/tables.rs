//! The tables in use, so that a reload finds those that it keeps.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{Settings, TlsTable};

/// Every table of the process, with the name of its listener. A table that a reload keeps, keeps its session keys.
#[derive(Default)]
pub struct Tables(Mutex<Vec<(String, Weak<TlsTable>)>>);

impl Tables {
    /// The table of a listener with these settings: the one in use, if there is one, else a new one. Errors: those of
    /// [`TlsTable::new`].
    pub fn table(&self, listener: &str, settings: Settings) -> Result<Arc<TlsTable>, String> {
        let mut tables = self.0.lock();
        tables.retain(|(_, table)| table.strong_count() > 0);
        let mut of_listener =
            tables.iter().filter(|(name, _)| name == listener).filter_map(|(_, table)| table.upgrade());
        if let Some(table) = of_listener.find(|table| table.settings == settings) {
            return Ok(table);
        }
        let table = Arc::new(TlsTable::new(settings)?);
        tables.push((listener.to_owned(), Arc::downgrade(&table)));
        Ok(table)
    }
}
