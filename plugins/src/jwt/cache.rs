//! Tokens that were verified, found by their digest.

use std::{
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use moka::{policy::EvictionPolicy, sync::Cache};
use ring::digest::{SHA256, digest};

use super::policy::Verified;

/// What an entry takes beside the claims, in bytes.
const ENTRY: usize = 512;
/// How much larger claims are in memory than in a token.
const SPREAD: usize = 4;

/// The SHA-256 of a token: a cache of tokens themselves could leak them, and a shorter digest could be met by another.
pub(super) type Print = [u8; 32];

pub(super) fn print(token: &str) -> Print {
    let mut print = [0; 32];
    print.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    print
}

/// Verified tokens of one plugin: what a token means depends on the plugin's settings, so that none is shared. Those that
/// were not used for longest give way.
pub(super) struct Verifications(Cache<Print, (u32, Arc<Verified>), ByPrint>);

impl Verifications {
    /// Keeps about as many bytes.
    pub(super) fn new(bytes: u64) -> Self {
        let cache = Cache::builder()
            .max_capacity(bytes)
            .weigher(|_, (weight, _): &(u32, Arc<Verified>)| *weight)
            .eviction_policy(EvictionPolicy::lru());
        Self(cache.build_with_hasher(ByPrint))
    }

    pub(super) fn get(&self, print: &Print) -> Option<Arc<Verified>> {
        self.0.get(print).map(|(_, verified)| verified)
    }

    pub(super) fn keep(&self, print: Print, token: &str, verified: &Arc<Verified>) {
        let weight = u32::try_from(ENTRY + token.len() * SPREAD).unwrap_or(u32::MAX);
        self.0.insert(print, (weight, Arc::clone(verified)));
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.0.run_pending_tasks();
        self.0.entry_count()
    }

    pub(super) fn forget(&self, print: &Print) {
        self.0.invalidate(print);
    }
}

/// A digest is as good a hash as any; only tokens that an issuer has signed come in, so that nobody can choose it.
#[derive(Debug, Clone, Copy, Default)]
struct ByPrint;

impl BuildHasher for ByPrint {
    type Hasher = FirstBytes;

    fn build_hasher(&self) -> FirstBytes {
        FirstBytes(0)
    }
}

struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    /// The length of the digest, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
