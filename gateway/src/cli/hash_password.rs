//! `crossway hash-password`

use std::{io::Read as _, process::ExitCode};

use anyhow::{Context as _, anyhow};
use clap::Args;
use crossway_plugins::basic;

/// More than any password that is taken.
const MOST: u64 = 4096;

#[derive(Debug, Args)]
pub(super) struct Arguments {}

/// Reads a password from standard input, without the end of its line, and prints its hash.
pub(super) fn hash_password(_: &Arguments) -> anyhow::Result<ExitCode> {
    let mut password = Vec::new();
    std::io::stdin().take(MOST).read_to_end(&mut password).context("cannot read the password")?;
    let password = password.strip_suffix(b"\n").unwrap_or(&password);
    let password = password.strip_suffix(b"\r").unwrap_or(password);
    let hash = basic::hash_password(password).map_err(|wrong| anyhow!("the password {wrong}"))?;
    super::print(&(hash + "\n"))?;
    Ok(ExitCode::SUCCESS)
}
