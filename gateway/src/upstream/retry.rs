//! Whether a failed attempt is tried again, and after which pause: one rule for all ways to an upstream.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::{Duration, SystemTime},
};

use crossway_plugin_api::{Fault, config::StatusSet};
use http::{Method, StatusCode, header};
use pingora_http::ResponseHeader;

use super::budget::Allowance;
use crate::config::retry::{Retry, RetryOn};

/// When a failed attempt is tried again, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Longest time of one attempt, to its response header.
    pub per_try: Option<Duration>,
    /// How many retries the upstream is worth.
    pub allowance: Allowance,
    attempts: u32,
    connect_error: bool,
    reset: bool,
    timeout: bool,
    statuses: Vec<StatusSet>,
    /// What may be repeated; `None` for the idempotent methods.
    methods: Option<Vec<Method>>,
    backoff: (Duration, Duration),
    max_retry_after: Duration,
}

/// Why an attempt is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No connection: nothing was sent.
    ConnectError,
    /// The connection broke.
    Reset,
    /// The server had closed a connection that was kept.
    StaleConnection,
    /// The endpoint says that it has not acted on the request.
    Unprocessed,
    /// The response header did not come in time.
    Timeout,
    /// The status of the answer.
    Status,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::ConnectError, Self::Reset, Self::StaleConnection, Self::Unprocessed, Self::Timeout, Self::Status];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConnectError => "connect_error",
            Self::Reset => "reset",
            Self::StaleConnection => "stale_connection",
            Self::Unprocessed => "unprocessed",
            Self::Timeout => "timeout",
            Self::Status => "status",
        }
    }
}

/// Why an attempt is not made again that the rules ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// The upstream's budget is used up.
    Budget,
    /// The request's time would be over before it begins.
    Deadline,
    /// The endpoint asks for a longer pause than is waited for.
    RetryAfter,
}

impl Withheld {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Budget, Self::Deadline, Self::RetryAfter];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Deadline => "deadline",
            Self::RetryAfter => "retry_after",
        }
    }
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
    /// From the configuration; `methods` are those that it names.
    pub fn compile(config: &Retry, methods: Option<Vec<Method>>) -> Self {
        let statuses = config.on.iter().filter_map(|on| match on {
            RetryOn::Status(set) => Some(*set),
            _ => None,
        });
        Self {
            per_try: config.per_try.map(|time| time.0),
            allowance: Allowance { share: config.budget, min_per_second: config.min_per_second },
            attempts: config.attempts,
            connect_error: config.on.contains(&RetryOn::ConnectError),
            reset: config.on.contains(&RetryOn::Reset),
            timeout: config.on.contains(&RetryOn::Timeout),
            statuses: statuses.collect(),
            methods,
            backoff: (config.backoff.base.0, config.backoff.max.0),
            max_retry_after: config.max_retry_after.0,
        }
    }

    /// Why to try again after a fault, if the rules ask for it.
    pub fn after_fault(&self, fault: &Fault, failed: &Failed<'_>) -> Option<Reason> {
        let reason = match fault {
            Fault::Connect(_) | Fault::ConnectTimeout if self.connect_error => Reason::ConnectError,
            // Any method may try again (RFC 9113, section 8.7).
            Fault::Unprocessed(_) if self.connect_error || self.reset || failed.reused => Reason::Unprocessed,
            Fault::Reset(_) if failed.reused => Reason::StaleConnection,
            Fault::Reset(_) if self.reset => Reason::Reset,
            Fault::UpstreamTimeout | Fault::AttemptTimeout if self.timeout => Reason::Timeout,
            _ => return None,
        };
        (self.left(failed) && (is_unsent(fault) || self.may_repeat(failed.method))).then_some(reason)
    }

    /// Whether to try again after an answer with this status.
    pub fn after_status(&self, status: StatusCode, failed: &Failed<'_>) -> Option<Reason> {
        let wanted = self.statuses.iter().any(|set| set.contains(status));
        (wanted && self.left(failed) && self.may_repeat(failed.method)).then_some(Reason::Status)
    }

    /// Whether a request with this method may be sent again although the upstream may have acted on it: where that is
    /// harmless (RFC 9110, section 9.2.2), or as the configuration says.
    pub fn may_repeat(&self, method: &Method) -> bool {
        self.methods.as_ref().map_or_else(|| method.is_idempotent(), |methods| methods.contains(method))
    }

    fn left(&self, failed: &Failed<'_>) -> bool {
        failed.attempts <= self.attempts && failed.replayable
    }

    /// The pause before the next attempt, after so many; `None` where the answer asks for a longer one than is waited for.
    pub fn pause(&self, reason: Reason, attempts: u32, answer: Option<&ResponseHeader>) -> Option<Duration> {
        if reason == Reason::StaleConnection {
            // Nobody is under pressure.
            return Some(Duration::ZERO);
        }
        let (base, max) = self.backoff;
        let longest = base.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(max);
        let pause = by_chance(longest);
        match answer.and_then(|head| retry_after(head, SystemTime::now())) {
            Some(asked) if asked > self.max_retry_after => None,
            asked => Some(asked.map_or(pause, |asked| asked.max(pause))),
        }
    }
}

