//! The header fields that decide where a message ends, and what its connection may carry.

use http::StatusCode;

use super::{
    Refusal,
    framing::{BodyFraming, Framing, Version},
    octets::{is_token, trim},
};

const NO_HOST: Refusal = Refusal::bad("bad_host", "The request has no Host field.");
const TWO_HOSTS: Refusal = Refusal::bad("bad_host", "The request has more than one Host field.");
const TWO_LENGTHS: Refusal = Refusal::bad("bad_framing", "The request has more than one Content-Length.");
const BAD_LENGTH: Refusal = Refusal::bad("bad_framing", "Content-Length is not a plain decimal number.");
const BOTH: Refusal = Refusal::bad("bad_framing", "The request has both Content-Length and Transfer-Encoding.");
const TWO_CODINGS: Refusal = Refusal::bad("bad_framing", "The request has more than one Transfer-Encoding field.");
const BAD_CODING: Refusal = Refusal::bad("bad_framing", "Transfer-Encoding is not valid.");
const OLD_CODING: Refusal = Refusal::bad("bad_framing", "Transfer-Encoding is not allowed in HTTP/1.0.");
const UNKNOWN_CODING: Refusal = Refusal::new(
    StatusCode::NOT_IMPLEMENTED,
    "transfer_coding_not_supported",
    "The only transfer coding supported is chunked.",
);
const BAD_OPTION: Refusal = Refusal::bad("bad_header", "The Connection field is not valid.");
const PROTECTED: Refusal =
    Refusal::bad("bad_header", "The Connection field names a header field that does not belong to the connection.");
const EXPECTATION: Refusal = Refusal::new(
    StatusCode::EXPECTATION_FAILED,
    "expectation_failed",
    "The only expectation supported is 100-continue.",
);

/// What the header fields have said so far.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    /// The value of `Host`, once it was seen.
    pub(super) host: Option<&'a [u8]>,
    measured: bool,
    length: u64,
    chunked: bool,
    expects_continue: bool,
    close: bool,
    keep_alive: bool,
}

impl<'a> Fields<'a> {
    /// Takes note of one field; its value has no white space at its ends.
    pub(super) fn note(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Refusal> {
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") && self.host.replace(value).is_some() => return Err(TWO_HOSTS),
            6 if name.eq_ignore_ascii_case(b"expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(EXPECTATION);
                }
                self.expects_continue = true;
            }
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(value)?,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                once(&mut self.measured, TWO_LENGTHS)?;
                self.length = length(value)?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                once(&mut self.chunked, TWO_CODINGS)?;
                coding(value)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// `Connection` (RFC 9110, section 7.6.1): its options, and the fields it takes with it.
    fn connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for option in value.split(|&b| b == b',').map(trim).filter(|option| !option.is_empty()) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if !is_token(option) {
                return Err(BAD_OPTION);
            } else if is_protected(option) {
                return Err(PROTECTED);
            }
        }
        Ok(())
    }

    /// The conclusion, once all fields are known.
    pub(super) fn framing(&self, version: Version) -> Result<Framing, Refusal> {
        let current = version == Version::Http11;
        if current && self.host.is_none() {
            return Err(NO_HOST);
        }
        if self.chunked && !current {
            return Err(OLD_CODING);
        }
        let body = match (self.measured, self.chunked) {
            (true, true) => return Err(BOTH),
            (true, false) => BodyFraming::Length(self.length),
            (false, true) => BodyFraming::Chunked,
            (false, false) => BodyFraming::None,
        };
        let has_body = !matches!(body, BodyFraming::None | BodyFraming::Length(0));
        Ok(Framing {
            body,
            // A client of HTTP/1.0 cannot wait for an interim response (RFC 9110, section 10.1.1).
            expects_continue: self.expects_continue && current && has_body,
            close: self.close || (!current && !self.keep_alive),
        })
    }
}

/// Notes a field that may be there only once.
fn once(seen: &mut bool, refusal: Refusal) -> Result<(), Refusal> {
    if std::mem::replace(seen, true) { Err(refusal) } else { Ok(()) }
}

/// Digits only, at most 19 so that the number fits, and no leading zero, which some readers take for an octal number.
pub(super) fn length(value: &[u8]) -> Result<u64, Refusal> {
    match value {
        [] | [b'0', _, ..] => Err(BAD_LENGTH),
        digits if digits.len() > 19 => Err(BAD_LENGTH),
        digits => digits.iter().try_fold(0_u64, |number, digit| match digit {
            b'0'..=b'9' => Ok(number * 10 + u64::from(digit - b'0')),
            _ => Err(BAD_LENGTH),
        }),
    }
}

/// Exactly `chunked`. A well-formed list that ends in `chunked`, or one unknown coding, is 501; the rest is 400
/// (RFC 9112, sections 6.1 and 6.3).
fn coding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut before = None;
    for coding in value.split(|&b| b == b',').map(trim) {
        if !is_token(coding) || before == Some(true) {
            return Err(BAD_CODING);
        }
        before = Some(coding.eq_ignore_ascii_case(b"chunked"));
    }
    if before == Some(false) && value.contains(&b',') { Err(BAD_CODING) } else { Err(UNKNOWN_CODING) }
}

/// Fields that a client cannot declare to be its connection's own: removing them would change what the message says, or
/// who is believed to have sent it.
fn is_protected(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 9] = [
        b"host",
        b"transfer-encoding",
        b"forwarded",
        b"via",
        b"authorization",
        b"cookie",
        b"expect",
        b"x-api-key",
        b"x-real-ip",
    ];
    const PREFIXES: [&[u8]; 4] = [b"content-", b"x-forwarded-", b"x-consumer-", b"x-request-id"];
    NAMES.iter().any(|protected| name.eq_ignore_ascii_case(protected))
        || PREFIXES
            .iter()
            .any(|prefix| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix)))
}
