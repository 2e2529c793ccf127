//! What the gateway says about itself.

use crossway_plugin_api::config::FieldName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::proxy_status::ProxyStatus;

/// What the gateway says about itself.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// The log of operation, on standard error.
    pub log: Log,
    /// One line for each request. Without this section there is none.
    pub access_log: Option<AccessLog>,
    /// One line for each refusal of a caller, each act of an operator, and start and end of the process. Without this section
    /// there is none.
    pub audit_log: Option<AuditLog>,
    /// What clients are told of faults in `Proxy-Status` (RFC 9209).
    pub proxy_status: ProxyStatus,
}

/// The log of operation, on standard error. Fixed at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Least severe level that is written.
    pub level: LogLevel,
    /// Form of a line.
    pub format: LogFormat,
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Failures of the gateway.
    Error,
    /// What an operator should look at.
    Warn,
    /// Start, reload, drain.
    #[default]
    Info,
    /// For developers.
    Debug,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// One line for each request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// `stdout`, `stderr`, or `file:` and a path; a file is opened anew on every reload, for log rotation.
    pub to: String,
    /// Form of a line.
    pub format: AccessFormat,
    /// Request header fields to log, besides `User-Agent` and `Referer`.
    pub headers: Vec<FieldName>,
    /// What is never written.
    pub redact: Redact,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { to: "stdout".into(), format: AccessFormat::default(), headers: Vec::new(), redact: Redact::default() }
    }
}

/// One line for each refusal of a caller, each act of an operator, and start and end of the process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditLog {
    /// `stdout`, `stderr`, or `file:` and a path, which must not be that of the access log; a file is opened anew on every
    /// reload, for log rotation. One that is made can be read by the gateway's user only.
    pub to: String,
}

/// Form of an access log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessFormat {
    /// One JSON object a line.
    #[default]
    Json,
}

/// What is never written to the access log: its value becomes `***`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Redact {
    /// Query parameters, besides `access_token`, `token`, `key`, `api_key`, `apikey`, `password`, `secret` and `signature`, which always are.
    pub query: Vec<String>,
    /// Request header fields, besides `Authorization`, `Proxy-Authorization`, `Cookie` and `X-API-Key`, which always are.
    pub headers: Vec<FieldName>,
}
