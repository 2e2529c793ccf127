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

#[test]
fn codings_are_read_as_they_stand() {
    assert!(codings(&[]).unwrap().is_identity());
    assert!(codings(&["identity, , IDENTITY"]).unwrap().is_identity());
    assert_eq!(codings(&["x-GZIP"]).unwrap(), Codings::of(Algorithm::Gzip));
    assert_eq!(codings(&["br", "gzip"]).unwrap(), codings(&["br,gzip"]).unwrap());
    for wrong in ["compress", "gzip, gzip, gzip", "gzip, none", "gzip;q=1"] {
        assert_eq!(codings(&[wrong]), Err(DecodeError::Unsupported), "{wrong}");
    }
}

#[test]
fn the_bounds_hold_to_the_byte() {
    let small = vec![0; 64 << 10];
    let decoded =
        |body: &[u8], max| decode_now(Codings::of(Algorithm::Gzip), &gzip(body), max).map(|plain| plain.len());
    assert_eq!(decoded(&small, 64 << 10), Ok(64 << 10), "64 KiB are allowed at any ratio");
    assert_eq!(decoded(&small, (64 << 10) - 1), Err(DecodeError::TooLarge));
    assert_eq!(decoded(&vec![0; (64 << 10) + 1], u64::MAX), Err(DecodeError::TooLarge), "more only at 100 to 1");
    assert_eq!(decoded(b"", 0), Ok(0));
}

#[test]
fn an_inner_stream_that_is_a_bomb_is_stopped() {
    // Many empty members: the outer decoder works, the inner puts nothing out.
    let empty_members = gzip(b"").repeat(1 << 20);
    let bomb = gzip(&empty_members);
    assert_eq!(decode_now(codings(&["gzip, gzip"]).unwrap(), &bomb, 1 << 20), Err(DecodeError::TooLarge));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_break_it(body in proptest::collection::vec(any::<u8>(), 0..300), flip in 0_usize..100) {
        for names in [&["gzip"][..], &["deflate"], &["br"], &["zstd"], &["br", "zstd"]] {
            let _ = decode_now(codings(names).unwrap(), &body, 1 << 20);
        }
        let mut coded = gzip(&body);
        let at = flip % coded.len();
        coded[at] ^= 1;
        let _ = decode_now(Codings::of(Algorithm::Gzip), &coded, 1 << 20);
        coded = zstd::encode_all(&body[..], 1).unwrap();
        let at = flip % coded.len();
        coded[at] ^= 1;
        let _ = decode_now(Codings::of(Algorithm::Zstd), &coded, 1 << 20);
    }
}
