//! Turns by weight: one after the other, smoothly interleaved, or drawn by chance; without a lock.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Longest sequence kept; larger weights are scaled down to it, each endpoint keeping at least one turn.
const MAX_TURNS: usize = 4096;

/// A repeating sequence of turns, worked out when the endpoints are known.
#[derive(Debug, Default)]
pub struct RoundRobin {
    turns: Box<[u32]>,
    next: AtomicUsize,
}

impl RoundRobin {
    /// A sequence in which index `i` has a share of `weights[i]`. All weights are at least 1.
    pub fn new(weights: &[u32]) -> Self {
        let shares = scaled(weights);
        let total: i64 = shares.iter().sum();
        let mut credit = vec![0_i64; shares.len()];
        // Smooth weighted round robin as nginx has it: everybody earns its share, the richest pays for a turn.
        let turn = |_| {
            credit.iter_mut().zip(&shares).for_each(|(c, s)| *c += s);
            let richest = (0..credit.len()).max_by_key(|&i| (credit[i], std::cmp::Reverse(i))).unwrap_or_default();
            if let Some(c) = credit.get_mut(richest) {
                *c -= total;
            }
            u32::try_from(richest).unwrap_or_default()
        };
        Self { turns: (0..total).map(turn).collect(), next: AtomicUsize::new(0) }
    }

    /// Whose turn it is: an index into the weights. `None` if there is nobody.
    pub fn next(&self) -> Option<usize> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let at = turn.checked_rem(self.turns.len())?;
        self.turns.get(at).map(|&i| i as usize)
    }

    /// One of them by chance, each with its share.
    pub fn draw(&self) -> Option<usize> {
        let at = fastrand::usize(..self.turns.len().max(1));
        self.turns.get(at).map(|&i| i as usize)
    }
}

/// Weights without their common divisor, scaled down where the sequence would be too long.
fn scaled(weights: &[u32]) -> Vec<i64> {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, u64::from(b))).max(1);
    let reduced: Vec<u64> = weights.iter().map(|&w| u64::from(w) / divisor).collect();
    let total: u64 = reduced.iter().sum();
    let room = MAX_TURNS.max(weights.len()) as u64;
    let scale = |w: u64| if total > room { (w * room / total).max(1) } else { w };
    reduced.into_iter().map(|w| i64::try_from(scale(w)).unwrap_or(1)).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u32], count: usize) -> Vec<usize> {
        let robin = RoundRobin::new(weights);
        (0..count).filter_map(|_| robin.next()).collect()
    }

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(turns(&[7, 7, 7], 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn unequal_weights_are_interleaved() {
        assert_eq!(turns(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn huge_weights_keep_their_share_and_nobody_starves() {
        let seen = turns(&[65_535, 65_534, 1], MAX_TURNS);
        let count = |i| seen.iter().filter(|&&s| s == i).count();
        assert!(count(0).abs_diff(count(1)) <= 2 && count(2) >= 1, "{} {} {}", count(0), count(1), count(2));
    }

    #[test]
    fn nobody_is_nobody() {
        assert_eq!(RoundRobin::new(&[]).next(), None);
    }
}
