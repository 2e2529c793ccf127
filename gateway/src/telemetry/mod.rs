//! What the gateway says about itself.

pub mod access_log;
mod line;
pub mod metrics;
pub mod operation;
mod sink;
