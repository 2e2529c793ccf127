//! The field `Authorization` (RFC 9110, section 11.6.2).

use http::{HeaderMap, header::AUTHORIZATION};

/// What a request presents under one scheme.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Presented<'r> {
    /// Nothing of this scheme.
    Nothing,
    /// What follows the scheme, without spaces around it.
    Text(&'r str),
    /// Something that cannot be read: more than one field, no text after the scheme, more than one word.
    Garbage,
}

/// Reads the credentials of a scheme, whose name is given in lower case; case does not count in requests.
pub(crate) fn of_scheme<'r>(headers: &'r HeaderMap, scheme: &str) -> Presented<'r> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let Some(field) = fields.next() else { return Presented::Nothing };
    if fields.next().is_some() {
        // Whoever reads another one of them than we do sees another caller.
        return Presented::Garbage;
    }
    let (named, text) = match field.as_bytes().iter().position(|byte| *byte == b' ') {
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
    use http::HeaderValue;

    use super::*;

    fn presented(fields: &[&[u8]]) -> Result<Option<String>, ()> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(field).unwrap());
        }
        match of_scheme(&headers, "bearer") {
            Presented::Nothing => Ok(None),
            Presented::Text(text) => Ok(Some(text.to_owned())),
            Presented::Garbage => Err(()),
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
            (&[b"Bearer\tabc"], Ok(None)),
            (&[b"Bearer"], Err(())),
            (&[b"Bearer  "], Err(())),
            (&[b"Bearer a b"], Err(())),
            (&[b"Bearer a, Bearer b"], Err(())),
            (&[b"Bearer \xe4"], Err(())),
            (&[b"Bearer a", b"Bearer a"], Err(())),
            (&[b"Basic a", b"Bearer a"], Err(())),
            (&[b"Basic a", b"Digest a"], Err(())),
        ] {
            assert_eq!(presented(fields), expected, "{fields:?}");
        }
    }
}
