//! What the gateway is to an authorization server.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderValue,
    header::{ACCEPT, AUTHORIZATION},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{Ask, config::Secret};

/// How a client shows its secret (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
#[allow(missing_docs, reason = "with descriptions the schema would have alternatives; the setting describes them")]
pub enum ClientAuth {
    #[default]
    Basic,
    Post,
}

/// The client that the gateway is to an authorization server: a name and a secret, and how it shows them.
#[derive(Clone)]
pub struct Client {
    /// What shows the secret in a field, if it does not go into the body.
    authorization: Option<HeaderValue>,
    /// What shows it in the body; empty if it goes into a field.
    form: String,
}

impl Client {
    /// A client of this name. With `basic`, name and secret are form-encoded before they are joined (RFC 6749, section
    /// 2.3.1).
    pub fn new(id: &str, secret: &Secret, auth: ClientAuth) -> Self {
        let (id, secret) = (form_encoded(id), form_encoded(secret.expose()));
        // What is encoded is ASCII, so that it is always a value.
        let basic = || HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))).ok();
        match (auth, basic()) {
            (ClientAuth::Basic, Some(mut value)) => {
                value.set_sensitive(true);
                Self { authorization: Some(value), form: String::new() }
            }
            _ => Self { authorization: None, form: format!("&client_id={id}&client_secret={secret}") },
        }
    }

    /// A question of this client, with `form` as its body.
    pub fn ask(&self, url: &str, form: &str) -> Ask {
        let mut ask = Ask::form(url, format!("{form}{}", self.form));
        ask.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(value) = &self.authorization {
            ask.headers.insert(AUTHORIZATION, value.clone());
        }
        ask
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// A text in a form (`application/x-www-form-urlencoded`).
pub fn form_encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(auth: ClientAuth) -> Client {
        Client::new("gate way", &serde_json::from_str("\"s:3&cret\"").unwrap(), auth)
    }

    #[test]
    fn a_secret_is_shown_in_one_place_and_form_encoded() {
        let basic = client(ClientAuth::Basic).ask("https://idp.test/token", "a=b");
        let expected = format!("Basic {}", STANDARD.encode("gate%20way:s%3A3%26cret"));
        assert_eq!(basic.headers.get(AUTHORIZATION).unwrap(), expected.as_str());
        assert!(basic.headers.get(AUTHORIZATION).unwrap().is_sensitive());
        assert_eq!(basic.body, "a=b");
        let post = client(ClientAuth::Post).ask("https://idp.test/token", "a=b");
        assert_eq!(post.headers.get(AUTHORIZATION), None);
        assert_eq!(post.body, "a=b&client_id=gate%20way&client_secret=s%3A3%26cret");
        assert_eq!(format!("{:?}", client(ClientAuth::Post)), "Client");
    }
}
