//! Whether a failed attempt is tried again: one rule for both ways to an upstream.

use crossway_plugin_api::{Fault, config::StatusSet};
use http::{Method, StatusCode};

use crate::config::upstream::{Retry, RetryOn};

/// When a failed attempt is tried again, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    attempts: u32,
    connect_error: bool,
    reset: bool,
    statuses: Vec<StatusSet>,
}

/// One attempt that did not bring what was hoped for.
#[derive(Debug, Clone, Copy)]
pub struct Failed<'a> {
    /// Attempts made so far, this one included.
    pub attempts: u32,
    /// Method of the request.
    pub method: &'a Method,
    /// Whether the whole body, if any, can be sent again.
    pub replayable: bool,
    /// Whether this attempt's connection had served a request before: then a reset says only that the server had
    /// closed it, which is tried again even where the rules do not ask for it (RFC 9112, section 9.3.1).
    pub reused: bool,
}

impl Rules {
    /// From the configuration.
    pub fn compile(config: &Retry) -> Self {
        Self {
            attempts: config.attempts,
            connect_error: config.on.contains(&RetryOn::ConnectError),
            reset: config.on.contains(&RetryOn::Reset),
            statuses: config
                .on
                .iter()
                .filter_map(|on| match on {
                    RetryOn::Status(set) => Some(*set),
                    RetryOn::ConnectError | RetryOn::Reset => None,
                })
                .collect(),
        }
    }

    /// Whether to try again after a fault.
    pub fn after_fault(&self, fault: &Fault, failed: &Failed<'_>) -> bool {
        let wanted = match fault {
            // Nothing was sent: any method may try again.
            Fault::Connect(_) | Fault::ConnectTimeout => return self.connect_error && self.left(failed),
            // The endpoint says that it has not acted on the request: any method may try again (RFC 9113, section 8.7).
            Fault::Unprocessed(_) => {
                return (self.connect_error || self.reset || failed.reused) && self.left(failed);
            }
            Fault::Reset(_) => self.reset || failed.reused,
            _ => false,
        };
        wanted && self.left(failed) && may_repeat(failed)
    }

    /// Whether to try again after an answer with this status.
    pub fn after_status(&self, status: StatusCode, failed: &Failed<'_>) -> bool {
        self.statuses.iter().any(|set| set.contains(status)) && self.left(failed) && may_repeat(failed)
    }

    fn left(&self, failed: &Failed<'_>) -> bool {
        failed.attempts <= self.attempts && failed.replayable
    }
}

/// A request that an upstream may have acted on is repeated only if repeating it is harmless (RFC 9110, section 9.2.2).
fn may_repeat(failed: &Failed<'_>) -> bool {
    failed.method.is_idempotent()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(on: &[RetryOn]) -> Rules {
        Rules::compile(&Retry { attempts: 2, on: on.to_vec() })
    }

    fn failed(method: &Method) -> Failed<'_> {
        Failed { attempts: 1, method, replayable: true, reused: false }
    }

    #[test]
    fn only_idempotent_methods_are_repeated_once_something_was_sent() {
        let status = RetryOn::Status(StatusSet::parse("503").unwrap());
        let rules = rules(&[RetryOn::ConnectError, RetryOn::Reset, status]);
        let (reset, connect) = (Fault::Reset(String::new()), Fault::Connect(String::new()));
        for (method, repeated) in
            [(Method::GET, true), (Method::PUT, true), (Method::POST, false), (Method::PATCH, false)]
        {
            assert_eq!(rules.after_fault(&reset, &failed(&method)), repeated, "{method}");
            assert_eq!(rules.after_status(StatusCode::SERVICE_UNAVAILABLE, &failed(&method)), repeated, "{method}");
            assert!(rules.after_fault(&connect, &failed(&method)), "{method}");
        }
        assert!(!rules.after_status(StatusCode::BAD_GATEWAY, &failed(&Method::GET)));
        assert!(!rules.after_fault(&Fault::UpstreamTimeout, &failed(&Method::GET)));
    }

    #[test]
    fn what_was_not_acted_on_is_repeated_for_every_method() {
        let unprocessed = Fault::Unprocessed(String::new());
        for (on, repeated) in [(vec![RetryOn::ConnectError], true), (vec![RetryOn::Reset], true), (vec![], false)] {
            assert_eq!(rules(&on).after_fault(&unprocessed, &failed(&Method::POST)), repeated, "{on:?}");
            let stale = Failed { reused: true, ..failed(&Method::POST) };
            assert!(rules(&on).after_fault(&unprocessed, &stale), "{on:?}");
            let spent = Failed { replayable: false, ..stale };
            assert!(!rules(&on).after_fault(&unprocessed, &spent), "{on:?}");
        }
    }

    #[test]
    fn attempts_end_and_a_spent_body_is_not_repeated() {
        let rules = rules(&[RetryOn::ConnectError]);
        let connect = Fault::ConnectTimeout;
        let with = |attempts, replayable| Failed { attempts, replayable, ..failed(&Method::GET) };
        assert!(rules.after_fault(&connect, &with(2, true)));
        assert!(!rules.after_fault(&connect, &with(3, true)));
        assert!(!rules.after_fault(&connect, &with(1, false)));
    }

    #[test]
    fn a_stale_pooled_connection_is_tried_again_unasked() {
        let rules = rules(&[]);
        let stale = Failed { reused: true, ..failed(&Method::GET) };
        assert!(rules.after_fault(&Fault::Reset(String::new()), &stale));
        assert!(!rules.after_fault(&Fault::Reset(String::new()), &failed(&Method::GET)));
    }
}
