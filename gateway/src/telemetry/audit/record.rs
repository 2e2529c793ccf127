//! One audit record as JSON.

use std::{net::IpAddr, time::SystemTime};

use http::HeaderMap;

use crate::telemetry::line::Line;

/// What happened. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A plugin has refused a request, or the connection's certificate does not do for its host.
    RequestRefused,
    /// What judges callers could not judge one: the request was not let in.
    RequestUnchecked,
    /// An API key was to be issued.
    KeyIssued,
    /// An API key was to get a successor.
    KeyRotated,
    /// An API key was to be revoked.
    KeyRevoked,
    /// The configuration was to be read again.
    ConfigReloaded,
    /// Somebody has asked the admin listener.
    AdminCalled,
    /// The process serves.
    ProcessStarted,
    /// The process takes over from an older one.
    ProcessTakenOver,
    /// A newer process has taken over from this one.
    ProcessHandedOver,
    /// The process ends.
    ProcessEnded,
    /// Records that should stand here do not.
    RecordsLost,
}

impl Event {
    /// The name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestRefused => "request.refused",
            Self::RequestUnchecked => "request.unchecked",
            Self::KeyIssued => "key.issued",
            Self::KeyRotated => "key.rotated",
            Self::KeyRevoked => "key.revoked",
            Self::ConfigReloaded => "config.reloaded",
            Self::AdminCalled => "admin.called",
            Self::ProcessStarted => "process.started",
            Self::ProcessTakenOver => "process.taken_over",
            Self::ProcessHandedOver => "process.handed_over",
            Self::ProcessEnded => "process.ended",
            Self::RecordsLost => "audit.records_lost",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Success,
    /// It could not be done.
    Failure,
    /// Whoever wanted it may not have it.
    Denied,
}

/// Who has caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor<'a> {
    /// A consumer that was established.
    Consumer(&'a str),
    /// Somebody with the admin token.
    Admin,
    /// Nobody who is known.
    Anonymous,
    /// Whoever has sent this signal.
    Signal(&'static str),
    /// The process itself.
    Process,
}

/// From where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From this address.
    Address(IpAddr),
    /// From a process on this machine, over a Unix socket.
    Unix {
        /// The user it runs as, where the system tells.
        uid: Option<u32>,
        /// Its number, where the system tells.
        pid: Option<u32>,
    },
    /// From nowhere outside.
    Inside,
}

/// Who has caused something, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    /// Who.
    pub actor: Actor<'a>,
    /// From where.
    pub source: Source,
}

impl Who<'static> {
    /// The process itself.
    pub const PROCESS: Self = Self { actor: Actor::Process, source: Source::Inside };

    /// A signal of this name.
    pub const fn signal(name: &'static str) -> Self {
        Self { actor: Actor::Signal(name), source: Source::Inside }
    }
}

/// A value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// A number.
    Number(u64),
}

/// One audit record.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// What happened.
    pub event: Event,
    /// What came of it.
    pub outcome: Outcome,
    /// Who has caused it, and from where.
    pub who: Who<'a>,
    /// What it was about: a route, a key, a page.
    pub target: &'a str,
    /// Why it was refused, or failed. Never a secret.
    pub reason: Option<&'a str>,
    /// Fields that belong to the event.
    pub more: &'a [(&'static str, Value<'a>)],
}

impl Record<'_> {
    /// Writes the record into a buffer, as one line.
    pub(super) fn compose(&self, buffer: &mut Vec<u8>, now: SystemTime) {
        let mut line = Line::begin(buffer, now);
        line.text("event", self.event.name());
        line.text(
            "outcome",
            match self.outcome {
                Outcome::Success => "success",
                Outcome::Failure => "failure",
                Outcome::Denied => "denied",
            },
        );
        match self.who.actor {
            Actor::Consumer(name) => line.text("actor", &format!("consumer:{name}")),
            Actor::Admin => line.text("actor", "admin"),
            Actor::Anonymous => line.text("actor", "anonymous"),
            Actor::Signal(name) => line.text("actor", &format!("signal:{name}")),
            Actor::Process => line.text("actor", "process"),
        }
        match self.who.source {
            Source::Address(address) => line.address("source", address),
            Source::Unix { uid, pid } => {
                line.text("source", "unix");
                for (name, number) in [("source_uid", uid), ("source_pid", pid)] {
                    if let Some(number) = number {
                        line.number(name, number.into());
                    }
                }
            }
            Source::Inside => {}
        }
        line.text("target", self.target);
        if let Some(reason) = self.reason {
            line.text("reason", reason);
        }
        for (name, value) in self.more {
            match value {
                Value::Text(text) => line.text(name, text),
                Value::Number(number) => line.number(name, *number),
            }
        }
        line.end();
    }
}

