//! Rates of data.

use super::ByteSize;

/// A rate in bytes a second, written `1KiB/s`; `off` for none, which is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteRate(pub u64);

impl ByteRate {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-byte-rate";

    /// Reads an amount of data and `/s`, or `off`.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WRONG: &str = "is not a rate: write an amount of data a second, such as 1KiB/s, or `off`";
        let text = text.trim();
        if text == "off" {
            return Ok(Self(0));
        }
        let amount = text.strip_suffix("/s").ok_or(WRONG)?;
        match ByteSize::parse(amount) {
            Ok(ByteSize(0)) => Err("must be more than zero; write `off` for none".into()),
            Ok(ByteSize(bytes)) => Ok(Self(bytes)),
            Err(_) => Err(WRONG.into()),
        }
    }

    /// Binary kilobytes a second.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }
}

impl std::fmt::Display for ByteRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => f.write_str("off"),
            bytes => write!(f, "{}/s", ByteSize(bytes)),
        }
    }
}

super::text_default!(ByteRate);
super::text_scalar!(ByteRate, "A rate: an amount of data a second, or `off`.", "1KiB/s");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_an_amount_a_second_or_off() {
        for (text, bytes) in [("1KiB/s", 1024), ("500B/s", 500), (" 2MiB/s ", 2 << 20), ("off", 0)] {
            assert_eq!(ByteRate::parse(text), Ok(ByteRate(bytes)), "{text}");
            assert_eq!(ByteRate::parse(&ByteRate(bytes).to_string()), Ok(ByteRate(bytes)));
        }
        for text in ["", "1KiB", "1/s", "0B/s", "KiB/s", "-1KiB/s", "1KiB/m", "none"] {
            assert!(ByteRate::parse(text).is_err(), "{text}");
        }
    }
}
