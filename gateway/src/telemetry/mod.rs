//! What the gateway says about itself.

pub mod access_log;
mod line;
mod listeners;
pub mod metrics;
pub mod operation;
mod sink;
