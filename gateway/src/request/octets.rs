//! What each byte may be, and small readers of bytes.

/// `tchar`: may stand in a token (RFC 9110, section 5.6.2).
pub(super) const TOKEN: u8 = 1;
/// `A-Z` and `-`: the letters of method names.
pub(super) const METHOD: u8 = 2;
/// `_`, which some servers read as `-`.
pub(super) const UNDERSCORE: u8 = 4;
/// Unreserved in a URI (RFC 3986, section 2.3).
pub(super) const UNRESERVED: u8 = 8;
/// `pchar` without `%` (RFC 3986, section 3.3): stands for itself in a path segment.
pub(super) const SEGMENT: u8 = 16;
/// `A-Z a-z 0-9 - . _`: may stand in a host name.
pub(super) const HOST: u8 = 32;
/// In a path: has no meaning beyond itself, so that it cannot begin anything that is not canonical.
pub(super) const PLAIN: u8 = 64;

const CLASSES: [u8; 256] = classes();

/// Whether a byte has at least one of the classes.
pub(super) const fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

/// All classes of a byte.
pub(super) const fn class(byte: u8) -> u8 {
    CLASSES[byte as usize]
}

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        let alphanumeric = byte.is_ascii_alphanumeric();
        let mut class = 0;
        if alphanumeric || among(byte, b"!#$%&'*+-.^_`|~") {
            class |= TOKEN;
        }
        if byte.is_ascii_uppercase() || byte == b'-' {
            class |= METHOD;
        }
        if byte == b'_' {
            class |= UNDERSCORE;
        }
        if alphanumeric || among(byte, b"-._~") {
            class |= UNRESERVED;
        }
        if alphanumeric || among(byte, b"-._~!$&'()*+,;=:@") {
            class |= SEGMENT;
        }
        if alphanumeric || among(byte, b"-._") {
            class |= HOST;
        }
        if class & SEGMENT != 0 && !among(byte, b".;") {
            class |= PLAIN;
        }
        table[byte as usize] = class;
        byte += 1;
    }
    table
}

const fn among(byte: u8, set: &[u8]) -> bool {
    let mut at = 0;
    while at < set.len() {
        if set[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

/// May stand in a field value: no control but the tab (RFC 9110, section 5.5).
pub(super) const fn is_value_byte(byte: u8) -> bool {
    (byte >= 0x20 && byte != 0x7f) || byte == b'\t'
}

/// Whether every byte may stand in a field value. Looks at all bytes without a branch: the compiler makes vectors of it.
pub(super) fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |bad, &b| bad | u8::from(!is_value_byte(b))) == 0
}

/// Whether every byte may stand in a request target: visible ASCII but `#`, and `"`, `<`, `>`, which are in no URI (RFC
/// 3986, section 2). Without a branch, as above.
pub(super) fn is_target(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .fold(0, |bad, &b| bad | u8::from(b <= 0x20 || b >= 0x7f || b == b'#' || b == b'"' || b == b'<' || b == b'>'))
        == 0
}

/// Whether this is a token (RFC 9110, section 5.6.2).
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is(b, TOKEN))
}

/// Cuts spaces and tabs at both ends (`OWS`; RFC 9110, section 5.6.3).
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The value of one hexadecimal digit.
pub(super) const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The byte that two hexadecimal digits at the start of `digits` stand for.
pub(super) fn hex_pair(digits: &[u8]) -> Option<u8> {
    match digits {
        [high, low, ..] => Some(hex(*high)? << 4 | hex(*low)?),
        _ => None,
    }
}