/// The trace that a request says it belongs to (W3C Trace Context, section 3.2), if what it says has the right form.
pub fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let is_hex =
        |text: &str, length| text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let good = is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && trace.bytes().any(|b| b != b'0');
    (good && is_hex(parts.next()?, 16)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Event; 12] = [
        Event::RequestRefused,
        Event::RequestUnchecked,
        Event::KeyIssued,
        Event::KeyRotated,
        Event::KeyRevoked,
        Event::ConfigReloaded,
        Event::AdminCalled,
        Event::ProcessStarted,
        Event::ProcessTakenOver,
        Event::ProcessHandedOver,
        Event::ProcessEnded,
        Event::RecordsLost,
    ];

    #[test]
    fn every_event_has_its_row_on_the_operations_page() {
        let page = include_str!("../../../../docs/operations.md");
        for event in ALL {
            assert!(page.contains(&format!("\n| `{}` | ", event.name())), "{}", event.name());
        }
        let rows = page.split_once("## Audit log").unwrap().1.split_once("\n## ").unwrap().0;
        let rows = rows.lines().filter(|row| row.starts_with("| `") && row.split('`').nth(1).unwrap().contains('.'));
        assert_eq!(rows.count(), ALL.len(), "no event that there is not");
    }

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        let mut buffer = Vec::new();
        let record = Record {
            event: Event::RequestRefused,
            outcome: Outcome::Denied,
            who: Who { actor: Actor::Consumer("a"), source: Source::Address([192, 0, 2, 1].into()) },
            target: "r\n{\"event\":\"x\"}",
            reason: Some("\u{2028}\u{1b}[2J"),
            more: &[("path", Value::Text("/\r\n")), ("status", Value::Number(403))],
        };
        record.compose(&mut buffer, SystemTime::UNIX_EPOCH);
        assert!(buffer.iter().filter(|b| b.is_ascii_control()).eq([&b'\n']));
        let read: serde_json::Value = serde_json::from_slice(&buffer).unwrap();
        let expected = serde_json::json!({
            "time": "1970-01-01T00:00:00.000Z", "event": "request.refused", "outcome": "denied", "actor": "consumer:a",
            "source": "192.0.2.1", "target": "r\n{\"event\":\"x\"}", "reason": "\u{2028}\u{1b}[2J", "path": "/\r\n",
            "status": 403,
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn a_trace_is_named_only_where_its_form_is_right() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let of = |value: &str| {
            let headers: HeaderMap =
                [("traceparent".parse::<http::HeaderName>().unwrap(), value.parse().unwrap())].into_iter().collect();
            trace_id(&headers).map(str::to_owned)
        };
        for good in ["00-T-b7ad6b7169203331-01", "cc-T-b7ad6b7169203331-01-more"] {
            assert_eq!(of(&good.replace('T', trace)).as_deref(), Some(trace), "{good}");
        }
        for bad in ["", "00-T", "ff-T-b7ad6b7169203331-01", "00-T-b7ad-01", "00-Tx-b7ad6b7169203331-01", "x"] {
            assert_eq!(of(&bad.replace('T', trace)), None, "{bad}");
        }
        assert_eq!(of("00-00000000000000000000000000000000-b7ad6b7169203331-01"), None);
        assert_eq!(of("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"), None);
        assert_eq!(trace_id(&HeaderMap::new()), None);
    }
}
