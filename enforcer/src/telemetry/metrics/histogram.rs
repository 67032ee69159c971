//! Distributions in buckets whose bounds are powers of two.

use std::time::Duration;

use enforcer_common::abi::flow::{LATENCY_BUCKETS as BUCKETS, latency_bucket};

/// How often something took how long.
///
/// Bucket `i` counts what took more than 2^(i-1) and at most 2^i microseconds; the first one also less. The kernel's programs
/// count in the same buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How often, by bucket; not cumulative.
    pub counts: [u64; BUCKETS],
    /// All of it together, in microseconds.
    pub microseconds: u64,
}

impl Histogram {
    /// Series of one: its buckets and that without a bound, sum and count.
    pub const SERIES: usize = BUCKETS + 2;

    /// Counts one.
    pub fn observe(&mut self, time: Duration) {
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(latency_bucket(microseconds)) {
            *count += 1;
        }
        self.microseconds = self.microseconds.saturating_add(microseconds);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Bounds in seconds, each with how many took at most so long. What is longer than the last bound is in
    /// [`Self::count`] only.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum = 0;
        let bounded = self.counts.iter().take(BUCKETS - 1);
        (0_i32..).zip(bounded).map(move |(power, count)| {
            sum += count;
            (2_f64.powi(power) / 1e6, sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_nothing_is_missing() {
        let mut histogram = Histogram::default();
        for micros in [0, 1, 2, 3, 4, 1_000, 1_024, 1_025, u64::MAX / 2] {
            histogram.observe(Duration::from_micros(micros));
        }
        let buckets: Vec<(f64, u64)> = histogram.cumulative().collect();
        assert_eq!(buckets.len(), BUCKETS - 1);
        let at_most = |seconds: f64| buckets.iter().find(|(bound, _)| *bound >= seconds).unwrap().1;
        assert_eq!([at_most(1e-6), at_most(2e-6), at_most(4e-6), at_most(0.001_024)], [2, 3, 5, 7]);
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
        assert_eq!((buckets.last().unwrap().1, histogram.count()), (8, 9));
        assert_eq!(histogram.microseconds, u64::MAX / 2 + 3_059);
    }
}
