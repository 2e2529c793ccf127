//! Shares in percent.

/// A share, written `20%`: a whole number from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

impl Percent {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-percent";

    /// Reads a whole number with a percent sign.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WRONG: &str = "is not a share: write a whole number from 0% to 100%";
        let number = text.strip_suffix('%').filter(|n| (1..=3).contains(&n.len())).ok_or(WRONG)?;
        let plain = number.bytes().all(|b| b.is_ascii_digit());
        let share = number.parse::<u8>().ok().filter(|share| plain && *share <= 100);
        share.map(Self).ok_or_else(|| WRONG.into())
    }

    /// So much of a number, rounded down.
    pub const fn of(self, whole: u64) -> u64 {
        whole / 100 * self.0 as u64 + whole % 100 * self.0 as u64 / 100
    }

    /// So many of several things, rounded down.
    pub const fn of_count(self, whole: usize) -> usize {
        whole / 100 * self.0 as usize + whole % 100 * self.0 as usize / 100
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}%", self.0)
    }
}

super::text_default!(Percent);
super::text_scalar!(Percent, "A share: a whole number of percent.", "20%");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_whole_number_of_percent() {
        for (text, share) in [("0%", 0), ("20%", 20), ("100%", 100)] {
            assert_eq!(Percent::parse(text), Ok(Percent(share)), "{text}");
            assert_eq!(Percent::parse(&Percent(share).to_string()), Ok(Percent(share)));
        }
        for text in ["", "%", "20", "101%", "-1%", "+5%", "1.5%", "20 %", "0020%"] {
            assert!(Percent::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_is_rounded_down_and_never_overflows() {
        assert_eq!((Percent(20).of(9), Percent(20).of(10), Percent(0).of(7)), (1, 2, 0));
        assert_eq!((Percent(50).of_count(3), Percent(100).of_count(3), Percent(10).of_count(2)), (1, 3, 0));
        assert_eq!((Percent(100).of(u64::MAX), Percent(100).of_count(usize::MAX)), (u64::MAX, usize::MAX));
    }
}
