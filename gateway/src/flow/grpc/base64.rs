//! Base64 (RFC 4648, section 4) that comes in pieces and in segments, each with padding of its own.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Characters that make three bytes, or the end of a segment.
const QUAD: usize = 4;

/// What is left of the last piece.
#[derive(Default)]
pub(super) struct Decoder {
    held: [u8; QUAD],
    count: usize,
}

impl Decoder {
    /// The bytes of what is complete with this piece. `Err`: this is not base64.
    pub(super) fn decode(&mut self, piece: &[u8]) -> Result<Vec<u8>, ()> {
        let mut bytes = Vec::with_capacity((self.count + piece.len()) / QUAD * 3);
        let missing = (QUAD - self.count) % QUAD;
        let (first, rest) = piece.split_at(missing.min(piece.len()));
        self.hold(first);
        if self.count == QUAD {
            decode_segments(&self.held, &mut bytes)?;
            self.count = 0;
        }
        let (whole, rest) = rest.split_at(rest.len() / QUAD * QUAD);
        decode_segments(whole, &mut bytes)?;
        self.hold(rest);
        Ok(bytes)
    }

    /// Whether nothing is missing at the end.
    pub(super) fn is_complete(&self) -> bool {
        self.count == 0
    }

    fn hold(&mut self, characters: &[u8]) {
        let end = self.count + characters.len();
        self.held[self.count..end].copy_from_slice(characters);
        self.count = end;
    }
}

/// Decodes whole quads; a quad with padding ends a segment.
fn decode_segments(mut text: &[u8], bytes: &mut Vec<u8>) -> Result<(), ()> {
    while !text.is_empty() {
        let end = memchr::memchr(b'=', text).map_or(text.len(), |at| (at / QUAD + 1) * QUAD);
        let (segment, rest) = text.split_at(end);
        STANDARD.decode_vec(segment, bytes).map_err(drop)?;
        text = rest;
    }
    Ok(())
}

/// One segment.
pub(super) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&str]) -> Option<Vec<u8>> {
        let mut decoder = Decoder::default();
        let mut bytes = Vec::new();
        for piece in pieces {
            bytes.extend(decoder.decode(piece.as_bytes()).ok()?);
        }
        decoder.is_complete().then_some(bytes)
    }

    #[test]
    fn segments_follow_each_other() {
        for (pieces, bytes) in [
            (&["aGVsbG8="][..], &b"hello"[..]),
            (&["aGVsbG8=IA==d29ybGQ="], b"hello world"),
            (&["a", "GV", "sb", "G8=I", "A", "=", "=d29yb", "GQ="], b"hello world"),
            (&["", "AAAA", ""], &[0, 0, 0]),
            (&[], b""),
        ] {
            assert_eq!(decode(pieces).as_deref(), Some(bytes), "{pieces:?}");
        }
    }

    #[test]
    fn what_is_not_base64_is_an_error() {
        for pieces in [&["aGVsbG8"][..], &["a=bc"], &["===="], &["aG\r\n"], &["aG-_"], &["aGV=sbG8"], &["aGVs", "b"]] {
            assert_eq!(decode(pieces), None, "{pieces:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_and_segments_make_no_difference(
            segments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..6),
            size in 1..9_usize,
        ) {
            let text: String = segments.iter().map(|bytes| encode(bytes)).collect();
            let pieces: Vec<&str> = text.as_bytes().chunks(size).map(|p| std::str::from_utf8(p).unwrap()).collect();
            prop_assert_eq!(decode(&pieces), Some(segments.concat()));
        }

        #[test]
        fn no_bytes_crash_it(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 0..6)) {
            let mut decoder = Decoder::default();
            for piece in &pieces {
                let _ = decoder.decode(piece);
                decoder.count %= QUAD;
            }
        }
    }
}
