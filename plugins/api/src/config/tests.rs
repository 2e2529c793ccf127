use super::*;

#[test]
fn sizes_need_a_whole_number_and_a_unit() {
    assert_eq!(ByteSize::parse("64KiB"), Ok(ByteSize(65_536)));
    assert_eq!(ByteSize::parse("5 MB"), Ok(ByteSize(5_000_000)));
    assert_eq!(ByteSize::parse("0B"), Ok(ByteSize(0)));
    for wrong in ["", "64", "KiB", "-1KiB", "1.5MiB", "99999999999GiB", "1kib"] {
        assert!(ByteSize::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn globs_cover_the_whole_value() {
    for (pattern, text, expected) in [
        ("abc", "abc", true),
        ("abc", "abcd", false),
        ("*", "", true),
        ("a*", "abc", true),
        ("*c", "abc", true),
        ("a*c", "ac", true),
        ("a*c", "abd", false),
        ("ab*ba", "aba", false),
        ("*a*b*", "xxaxxbxx", true),
        ("https://*.example.com", "https://example.com", false),
    ] {
        assert_eq!(Glob::parse(pattern).unwrap().matches(text), expected, "{pattern} {text}");
    }
    assert!(Glob::parse("*********").is_err());
}

#[test]
fn networks_with_stray_bits_are_refused() {
    assert!(Network::parse("10.0.0.0/8").unwrap().contains("::ffff:10.1.2.3".parse().unwrap()));
    assert!(Network::parse("10.1.0.0/8").unwrap_err().contains("10.0.0.0/8"));
    assert!(Network::parse("10.0.0.0/33").is_err());
}

#[test]
fn statuses_are_codes_classes_or_ranges() {
    let has = |set: &str, code: u16| StatusSet::parse(set).unwrap().contains(code.try_into().unwrap());
    assert!(has("404", 404) && !has("404", 405) && has("5xx", 599) && has("500-504", 502) && !has("500-504", 505));
    for wrong in ["", "xx", "9xx", "50", "500-", "504-500", "600", "+404"] {
        assert!(StatusSet::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    for (text, size) in [("64KiB", 65_536), ("10MiB", 10 << 20), ("1500B", 1500), ("0B", 0), ("1KiB", 1024)] {
        assert_eq!((ByteSize(size).to_string().as_str(), ByteSize::parse(text)), (text, Ok(ByteSize(size))));
    }
    for text in ["500ms", "10s", "1m 30s", "10m", "0s"] {
        assert_eq!(HumanDuration::parse(text).unwrap().to_string(), text);
    }
    for text in ["404", "500-504"] {
        assert_eq!(StatusSet::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(StatusSet::parse(&StatusSet::parse("5xx").unwrap().to_string()), StatusSet::parse("5xx"));
    assert_eq!(Network::parse("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
}

#[test]
fn a_secret_is_never_shown() {
    let secret: Secret = serde_json::from_str("\"hunter2\"").unwrap();
    assert_eq!((format!("{secret:?}").as_str(), secret.expose()), ("***", "hunter2"));
    assert!(serde_json::from_str::<Secret>("\"\"").is_err());
}

#[test]
fn every_format_of_a_schema_is_listed() {
    let listed: Vec<_> = formats().iter().map(|(name, _)| *name).collect();
    let generated = schemars::schema_for!((
        HumanDuration,
        ByteSize,
        ByteRate,
        FieldName,
        FieldValue,
        FileText,
        Glob,
        Network,
        Percent,
        Sha256Hex,
        StatusSet
    ));
    let text = generated.as_value().to_string();
    for name in &listed {
        assert!(text.contains(*name), "{name} is in no schema");
    }
    assert_eq!(text.matches("\"format\"").count(), listed.len());
}
