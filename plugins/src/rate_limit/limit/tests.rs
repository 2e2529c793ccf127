use proptest::prelude::*;

use super::*;

const NOTHING: Kept = Kept::rate(0, 0);

fn at(steady: u64) -> Moment {
    Moment { steady, wall: 1_000_000 }
}

fn wall(wall: u64) -> Moment {
    Moment { steady: 5, wall }
}

fn rate(quota: u32, seconds: u32, burst: u32, debt: u32) -> Limit {
    Limit::rate(quota, Period::Seconds(seconds), burst, debt).unwrap()
}

fn window(quota: u32, period: &str, debt: u32) -> Limit {
    Limit::window(quota, Period::parse(period).unwrap(), debt).unwrap()
}

/// A bucket of tokens, counted in nanoseconds of an interval: the naive form of the same.
struct Bucket {
    interval: u128,
    size: u128,
    level: u128,
    at: u128,
}

impl Bucket {
    fn take(&mut self, cost: u32, now: u64) -> bool {
        let now = u128::from(now);
        self.level = (self.level + (now - self.at)).min(self.size);
        self.at = now;
        let needed = u128::from(cost) * self.interval;
        let is_there = self.level >= needed;
        if is_there {
            self.level -= needed;
        }
        is_there
    }
}

proptest! {
    /// It decides as a bucket of tokens does, says what is left in it, and says exactly how long to wait.
    #[test]
    fn a_rate_is_a_bucket_of_tokens(
        (quota, seconds, burst) in (1_u32..2_000, 1_u32..100_000, 1_u32..50),
        steps in prop::collection::vec((0_u64..3_000, 1_u32..20), 1..200),
    ) {
        let limit = rate(quota, seconds, burst, 0);
        let interval = (u128::from(seconds) * 1_000_000_000).div_ceil(u128::from(quota));
        let size = u128::from(burst) * interval;
        let mut bucket = Bucket { interval, size, level: size, at: 0 };
        let (mut kept, mut now) = (Kept::default(), 1_u64);
        for (thousandths, cost) in steps {
            now += u64::try_from(interval * u128::from(thousandths) / 1_000).unwrap();
            let cost = cost.min(burst);
            let taken = limit.take(kept, cost, at(now));
            prop_assert_eq!(taken.is_ok(), bucket.take(cost, now));
            if let Err(wait) = taken {
                prop_assert!(limit.take(kept, cost, at(now + wait)).is_ok());
                prop_assert!(limit.take(kept, cost, at(now + wait - 1)).is_err());
            }
            kept = taken.unwrap_or(kept);
            let standing = limit.standing(kept, at(now));
            prop_assert_eq!(u128::from(standing.remaining), bucket.level / interval);
            prop_assert_eq!(u128::from(standing.reset), (size - bucket.level).div_ceil(1_000_000_000));
        }
    }

    /// In no span of time more is let through than the burst and what comes back in that time.
    #[test]
    fn a_rate_is_never_exceeded(gaps in prop::collection::vec(0_u64..400_000_000, 1..120)) {
        let limit = rate(7, 1, 3, 0);
        let (mut kept, mut now, mut passed) = (Kept::default(), 1, Vec::new());
        for gap in gaps {
            now += gap;
            if let Ok(next) = limit.take(kept, 1, at(now)) {
                kept = next;
                passed.push(now);
            }
        }
        for (first, from) in passed.iter().enumerate() {
            for (last, to) in passed.iter().enumerate().skip(first) {
                let allowed = 3 + 7 * (to - from) / 1_000_000_000;
                prop_assert!((last - first + 1) as u64 <= allowed);
            }
        }
    }

    /// Nothing that may be kept, by whatever limit, makes another one fail or wait longer than it can.
    #[test]
    fn anything_can_be_kept(
        (count, each) in any::<(u64, u64)>(),
        cost in 0_u32..10,
        (steady, wall) in (0_u64..1 << 60, 0_u64..1 << 40),
    ) {
        let (now, kept) = (Moment { steady, wall }, Kept::rate(count, each));
        for limit in [rate(10, 60, 10, 5), window(10, "1h", 5), window(10, "month", 5)] {
            let most = if limit.is_window() { 2 * 31 * 86_400 } else { 90 } * SECOND;
            if let Err(wait) = limit.take(kept, cost, now) {
                prop_assert!(wait <= most, "{wait}");
            }
            prop_assert_eq!(limit.fresh(limit.fresh(kept, now), now), limit.fresh(kept, now));
            let owed = limit.owe(kept, u32::MAX, now);
            prop_assert_eq!(limit.standing(owed, now).remaining, 0);
            limit.standing(kept, now);
        }
    }
}

