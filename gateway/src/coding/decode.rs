//! Decompressing a body within bounds: of what comes out, of its ratio to what went in, and of the decoder's window.

use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, HeapAlloc, HuffmanCode};
use flate2::{Decompress, FlushDecompress, Status};
use http::{HeaderMap, header};
use zstd::{
    stream::raw::{Decoder as ZstdDecoder, InBuffer, Operation as _, OutBuffer},
    zstd_safe::DParameter,
};

use super::{Algorithm, items};

/// Most codings that may lie one over the other.
const MAX_STACKED: usize = 2;

/// Largest ratio of what comes out to what went in. Text rarely reaches a tenth of it.
const MAX_RATIO: u64 = 100;

/// Output of this size is allowed at any ratio.
const ALWAYS_ALLOWED: u64 = 64 << 10;

/// Largest window of zstd, as a power of two: 8 MiB (RFC 9659). Brotli's own bound is 16 MiB, of which only what comes
/// out is ever touched.
const ZSTD_WINDOW: u32 = 23;

/// What is decoded between two chances for other tasks to run.
const SLICE: usize = 16 << 10;

/// What is reserved for a decoded body at first.
const FIRST: usize = 64 << 10;

/// Bytes that a decoder puts out at once.
const BUFFER: usize = 16 << 10;

/// A coding that the gateway can undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    fn named(name: &[u8]) -> Option<Self> {
        let is = |coding: &str| name.eq_ignore_ascii_case(coding.as_bytes());
        match () {
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("deflate") => Some(Self::Deflate),
            () if is("br") => Some(Self::Brotli),
            () if is("zstd") => Some(Self::Zstd),
            () => None,
        }
    }
}

/// The codings of a body, in the order in which they were applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Codings([Option<Coding>; MAX_STACKED]);

/// Why a body could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A coding that is not known, or too many of them.
    #[error("a content coding that is not known, or more than {MAX_STACKED} of them")]
    Unsupported,
    /// More comes out than may, or far more than went in.
    #[error("the decoded body is too large, by itself or for what was sent")]
    TooLarge,
    /// The bytes are not what the coding says, or end too early.
    #[error("the body is not what its content coding says")]
    Corrupt,
}

impl Codings {
    /// What this gateway can undo, for `Accept-Encoding` in an answer (RFC 9110, section 12.5.3).
    pub const SUPPORTED: &'static str = "gzip, deflate, br, zstd";

    /// The codings that a message says its body has.
    pub fn in_header(headers: &HeaderMap) -> Result<Self, DecodeError> {
        let mut codings = Self::default();
        let mut free = codings.0.iter_mut();
        for name in items(headers, &header::CONTENT_ENCODING).filter(|name| !name.eq_ignore_ascii_case(b"identity")) {
            let coding = Coding::named(name).ok_or(DecodeError::Unsupported)?;
            *free.next().ok_or(DecodeError::Unsupported)? = Some(coding);
        }
        Ok(codings)
    }

    /// The one coding of an algorithm.
    pub fn of(algorithm: Algorithm) -> Self {
        let coding = match algorithm {
            Algorithm::Br => Coding::Brotli,
            Algorithm::Gzip => Coding::Gzip,
            Algorithm::Zstd => Coding::Zstd,
        };
        Self([Some(coding), None])
    }

    /// Whether the body is as it is.
    pub fn is_identity(self) -> bool {
        self == Self::default()
    }
}

/// Decodes a whole body to at most `max` bytes, and lets other tasks run in between.
pub async fn decode(codings: Codings, body: &[u8], max: u64) -> Result<Vec<u8>, DecodeError> {
    let mut stack = Stack::new(codings, max)?;
    for slice in body.chunks(SLICE) {
        stack.push(slice)?;
        tokio::task::yield_now().await;
    }
    stack.finish(!body.is_empty())
}

/// The same without a pause.
#[cfg(test)]
pub(super) fn decode_now(codings: Codings, body: &[u8], max: u64) -> Result<Vec<u8>, DecodeError> {
    let mut stack = Stack::new(codings, max)?;
    body.chunks(SLICE).try_for_each(|slice| stack.push(slice))?;
    stack.finish(!body.is_empty())
}

/// The decoders, the outermost first, and what has come out of the last.
struct Stack {
    decoders: Vec<Decoder>,
    buffers: Vec<Box<[u8]>>,
    account: Account,
    decoded: Vec<u8>,
}

/// What has gone in and come out.
struct Account {
    taken: u64,
    max: u64,
}

impl Account {
    /// Checks what a decoder has put out in all. Each of a stack is bounded by what came over the wire, so that an inner
    /// one cannot hide the work of an outer one.
    fn check(&self, put_out: u64, is_last: bool) -> Result<(), DecodeError> {
        let by_ratio = ALWAYS_ALLOWED.max(self.taken.saturating_mul(MAX_RATIO));
        let bound = if is_last { by_ratio.min(self.max) } else { by_ratio };
        if put_out > bound { Err(DecodeError::TooLarge) } else { Ok(()) }
    }
}

impl Stack {
    fn new(codings: Codings, max: u64) -> Result<Self, DecodeError> {
        let outermost_first = codings.0.into_iter().rev().flatten();
        let decoders = outermost_first.map(Decoder::new).collect::<Result<Vec<_>, _>>()?;
        let buffers = decoders.iter().map(|_| vec![0; BUFFER].into_boxed_slice()).collect();
        Ok(Self { decoders, buffers, account: Account { taken: 0, max }, decoded: Vec::new() })
    }

