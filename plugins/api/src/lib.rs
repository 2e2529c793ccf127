//! The contract between the gateway and its plugins: all that the author of a plugin needs.
//!
//! A plugin is a [`Plugin`] built by a [`PluginConfig`]. It sees headers, whole bodies and the request's [`Ctx`];
//! it answers with a [`Decision`]; what goes wrong on our side or the upstream's is a [`Fault`].

pub mod config;
mod consumer;
mod ctx;
mod fault;
mod needs;
mod plugin;
mod reply;

pub use consumer::{Consumer, ConsumerDirectory, Digest256, DuplicateCredential};
pub use ctx::{Ctx, PathParams, RequestId};
pub use fault::Fault;
pub use needs::{BodyNeed, MediaTypes, Needs, Overflow};
pub use plugin::{Decision, Deps, InvalidConfig, Outcome, Plugin, PluginConfig};
pub use reply::{Content, Problem, Reply};
