//! Sets of methods.

use http::Method;

/// The methods that have a bit, in alphabetical order.
const KNOWN: [Method; 9] = [
    Method::CONNECT,
    Method::DELETE,
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::POST,
    Method::PUT,
    Method::TRACE,
];
const HEAD: u16 = 1 << 3;
const GET: u16 = 1 << 2;
/// What a rule without methods takes, in alphabetical order: all but `CONNECT` and `TRACE`.
pub const DEFAULT_METHODS: [Method; 7] =
    [Method::DELETE, Method::GET, Method::HEAD, Method::OPTIONS, Method::PATCH, Method::POST, Method::PUT];
/// The same as bits.
const ORDINARY: u16 = 0b0_1111_1110;

/// A set of methods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MethodSet {
    bits: u16,
    /// Methods that are not known, sorted.
    others: Vec<Method>,
}

impl MethodSet {
    /// The set that a rule names; none named means the ordinary ones. `GET` does not imply `HEAD` yet.
    pub(super) fn of_rule(named: &[Method]) -> Self {
        if named.is_empty() {
            return Self { bits: ORDINARY, others: Vec::new() };
        }
        let mut set = Self::default();
        for method in named {
            set.insert(method);
        }
        set
    }

    fn insert(&mut self, method: &Method) {
        match bit(method) {
            0 => {
                if let Err(at) = self.others.binary_search_by(|m| m.as_str().cmp(method.as_str())) {
                    self.others.insert(at, method.clone());
                }
            }
            bit => self.bits |= bit,
        }
    }

    /// Lets `GET` imply `HEAD`.
    pub(super) fn imply_head(&mut self) {
        if self.bits & GET != 0 {
            self.bits |= HEAD;
        }
    }

    pub(super) fn contains(&self, method: &Method) -> bool {
        match bit(method) {
            0 => self.others.contains(method),
            bit => self.bits & bit != 0,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.bits |= other.bits;
        for method in &other.others {
            self.insert(method);
        }
    }

    /// Whether every method of `other` is in this set.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.bits & !self.bits == 0 && other.others.iter().all(|method| self.others.contains(method))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bits == 0 && self.others.is_empty()
    }

    /// The methods in alphabetical order.
    pub(super) fn sorted(&self) -> Vec<Method> {
        let known = KNOWN.iter().filter(|method| self.bits & bit(method) != 0);
        let mut all: Vec<Method> = known.chain(&self.others).cloned().collect();
        all.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        all
    }
}

/// The method's bit, by its place in [`KNOWN`]; 0 for any other method.
fn bit(method: &Method) -> u16 {
    match *method {
        Method::CONNECT => 1 << 0,
        Method::DELETE => 1 << 1,
        Method::GET => GET,
        Method::HEAD => HEAD,
        Method::OPTIONS => 1 << 4,
        Method::PATCH => 1 << 5,
        Method::POST => 1 << 6,
        Method::PUT => 1 << 7,
        Method::TRACE => 1 << 8,
        _ => 0,
    }
}
