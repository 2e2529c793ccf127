//! Lengths of time.

use std::time::Duration;

/// A length of time, written `500ms`, `10s`, `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

impl HumanDuration {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-duration";
    /// Longest length accepted: ten years, far from any overflow of a clock.
    pub const MAX: Duration = Duration::from_hours(10 * 365 * 24);

    /// Reads a number with a unit; at most [`Self::MAX`].
    pub fn parse(text: &str) -> Result<Self, String> {
        let length = humantime::parse_duration(text.trim())
            .map_err(|_| "is not a duration: write a number with a unit, such as 500ms, 10s or 1h".to_owned())?;
        if length > Self::MAX {
            return Err("is longer than ten years".into());
        }
        Ok(Self(length))
    }

    /// Whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// Whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }
}

impl std::fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

super::text_default!(HumanDuration);
super::text_scalar!(HumanDuration, "A length of time: a number with a unit (ms, s, m, h, d).", "10s");