    fn push(&mut self, piece: &[u8]) -> Result<(), DecodeError> {
        self.account.taken += piece.len() as u64;
        run(&mut self.decoders, &mut self.buffers, piece, &self.account, &mut self.decoded)
    }

    fn finish(self, has_begun: bool) -> Result<Vec<u8>, DecodeError> {
        // An empty body needs no decoding, whatever its header says.
        let is_whole = !has_begun || self.decoders.iter().all(|decoder| decoder.at_end);
        if is_whole { Ok(self.decoded) } else { Err(DecodeError::Corrupt) }
    }
}

/// Passes a piece through the decoders; no more than one buffer for each is in memory beside what is decoded.
fn run(
    decoders: &mut [Decoder],
    buffers: &mut [Box<[u8]>],
    mut piece: &[u8],
    account: &Account,
    decoded: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let (Some((decoder, inner)), Some((buffer, rest))) = (decoders.split_first_mut(), buffers.split_first_mut()) else {
        if decoded.capacity() - decoded.len() < piece.len() {
            // In few steps: each leaves a hole in the heap. What is reserved and not written to costs nothing.
            decoded.reserve_exact((decoded.len() * 7).max(FIRST));
        }
        decoded.extend_from_slice(piece);
        return Ok(());
    };
    loop {
        let (read, written) = decoder.step(piece, buffer)?;
        piece = &piece[read..];
        decoder.put_out += written as u64;
        account.check(decoder.put_out, inner.is_empty())?;
        if written > 0 {
            run(inner, rest, &buffer[..written], account, decoded)?;
        } else if piece.is_empty() {
            return Ok(());
        } else if read == 0 {
            return Err(DecodeError::Corrupt);
        }
    }
}

/// One decoder.
struct Decoder {
    format: Format,
    /// Whether the stream may end here.
    at_end: bool,
    put_out: u64,
}

type Brotli = BrotliState<HeapAlloc<u8>, HeapAlloc<u32>, HeapAlloc<HuffmanCode>>;

enum Format {
    Gzip(Decompress),
    Deflate(Decompress),
    Brotli(Box<Brotli>),
    Zstd(ZstdDecoder<'static>),
}

const GZIP_WINDOW: u8 = 15;

impl Decoder {
    fn new(coding: Coding) -> Result<Self, DecodeError> {
        let format = match coding {
            Coding::Gzip => Format::Gzip(Decompress::new_gzip(GZIP_WINDOW)),
            Coding::Deflate => Format::Deflate(Decompress::new(true)),
            Coding::Brotli => {
                // Strict: without the windows of up to 1 GiB that RFC 7932 does not have.
                let code = HeapAlloc::new(HuffmanCode::default());
                Format::Brotli(Box::new(BrotliState::new_strict(HeapAlloc::new(0), HeapAlloc::new(0), code)))
            }
            Coding::Zstd => {
                let mut decoder = ZstdDecoder::new().map_err(|_| DecodeError::Corrupt)?;
                let bounded = decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW));
                bounded.map_err(|_| DecodeError::Corrupt)?;
                Format::Zstd(decoder)
            }
        };
        Ok(Self { format, at_end: false, put_out: 0 })
    }

    /// Reads from `input` and writes to `output`: how many bytes of each.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), DecodeError> {
        match &mut self.format {
            Format::Gzip(state) => {
                if self.at_end {
                    if input.is_empty() {
                        return Ok((0, 0));
                    }
                    // Another member (RFC 1952, section 2.2).
                    *state = Decompress::new_gzip(GZIP_WINDOW);
                    self.at_end = false;
                }
                inflate(state, input, output, &mut self.at_end)
            }
            Format::Deflate(_) | Format::Brotli(_) if self.at_end => Ok((0, 0)),
            Format::Deflate(state) => inflate(state, input, output, &mut self.at_end),
            Format::Brotli(state) => unbrotli(state, input, output, &mut self.at_end),
            Format::Zstd(state) => {
                let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(output));
                let hint = state.run(&mut from, &mut to).map_err(|_| DecodeError::Corrupt)?;
                if from.pos() > 0 || to.pos() > 0 {
                    self.at_end = hint == 0;
                }
                Ok((from.pos(), to.pos()))
            }
        }
    }
}

fn inflate(
    state: &mut Decompress,
    input: &[u8],
    output: &mut [u8],
    at_end: &mut bool,
) -> Result<(usize, usize), DecodeError> {
    let (read, written) = (state.total_in(), state.total_out());
    let status = state.decompress(input, output, FlushDecompress::None).map_err(|_| DecodeError::Corrupt)?;
    *at_end = status == Status::StreamEnd;
    let moved = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(usize::MAX);
    Ok((moved(state.total_in(), read), moved(state.total_out(), written)))
}

fn unbrotli(
    state: &mut Brotli,
    input: &[u8],
    output: &mut [u8],
    at_end: &mut bool,
) -> Result<(usize, usize), DecodeError> {
    let (mut left, mut read) = (input.len(), 0);
    let (mut room, mut written, mut total) = (output.len(), 0, 0);
    match BrotliDecompressStream(&mut left, &mut read, input, &mut room, &mut written, output, &mut total, state) {
        BrotliResult::ResultFailure => return Err(DecodeError::Corrupt),
        BrotliResult::ResultSuccess => *at_end = true,
        BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
    }
    Ok((read, written))
}

#[cfg(test)]
mod tests;
