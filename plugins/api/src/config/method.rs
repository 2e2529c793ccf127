//! Methods.

use http::Method;

/// Reads the name of a method that the gateway serves (RFC 9110, section 9.1): case counts.
pub fn parse_method(name: &str) -> Result<Method, String> {
    match Method::from_bytes(name.as_bytes()) {
        Ok(Method::TRACE | Method::CONNECT) => Err(format!("{name} is never served")),
        Ok(method) if name.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') => Ok(method),
        _ => Err(format!("`{name}` is not a method: a method is one word in capitals, such as GET")),
    }
}
