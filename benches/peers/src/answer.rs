//! The body that the origin sends and the load generator expects: the same but for the number of the request, so that
//! an answer that reaches the wrong request is seen.

/// Digits of a request's number.
pub(crate) const DIGITS: usize = 10;
/// What stands before the number in a request's path.
pub(crate) const PATH: &str = "/customers/C-";
/// Length of the body in bytes.
pub(crate) const LENGTH: usize = BEFORE.len() + DIGITS + AFTER.len();

const BEFORE: &[u8] = br#"{"customers":[{"id":"C-"#;
const AFTER: &[u8] =
    br#"","firstName":"Ada","lastName":"Lovelace","email":"ada@example.com","active":true}],"page":1,"pages":1}"#;

/// A number in decimal, with leading zeros. Numbers with more digits lose the first ones.
pub(crate) fn digits(mut number: u64) -> [u8; DIGITS] {
    let mut text = [b'0'; DIGITS];
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789"[(number % 10) as usize];
        number /= 10;
    }
    text
}

/// The number in a request's path, as it is written there.
pub(crate) fn number_in(path: &[u8]) -> Option<&[u8; DIGITS]> {
    let number: &[u8; DIGITS] = path.strip_prefix(PATH.as_bytes())?.try_into().ok()?;
    number.iter().all(u8::is_ascii_digit).then_some(number)
}

/// Appends the body for a number.
pub(crate) fn write(number: &[u8; DIGITS], to: &mut Vec<u8>) {
    to.extend_from_slice(BEFORE);
    to.extend_from_slice(number);
    to.extend_from_slice(AFTER);
}

/// Whether this is the body for a number, and nothing else.
pub(crate) fn matches(body: &[u8], number: &[u8; DIGITS]) -> bool {
    body.strip_prefix(BEFORE).and_then(|b| b.strip_prefix(number)).is_some_and(|rest| rest == AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_matches_its_own_number_only() {
        let mut body = Vec::new();
        write(&digits(42), &mut body);
        assert_eq!(body.len(), LENGTH);
        assert!(matches(&body, &digits(42)));
        assert!(!matches(&body, &digits(43)));
        assert!(!matches(&body[..LENGTH - 1], &digits(42)));
        body.push(b' ');
        assert!(!matches(&body, &digits(42)));
    }

    #[test]
    fn a_number_is_read_back_from_the_path() {
        let path = [PATH.as_bytes(), &digits(1_234_567)].concat();
        assert_eq!(number_in(&path), Some(b"0001234567"));
        assert_eq!(number_in(&path[..path.len() - 1]), None);
        assert_eq!(number_in(b"/customers/C-000000000x"), None);
        assert_eq!(number_in(b"/"), None);
    }
}
