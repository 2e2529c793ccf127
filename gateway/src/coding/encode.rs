//! Compressing a body piece by piece.

use std::io::Write as _;

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::write::GzEncoder;
use zstd::{stream::write::Encoder as ZstdEncoder, zstd_safe::CParameter};

use super::Algorithm;

/// Levels at which a response costs little time; the windows bound what one response may hold in memory: about 260 KiB
/// with gzip, 1.5 MiB with the others.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// As a power of two: 512 KiB.
const WINDOW: u32 = 19;

/// Compresses one body.
pub struct Encoder {
    inner: Inner,
    /// Whether each piece must come out at once.
    flush: bool,
}

enum Inner {
    Gzip(GzEncoder<Vec<u8>>),
    /// `None` once it has ended: only giving it up ends its stream.
    Brotli(Option<Box<CompressorWriter<Vec<u8>>>>),
    Zstd(ZstdEncoder<'static, Vec<u8>>),
}

impl Encoder {
    /// An encoder for one body. With `flush` each piece of the body can be read by the client as soon as it has come; it
    /// compresses less well.
    pub fn new(algorithm: Algorithm, flush: bool) -> std::io::Result<Self> {
        let inner = match algorithm {
            Algorithm::Gzip => Inner::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(GZIP_LEVEL))),
            Algorithm::Br => {
                Inner::Brotli(Some(Box::new(CompressorWriter::new(Vec::new(), 4096, BROTLI_QUALITY, WINDOW))))
            }
            Algorithm::Zstd => {
                let mut encoder = ZstdEncoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW))?;
                Inner::Zstd(encoder)
            }
        };
        Ok(Self { inner, flush })
    }

    /// The next piece, and whether it is the last. What comes out may be empty while the encoder collects.
    pub fn push(&mut self, piece: &[u8], end: bool) -> std::io::Result<Bytes> {
        let flush = self.flush && !end && !piece.is_empty();
        let out = match &mut self.inner {
            Inner::Gzip(encoder) => {
                encoder.write_all(piece)?;
                if end {
                    encoder.try_finish()?;
                } else if flush {
                    encoder.flush()?;
                }
                std::mem::take(encoder.get_mut())
            }
            Inner::Brotli(slot) => {
                let Some(mut encoder) = slot.take() else { return Ok(Bytes::new()) };
                encoder.write_all(piece)?;
                if end {
                    encoder.into_inner()
                } else {
                    if flush {
                        encoder.flush()?;
                    }
                    let out = std::mem::take(encoder.get_mut());
                    *slot = Some(encoder);
                    out
                }
            }
            Inner::Zstd(encoder) => {
                encoder.write_all(piece)?;
                if end {
                    encoder.do_finish()?;
                } else if flush {
                    encoder.flush()?;
                }
                std::mem::take(encoder.get_mut())
            }
        };
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Codings, decode::decode_now};
    use super::*;

    fn body() -> Vec<u8> {
        (0..40_000_u32)
            .flat_map(|n| format!("line {} of a text\n", n.wrapping_mul(2_654_435_761) >> 12).into_bytes())
            .collect()
    }

    fn encoded(algorithm: Algorithm, flush: bool, body: &[u8], piece: usize) -> Vec<u8> {
        let mut encoder = Encoder::new(algorithm, flush).unwrap();
        let mut coded = Vec::new();
        for part in body.chunks(piece) {
            coded.extend_from_slice(&encoder.push(part, false).unwrap());
        }
        coded.extend_from_slice(&encoder.push(b"", true).unwrap());
        coded
    }

    #[test]
    fn what_is_encoded_can_be_decoded() {
        let bodies = [(body(), 7000), (body(), 1 << 20), (Vec::new(), 1), (b"x".to_vec(), 1)];
        for algorithm in [Algorithm::Br, Algorithm::Gzip, Algorithm::Zstd] {
            for (flush, (body, piece)) in bodies.iter().flat_map(|b| [(false, b), (true, b)]) {
                let coded = encoded(algorithm, flush, body, *piece);
                assert!(coded.len() < body.len() / 2 + 40, "{algorithm:?} {}", coded.len());
                let decoded = decode_now(Codings::of(algorithm), &coded, 64 << 20).unwrap();
                assert!(decoded == *body, "{algorithm:?} {flush} {piece}");
            }
        }
    }

    #[test]
    fn each_piece_comes_out_at_once_where_that_is_wanted() {
        for algorithm in [Algorithm::Br, Algorithm::Gzip, Algorithm::Zstd] {
            let mut encoder = Encoder::new(algorithm, true).unwrap();
            for _ in 0..3 {
                assert!(!encoder.push(b"a word", false).unwrap().is_empty(), "{algorithm:?}");
                assert!(encoder.push(b"", false).unwrap().is_empty(), "{algorithm:?}: nothing new, nothing out");
            }
        }
    }
}