#[test]
fn a_burst_passes_at_once_and_comes_back_evenly() {
    let limit = rate(60, 60, 3, 0);
    let mut kept = NOTHING;
    for left in [2, 1, 0] {
        kept = limit.take(kept, 1, at(1)).unwrap();
        assert_eq!(limit.standing(kept, at(1)).remaining, left);
    }
    assert_eq!(limit.take(kept, 1, at(1)), Err(SECOND));
    assert_eq!(limit.standing(kept, at(1)).reset, 3);
    assert!(limit.take(kept, 1, at(SECOND)).is_err());
    kept = limit.take(kept, 1, at(1 + SECOND)).unwrap();
    assert_eq!(limit.take(kept, 3, at(1 + SECOND)), Err(3 * SECOND));
    assert_eq!(limit.standing(kept, at(1 + 100 * SECOND)), Standing { remaining: 3, reset: 0 });
}

#[test]
fn windows_begin_with_the_calendar() {
    let limit = window(3, "1h", 0);
    let kept = limit.take(NOTHING, 2, wall(7_199)).unwrap();
    assert_eq!(limit.standing(kept, wall(7_199)), Standing { remaining: 1, reset: 1 });
    assert_eq!(limit.take(kept, 2, wall(7_199)), Err(SECOND));
    let kept = limit.take(kept, 2, wall(7_200)).unwrap();
    assert_eq!(limit.standing(kept, wall(7_200)), Standing { remaining: 1, reset: 3_600 });
    assert_eq!(limit.period(wall(7_200)), 3_600);
    assert_eq!(window(3, "month", 0).period(wall(1_771_000_000)), 28 * 86_400, "February 2026");
}

#[test]
fn a_clock_that_is_set_back_opens_no_window_and_shuts_none_for_long() {
    let limit = window(1, "1h", 0);
    let kept = limit.take(NOTHING, 1, wall(7_200)).unwrap();
    assert!(limit.take(kept, 1, wall(7_199)).is_err(), "just before midnight for the second time");
    assert!(limit.take(kept, 1, wall(3_600)).is_err());
    assert!(limit.take(kept, 1, wall(3_599)).is_ok(), "hours back");
    assert!(limit.take(kept, 1, wall(10_800)).is_ok());
}

#[test]
fn debt_has_an_end() {
    for (limit, second) in [(rate(10, 10, 10, 5), SECOND), (window(10, "1h", 5), 0)] {
        let now = Moment { steady: 100, wall: 7_200 };
        let kept = limit.owe(NOTHING, 12, now);
        assert!(limit.take(kept, 0, now).is_err(), "what costs nothing yet needs something to be left");
        assert_eq!(limit.standing(kept, now).remaining, 0);
        let deepest = limit.owe(limit.owe(kept, 1_000_000, now), u32::MAX, now);
        assert_eq!(deepest, limit.owe(NOTHING, 15, now));
        if second > 0 {
            assert_eq!(limit.take(deepest, 1, now), Err(6 * SECOND), "five of debt, and one");
        }
        let later = Moment { steady: 100 + 6 * SECOND, wall: 10_800 };
        assert!(limit.take(deepest, 1, later).is_ok());
    }
    let limit = rate(10, 10, 10, 5);
    let kept = limit.owe(NOTHING, 9, at(0));
    assert_eq!(limit.take(kept, 0, at(0)), Ok(kept), "one is left, and nothing is used");
    assert!(limit.take(limit.owe(NOTHING, 10, at(0)), 0, at(0)).is_err(), "nothing is left, and nothing is owed");
    let limit = window(10, "1h", 5);
    assert!(limit.take(limit.owe(NOTHING, 10, at(0)), 0, at(0)).is_err());
}

fn used_up(limit: &Limit) -> Kept {
    limit.take(NOTHING, limit.quota(), at(1)).unwrap()
}

#[test]
fn another_limit_finds_the_same_units_used() {
    let kept = used_up(&rate(10, 60, 10, 0));
    let relaxed = rate(1_000, 60, 1_000, 0);
    assert_eq!(relaxed.standing(kept, at(1)), Standing { remaining: 990, reset: 1 });
    assert!(relaxed.take(kept, 990, at(1)).is_ok() && relaxed.take(kept, 991, at(1)).is_err());
    assert_eq!(rate(10, 60, 12, 0).standing(kept, at(1)).remaining, 2, "a larger burst");
    let fast = rate(10, 1, 10, 0);
    assert_eq!(fast.take(kept, 1, at(1)), Err(SECOND / 10), "one comes back as fast as the new limit says");
    // Half of it is used, and half as much is allowed.
    let half = rate(100, 60, 100, 0).take(NOTHING, 50, at(1)).unwrap();
    assert_eq!(rate(50, 60, 50, 0).take(half, 1, at(1)), Err(60 * SECOND / 50));
    assert_eq!(rate(60, 60, 60, 0).standing(half, at(1)), Standing { remaining: 10, reset: 50 });
    let kept = used_up(&rate(100, 60, 100, 0));
    assert_eq!(rate(10, 60, 10, 0).take(kept, 1, at(1)), Err(6 * SECOND), "no longer than one takes");
    let small = window(3, "1h", 0);
    let kept = small.take(NOTHING, 3, at(1)).unwrap();
    assert_eq!(window(10, "1h", 0).standing(kept, at(1)).remaining, 7);
    assert_eq!(window(2, "1h", 0).standing(kept, at(1)).remaining, 0);
    assert!(window(2, "1h", 0).take(kept, 1, at(1)).is_err());
}

