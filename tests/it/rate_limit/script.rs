//! The script of limits against a model of it, at whatever time.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
};

use crate::harness::{PATIENCE, Redis};

const SCRIPT: &str = include_str!("../../../plugins/src/rate_limit/shared.lua");
/// Numbers that it is told of each limit.
const ASKED: usize = 8;
const SECOND: i128 = 1_000_000_000;
/// 2026-11-21T13:00:00Z.
const START: i64 = 1_795_266_000;

/// The script on a server, at a time that is told in place of the server's.
struct Script {
    reader: BufReader<TcpStream>,
    text: String,
}

impl Script {
    fn on(redis: &Redis) -> Self {
        let text = SCRIPT.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}");
        assert!(text != SCRIPT, "it asks for the time");
        let stream = TcpStream::connect(redis.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream), text }
    }

    fn send(&mut self, words: &[String]) {
        let mut bytes = format!("*{}\r\n", words.len());
        for word in words {
            bytes.extend(["$", &word.len().to_string(), "\r\n", word, "\r\n"]);
        }
        self.reader.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What it answers about these limits, at so many microseconds after 1970.
    fn run(&mut self, limits: &[(&str, [i64; ASKED])], now: i64) -> Vec<i64> {
        let mut words = vec!["EVAL".to_owned(), self.text.clone(), limits.len().to_string()];
        words.extend(limits.iter().map(|(key, _)| (*key).to_owned()));
        words.extend(limits.iter().flat_map(|(_, args)| args).map(ToString::to_string));
        words.extend([now / 1_000_000, now % 1_000_000].map(|part| part.to_string()));
        self.send(&words);
        let head = self.line();
        let count: usize = head.strip_prefix('*').unwrap_or_else(|| panic!("{head}")).parse().unwrap();
        let mut number = || self.line().strip_prefix(':').unwrap().parse().unwrap();
        (0..count).map(|_| number()).collect()
    }

    fn set(&mut self, key: &str, value: &str) {
        self.send(&["SET", key, value].map(str::to_owned));
        assert_eq!(self.line(), "+OK");
    }
}

/// Numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).unwrap() % end
    }
}

/// A rate in nanoseconds, as it should be.
struct Rate {
    scale: i128,
    interval: i128,
    burst: i128,
    most: i128,
    until: i128,
}

impl Rate {
    fn args(&self, how: i64, cost: i64) -> [i64; ASKED] {
        let of = |number: i128| i64::try_from(number).unwrap();
        let (interval, most) = (of(self.interval), of(self.most));
        [how, of(self.scale), interval, of(self.burst), most, cost, interval, most]
    }

    /// What it answers, in its units; and what is kept, unless `keep` is told that another limit refuses.
    fn ask(&mut self, how: i64, cost: i64, now: i64) -> (i64, i128) {
        let unit = 1_000 / self.scale;
        let now = i128::from(now) * 1_000;
        // What is less than a unit counts as one.
        let used = ((self.until - now) + unit - 1).div_euclid(unit).clamp(0, self.most * self.interval);
        let cost = i128::from(cost);
        let over = used + (cost.max(1) - self.burst) * self.interval;
        if how != 2 && over > 0 {
            return (i64::try_from(over).unwrap(), used);
        }
        let next = (used + cost * self.interval).min(self.most * self.interval);
        if cost > 0 {
            self.until = now + next * unit;
        }
        (-1, next)
    }
}

/// A limit in nanoseconds that refuses.
fn rate(interval: i64, burst: i64, cost: i64) -> [i64; ASKED] {
    [0, 1_000, interval, burst, burst, cost, interval, burst]
}

#[test]
fn rates_are_exact() {
    let redis = Redis::start();
    let mut script = Script::on(&redis);
    // Time goes by more slowly here than at the server, which must not forget anything meanwhile.
    script.text = script.text.replace("'PX', ", "'PX', 600000 + ");
    let mut numbers = Numbers(7);
    // The units are nanoseconds, or microseconds where room is for hundreds of days; with the largest that can be.
    let year = 366 * 86_400 * SECOND;
    for (at, (scale, interval, units, debt)) in [
        (1_000, SECOND, 3, 0),
        (1_000, 1_000, 1_000_000, 0),
        (1_000, 1_001, 7, 3),
        (1_000, 333_333_334, 3, 30),
        (1_000, (1 << 52) / 20, 10, 10),
        (1, year / 1_000 / 100, 100, 100),
        (1, 2_678_400_000_000, 11, 11),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("rate{at}");
        let mut rate = Rate { scale, interval, burst: units, most: units + debt, until: 0 };
        let mut now = START * 1_000_000;
        for step in 0..400 {
            let pause = i64::try_from(interval / scale).unwrap().max(1);
            now += if numbers.below(3) == 0 { numbers.below(pause.min(1 << 30) * 2) } else { numbers.below(3) };
            let how = if debt > 0 && numbers.below(8) == 0 { 2 } else { 0 };
            let cost = numbers.below(4).min(i64::try_from(units).unwrap());
            let args = rate.args(how, cost);
            let (wait, used) = rate.ask(how, cost, now);
            let expected = [i64::from(wait < 0), wait, i64::try_from(used).unwrap(), 0];
            assert_eq!(script.run(&[(&key, args)], now), expected, "{key} step {step}");
        }
    }
}

