//! `Accept-Encoding` (RFC 9110, section 12.5.3).

use http::{HeaderMap, header};

use super::{Algorithm, items};

/// A weight in thousandths.
type Weight = u16;
const FULL: Weight = 1000;

/// What a client says of each coding; `None` where it does not name it.
#[derive(Default)]
struct Weights {
    br: Option<Weight>,
    gzip: Option<Weight>,
    zstd: Option<Weight>,
    identity: Option<Weight>,
    any: Option<Weight>,
}

impl Weights {
    fn of(headers: &HeaderMap) -> Self {
        let mut weights = Self::default();
        for item in items(headers, &header::ACCEPT_ENCODING) {
            let mut parts = item.split(|&b| b == b';').map(<[u8]>::trim_ascii);
            let name = parts.next().unwrap_or_default();
            let is = |coding: &[u8]| name.eq_ignore_ascii_case(coding);
            let slot = match name {
                b"*" => &mut weights.any,
                _ if is(b"gzip") || is(b"x-gzip") => &mut weights.gzip,
                _ if is(b"br") => &mut weights.br,
                _ if is(b"zstd") => &mut weights.zstd,
                _ if is(b"identity") => &mut weights.identity,
                _ => continue,
            };
            // Who names a coding twice takes it with the larger weight.
            *slot = (*slot).max(Some(parts.next().map_or(FULL, weight)));
        }
        weights
    }

    fn of_algorithm(&self, algorithm: Algorithm) -> Weight {
        let named = match algorithm {
            Algorithm::Br => self.br,
            Algorithm::Gzip => self.gzip,
            Algorithm::Zstd => self.zstd,
        };
        named.or(self.any).unwrap_or(0)
    }
}

/// A parameter `q=0.5` (RFC 9110, section 12.4.2). What cannot be read is 0: not acceptable.
fn weight(parameter: &[u8]) -> Weight {
    let [b'q' | b'Q', b'=', digits @ ..] = parameter else { return 0 };
    let (whole, fraction) = match digits {
        [whole] | [whole, b'.'] => (whole, &[][..]),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (whole, fraction),
        _ => return 0,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let thousandths = fraction.iter().zip([100, 10, 1]).map(|(digit, unit)| Weight::from(digit - b'0') * unit).sum();
    match (whole, thousandths) {
        (b'0', part) => part,
        (b'1', 0) => FULL,
        _ => 0,
    }
}

/// The algorithm that the client likes best, by its place in `order`, the gateway's preference: it decides where the client
/// has none. `None` if the client takes none of them, or prefers the body as it is.
pub(super) fn negotiate(headers: &HeaderMap, order: impl IntoIterator<Item = Algorithm>) -> Option<usize> {
    if !headers.contains_key(header::ACCEPT_ENCODING) {
        return None;
    }
    let weights = Weights::of(headers);
    let mut best = (weights.identity.unwrap_or(0).max(1) - 1, None);
    for (at, algorithm) in order.into_iter().enumerate() {
        let weight = weights.of_algorithm(algorithm);
        if weight > best.0 {
            best = (weight, Some(at));
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use Algorithm::{Br, Gzip, Zstd};
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn chosen(fields: &[&str], order: &[Algorithm]) -> Option<Algorithm> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_str(field).unwrap());
        }
        negotiate(&headers, order.iter().copied()).map(|at| order[at])
    }

    #[test]
    fn the_clients_weights_decide_and_then_the_order() {
        for (accept, expected) in [
            ("gzip", Some(Gzip)),
            ("br", Some(Br)),
            ("zstd", Some(Zstd)),
            ("GZIP", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("gzip, br, zstd", Some(Br)),
            ("gzip;q=1.0, br;q=0.9", Some(Gzip)),
            ("gzip ; q=0.4 , zstd ; Q=0.5", Some(Zstd)),
            ("br;q=0.001", Some(Br)),
            ("br;q=0, gzip", Some(Gzip)),
            ("br;q=0.000", None),
            ("*", Some(Br)),
            ("*;q=0.5, br;q=0.1", Some(Gzip)),
            ("br;q=0, *", Some(Gzip)),
            ("gzip, *;q=0", Some(Gzip)),
            ("*;q=0", None),
            ("identity", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("identity, gzip", Some(Gzip)),
            ("identity;q=0", None),
            ("", None),
            (",, ,", None),
            ("deflate, compress", None),
            ("gzip;q=2", None),
            ("gzip;q=1.001", None),
            ("gzip;q=0.1234", None),
            ("gzip;q=", None),
            ("gzip;q=-1", None),
            ("gzip;q=0x", None),
            ("gzip;level=9", None),
            ("gzip;q=1.", Some(Gzip)),
            ("gzipped", None),
        ] {
            assert_eq!(chosen(&[accept], &[Br, Gzip, Zstd]), expected, "{accept}");
        }
        assert_eq!(chosen(&[], &[Br]), None);
        assert_eq!(chosen(&["gzip", "zstd"], &[Zstd, Gzip]), Some(Zstd));
        assert_eq!(chosen(&["gzip, br"], &[Zstd]), None);
    }

    proptest! {
        #[test]
        fn no_field_breaks_it(text in "[ -~\t]{0,60}") {
            chosen(&[&text], &[Br, Gzip, Zstd]);
        }
    }
}