/// Whether a fault says that the upstream has not acted on the request: nothing of it was sent, or the endpoint says so.
pub fn is_unsent(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::NoEndpoint | Fault::Connect(_) | Fault::ConnectTimeout | Fault::Tls(_) | Fault::Unprocessed(_)
    )
}

/// A length between nothing and `longest`, each as likely, so that those who failed together do not come back together.
fn by_chance(longest: Duration) -> Duration {
    let bits = u32::try_from(RandomState::new().hash_one(()) >> 32).unwrap_or_default();
    longest.mul_f64(f64::from(bits) / f64::from(u32::MAX))
}

/// How long the endpoint asks to be left alone (RFC 9110, section 10.2.3). What cannot be read asks for nothing.
fn retry_after(head: &ResponseHeader, now: SystemTime) -> Option<Duration> {
    if !matches!(head.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        return None;
    }
    let text = head.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use crossway_plugin_api::config::HumanDuration;

    use super::*;
    use crate::config::retry::Backoff;

    fn rules(on: &[RetryOn]) -> Rules {
        Rules::compile(&Retry { attempts: 2, on: on.to_vec(), ..Retry::default() }, None)
    }

    fn failed(method: &Method) -> Failed<'_> {
        Failed { attempts: 1, method, replayable: true, reused: false }
    }

    #[test]
    fn only_idempotent_methods_are_repeated_once_something_was_sent() {
        let status = RetryOn::Status(StatusSet::parse("503").unwrap());
        let rules = rules(&[RetryOn::ConnectError, RetryOn::Reset, RetryOn::Timeout, status]);
        let (reset, connect) = (Fault::Reset(String::new()), Fault::Connect(String::new()));
        for (method, repeated) in
            [(Method::GET, true), (Method::PUT, true), (Method::POST, false), (Method::PATCH, false)]
        {
            let failed = failed(&method);
            for fault in [&reset, &Fault::AttemptTimeout, &Fault::UpstreamTimeout] {
                assert_eq!(rules.after_fault(fault, &failed).is_some(), repeated, "{method} {fault}");
            }
            assert_eq!(rules.after_status(StatusCode::SERVICE_UNAVAILABLE, &failed).is_some(), repeated, "{method}");
            assert_eq!(rules.after_fault(&connect, &failed), Some(Reason::ConnectError), "{method}");
        }
        assert_eq!(rules.after_status(StatusCode::BAD_GATEWAY, &failed(&Method::GET)), None);
        assert_eq!(rules.after_fault(&Fault::Deadline, &failed(&Method::GET)), None);
    }

    #[test]
    fn methods_that_are_named_replace_the_idempotent_ones() {
        let config = Retry { on: vec![RetryOn::ConnectError, RetryOn::Reset], ..Retry::default() };
        let rules = Rules::compile(&config, Some(vec![Method::POST]));
        let reset = Fault::Reset(String::new());
        assert_eq!(rules.after_fault(&reset, &failed(&Method::POST)), Some(Reason::Reset));
        assert_eq!(rules.after_fault(&reset, &failed(&Method::GET)), None);
        assert_eq!(rules.after_fault(&Fault::ConnectTimeout, &failed(&Method::GET)), Some(Reason::ConnectError));
    }

    #[test]
    fn time_outs_are_repeated_where_they_are_named() {
        for fault in [Fault::UpstreamTimeout, Fault::AttemptTimeout] {
            assert_eq!(rules(&[RetryOn::Timeout]).after_fault(&fault, &failed(&Method::GET)), Some(Reason::Timeout));
            assert_eq!(rules(&[RetryOn::Reset]).after_fault(&fault, &failed(&Method::GET)), None);
        }
    }

    #[test]
    fn what_was_not_acted_on_is_repeated_for_every_method() {
        let unprocessed = Fault::Unprocessed(String::new());
        for (on, repeated) in [(vec![RetryOn::ConnectError], true), (vec![RetryOn::Reset], true), (vec![], false)] {
            let expected = repeated.then_some(Reason::Unprocessed);
            assert_eq!(rules(&on).after_fault(&unprocessed, &failed(&Method::POST)), expected, "{on:?}");
            let stale = Failed { reused: true, ..failed(&Method::POST) };
            assert_eq!(rules(&on).after_fault(&unprocessed, &stale), Some(Reason::Unprocessed), "{on:?}");
            let spent = Failed { replayable: false, ..stale };
            assert_eq!(rules(&on).after_fault(&unprocessed, &spent), None, "{on:?}");
        }
    }

    #[test]
    fn attempts_end_and_a_spent_body_is_not_repeated() {
        let rules = rules(&[RetryOn::ConnectError]);
        let connect = Fault::ConnectTimeout;
        let with = |attempts, replayable| Failed { attempts, replayable, ..failed(&Method::GET) };
        assert!(rules.after_fault(&connect, &with(2, true)).is_some());
        assert!(rules.after_fault(&connect, &with(3, true)).is_none());
        assert!(rules.after_fault(&connect, &with(1, false)).is_none());
    }

    #[test]
    fn a_stale_pooled_connection_is_tried_again_unasked() {
        let rules = rules(&[]);
        let stale = Failed { reused: true, ..failed(&Method::GET) };
        assert_eq!(rules.after_fault(&Fault::Reset(String::new()), &stale), Some(Reason::StaleConnection));
        assert_eq!(rules.after_fault(&Fault::Reset(String::new()), &failed(&Method::GET)), None);
        assert_eq!(rules.pause(Reason::StaleConnection, 1, None), Some(Duration::ZERO));
    }

    #[test]
    fn pauses_grow_by_chance_up_to_their_bound() {
        let millis = HumanDuration::from_millis;
        let backoff = Backoff { base: millis(40), max: millis(100) };
        let rules = Rules::compile(&Retry { backoff, ..Retry::default() }, None);
        for (attempts, longest) in [(1, 40), (2, 80), (3, 100), (8, 100), (u32::MAX, 100)] {
            let all: Vec<u128> =
                (0..400).map(|_| rules.pause(Reason::Reset, attempts, None).unwrap().as_millis()).collect();
            let (least, most) = (*all.iter().min().unwrap(), *all.iter().max().unwrap());
            assert!(least < longest / 4 && most > longest * 3 / 4 && most <= longest, "{attempts}: {least} to {most}");
        }
    }

    #[test]
    fn an_endpoint_is_left_alone_for_as_long_as_it_asks() {
        let rules = Rules::compile(&Retry { max_retry_after: HumanDuration::from_secs(5), ..Retry::default() }, None);
        let pause = |status: u16, text: &str| {
            let mut head = ResponseHeader::build(status, None).unwrap();
            head.insert_header(header::RETRY_AFTER, text).unwrap();
            rules.pause(Reason::Status, 1, Some(&head))
        };
        let short = |pause: Option<Duration>| pause.is_some_and(|pause| pause <= Duration::from_millis(25));
        assert_eq!((pause(503, "5"), pause(429, "3")), (Some(Duration::from_secs(5)), Some(Duration::from_secs(3))));
        for text in ["6", "99999999999999999999999"] {
            assert_eq!(pause(503, text), None, "{text}");
        }
        for text in ["0", "", "soon", "-1", "1.5"] {
            assert!(short(pause(503, text)), "{text:?}");
        }
        assert!(short(pause(502, "9")), "it means nothing there");
        let date = |ahead| httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(ahead));
        assert!(pause(503, &date(4)).is_some_and(|pause| pause > Duration::from_secs(2)));
        assert_eq!(pause(503, &date(60)), None);
        assert!(short(pause(503, "Sun, 06 Nov 1994 08:49:37 GMT")));
    }
}
