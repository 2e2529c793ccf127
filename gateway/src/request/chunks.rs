//! Where a chunked request body ends (RFC 9112, section 7.1), read strictly.

use super::{
    Refusal,
    octets::{TOKEN, UNDERSCORE, class, hex, is, is_value_byte},
};

/// Most hexadecimal digits of a chunk's size: what fits 64 bits.
const MAX_DIGITS: u8 = 16;
/// Most bytes of chunk extensions in one body.
const MAX_EXTENSIONS: u32 = 4 << 10;
/// Most bytes of a trailer section.
const MAX_TRAILERS: u32 = 8 << 10;
/// Most fields of a trailer section.
const MAX_TRAILER_FIELDS: u8 = 32;

const BAD_SIZE: Refusal = Refusal::bad("bad_framing", "A chunk's size is not valid.");
const BAD_EXTENSION: Refusal = Refusal::bad("bad_framing", "A chunk's extension is not valid.");
const BAD_END: Refusal = Refusal::bad("bad_framing", "A chunk does not end where its size says.");
const BAD_TRAILER: Refusal = Refusal::bad("bad_framing", "The trailer section is not valid.");
const LONG_EXTENSIONS: Refusal = Refusal::bad("bad_framing", "The chunk extensions are larger than allowed.");
const LONG_TRAILERS: Refusal = Refusal::bad("bad_framing", "The trailer section is larger than allowed.");

/// What a scan has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How many of the bytes belong to the body.
    pub used: usize,
    /// The body has ended; what follows is another message.
    pub complete: bool,
}

/// What the next byte must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastLf,
    Done,
}

/// Follows a chunked body as its bytes arrive.
#[derive(Debug, Default)]
pub struct ChunkScanner {
    state: State,
    /// Bytes of the current chunk that are still to come.
    left: u64,
    digits: u8,
    extensions: u32,
    trailers: u32,
    trailer_fields: u8,
}

impl ChunkScanner {
    /// Reads on. Errors: 400, after which the connection can carry nothing more.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Progress, Refusal> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let there = (bytes.len() - at) as u64;
                let skipped = self.left.min(there);
                self.left -= skipped;
                at += usize::try_from(skipped).unwrap_or(bytes.len() - at);
                if self.left == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(Progress { used: at, complete: self.state == State::Done })
    }

    /// The state after one byte that is not data.
    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::Size, _) => self.size(byte),
            (State::Extension, b'\r') => Ok(State::SizeEnd),
            (State::Extension, _) => self.extension(byte),
            (State::SizeEnd, b'\n') => Ok(self.size_end()),
            (State::SizeEnd, _) => Err(BAD_SIZE),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::LastLf, b'\n') => Ok(State::Done),
            (State::TrailerStart, b'\r') => Ok(State::LastLf),
            (State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerEnd, _) => {
                self.trailer(byte)
            }
            (State::LastLf, _) => Err(BAD_TRAILER),
            (State::DataCr | State::DataLf | State::Data | State::Done, _) => Err(BAD_END),
        }
    }

    fn size(&mut self, byte: u8) -> Result<State, Refusal> {
        if let Some(digit) = hex(byte) {
            self.digits += 1;
            if self.digits > MAX_DIGITS {
                return Err(BAD_SIZE);
            }
            self.left = self.left << 4 | u64::from(digit);
            return Ok(State::Size);
        }
        match byte {
            b';' if self.digits > 0 => self.extension(byte),
            b'\r' if self.digits > 0 => Ok(State::SizeEnd),
            _ => Err(BAD_SIZE),
        }
    }

    fn extension(&mut self, byte: u8) -> Result<State, Refusal> {
        if !is_value_byte(byte) {
            return Err(BAD_EXTENSION);
        }
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS { Err(LONG_EXTENSIONS) } else { Ok(State::Extension) }
    }

    fn size_end(&mut self) -> State {
        self.digits = 0;
        if self.left == 0 { State::TrailerStart } else { State::Data }
    }

    /// One byte of the trailer section: field lines as in a header (RFC 9112, section 7.1.2).
    fn trailer(&mut self, byte: u8) -> Result<State, Refusal> {
        self.trailers += 1;
        if self.trailers > MAX_TRAILERS {
            return Err(LONG_TRAILERS);
        }
        match (self.state, byte) {
            (State::TrailerStart, _) => {
                self.trailer_fields += 1;
                if self.trailer_fields > MAX_TRAILER_FIELDS {
                    return Err(LONG_TRAILERS);
                }
                trailer_name(byte)
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerName, _) => trailer_name(byte),
            (State::TrailerValue, b'\r') => Ok(State::TrailerEnd),
            (State::TrailerValue, _) if is_value_byte(byte) => Ok(State::TrailerValue),
            (State::TrailerEnd, b'\n') => Ok(State::TrailerStart),
            _ => Err(BAD_TRAILER),
        }
    }
}

fn trailer_name(byte: u8) -> Result<State, Refusal> {
    if is(byte, TOKEN) && class(byte) & UNDERSCORE == 0 { Ok(State::TrailerName) } else { Err(BAD_TRAILER) }
}
