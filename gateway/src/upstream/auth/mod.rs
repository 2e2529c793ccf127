//! How the gateway itself signs in at an upstream.
//!
//! What it shows is written last of all, when the plugins have seen the request for the last time, and in place of what
//! the client has sent in the same field.

mod answer;
mod proof;
mod tokens;

use std::{sync::Arc, time::Instant};

use crossway_plugin_api::Fault;
use http::StatusCode;
use pingora_http::RequestHeader;

use super::Upstream;

pub use answer::Plan;
pub use proof::Proof;
pub use tokens::Tokens;

/// How the gateway signs in.
pub enum Identity {
    /// With the same proof each time, of this kind.
    Fixed(&'static str, Arc<Proof>),
    /// With a token that it gets for itself.
    Tokens(Arc<Tokens>),
}

impl Identity {
    /// The kind, as it is configured.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fixed(kind, _) => kind,
            Self::Tokens(_) => "oauth2_client_credentials",
        }
    }
}

impl Upstream {
    /// Waits until there is something to show, at most until `deadline`.
    pub async fn can_sign_in(&self, deadline: Instant) -> Result<(), Fault> {
        match &self.auth {
            Some(Identity::Tokens(tokens)) => tokens.proof(deadline).await.map(drop),
            _ => Ok(()),
        }
    }
}

/// What one request shows to its upstream, from attempt to attempt.
#[derive(Default)]
pub struct Shown {
    proof: Option<Arc<Proof>>,
    /// Whether the request has been sent again because its token was not taken.
    is_repeated: bool,
}

impl Shown {
    /// Chooses what the next attempt shows; waits for it at most until `deadline`.
    pub async fn choose(&mut self, upstream: &Upstream, deadline: Instant) -> Result<(), Fault> {
        self.proof = match &upstream.auth {
            None => None,
            Some(Identity::Fixed(_, proof)) => Some(Arc::clone(proof)),
            Some(Identity::Tokens(tokens)) => Some(tokens.proof(deadline).await?),
        };
        Ok(())
    }

    /// Writes it into a request that nobody else will change or see.
    pub fn write(&self, req: &mut RequestHeader) -> Result<(), Fault> {
        self.proof.as_ref().map_or(Ok(()), |proof| proof.write(req))
    }

    /// Whether an answer with this status wants the request once more, with another token. Waits for that token, also
    /// where it is for the next request only. At most once for each request.
    pub async fn is_refused(
        &mut self,
        upstream: &Upstream,
        status: StatusCode,
        replayable: bool,
        deadline: Instant,
    ) -> bool {
        if status != StatusCode::UNAUTHORIZED {
            return false;
        }
        let (Some(Identity::Tokens(tokens)), Some(used)) = (&upstream.auth, &self.proof) else { return false };
        let again = tokens.is_replaced(used, deadline).await && replayable && !self.is_repeated;
        self.is_repeated |= again;
        again && Instant::now() < deadline
    }

    /// Whether an answer could still make the request be sent once more.
    pub fn may_repeat(&self, upstream: &Upstream) -> bool {
        !self.is_repeated && matches!(upstream.auth, Some(Identity::Tokens(_)))
    }

    /// How many attempts were made for this reason: they do not count among those that an upstream's rules allow.
    pub fn repeats(&self) -> u32 {
        u32::from(self.is_repeated)
    }
}
