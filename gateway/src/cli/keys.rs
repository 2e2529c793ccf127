//! `crossway keys`

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use http::{Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::ask::{Answer, Gateway};

/// Keys on one page of a list.
const PAGE: usize = 1000;
/// The columns of a list, with the width of each.
const COLUMNS: [(&str, usize); 7] =
    [("id", 12), ("state", 11), ("consumer", 24), ("created", 20), ("expires", 20), ("last_used", 20), ("label", 0)];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key for a consumer of the configuration, and print it: it is shown this once.
    Create {
        /// Whose key it shall be.
        consumer: String,
        /// What its owner calls it.
        #[arg(long, value_name = "TEXT")]
        label: Option<String>,
        /// How long it shall be good, such as `90d`; for ever without.
        #[arg(long, value_name = "DURATION")]
        expires_in: Option<String>,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// List keys, without their texts, which nobody has.
    List {
        /// Only those of this consumer.
        #[arg(long, value_name = "NAME")]
        consumer: Option<String>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Make a key in the place of another one, and print it; the other one is good a while longer.
    Rotate {
        /// The id of the key that is replaced.
        id: String,
        /// How long both are good.
        #[arg(long, value_name = "DURATION", default_value = "24h")]
        overlap: String,
        /// How long the new one shall be good; as long as the old one was meant to be without.
        #[arg(long, value_name = "DURATION")]
        expires_in: Option<String>,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Take a key back, at once and for ever.
    Revoke {
        /// The id of the key.
        id: String,
        #[command(flatten)]
        gateway: Gateway,
    },
}

/// Asks the gateway: 0 when it is done, 1 when not.
pub(super) fn keys(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Create { consumer, label, expires_in, gateway } => {
            let body =
                given([("consumer", Some(consumer)), ("label", label.as_ref()), ("expires_in", expires_in.as_ref())]);
            made(&gateway.ask(Method::POST, "/api/keys", Some(&body))?)
        }
        Command::Rotate { id, overlap, expires_in, gateway } => {
            let body = given([("overlap", Some(overlap)), ("expires_in", expires_in.as_ref())]);
            made(&gateway.ask(Method::POST, &format!("/api/keys/{}/rotate", escaped(id)), Some(&body))?)
        }
        Command::Revoke { id, gateway } => {
            let answer = gateway.ask(Method::DELETE, &format!("/api/keys/{}", escaped(id)), None)?;
            if answer.status != StatusCode::OK {
                return Err(answer.unexpected());
            }
            super::say(&format!("key {} of {} is revoked\n", answer.text("id"), answer.text("consumer")));
            Ok(ExitCode::SUCCESS)
        }
        Command::List { consumer, json, gateway } => list(gateway, consumer.as_deref(), *json),
    }
}

/// The members that are given.
fn given<'m>(members: impl IntoIterator<Item = (&'m str, Option<&'m String>)>) -> Value {
    let given = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
    Value::Object(given.collect::<Map<_, _>>())
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Prints the key alone to standard output, so that it can be piped to where it is needed.
fn made(answer: &Answer) -> anyhow::Result<ExitCode> {
    if answer.status != StatusCode::CREATED {
        return Err(answer.unexpected());
    }
    let key = answer.body["key"].as_str().context("the gateway's answer has no key")?;
    super::print(&format!("{key}\n"))?;
    let end = answer.body["expires"].as_str().map(|end| format!(", good until {end}")).unwrap_or_default();
    let (id, consumer) = (answer.text("id"), answer.text("consumer"));
    super::say(&format!("key {id} of {consumer}{end}; it is not shown again\n"));
    Ok(ExitCode::SUCCESS)
}

fn list(gateway: &Gateway, consumer: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let mut after = String::new();
    if !json {
        super::print(&line(|column| column))?;
    }
    loop {
        let mut page = format!("/api/keys?limit={PAGE}&after={}", escaped(&after));
        if let Some(consumer) = consumer {
            page = format!("{page}&consumer={}", escaped(consumer));
        }
        let answer = gateway.ask(Method::GET, &page, None)?;
        if answer.status != StatusCode::OK {
            return Err(answer.unexpected());
        }
        for key in answer.body["keys"].as_array().into_iter().flatten() {
            let text = if json { format!("{key}\n") } else { line(|column| key[column].as_str().unwrap_or("-")) };
            super::print(&text)?;
        }
        match answer.body["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}

fn line<'t>(cell: impl Fn(&'static str) -> &'t str) -> String {
    let mut line = String::new();
    for (column, width) in COLUMNS {
        let _ = write!(line, "{:width$}  ", cell(column));
    }
    format!("{}\n", line.trim_end())
}
