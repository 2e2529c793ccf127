//! `crossway schema`

use std::process::ExitCode;

use clap::Args;

use crate::config;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Print the same as a page for people.
    #[arg(long)]
    markdown: bool,
}

pub(super) fn schema(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let text =
        if arguments.markdown { config::reference() } else { serde_json::to_string_pretty(&config::schema())? + "\n" };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
