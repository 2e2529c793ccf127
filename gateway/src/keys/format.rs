//! The text of a key: `cw_<id>_<secret><checksum>`.
//!
//! The id names the key in lists and logs, the secret is random, and the checksum tells a key that was mistyped or cut from
//! one that is not known, and a secret in a text from anything else. All of it is base62: one word to a double click.

use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};

use crossway_plugin_api::Digest256;

const PREFIX: &str = "cw_";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters of an id: 71 bits.
const ID: usize = 12;
/// Characters of a secret: 190 bits.
const SECRET: usize = 32;
/// Characters of a checksum: 32 bits.
const CHECKSUM: usize = 6;
/// Length of a key.
const LENGTH: usize = PREFIX.len() + ID + 1 + SECRET + CHECKSUM;

/// A key, new.
pub(super) struct Fresh {
    /// Its public part.
    pub(super) id: String,
    /// All of it, to be shown once.
    pub(super) text: String,
}

/// The system gives no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandom;

/// A key that nobody has had before.
pub(super) fn fresh() -> Result<Fresh, NoRandom> {
    let random = SystemRandom::new();
    let id = word(&random, ID)?;
    let mut text = format!("{PREFIX}{id}_{}", word(&random, SECRET)?);
    text.push_str(&checksum(text.as_bytes()));
    Ok(Fresh { id, text })
}

/// Whether a text has the form of a key and is whole.
pub(super) fn is_whole(text: &[u8]) -> bool {
    let Some((body, sum)) = text.split_last_chunk::<CHECKSUM>() else { return false };
    text.len() == LENGTH && body.starts_with(PREFIX.as_bytes()) && checksum(body).as_bytes() == sum
}

/// What is kept of a key.
pub(super) fn sha256(text: &[u8]) -> Digest256 {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, text).as_ref());
    Digest256(bytes)
}

/// Random characters, each as likely as any other.
fn word(random: &SystemRandom, length: usize) -> Result<String, NoRandom> {
    // The largest multiple of 62 in a byte: what is above would make the first characters more likely.
    const FAIR: u8 = 248;
    let mut word = String::with_capacity(length);
    while word.len() < length {
        let mut bytes = [0; 64];
        random.fill(&mut bytes).map_err(|_| NoRandom)?;
        let fair = bytes.iter().filter(|byte| **byte < FAIR).map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        word.extend(fair.take(length - word.len()));
    }
    Ok(word)
}

/// The first 32 bits of the SHA-256, in base62.
fn checksum(body: &[u8]) -> String {
    let digest = sha256(body).0;
    let mut number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) as usize;
    let mut sum = [b'0'; CHECKSUM];
    for place in sum.iter_mut().rev() {
        *place = ALPHABET[number % 62];
        number /= 62;
    }
    String::from_utf8_lossy(&sum).into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_are_whole_and_each_is_another() {
        let keys: Vec<Fresh> = (0..200).map(|_| fresh().unwrap()).collect();
        for key in &keys {
            assert!(is_whole(key.text.as_bytes()), "{}", key.text);
            assert_eq!(key.text.len(), LENGTH);
            assert_eq!(key.text.split('_').nth(1), Some(key.id.as_str()));
        }
        let texts: HashSet<&str> = keys.iter().map(|key| key.text.as_str()).collect();
        assert_eq!(texts.len(), keys.len());
        let seen: HashSet<char> = keys.iter().flat_map(|key| key.text[16..48].chars()).collect();
        assert_eq!(seen.len(), 62, "all characters occur");
    }

    #[test]
    fn what_is_mistyped_or_cut_is_not_whole() {
        let text = fresh().unwrap().text;
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            assert!(!is_whole(&bytes), "another character at {at}");
            assert!(!is_whole(&text.as_bytes()[..at]), "cut at {at}");
        }
        assert!(!is_whole(format!("{text}x").as_bytes()) && !is_whole(text.to_lowercase().as_bytes()));
    }
}
