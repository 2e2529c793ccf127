//! Bytes as hexadecimal digits.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// In lower case.
pub(crate) fn lower(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Reads digits of either case, two for each byte.
pub(crate) fn read(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes().chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_two_digits() {
        assert_eq!(lower(&[0, 0x0a, 0xff]), "000aff");
        assert_eq!(read("000AfF"), Some(vec![0, 0x0a, 0xff]));
        for wrong in ["000af", "000aff0", "000afg", "+00aff", "00é0f"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
