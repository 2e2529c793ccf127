//! Patterns for values.

/// A pattern for a whole value, in which `*` stands for any characters, none included. Case counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    parts: Box<[Box<str>]>,
}

impl Glob {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-glob";
    /// Most stars a pattern may have.
    pub const MAX_STARS: usize = 8;

    /// Reads a pattern; at most [`Self::MAX_STARS`] stars.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Box<[Box<str>]> = text.split('*').map(Into::into).collect();
        if parts.len() > Self::MAX_STARS + 1 {
            return Err(format!("has more than {} stars", Self::MAX_STARS));
        }
        Ok(Self { parts })
    }

    /// The text, if the pattern has no star.
    pub fn literal(&self) -> Option<&str> {
        match &*self.parts {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether the pattern covers the whole of `text`. Linear in the text for each star: the leftmost place is always
    /// good enough for a part between two stars.
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, others)) = self.parts.split_first() else { return false };
        let Some((last, middle)) = others.split_last() else { return text == &**first };
        let Some(mut rest) = text.strip_prefix(&**first) else { return false };
        for part in middle {
            let Some(at) = rest.find(&**part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(&**last)
    }
}

impl std::fmt::Display for Glob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parts.join("*"))
    }
}

super::text_scalar!(Glob, "A value; `*` stands for any characters.", "canary-*");
