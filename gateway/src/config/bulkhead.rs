//! How many requests an upstream may have at a time.

use crossway_plugin_api::config::HumanDuration;

use super::upstream::Upstream;

/// Most requests in flight, and most that wait.
pub const MOST: u32 = 1_000_000;
/// Longest that a request may wait, in seconds.
const LONGEST: u64 = 600;
/// How long a request may wait where nothing else is said.
pub const PATIENCE: HumanDuration = HumanDuration::from_secs(1);

/// What is wrong with the keys of an upstream's bulkhead: each key, and what.
pub fn check(upstream: &Upstream) -> Vec<(&'static str, String)> {
    let mut wrong = Vec::new();
    if upstream.max_in_flight.is_none() && upstream.queue.is_some() {
        wrong.push(("queue", "has no effect without `max_in_flight`".into()));
    }
    match upstream.queue_timeout {
        Some(_) if upstream.queue.unwrap_or(0) == 0 => {
            wrong.push(("queue_timeout", "has no effect without `queue`".into()));
        }
        Some(time) if time.0.is_zero() => wrong.push(("queue_timeout", "must be more than zero".into())),
        Some(time) if time.0.as_secs() > LONGEST => {
            wrong.push(("queue_timeout", format!("is longer than {LONGEST}s")));
        }
        _ => {}
    }
    wrong
}
