//! The algorithms that signatures are made with.

use jsonwebtoken as lib;
use schemars::JsonSchema;
use serde::Deserialize;

/// An algorithm of JSON Web Signatures (RFC 7518, section 3.1; RFC 8037, section 3.1), by its name in a token's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are those of the standard")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
    HS256,
    HS384,
    HS512,
}

impl Algorithm {
    /// Reads the name of a header, in which case counts. `none` is no algorithm.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::RS256,
            "RS384" => Self::RS384,
            "RS512" => Self::RS512,
            "PS256" => Self::PS256,
            "PS384" => Self::PS384,
            "PS512" => Self::PS512,
            "ES256" => Self::ES256,
            "ES384" => Self::ES384,
            "EdDSA" => Self::EdDSA,
            "HS256" => Self::HS256,
            "HS384" => Self::HS384,
            "HS512" => Self::HS512,
            _ => return None,
        })
    }

    /// The same in the library's terms.
    pub(super) fn of_library(self) -> lib::Algorithm {
        match self {
            Self::RS256 => lib::Algorithm::RS256,
            Self::RS384 => lib::Algorithm::RS384,
            Self::RS512 => lib::Algorithm::RS512,
            Self::PS256 => lib::Algorithm::PS256,
            Self::PS384 => lib::Algorithm::PS384,
            Self::PS512 => lib::Algorithm::PS512,
            Self::ES256 => lib::Algorithm::ES256,
            Self::ES384 => lib::Algorithm::ES384,
            Self::EdDSA => lib::Algorithm::EdDSA,
            Self::HS256 => lib::Algorithm::HS256,
            Self::HS384 => lib::Algorithm::HS384,
            Self::HS512 => lib::Algorithm::HS512,
        }
    }

    /// The shortest secret in bytes, which is the length of the hash (RFC 7518, section 3.2).
    pub(super) fn least_secret(self) -> Option<usize> {
        match self {
            Self::HS256 => Some(32),
            Self::HS384 => Some(48),
            Self::HS512 => Some(64),
            _ => None,
        }
    }
}
