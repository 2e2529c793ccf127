//! A row of the table: requests, and what became of them.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::harness::{Connection, Response};

/// One request and its answer, if a whole one came.
pub struct Done {
    pub method: &'static str,
    pub target: String,
    pub answer: Option<Response>,
    pub took: Duration,
}

impl Done {
    pub fn status(&self) -> u16 {
        self.answer.as_ref().map_or(0, |answer| answer.status)
    }

    pub fn is_whole(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.complete)
    }
}

/// Clients that ask at a time.
const CLIENTS: usize = 8;

/// Counts of one row. It is printed when it ends, and fails the test if something is not as it should be.
pub struct Row {
    name: &'static str,
    what: &'static str,
    done: Vec<Done>,
    lost: usize,
    duplicated: usize,
    notes: Vec<String>,
    wrong: Vec<String>,
}

impl Row {
    pub fn new(name: &'static str, what: &'static str) -> Self {
        Self { name, what, done: Vec::new(), lost: 0, duplicated: 0, notes: Vec::new(), wrong: Vec::new() }
    }

    /// Sends so many requests on connections of their own, from several clients at once; the new ones.
    pub fn send(&mut self, address: &str, method: &'static str, path: &str, count: usize) -> &[Done] {
        let before = self.done.len();
        let done = Mutex::new(Vec::new());
        let client = &|client: usize| {
            for at in (client..count).step_by(CLIENTS) {
                let one = ask(address, method, format!("{path}/{before}-{at}"));
                done.lock().unwrap().push(one);
            }
        };
        std::thread::scope(|scope| {
            for at in 0..CLIENTS.min(count) {
                scope.spawn(move || client(at));
            }
        });
        self.done.extend(done.into_inner().unwrap());
        &self.done[before..]
    }

    /// All requests so far.
    pub fn done(&self) -> &[Done] {
        &self.done
    }

    /// Counts a request that was made in another way.
    pub fn add(&mut self, done: Done) {
        self.done.push(done);
    }

    /// Requests with this method whose answer should be 200 and is not are lost.
    pub fn must_succeed(&mut self, method: &str) {
        let lost: Vec<u16> =
            self.done.iter().filter(|d| d.method == method && d.status() != 200).map(Done::status).collect();
        self.lost += lost.len();
        self.check(lost.is_empty(), || format!("{method} that must succeed: {lost:?}"));
    }

    /// Requests with these methods that an upstream has got more than once are duplicated.
    pub fn must_be_once<'a>(&mut self, method: &str, seen: impl IntoIterator<Item = &'a (String, String)>) {
        let mut times: HashMap<&str, usize> = HashMap::new();
        for (_, target) in seen.into_iter().filter(|(m, _)| m == method) {
            *times.entry(target).or_default() += 1;
        }
        let twice = times.values().filter(|&&count| count > 1).count();
        self.duplicated += twice;
        self.check(twice == 0, || format!("{twice} {method} came more than once"));
    }

    /// The longest that a request took may be no longer than this.
    pub fn must_take(&mut self, most: Duration) {
        let longest = self.done.iter().map(|done| done.took).max().unwrap_or_default();
        self.note(format!("slowest {} ms", longest.as_millis()));
        self.check(longest <= most, || format!("a request took {longest:?}, more than {most:?}"));
    }

    pub fn check(&mut self, is_so: bool, wrong: impl FnOnce() -> String) {
        if !is_so {
            self.wrong.push(wrong());
        }
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Prints the row.
    #[track_caller]
    pub fn end(mut self) {
        // A whole answer with 200 says which request it is for.
        let strays = |d: &&Done| d.is_whole() && d.status() == 200 && d.answer.as_ref().is_some_and(|a| !fits(a, d));
        let mixed = self.done.iter().filter(strays).count();
        self.check(mixed == 0, || format!("{mixed} answers are those of other requests"));
        let answered = self.done.iter().filter(|done| done.is_whole()).count();
        let verdict = if self.wrong.is_empty() { "PASS" } else { "FAIL" };
        let notes = self.notes.iter().chain(&self.wrong).map(String::as_str).collect::<Vec<_>>().join("; ");
        eprintln!(
            "row|{}|{}|{}|{answered}|{}|{}|{mixed}|{notes}|{verdict}",
            self.name,
            self.what,
            self.done.len(),
            self.lost,
            self.duplicated
        );
        assert!(self.wrong.is_empty(), "{}: {:?}", self.name, self.wrong);
    }
}

/// Whether a body says the target; a long one says it at its beginning.
fn fits(answer: &Response, done: &Done) -> bool {
    answer.body.starts_with(done.target.as_bytes())
}

/// One request on a connection of its own. No whole answer is none.
pub fn ask(address: &str, method: &'static str, target: String) -> Done {
    let began = Instant::now();
    let body = if method == "POST" { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
    let mut connection = Connection::open(address);
    let sent = connection.try_send(format!("{method} {target} HTTP/1.1\r\nHost: t\r\n{body}").as_bytes());
    let answer = sent.ok().and_then(|()| connection.read(method));
    Done { method, target, answer, took: began.elapsed() }
}
