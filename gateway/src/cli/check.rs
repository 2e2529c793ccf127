//! `crossway check`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{config::error::ConfigError, reload::Origin, server};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Configuration file, or directory of `*.yaml` files.
    path: PathBuf,
}

/// Does all that `run` does before it binds a socket.
pub(super) fn check(arguments: &Arguments) -> ExitCode {
    match server::compile_only(&Origin::Path(arguments.path.clone())) {
        Ok(snapshot) => {
            if !snapshot.warnings.is_empty() {
                super::say(&ConfigError { diagnostics: snapshot.warnings }.render(super::colour()));
            }
            super::say(&format!("{}: valid\n", arguments.path.display()));
            ExitCode::SUCCESS
        }
        Err(error) => super::say_config(&error),
    }
}
