//! `crossway schema`

use std::process::ExitCode;

use crate::config;

pub(super) fn schema() -> anyhow::Result<ExitCode> {
    let text = serde_json::to_string_pretty(&config::schema())? + "\n";
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
