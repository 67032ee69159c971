//! Ratios of neighbouring rounds: what other load on the machine does to one, it does to the other.

use serde::Serialize;

/// A ratio with the interval that holds it with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// The median of all pairs.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// Draws of the bootstrap.
const DRAWS: usize = 2_000;

impl Ratio {
    /// The median and its interval, by drawing as many pairs again and again (bootstrap, percentiles 2.5 and 97.5).
    ///
    /// # Panics
    /// Without pairs.
    pub fn of(ratios: &[f64]) -> Self {
        assert!(!ratios.is_empty(), "there are pairs");
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut medians: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let drawn = (0..ratios.len()).map(|_| {
                    random = enforcer_common::churn::next(random);
                    ratios[usize::try_from(random % ratios.len() as u64).expect("a small number")]
                });
                median(drawn.collect())
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        Self {
            median: median(ratios.to_vec()),
            low: medians[DRAWS / 40],
            high: medians[DRAWS - 1 - DRAWS / 40],
        }
    }
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_holds_the_median_and_shrinks_with_more_pairs() {
        let noisy = |count: u32| -> Vec<f64> {
            (0..count).map(|n| 0.9 + f64::from(n.wrapping_mul(2_654_435_761) >> 16) / 655_360.0).collect()
        };
        let (few, many) = (Ratio::of(&noisy(10)), Ratio::of(&noisy(400)));
        for ratio in [few, many] {
            assert!(ratio.low <= ratio.median && ratio.median <= ratio.high, "{ratio:?}");
        }
        assert!(many.high - many.low < few.high - few.low, "{few:?} {many:?}");
        assert!((many.median - 0.95).abs() < 0.02, "{many:?}");
    }

    #[test]
    fn one_wild_pair_moves_little() {
        let mut ratios = vec![1.0; 20];
        ratios.push(50.0);
        assert_eq!(Ratio::of(&ratios), Ratio { median: 1.0, low: 1.0, high: 1.0 });
    }
}
