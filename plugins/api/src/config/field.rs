//! Header fields.

use http::{HeaderName, HeaderValue};

/// The name of a header field (RFC 9110, section 5.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldName(pub HeaderName);

impl FieldName {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-field-name";

    /// Reads a field name.
    pub fn parse(text: &str) -> Result<Self, String> {
        HeaderName::from_bytes(text.as_bytes()).map(Self).map_err(|_| "is not a header field name".into())
    }
}

super::text_scalar!(FieldName, "The name of a header field.", "X-Request-Id");

/// The value of a header field (RFC 9110, section 5.5): visible characters, spaces and tabs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldValue(pub HeaderValue);

impl FieldValue {
    /// Name of the schema format.
    pub const FORMAT: &'static str = "crossway-field-value";

    /// Reads a field value; no control characters, none outside ASCII.
    pub fn parse(text: &str) -> Result<Self, String> {
        let visible = text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t'));
        let value = HeaderValue::from_str(text).ok().filter(|_| visible);
        value
            .map(Self)
            .ok_or_else(|| "is not a header field value: visible ASCII characters, spaces and tabs only".into())
    }
}

super::text_scalar!(FieldValue, "The value of a header field.", "no-store");
