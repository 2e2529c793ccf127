//! Credentials in a header field, such as `Authorization` (RFC 9110, section 11.6.2).

use http::{HeaderMap, HeaderName};

/// What a request presents under one scheme.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Presented<'r> {
    /// Nothing of this scheme.
    Nothing,
    /// What follows the scheme, without spaces around it.
    Text(&'r str),
    /// Something that cannot be read: no text after the scheme, or more than one word.
    Garbage,
    /// More than one field, of whatever schemes: whoever reads another one of them than we do sees another caller.
    Several,
}

/// Reads the credentials of a scheme, in whose name case does not count.
pub(crate) fn of_scheme<'r>(headers: &'r HeaderMap, field: &HeaderName, scheme: &str) -> Presented<'r> {
    let mut fields = headers.get_all(field).iter();
    let Some(field) = fields.next() else { return Presented::Nothing };
    if fields.next().is_some() {
        return Presented::Several;
    }
    // A tab ends the name too: an upstream may take it for a space, so that it must not hide the scheme.
    let (named, text) = match field.as_bytes().iter().position(|byte| matches!(byte, b' ' | b'\t')) {
        Some(at) => (&field.as_bytes()[..at], &field.as_bytes()[at..]),
        None => (field.as_bytes(), &b""[..]),
    };
    if !named.eq_ignore_ascii_case(scheme.as_bytes()) {
        return Presented::Nothing;
    }
    match std::str::from_utf8(text).map(|text| text.trim_matches(' ')) {
        Ok(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => Presented::Text(text),
        _ => Presented::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header::AUTHORIZATION};

    use super::*;

    fn presented(fields: &[&[u8]]) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(field).unwrap());
        }
        match of_scheme(&headers, &AUTHORIZATION, "bearer") {
            Presented::Nothing => Ok(None),
            Presented::Text(text) => Ok(Some(text.to_owned())),
            Presented::Garbage => Err("garbage"),
            Presented::Several => Err("several"),
        }
    }

    #[test]
    fn one_field_of_the_scheme_with_one_word() {
        let text = |text: &str| Ok(Some(text.to_owned()));
        for (fields, expected) in [
            (&[][..], Ok(None)),
            (&[&b"Bearer abc"[..]][..], text("abc")),
            (&[b"bEARER   abc="], text("abc=")),
            (&[b"Basic abc"], Ok(None)),
            (&[b"Bearerabc"], Ok(None)),
            (&[b"Bearer,abc"], Ok(None)),
            (&[b"Bearer\tabc"], Err("garbage")),
            (&[b"Bearer \tabc"], Err("garbage")),
            (&[b"Bearer"], Err("garbage")),
            (&[b"Bearer  "], Err("garbage")),
            (&[b"Bearer a b"], Err("garbage")),
            (&[b"Bearer a, Bearer b"], Err("garbage")),
            (&[b"Bearer \xe4"], Err("garbage")),
            (&[b"Bearer a", b"Bearer a"], Err("several")),
            (&[b"Basic a", b"Bearer a"], Err("several")),
            (&[b"Basic a", b"Digest a"], Err("several")),
        ] {
            assert_eq!(presented(fields), expected, "{fields:?}");
        }
    }
}