/// Whoever is refused does not go on to wait for what an older limit would have made of it.
#[test]
fn what_was_kept_is_kept_anew_by_another_limit() {
    let slow = used_up(&rate(2, 86_400, 2, 0));
    let relaxed = rate(120, 60, 2, 0);
    let kept = relaxed.fresh(slow, at(1));
    assert_eq!(relaxed.take(kept, 1, at(1)), Err(SECOND / 2));
    assert!(relaxed.take(kept, 1, at(1 + SECOND / 2)).is_ok());
    assert_eq!(relaxed.fresh(kept, at(1 + SECOND / 2)), kept, "once");
    let much = used_up(&rate(1_000, 60, 1_000, 0));
    let tightened = rate(10, 60, 10, 0);
    let kept = tightened.fresh(much, at(1));
    assert_eq!(tightened.standing(kept, at(1)), Standing { remaining: 0, reset: 60 });
    assert_eq!(tightened.take(kept, 1, at(1 + SECOND)), Err(5 * SECOND), "the wait goes by");
    assert!(tightened.take(kept, 1, at(1 + 6 * SECOND)).is_ok());
    let debt = rate(10, 60, 10, 5);
    assert_eq!(debt.standing(debt.fresh(much, at(1)), at(1)).reset, 90, "no deeper than the debt may be");
    assert_eq!(relaxed.fresh(NOTHING, at(1)), NOTHING);
    let window = window(2, "1h", 0);
    let kept = window.take(NOTHING, 2, at(1)).unwrap();
    assert_eq!(window.fresh(kept, at(1)), kept);
}

/// Where groups with different limits share a key, none of them frees the others of what they have used.
#[test]
fn limits_that_share_a_key_meet_the_same_units() {
    let (free, gold) = (rate(60, 60, 60, 0), rate(6_000, 60, 1_000, 0));
    let [free, gold] = [free.among(&[free, gold]), gold.among(&[free, gold])];
    let much = gold.take(NOTHING, 1_000, at(1)).unwrap();
    assert_eq!(free.fresh(much, at(1)), much, "who is refused changes nothing");
    assert_eq!(free.take(much, 1, at(1)), Err(941 * SECOND / 100), "at the pace at which they come back");
    assert!(free.take(much, 1, at(1 + 941 * SECOND / 100)).is_ok());
    assert_eq!(free.owe(much, 7, at(1)), much, "the slower limit takes nothing back");
    let little = free.take(NOTHING, 60, at(1)).unwrap();
    assert_eq!(gold.standing(little, at(1)).remaining, 940);
    // What no limit of today has kept.
    let old = used_up(&rate(9_000_000, 60, 9_000_000, 0));
    assert_eq!(free.standing(free.fresh(old, at(1)), at(1)), Standing { remaining: 0, reset: 10 });
    let old = used_up(&rate(50, 86_400, 50, 0));
    assert_eq!(gold.fresh(old, at(1)), gold.take(NOTHING, 50, at(1)).unwrap());
    assert_eq!(free.fresh(old, at(1)), free.take(NOTHING, 50, at(1)).unwrap());
}

#[test]
fn limits_have_bounds() {
    let of = |quota, seconds, burst, debt| Limit::rate(quota, Period::Seconds(seconds), burst, debt);
    assert!(of(1_000_000, 1, 1, 0).is_ok() && of(u32::MAX, 86_400, u32::MAX, 0).is_ok());
    assert!(of(0, 1, 1, 0).is_err() && of(1, 1, 0, 0).is_err());
    assert!(of(1_000_001, 1, 1, 0).unwrap_err().contains("a second"));
    for (burst, debt) in [(12, 0), (1, 12), (u32::MAX, u32::MAX)] {
        assert!(of(1, 31 * 86_400, burst, debt).unwrap_err().contains("a year"));
    }
    let month = |quota, debt| Limit::window(quota, Period::Month, debt);
    assert!(month(MOST, MOST).is_ok() && month(0, 0).is_err() && month(MOST + 1, 0).is_err());
    assert!(month(1, MOST + 1).is_err());
}

#[test]
fn what_counts_no_more_can_be_forgotten() {
    let now = Moment { steady: 10 * SECOND, wall: 7_300 };
    assert_eq!(Kept::rate(now.steady, 9).counts_for(false, now), 0);
    assert_eq!(Kept::rate(now.steady + 7, 9).counts_for(false, now), 7);
    assert_eq!(Kept::window(7_300, 9).counts_for(true, now), 0);
    assert_eq!(Kept::window(7_310, 9).counts_for(true, now), 10 * SECOND);
}