/// Never more than the burst, and then one in each interval, to the microsecond.
#[test]
fn a_burst_and_then_one_by_one() {
    let redis = Redis::start();
    let mut script = Script::on(&redis);
    let second = 1_000_000_000;
    let args = rate(second, 3, 1);
    let now = START * 1_000_000 + 123_456;
    let mut at = |micros: i64| script.run(&[("r", args)], now + micros);
    for used in 1..=3 {
        assert_eq!(at(0), [1, -1, used * second, 0]);
    }
    assert_eq!(at(0), [0, second, 3 * second, 0]);
    assert_eq!(at(999_999), [0, 1_000, 2 * second + 1_000, 0]);
    assert_eq!(at(1_000_000), [1, -1, 3 * second, 0]);
    assert_eq!(at(1_000_000)[0], 0);
    // A clock that was set back makes nobody wait longer than for the whole room.
    assert_eq!(at(-3_600_000_000), [0, second, 3 * second, 0]);
}

/// Another limit finds the same units used, and they come back as it says, also to somebody who is refused again and again.
#[test]
fn another_rate_holds_at_once() {
    let redis = Redis::start();
    let mut script = Script::on(&redis);
    let (second, now) = (1_000_000_000, START * 1_000_000);
    let day = 86_400 * second;
    assert_eq!(script.run(&[("r", rate(day / 2, 2, 2))], now), [1, -1, day, 0]);
    assert_eq!(script.run(&[("r", rate(day / 2, 2, 1))], now), [0, day / 2, day, 0]);
    let faster = rate(second / 2, 2, 1);
    assert_eq!(script.run(&[("r", faster)], now), [0, second / 2, second, 0], "no longer than one takes");
    assert_eq!(script.run(&[("r", faster)], now + 499_999), [0, 1_000, second / 2 + 1_000, 0], "the wait goes by");
    assert_eq!(script.run(&[("r", faster)], now + 500_000), [1, -1, second, 0]);
    assert_eq!(script.run(&[("r", rate(second / 2, 5, 3))], now + 500_000)[..2], [1, -1], "a larger burst");
    // What comes back in days is counted in microseconds.
    let slow = [0, 1, 10 * 86_400_000_000, 10, 10, 1, 10 * 86_400_000_000, 10];
    assert_eq!(script.run(&[("r", slow)], now + 500_000), [1, -1, 6 * 10 * 86_400_000_000, 0]);
    assert_eq!(script.run(&[("r", rate(second, 6, 1))], now + 500_000), [0, second, 6 * second, 0]);
    // Fewer units: nobody owes more than there are.
    assert_eq!(script.run(&[("r", rate(6 * second, 2, 1))], now + 500_000), [0, 6 * second, 12 * second, 0]);
    assert_eq!(script.run(&[("r", rate(6 * second, 2, 1))], now + 6_500_000), [1, -1, 12 * second, 0]);
    // Who is refused by another limit keeps it anew as well.
    let full = ("w", [0, 0, 3_600, 1, 1, 1, 0, 0]);
    assert_eq!(script.run(&[full], now)[0], 1);
    let more = ("r", rate(second, 9, 1));
    assert_eq!(script.run(&[more, full], now + 6_500_000)[..3], [0, -1, 2 * second]);
    assert_eq!(script.run(&[more], now + 7_500_000), [1, -1, 2 * second, 0]);
}

/// Where groups with different limits share a key, none of them frees the others of what they have used.
#[test]
fn limits_that_share_a_key_meet_the_same_units() {
    let redis = Redis::start();
    let mut script = Script::on(&redis);
    let (second, now) = (1_000_000_000, START * 1_000_000);
    let hundredth = second / 100;
    let free = |how, cost| [how, 1_000, second, 60, 60, cost, hundredth, 1_000];
    let gold = |cost| [0, 1_000, hundredth, 1_000, 1_000, cost, hundredth, 1_000];
    assert_eq!(script.run(&[("r", gold(1_000))], now), [1, -1, 10 * second, 0]);
    let wait = 941 * hundredth;
    assert_eq!(script.run(&[("r", free(0, 1))], now)[..2], [0, wait], "at the pace at which they come back");
    assert_eq!(script.run(&[("r", free(2, 7))], now)[0], 1, "the slower limit takes nothing back");
    assert_eq!(script.run(&[("r", gold(1))], now), [0, hundredth, 10 * second, 0]);
    assert_eq!(script.run(&[("r", free(0, 1))], now + wait / 1_000), [1, -1, 60 * second, 0]);
    assert_eq!(script.run(&[("r", gold(940))], now + wait / 1_000), [1, -1, 10 * second, 0]);
}

