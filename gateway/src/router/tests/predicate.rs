use crossway_plugin_api::config::Glob;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use crate::router::{headers_hold, query_holds};

#[test]
fn a_parameter_is_compared_decoded_and_once() {
    let wanted = |name: &str, glob: &str| vec![(name.to_owned(), Glob::parse(glob).unwrap())];
    for (query, name, glob, expected) in [
        (Some("v=2"), "v", "2", true),
        (Some("a=1&v=2&b"), "v", "2", true),
        (Some("%76=%32"), "v", "2", true),
        (Some("v=1&v=2"), "v", "2", false),
        (Some("v=2&v=2"), "v", "2", false),
        (Some("v=1&%76=2"), "v", "2", false),
        (Some("v=a+b"), "v", "a b", true),
        (Some("v=a%20b"), "v", "a b", true),
        (Some("v=a%2Bb"), "v", "a+b", true),
        (Some("v"), "v", "", true),
        (Some("v="), "v", "*", true),
        (Some("v=1;w=2"), "w", "2", false),
        (Some("v=a=b"), "v", "a=b", true),
        (Some("v=%zz%"), "v", "%zz%", true),
        (Some("v=%ff"), "v", "*", false),
        (Some("vv=2"), "v", "*", false),
        (Some(""), "v", "*", false),
        (None, "v", "*", false),
    ] {
        assert_eq!(query_holds(&wanted(name, glob), query), expected, "{query:?} {name} {glob}");
    }
    let both = [wanted("a", "1"), wanted("b", "2")].concat();
    assert!(query_holds(&both, Some("b=2&a=1")) && !query_holds(&both, Some("a=1")) && query_holds(&[], None));
}

#[test]
fn one_value_of_a_field_must_fit() {
    let wanted = |glob: &str| [(HeaderName::from_static("x-role"), Glob::parse(glob).unwrap())];
    let mut headers = HeaderMap::new();
    assert!(!headers_hold(&wanted("*"), &headers));
    headers.append("x-role", HeaderValue::from_static("user"));
    headers.append("x-role", HeaderValue::from_static("admin"));
    headers.append("x-role", HeaderValue::from_bytes(b"\xff").unwrap());
    assert!(headers_hold(&wanted("admin"), &headers) && headers_hold(&wanted("us*"), &headers));
    assert!(!headers_hold(&wanted("Admin"), &headers) && !headers_hold(&wanted("user, admin"), &headers));
}

proptest! {
    /// A value that is written with any mix of escapes is read back.
    #[test]
    fn escapes_are_read_back(value in "\\PC{0,12}", plain in any::<u64>()) {
        let written: String = value.bytes().enumerate().map(|(at, byte)| match byte {
            b'a'..=b'z' if plain >> (at % 64) & 1 == 1 => char::from(byte).to_string(),
            b' ' => "+".to_owned(),
            _ => format!("%{byte:02x}"),
        }).collect();
        let glob = Glob::parse(&value);
        prop_assume!(glob.is_ok());
        let query = format!("x&v={written}");
        prop_assert!(query_holds(&[("v".to_owned(), glob.unwrap())], Some(&query)));
    }
}
