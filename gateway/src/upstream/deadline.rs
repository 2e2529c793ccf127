//! The field in which a request says how long its answer may take: whole milliseconds, from client to upstream.

use std::time::{Duration, Instant};

use crossway_plugin_api::{Fault, Reply};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora_http::RequestHeader;

/// Most digits: more than three years.
const DIGITS: usize = 11;

/// The moment that a request asks for, if it does. A number that cannot be read, or two of them, are refused.
pub fn asked(name: &HeaderName, headers: &HeaderMap, now: Instant) -> Result<Option<Instant>, Reply> {
    let mut fields = headers.get_all(name).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        (Some(field), None) => match millis(field) {
            Some(length) => Ok(now.checked_add(length)),
            None => Err(refusal(name)),
        },
        _ => Err(refusal(name)),
    }
}

fn refusal(name: &HeaderName) -> Reply {
    let detail = format!("The field {name} is not a whole number of milliseconds.");
    Reply::problem(StatusCode::BAD_REQUEST, "deadline_invalid", detail)
}

fn millis(field: &HeaderValue) -> Option<Duration> {
    let text = field.to_str().ok()?;
    let good = (1..=DIGITS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| good).map(Duration::from_millis)
}

/// Tells the upstream what is left.
pub fn tell(name: &HeaderName, left: Duration, req: &mut RequestHeader) -> Result<(), Fault> {
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    req.insert_header(name.clone(), HeaderValue::from(millis))
        .map_err(|_| Fault::Internal("a deadline that cannot be written".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_whole_number_of_milliseconds() {
        let (name, now) = (HeaderName::from_static("x-request-timeout"), Instant::now());
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(name.clone(), HeaderValue::from_static(value));
            }
            asked(&name, &headers, now).map_err(|reply| reply.code())
        };
        assert_eq!(of(&[]), Ok(None));
        for (text, length) in [("0", 0), ("1500", 1500), ("007", 7), ("99999999999", 99_999_999_999)] {
            assert_eq!(of(&[text]), Ok(Some(now + Duration::from_millis(length))), "{text}");
        }
        for text in ["", "1s", "-1", "+1", "1.5", "1 ", "999999999999", "0x1"] {
            assert_eq!(of(&[text]), Err(Some("deadline_invalid")), "{text:?}");
        }
        assert_eq!(of(&["1", "1"]), Err(Some("deadline_invalid")));
    }
}
