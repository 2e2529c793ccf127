//! The contract between the gateway and its plugins: all that the author of a plugin needs.
//!
//! A plugin is a [`Plugin`] built by a [`PluginConfig`]. It sees headers, whole bodies and the request's [`Ctx`];
//! it answers with a [`Decision`]; what goes wrong on our side or the upstream's is a [`Fault`].

mod certificate;
mod claims;
mod clock;
pub mod config;
mod consumer;
mod cookies;
mod ctx;
mod fault;
mod fetch;
mod issued;
mod metrics;
mod needs;
pub mod oauth2;
mod places;
mod plugin;
mod reply;
mod state;
mod store;
mod suggest;
mod tasks;

pub use certificate::ClientCertificate;
pub use claims::Claims;
pub use clock::Clock;
pub use consumer::{BadName, CertificateName, Consumer, ConsumerDirectory, Credential, Digest256, DuplicateCredential};
pub use cookies::cookies;
pub use ctx::{Ctx, PathParams, RequestId};
pub use fault::Fault;
pub use fetch::{Ask, Fetch, NoAnswer, NoFetch, Told, check_secure_url};
pub use issued::{IssuedKeys, NoHolder, NoIssuedKeys};
pub use metrics::MetricsScope;
pub use needs::{BodyNeed, MediaTypes, NeededParam, Needs, Overflow};
pub use places::{NoPlace, Place, Places, Room};
pub use plugin::{Decision, Deps, InvalidConfig, Outcome, Plugin, PluginConfig};
pub use reply::{Content, Problem, Reply};
pub use state::SharedState;
pub use store::{NoServer, NoStore, SharedScript, SharedStore};
pub use suggest::suggest;
pub use tasks::{Task, Tasks};
