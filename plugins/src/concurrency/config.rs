//! The settings that users write.

use std::{ops::RangeInclusive, time::Duration};

use crossway_plugin_api::{InvalidConfig, Room, config::HumanDuration};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::key::{OnMissingKey, Part};

/// Most requests in flight, and most that wait.
const MOST: u32 = 1_000_000;
const LONGEST: Duration = Duration::from_mins(10);
const KEYS: RangeInclusive<u32> = 1_000..=10_000_000;

/// Settings of `concurrency`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What tells callers apart, all of it together: `client` (the address), `consumer`, `group` (the consumer's first),
    /// `route`, `claim:NAME` (a text, number or boolean in its token), `header:NAME`, `param:NAME` (a path parameter). With
    /// `[route]` it bounds a route.
    #[schemars(length(min = 1, max = 8))]
    pub key: Vec<Part>,
    /// Most requests of each key at a time, from here to the end of their responses; 1 to 1000000.
    #[schemars(range(min = 1, max = MOST))]
    pub max_in_flight: u32,
    /// How many more of each key may wait for a place, first come, first served. Default 0: none.
    #[serde(default)]
    #[schemars(range(max = MOST))]
    pub queue: u32,
    /// How long each of them may wait, at most 10m. Default 1s.
    pub queue_timeout: Option<HumanDuration>,
    /// What becomes of a request that lacks a part of the key: `deny` answers 403, `allow` lets it pass uncounted,
    /// `anonymous` counts it with all others that lack the same. Default `deny`.
    pub on_missing_key: Option<OnMissingKey>,
    /// Bits of an IPv6 address that count for `client`: 16 to 128. Default 64, what one subscriber has.
    #[schemars(range(min = 16, max = 128))]
    pub ipv6_prefix: Option<u8>,
    /// Most keys that have requests in flight, 1000 to 10000000; requests of one more are answered 503. A key that has none
    /// is forgotten at once. Default 100000.
    #[serde(default = "max_keys")]
    #[schemars(range(min = 1_000, max = 10_000_000))]
    pub max_keys: u32,
}

fn max_keys() -> u32 {
    100_000
}

impl Config {
    pub(super) fn room(&self) -> Result<Room, InvalidConfig> {
        let wrong = |field: &str, reason: String| Err(InvalidConfig::new(field, reason));
        if !(1..=MOST).contains(&self.max_in_flight) {
            return wrong("max_in_flight", format!("must be 1 to {MOST}"));
        }
        if self.queue > MOST {
            return wrong("queue", format!("must be at most {MOST}"));
        }
        if !KEYS.contains(&self.max_keys) {
            return wrong("max_keys", format!("must be {} to {}", KEYS.start(), KEYS.end()));
        }
        let patience = self.queue_timeout.map_or(Duration::from_secs(1), |time| time.0);
        if self.queue == 0 && self.queue_timeout.is_some() {
            return wrong("queue_timeout", "has no effect without `queue`".into());
        }
        if patience.is_zero() || patience > LONGEST {
            return wrong("queue_timeout", "must be more than zero, and at most 10m".into());
        }
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        Ok(Room { most: count(self.max_in_flight), queue: count(self.queue), patience })
    }
}
