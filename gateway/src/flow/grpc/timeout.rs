//! `grpc-timeout`: one to eight digits and a unit.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The field.
pub(super) const FIELD: HeaderName = HeaderName::from_static("grpc-timeout");

/// Most digits.
const DIGITS: usize = 8;
/// The largest number that fits.
const LARGEST: u128 = 99_999_999;

/// Units, the finest first, with their nanoseconds.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60 * 1_000_000_000),
    (b'H', 3600 * 1_000_000_000),
];

/// The time-out that a caller has set, if any. `Err`: it cannot be read, or stands there twice.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<Duration>, ()> {
    let mut fields = headers.get_all(FIELD).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => parse(value.as_bytes()).map(Some).ok_or(()),
        _ => Err(()),
    }
}

fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if !(1..=DIGITS).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (_, nanos) = UNITS.iter().find(|(name, _)| name == unit)?;
    let number = digits.iter().fold(0_u64, |n, digit| n * 10 + u64::from(digit - b'0'));
    let nanos = u128::from(number) * nanos;
    Some(Duration::new(u64::try_from(nanos / 1_000_000_000).ok()?, u32::try_from(nanos % 1_000_000_000).ok()?))
}

/// A time-out as text, in the finest unit that has room for it; a longer one than eight digits of hours is cut.
pub(super) fn text(length: Duration) -> HeaderValue {
    let nanos = length.as_nanos();
    let fits = UNITS.iter().find(|(_, size)| nanos / size <= LARGEST);
    let (unit, size) = fits.copied().unwrap_or((b'H', UNITS[5].1));
    let text = format!("{}{}", (nanos / size).min(LARGEST), char::from(unit));
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("0n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_a_unit() {
        for (value, length) in [
            ("1H", Some(Duration::from_hours(1))),
            ("2M", Some(Duration::from_mins(2))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("0S", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("100000000n", None),
            ("S", None),
            ("", None),
            ("1", None),
            ("1s", None),
            ("1 S", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
        ] {
            assert_eq!(parse(value.as_bytes()), length, "{value}");
        }
    }

    #[test]
    fn what_remains_is_told_as_finely_as_it_fits() {
        for (length, value) in [
            (Duration::ZERO, "0n"),
            (Duration::from_millis(99), "99000000n"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_mins(10), "600000m"),
            (Duration::from_hours(99_999_999), "99999999H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(text(length), value);
            assert!(parse(value.as_bytes()).unwrap() <= length);
        }
    }

    #[test]
    fn two_time_outs_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(of(&headers), Ok(None));
        headers.append(FIELD, HeaderValue::from_static("1S"));
        assert_eq!(of(&headers), Ok(Some(Duration::from_secs(1))));
        headers.append(FIELD, HeaderValue::from_static("1S"));
        assert_eq!(of(&headers), Err(()));
    }
}
