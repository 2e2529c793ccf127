//! Over how long a limit counts.

use std::borrow::Cow;

use chrono::{DateTime, Datelike as _, Months};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

const DAY: u32 = 24 * 60 * 60;
/// Longest number of seconds that a limit counts over.
const LONGEST: u32 = 31 * DAY;

/// A number of seconds, or a month of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// So many seconds.
    Seconds(u32),
    /// A month, in UTC.
    Month,
}

impl Period {
    const PATTERN: &'static str = "^([1-9][0-9]{0,6}[smhd]|month)$";

    /// Reads a whole number with the unit `s`, `m`, `h` or `d`, or `month`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "is not a whole number with a unit, such as 1s, 15m, 1h or 1d, and not `month`";
        if text == "month" {
            return Ok(Self::Month);
        }
        let unit = match text.bytes().last() {
            Some(b's') => 1,
            Some(b'm') => 60,
            Some(b'h') => 60 * 60,
            Some(b'd') => DAY,
            _ => return Err(WRONG),
        };
        let number = &text[..text.len() - 1];
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(WRONG);
        }
        match number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit)) {
            Some(0) => Err("must be at least 1s"),
            Some(seconds) if seconds <= LONGEST => Ok(Self::Seconds(seconds)),
            _ => Err("is longer than 31 days; the longest is `month`"),
        }
    }

    /// Its length in seconds; the longest that it can have.
    pub fn seconds(self) -> u32 {
        match self {
            Self::Seconds(seconds) => seconds,
            Self::Month => LONGEST,
        }
    }

    /// Whether windows of this length begin with the day: they then stand in the calendar and not in the history of the
    /// clock.
    pub fn fits_a_day(self) -> bool {
        match self {
            Self::Seconds(seconds) => DAY.is_multiple_of(seconds),
            Self::Month => true,
        }
    }

    /// First second of the window around this time and the first one after it, in seconds after the epoch.
    pub fn window(self, at: u64) -> (u64, u64) {
        match self {
            Self::Seconds(seconds) => {
                let start = at - at % u64::from(seconds);
                (start, start + u64::from(seconds))
            }
            // A time that no calendar has is in a window of its own.
            Self::Month => month(at).unwrap_or((at, at + u64::from(LONGEST))),
        }
    }
}

fn month(at: u64) -> Option<(u64, u64)> {
    let now = DateTime::from_timestamp(i64::try_from(at).ok()?, 0)?;
    let first = now.date_naive().with_day(1)?;
    let next = first.checked_add_months(Months::new(1))?;
    let midnight = |day: chrono::NaiveDate| u64::try_from(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp()).ok();
    Some((midnight(first)?, midnight(next)?))
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": Self::PATTERN,
            "description": "A length of time: a whole number with a unit (s, m, h, d), or month.",
            "examples": ["1m"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        u64::try_from(DateTime::parse_from_rfc3339(text).unwrap().timestamp()).unwrap()
    }

    #[test]
    fn a_number_with_a_unit_or_a_month() {
        for (text, seconds) in [("1s", 1), ("90s", 90), ("1m", 60), ("15m", 900), ("1h", 3600), ("31d", LONGEST)] {
            assert_eq!(Period::parse(text), Ok(Period::Seconds(seconds)), "{text}");
        }
        assert_eq!(Period::parse("month"), Ok(Period::Month));
        for wrong in ["", "s", "1", "0s", "00m", "-1s", "+1s", "1.5h", "1w", "32d", "9999999d", "1 m", "months", "1é"]
        {
            assert!(Period::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn windows_stand_in_the_calendar() {
        for (period, inside, first, after) in [
            ("1s", "2026-03-01T10:20:30Z", "2026-03-01T10:20:30Z", "2026-03-01T10:20:31Z"),
            ("15m", "2026-03-01T10:29:59Z", "2026-03-01T10:15:00Z", "2026-03-01T10:30:00Z"),
            ("15m", "2026-03-01T10:30:00Z", "2026-03-01T10:30:00Z", "2026-03-01T10:45:00Z"),
            ("1d", "2026-03-01T23:59:59Z", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"),
            ("month", "2028-02-29T23:59:59Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            ("month", "2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            let window = Period::parse(period).unwrap().window(at(inside));
            assert_eq!(window, (at(first), at(after)), "{period} {inside}");
        }
        let (start, end) = Period::Month.window(u64::MAX / 2);
        assert!(start < end, "a clock far off");
    }

    #[test]
    fn only_parts_of_a_day_fit_it() {
        for (text, fits) in [("1s", true), ("7s", false), ("1h", true), ("5h", false), ("1d", true), ("2d", false)] {
            assert_eq!(Period::parse(text).unwrap().fits_a_day(), fits, "{text}");
        }
        assert!(Period::Month.fits_a_day());
    }
}
