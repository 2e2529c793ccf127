//! Texts that stand in files of their own.

/// The text of a file; in the configuration stands its path, relative to the file that names it. The loader reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileText(pub String);

impl FileText {
    /// Name of the schema format. The loader puts the text of the file in place of a value of this format.
    pub const FORMAT: &'static str = "crossway-text-file";

    /// Takes the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

super::text_scalar!(FileText, "The path of a file; the text in it is the value.", "keys/issuer.json");