#[test]
fn windows_stand_in_the_calendar() {
    let redis = Redis::start();
    let mut script = Script::on(&redis);
    let (mut first, mut year, mut month) = (0_i64, 1970, 1);
    let mut count = 0;
    while year < 2201 {
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let days = match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let next = first + days * 86_400;
        for second in [first, next - 1] {
            count += 1;
            let answer = script.run(&[(&format!("m{count}"), [0, 0, 0, 9, 9, 0, 0, 0])], second * 1_000_000 + 999_999);
            assert_eq!(answer, [1, -1, 0, next - second], "{year}-{month}");
        }
        (first, year, month) = (next, year + month / 12, month % 12 + 1);
    }
    for length in [1, 900, 3_600, 86_400] {
        let mut at =
            |second: i64| script.run(&[(&format!("w{length}"), [0, 0, length, 2, 2, 1, 0, 0])], second * 1_000_000);
        let begins = START - START % 86_400;
        assert_eq!(at(begins), [1, -1, 1, length]);
        assert_eq!(at(begins + length - 1), [1, -1, 2, 1]);
        assert_eq!(at(begins + length - 1), [0, 1_000_000, 2, 1]);
        assert_eq!(at(begins + length), [1, -1, 1, length]);
        // A clock that falls back opens no window again, and one that falls back far shuts none.
        assert_eq!(at(begins + length - 1)[2], 2);
        assert_eq!(at(begins - 1)[2], 1);
    }
}

#[test]
fn all_or_nothing_and_shadows() {
    let redis = Redis::start();
    let mut script = Script::on(&redis);
    let now = START * 1_000_000;
    let window = |how: i64, quota: i64| [how, 0, 3_600, quota, quota, 1, 0, 0];
    let left = 3_600 - START % 3_600;
    let both = [("a", window(0, 5)), ("b", window(0, 1)), ("s", window(1, 2))];
    assert_eq!(script.run(&both, now), [1, -1, 1, left, -1, 1, left, -1, 1, left]);
    for _ in 0..3 {
        assert_eq!(script.run(&both, now), [0, -1, 1, left, left * 1_000_000, 1, left, -1, 1, left]);
    }
    let shadow = [("a", window(0, 5)), ("s", window(1, 2))];
    assert_eq!(script.run(&shadow, now), [1, -1, 2, left, -1, 2, left]);
    assert_eq!(script.run(&shadow, now), [1, -1, 3, left, left * 1_000_000, 2, left], "a full shadow stays as it is");
    // What costs nothing yet needs something to be left, and changes nothing.
    assert_eq!(script.run(&[("b", [0, 0, 3_600, 1, 1, 0, 0, 0])], now)[0], 0);
    assert_eq!(script.run(&[("a", [0, 0, 3_600, 5, 5, 0, 0, 0])], now), [1, -1, 3, left]);
    // Costs afterwards lead into debt, and no deeper.
    assert_eq!(script.run(&[("a", [2, 0, 3_600, 5, 9, 100, 0, 0])], now), [1, -1, 9, left]);
}

#[test]
fn anything_can_be_there_and_everything_goes_by_itself() {
    let redis = Redis::start();
    let mut script = Script::on(&redis);
    let second = 1_000_000_000;
    let now = START * 1_000_000;
    let rate = rate(second, 3, 1);
    let window = [0, 0, 3_600, 5, 5, 1, 0, 0];
    for odd in [
        "",
        "x",
        "12",
        "-5",
        "1e400",
        "17952660000000000000000000000000",
        "17952660000000000000000000000000:1",
        "1:2:3",
        "1795266001000000000:0",
        "99999999999999:7",
        ":",
        "nan",
    ] {
        script.set("r", odd);
        script.set("w", odd);
        let answer = script.run(&[("r", rate), ("w", window)], now);
        assert!(answer[0] == 1 || odd.len() > 20, "{odd}: {answer:?}");
        assert!(answer[1] <= second, "{odd}: {answer:?}");
    }
    redis.ask("FLUSHALL");
    redis.ask("LPUSH r 1");
    redis.ask("HSET w a 1");
    assert_eq!(script.run(&[("w", window)], now)[0], 1, "another kind of thing");
    assert_eq!(script.run(&[("r", rate), ("w", window)], now)[0], 1);
    let time_left = |key: &str| redis.ask(&format!("PTTL {key}")).lines().next().unwrap()[1..].parse::<i64>().unwrap();
    assert!((1..=1_001).contains(&time_left("r")), "{}", time_left("r"));
    let left = (3_600 - START % 3_600) * 1_000;
    assert!((left - 60_000..=left + 1).contains(&time_left("w")), "{}", time_left("w"));
}
