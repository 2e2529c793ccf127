//! Amounts of data.

/// An amount of data in bytes, written `64KiB`, `10MiB`, `500B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

impl ByteSize {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-bytes";

    /// Reads a whole number with a unit.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WRONG: &str = "is not a size: write a whole number with a unit, such as 64KiB or 10MiB";
        let text = text.trim();
        let (number, factor) = UNITS
            .iter()
            .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number.trim_end(), factor)))
            .ok_or(WRONG)?;
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(WRONG.into());
        }
        let size = number.parse::<u64>().ok().and_then(|n| n.checked_mul(*factor));
        size.map(Self).ok_or_else(|| "is more than this program can count".into())
    }

    /// Binary kilobytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }

    /// Binary megabytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
}

impl std::fmt::Display for ByteSize {
    /// In the largest binary unit that leaves a whole number.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = |factor: u64| self.0 >= factor && self.0.is_multiple_of(factor);
        match UNITS[..4].iter().rev().find(|(_, factor)| whole(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

super::text_default!(ByteSize);
super::text_scalar!(ByteSize, "An amount of data: a whole number with a unit (B, KiB, MiB, GiB).", "64KiB");
