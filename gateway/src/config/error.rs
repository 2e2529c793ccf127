//! What is wrong with a configuration, and where.

use std::{fmt, ops::Range};

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{excerpt::Excerpt, render, sources::Sources};

/// Whether a configuration can be used all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can.
    Warning,
}

/// One thing that is wrong, or odd, with its place. No part of it shows a secret or the value of a reference.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// Whether the configuration can be used all the same.
    pub severity: Severity,
    /// What is wrong: lower case, without a final dot.
    pub message: String,
    /// What to do about it, if that is not plain.
    pub help: Option<String>,
    /// The file as the user named it; empty if no single file is meant.
    pub file: String,
    /// Line, counted from 1; 0 if the file as a whole is meant.
    pub line: u32,
    /// Column in characters, counted from 1; 0 if the file as a whole is meant.
    pub column: u32,
    /// The bytes of the file that are meant.
    pub span: Range<usize>,
    /// A second place that has to do with it.
    pub also: Option<Box<Also>>,
    pub(super) excerpt: Option<Box<Excerpt>>,
}

/// A second place that has to do with a diagnostic.
#[derive(Debug, Clone)]
pub struct Also {
    /// What stands there.
    pub label: String,
    /// The file as the user named it.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    pub(super) excerpt: Option<Box<Excerpt>>,
}

impl Diagnostic {
    /// An error that concerns a file as a whole, or none.
    pub(super) fn whole(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            help: None,
            file: file.into(),
            line: 0,
            column: 0,
            span: 0..0,
            also: None,
            excerpt: None,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Adds a second place, by JSON Pointer, and what stands there.
    #[must_use]
    pub fn also(mut self, sources: &Sources, pointer: &str, label: impl Into<String>) -> Self {
        self.also = Some(Box::new(sources.second_place(pointer, label.into())));
        self
    }

    /// The diagnostic as a text of several lines, with the line it is about.
    pub fn render(&self, colour: bool) -> String {
        render::diagnostic(self, colour)
    }
}

impl fmt::Display for Diagnostic {
    /// One line: place, severity, message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.is_empty(), self.line) {
            (true, _) => {}
            (false, 0) => write!(f, "{}: ", self.file)?,
            (false, line) => write!(f, "{}:{line}:{}: ", self.file, self.column)?,
        }
        let severity = if self.severity == Severity::Error { "error" } else { "warning" };
        write!(f, "{severity}: {}", self.message)
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Diagnostic", 6)?;
        object.serialize_field("severity", &self.severity)?;
        object.serialize_field("file", &self.file)?;
        object.serialize_field("line", &self.line)?;
        object.serialize_field("column", &self.column)?;
        object.serialize_field("message", &self.message)?;
        object.serialize_field("help", &self.help)?;
        object.end()
    }
}

/// Why a configuration cannot be used: everything that was found, in the order of the files.
#[derive(Debug, Clone)]
pub struct ConfigError {
    /// What was found; at least one of them is an error.
    pub diagnostics: Vec<Diagnostic>,
}

impl ConfigError {
    /// All diagnostics as a text, a blank line between two; with escape sequences for a terminal if `colour`.
    pub fn render(&self, colour: bool) -> String {
        let mut text = String::new();
        for diagnostic in &self.diagnostics {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&diagnostic.render(colour));
            text.push('\n');
        }
        text
    }
}

impl fmt::Display for ConfigError {
    /// One line for each diagnostic.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, diagnostic) in self.diagnostics.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl From<Diagnostic> for ConfigError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self { diagnostics: vec![diagnostic] }
    }
}
