//! What the gateway says about itself.

pub mod access_log;
pub mod line;
mod listeners;
pub mod metrics;
pub mod operation;
mod sink;
