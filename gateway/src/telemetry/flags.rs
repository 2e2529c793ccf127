//! What happened to a request, in a few words out of a closed set.

/// What happened to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each word is explained in docs/errors.md")]
pub enum Flag {
    BadRequest,
    Busy,
    CircuitOpen,
    ClientGone,
    ClientSlow,
    ConnectFailed,
    Cut,
    Deadline,
    NoEndpoint,
    NoRoute,
    Protocol,
    Queued,
    Refused,
    Reset,
    Retried,
    Shed,
    Timeout,
    TooLarge,
    UpstreamError,
}

impl Flag {
    /// All of them, with their words, in alphabetical order.
    pub const ALL: [(Self, &'static str); 19] = [
        (Self::BadRequest, "bad_request"),
        (Self::Busy, "busy"),
        (Self::CircuitOpen, "circuit_open"),
        (Self::ClientGone, "client_gone"),
        (Self::ClientSlow, "client_slow"),
        (Self::ConnectFailed, "connect_failed"),
        (Self::Cut, "cut"),
        (Self::Deadline, "deadline"),
        (Self::NoEndpoint, "no_endpoint"),
        (Self::NoRoute, "no_route"),
        (Self::Protocol, "protocol"),
        (Self::Queued, "queued"),
        (Self::Refused, "refused"),
        (Self::Reset, "reset"),
        (Self::Retried, "retried"),
        (Self::Shed, "shed"),
        (Self::Timeout, "timeout"),
        (Self::TooLarge, "too_large"),
        (Self::UpstreamError, "upstream_error"),
    ];
}

/// A set of flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// Adds one.
    pub fn add(&mut self, flag: Flag) {
        self.0 |= 1 << flag as u32;
    }

    /// Adds one, if this is so.
    pub fn add_if(&mut self, is_so: bool, flag: Flag) {
        if is_so {
            self.add(flag);
        }
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The words of those that are there, in alphabetical order.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Flag::ALL.into_iter().filter(move |(flag, _)| self.0 & (1 << *flag as u32) != 0).map(|(_, word)| word)
    }
}

impl From<Flag> for Flags {
    fn from(flag: Flag) -> Self {
        let mut flags = Self::default();
        flags.add(flag);
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_has_a_word_and_a_row_in_the_docs() {
        let page = include_str!("../../../docs/errors.md");
        let table = page.split("\n## Flags").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
        let rows: Vec<&str> = table.split("\n| `").skip(1).filter_map(|row| row.split('`').next()).collect();
        let words = Flag::ALL.map(|(_, word)| word);
        assert!(words.is_sorted());
        assert_eq!(rows, words);
    }

    #[test]
    fn a_set_has_what_was_added() {
        let mut flags = Flags::default();
        assert!(flags.is_empty());
        flags.add(Flag::UpstreamError);
        flags.add_if(false, Flag::Cut);
        flags.add(Flag::BadRequest);
        assert_eq!(flags.words().collect::<Vec<_>>(), ["bad_request", "upstream_error"]);
    }
}
