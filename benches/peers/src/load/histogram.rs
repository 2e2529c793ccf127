//! Counts of times in buckets of fixed relative width.

/// Buckets in each doubling of the time, as a power of two: 64, so a bucket is at most 1/64 of its time wide.
const FINE_BITS: u32 = 6;
const FINE: usize = 1 << FINE_BITS;
/// Doublings: up to two minutes in microseconds.
const COARSE: usize = 22;

/// Counts of times, in microseconds. Its size does not depend on how many it holds.
pub(crate) struct Histogram {
    buckets: Vec<u64>,
}

impl Histogram {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; FINE * COARSE] }
    }

    /// Counts a time; one beyond the last bucket counts there.
    pub(crate) fn record(&mut self, micros: u64) {
        let last = self.buckets.len() - 1;
        self.buckets[bucket(micros).min(last)] += 1;
    }

    /// Adds the counts of another.
    pub(crate) fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *ours += theirs;
        }
    }

    /// The time, in microseconds, that this many per mille of the counted times do not exceed (rounded up to the end of
    /// its bucket); 0 if there is none.
    pub(crate) fn per_mille(&self, share: u64) -> u64 {
        let total: u64 = self.buckets.iter().sum();
        let wanted = (total * share).div_ceil(1000).max(1);
        let mut seen = 0;
        let found = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        found.map_or(0, end_of)
    }
}

/// Times below 64 have a bucket each; above, the highest bit chooses the doubling and the next six the bucket in it.
fn bucket(micros: u64) -> usize {
    let doubling = micros.max(1).ilog2().saturating_sub(FINE_BITS);
    let fine = usize::try_from(micros >> doubling).unwrap_or(usize::MAX);
    (doubling as usize) * FINE + fine
}

/// The last time in a bucket.
fn end_of(bucket: usize) -> u64 {
    let doubling = (bucket / FINE).saturating_sub(1);
    let fine = (bucket - doubling * FINE) as u64;
    ((fine + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket() {
        for micros in (0..5_000).chain([65_535, 65_536, 1_000_000, 59_999_999]) {
            let bucket = bucket(micros);
            assert!(end_of(bucket) >= micros, "{micros}");
            assert!(bucket == 0 || end_of(bucket - 1) < micros, "{micros}");
            assert!(end_of(bucket) - micros <= micros / FINE as u64, "{micros}");
        }
    }

    #[test]
    fn shares_are_found() {
        let mut times = Histogram::new();
        assert_eq!(times.per_mille(500), 0);
        for micros in 1..=50 {
            times.record(micros);
        }
        assert_eq!((times.per_mille(500), times.per_mille(990), times.per_mille(1000)), (25, 50, 50));
        let mut others = Histogram::new();
        (0..50).for_each(|_| others.record(u64::MAX));
        times.add(&others);
        assert_eq!(times.per_mille(500), 50);
        assert!(times.per_mille(510) > 60_000_000);
    }
}
