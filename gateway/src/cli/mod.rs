//! The command line: one file a command.

mod ask;
mod check;
mod demo;
mod hash_password;
mod keys;
mod reload;
mod run;
mod schema;

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::config::error::ConfigError;

/// Exit codes besides 0: something failed.
const FAILED: u8 = 1;
/// Exit codes besides 0: the configuration is wrong (or the command line is; clap uses the same number).
const INVALID: u8 = 2;

/// An API gateway for backend system APIs and device traffic.
#[derive(Debug, Parser)]
#[command(name = "crossway", version, about, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  something failed; for `reload`: the configuration was refused
  2  the configuration or the command line is wrong

Signals while running:
  SIGHUP   reload the configuration
  SIGTERM  finish what is in flight, then end
  SIGINT   end at once";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve.
    Run(run::Arguments),
    /// Say what is wrong with a configuration, without serving it.
    Check(check::Arguments),
    /// Print the JSON Schema of the configuration.
    Schema(schema::Arguments),
    /// Make a running gateway reload its configuration, and say how that ended.
    Reload(reload::Arguments),
    /// Read a password from standard input and print the hash that `password_hash` of a consumer takes.
    HashPassword(hash_password::Arguments),
    /// Issue, list, rotate and revoke API keys of a running gateway.
    Keys(keys::Arguments),
    /// Serve sample backends behind the gateway, with requests to try.
    Demo(demo::Arguments),
}

impl Arguments {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Run(arguments) => run::run(arguments),
            Command::Check(arguments) => Ok(check::check(&arguments)),
            Command::Schema(arguments) => schema::schema(&arguments),
            Command::Reload(arguments) => reload::reload(&arguments),
            Command::HashPassword(arguments) => hash_password::hash_password(&arguments),
            Command::Keys(arguments) => keys::keys(&arguments),
            Command::Demo(arguments) => demo::demo(&arguments),
        };
        done.unwrap_or_else(|error| {
            say(&format!("error: {error:#}\n"));
            ExitCode::from(FAILED)
        })
    }
}

/// Writes for people, to standard error.
fn say(text: &str) {
    // Nothing can be done for a standard error that is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Writes results, to standard output; a reader that has gone away is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Colours only on a terminal, and not where `NO_COLOR` is set (no-color.org).
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Shows what is wrong with a configuration.
fn say_config(error: &ConfigError) -> ExitCode {
    say(&error.render(colour()));
    ExitCode::from(INVALID)
}
