use std::io::Write as _;

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn codings(fields: &[&str]) -> Result<Codings, DecodeError> {
    let mut headers = HeaderMap::new();
    for field in fields {
        headers.append(header::CONTENT_ENCODING, HeaderValue::from_str(field).unwrap());
    }
    Codings::in_header(&headers)
}
