//! Real handshakes in memory against tables.

mod handshakes;
mod rules;

use super::*;
use crate::certificate::tests::{Authority, Made};

/// Settings with these certificates and nothing else.
fn settings(pairs: &[&Made]) -> Settings {
    Settings {
        min_version: MinVersion::Tls12,
        ciphers: None,
        certificates: pairs.iter().map(|made| made.pair()).collect(),
        unknown_names: UnknownNames::ServeDefault,
        session_tickets: true,
        http2: true,
        policies: vec![policy(&[], None)],
    }
}

fn policy(names: &[&str], client_auth: Option<(&Authority, ClientAuthMode)>) -> Policy {
    Policy {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        client_auth: client_auth.map(|(authority, mode)| Demand { authorities: authority.trusted(), mode }),
    }
}
