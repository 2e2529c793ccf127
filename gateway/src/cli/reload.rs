//! `crossway reload`

use std::process::ExitCode;

use clap::Args;
use http::{Method, StatusCode};

use super::{FAILED, ask::Gateway};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    gateway: Gateway,
}

/// Asks the gateway and waits: 0 when the new configuration is in force, 1 with the located errors when not.
pub(super) fn reload(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let answer = arguments.gateway.ask(Method::POST, "/api/reload", None)?;
    match answer.status {
        StatusCode::OK => {
            super::say(answer.text("warnings"));
            super::say(&format!("generation {} is in force\n", answer.body["generation"]));
            Ok(ExitCode::SUCCESS)
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            super::say(answer.body["rendered"].as_str().unwrap_or("the configuration was refused\n"));
            super::say("the old configuration serves on\n");
            Ok(ExitCode::from(FAILED))
        }
        _ => Err(answer.unexpected()),
    }
}
