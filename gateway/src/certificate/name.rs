//! Distinguished names as texts (RFC 4514).

use std::fmt::Write as _;

use x509_parser::{
    der_parser::asn1_rs::ToDer as _,
    x509::{AttributeTypeAndValue, X509Name},
};

use super::hex;

/// Short names of attributes: those of RFC 4514, section 3, and others that certificates of devices have (RFC 4519;
/// RFC 2985 for the last).
const SHORT: [(&str, &str); 13] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("2.5.4.4", "sn"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.42", "givenName"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// A name as RFC 4514 writes it, the most specific part first: `CN=device-7,O=Acme`. Control characters are escaped.
pub(super) fn rfc4514(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for part in parts.into_iter().rev() {
        for (at, attribute) in part.iter().enumerate() {
            match (text.is_empty(), at) {
                (true, _) => {}
                (false, 0) => text.push(','),
                (false, _) => text.push('+'),
            }
            add(&mut text, attribute);
        }
    }
    text
}

fn add(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let oid = attribute.attr_type().to_id_string();
    let short = SHORT.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name);
    text.push_str(short.unwrap_or(&oid));
    text.push('=');
    match (short, attribute.as_str()) {
        (Some(_), Ok(value)) => escape(text, value),
        _ => {
            // An attribute without a known form is shown by its encoding.
            text.push('#');
            text.push_str(&hex(&attribute.attr_value().to_der_vec().unwrap_or_default()));
        }
    }
}

/// Appends a value with what section 2.4 of RFC 4514 escapes.
fn escape(text: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        let special = matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || (at == 0 && matches!(character, ' ' | '#'))
            || (at == last && character == ' ');
        if character.is_control() {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(text, "\\{byte:02x}");
            }
        } else {
            if special {
                text.push('\\');
            }
            text.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_read_as_structure_is_escaped() {
        let escaped = |value: &str| {
            let mut text = String::new();
            escape(&mut text, value);
            text
        };
        assert_eq!(escaped("James \"Jim\" Smith, III"), r#"James \"Jim\" Smith\, III"#);
        assert_eq!(escaped("Before\rAfter"), r"Before\0dAfter");
        assert_eq!(escaped("#a b "), r"\#a b\ ");
        assert_eq!(escaped(" "), r"\ ");
        assert_eq!(escaped("a+b;c<d>e\\f\0"), r"a\+b\;c\<d\>e\\f\00");
        assert_eq!(escaped("Lučić\u{85}"), r"Lučić\c2\85");
        assert_eq!(escaped(""), "");
    }
}
