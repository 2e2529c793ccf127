//! Shares of a whole.

/// A share of a whole in whole percent, written `20%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

impl Percent {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-percent";

    /// Reads a whole number from 0 to 100 and `%`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = text.trim().strip_suffix('%').map(str::trim_end);
        let number = number.filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
        let share = number.and_then(|digits| digits.parse().ok()).filter(|share| *share <= 100);
        share.map(Self).ok_or_else(|| "is not a share: write a whole number from 0 to 100 and `%`, such as 20%".into())
    }

    /// So much of a number, rounded down.
    pub const fn of(self, whole: u64) -> u64 {
        whole / 100 * self.0 as u64 + whole % 100 * self.0 as u64 / 100
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}%", self.0)
    }
}

super::text_default!(Percent);
super::text_scalar!(Percent, "A share of a whole, in percent.", "20%");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_whole_number_of_percent() {
        for (text, share) in [("0%", 0), ("20%", 20), (" 100 % ", 100)] {
            assert_eq!(Percent::parse(text), Ok(Percent(share)), "{text}");
            assert_eq!(Percent::parse(&Percent(share).to_string()), Ok(Percent(share)));
        }
        for text in ["", "%", "20", "101%", "-1%", "+1%", "2.5%", "0.2", "999999%"] {
            assert!(Percent::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_is_rounded_down_and_never_overflows() {
        assert_eq!((Percent(20).of(9), Percent(20).of(10), Percent(0).of(7)), (1, 2, 0));
        assert_eq!(Percent(100).of(u64::MAX), u64::MAX);
    }
}
