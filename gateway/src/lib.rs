//! Crossway, an API gateway on Pingora. `ARCHITECTURE.md` has the map of this crate.

pub mod config;
