//! API keys that were issued at run time.

use std::{fmt, sync::Arc};

use crate::{Consumer, ConsumerDirectory, Digest256};

/// The API keys that were issued at run time, known in memory: a look-up waits for nothing.
pub trait IssuedKeys: fmt::Debug + Send + Sync {
    /// The consumer that holds the key with this text and SHA-256, if the key is good now; its use is noted.
    fn holder<'c>(
        &self,
        text: &[u8],
        digest: &Digest256,
        consumers: &'c ConsumerDirectory,
    ) -> Result<&'c Arc<Consumer>, NoHolder>;
}

/// Why nobody holds a key: for logs, never for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHolder {
    /// It is not a good key; the reason.
    Refused(&'static str),
    /// It is not known whether it is a good key: no key could be read yet.
    Unknown,
}

/// Nothing was issued.
#[derive(Debug, Default)]
pub struct NoIssuedKeys;

impl IssuedKeys for NoIssuedKeys {
    fn holder<'c>(&self, _: &[u8], _: &Digest256, _: &'c ConsumerDirectory) -> Result<&'c Arc<Consumer>, NoHolder> {
        Err(NoHolder::Refused("no such key"))
    }
}
