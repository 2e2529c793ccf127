//! API keys, and a gateway's file that has them as if they had been issued: one by one, each would be on disk before the
//! next is made.

use std::{
    fmt::Write as _,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};
use redb::{Database, TableDefinition};
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};
use serde_json::json;

/// Records by id, and last uses, in the form that each later version of the gateway must be able to read.
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("api_keys");
const USES: TableDefinition<'_, &str, u64> = TableDefinition::new("api_keys_used");
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const ID: usize = 12;
const SECRET: usize = 32;
const CHECKSUM: usize = 6;
/// 2023-11-14 and 2100-01-01.
const CREATED: u64 = 1_700_000_000;
const EXPIRES: u64 = 4_102_444_800;

/// Which keys, and where to.
#[derive(clap::Args)]
pub(crate) struct Settings {
    /// How many.
    #[arg(long)]
    count: u32,
    /// Writes the keys to this file, one in a line.
    #[arg(long)]
    list: PathBuf,
    /// Puts them into this local store of a gateway that does not run, too.
    #[arg(long)]
    store: Option<PathBuf>,
    /// Whose they are.
    #[arg(long, default_value = "acme")]
    consumer: String,
}

/// Makes the keys.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let random = SystemRandom::new();
    let keys = (0..settings.count).map(|_| key(&random)).collect::<anyhow::Result<Vec<String>>>()?;
    let mut list = BufWriter::new(std::fs::File::create(&settings.list)?);
    for key in &keys {
        writeln!(list, "{key}")?;
    }
    list.flush()?;
    settings.store.as_deref().map_or(Ok(()), |store| fill(store, &keys, &settings.consumer))
}

/// One that is whole, and that nobody has had before: `cw_<id>_<secret><checksum>`.
fn key(random: &SystemRandom) -> anyhow::Result<String> {
    let mut bytes = [0; ID + SECRET];
    random.fill(&mut bytes).map_err(|_| anyhow!("the system gives no random numbers"))?;
    let word =
        |bytes: &[u8]| bytes.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % 62])).collect::<String>();
    let mut text = format!("cw_{}_{}", word(&bytes[..ID]), word(&bytes[ID..]));
    text.push_str(&checksum(&text));
    Ok(text)
}

/// The first 32 bits of the SHA-256, in base62.
fn checksum(body: &str) -> String {
    let sum = digest(&SHA256, body.as_bytes());
    let mut number = sum.as_ref().iter().take(4).fold(0, |number, byte| number << 8 | usize::from(*byte));
    let mut digits = [0; CHECKSUM];
    for place in digits.iter_mut().rev() {
        *place = ALPHABET[number % 62];
        number /= 62;
    }
    digits.map(char::from).iter().collect()
}

/// All in one transaction.
fn fill(store: &Path, keys: &[String], consumer: &str) -> anyhow::Result<()> {
    let database = Database::create(store)?;
    let transaction = database.begin_write()?;
    {
        let (mut records, mut uses) = (transaction.open_table(RECORDS)?, transaction.open_table(USES)?);
        for key in keys {
            let id = key.split('_').nth(1).context("a key without an id")?;
            let mut sha256 = String::with_capacity(64);
            for byte in digest(&SHA256, key.as_bytes()).as_ref() {
                write!(sha256, "{byte:02x}")?;
            }
            let record = json!({
                "id": id, "consumer": consumer, "sha256": sha256, "created": CREATED, "expires": EXPIRES,
                "label": "made for a measurement",
            });
            records.insert(id, record.to_string().as_bytes())?;
            uses.insert(id, CREATED)?;
        }
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_form_of_one_that_is_issued() {
        let key = key(&SystemRandom::new()).unwrap();
        assert_eq!((key.len(), &key[..3], &key[15..16]), (54, "cw_", "_"));
        // SHA-256 of nothing begins with e3b0c442.
        assert_eq!(checksum(""), "4AWNmc");
    }
}
