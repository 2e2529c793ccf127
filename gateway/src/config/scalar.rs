//! Plain scalars by the core schema of YAML 1.2 (section 10.3.2), less its traps: `no` and `on` are texts, and so is a
//! number with leading zeros.

use serde_json::{Number, Value};

/// What an unquoted scalar means.
pub(super) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number),
    }
}

/// A decimal number; no leading zeros, no hexadecimal or octal form, nothing beyond 64 bits.
pub(super) fn number(text: &str) -> Option<Number> {
    let digits = text.trim_start_matches(['-', '+']);
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && !digits[1..].starts_with(['.', 'e', 'E']);
    let shape = text.len() - digits.len() <= 1 && digits.starts_with(|c: char| c.is_ascii_digit());
    if leading_zero || !shape || !digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b)) {
        return None;
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        let signed = text.parse::<i64>().map(Number::from);
        return signed.or_else(|_| text.parse::<u64>().map(Number::from)).ok();
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_core_words_and_plain_decimals_are_not_texts() {
        for (text, value) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("true", json!(true)),
            ("False", json!(false)),
            ("0", json!(0)),
            ("-12", json!(-12)),
            ("+3", json!(3)),
            ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
            ("1.5", json!(1.5)),
            ("0.5", json!(0.5)),
            ("1e3", json!(1000.0)),
        ] {
            assert_eq!(plain(text), value, "{text}");
        }
        for text in
            ["no", "on", "yes", "012", "-01", "0x1F", "0o7", "1_000", ".5", ".inf", "1.2.3", "--1", "1e999", "e5"]
        {
            assert_eq!(plain(text), json!(text));
        }
    }
}
