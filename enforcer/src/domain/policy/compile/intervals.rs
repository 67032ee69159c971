//! Overlapping ranges cut into disjoint intervals, for ports and addresses alike.

use std::collections::BTreeMap;

use crate::domain::table::CompileError;

/// Bounds the memory for "which sets cover this interval", summed over all intervals.
const MEMBERSHIPS: usize = 1 << 24;

/// First and last number of a range.
pub(super) type Range = (u128, u128);

/// An interval: its first number and the sets that cover it, ascending. It ends where the next one starts.
pub(super) type Interval = (u128, Vec<u32>);

/// Cuts the ranges of numbered sets into intervals, from 0 to the greatest number.
pub(super) fn cut(
    ranges: impl IntoIterator<Item = (u32, Range)>,
    what: &'static str,
) -> Result<Vec<Interval>, CompileError> {
    let mut changes: BTreeMap<u128, Vec<(u32, bool)>> = BTreeMap::from([(0, Vec::new())]);
    for (set, (first, last)) in ranges {
        changes.entry(first).or_default().push((set, true));
        // A range that ends with the greatest number ends with the last interval.
        if let Some(next) = last.checked_add(1) {
            changes.entry(next).or_default().push((set, false));
        }
    }
    let mut covering: BTreeMap<u32, u32> = BTreeMap::new();
    let mut intervals: Vec<Interval> = Vec::with_capacity(changes.len());
    let mut memberships = 0;
    for (start, sets) in changes {
        for (set, begins) in sets {
            // Ranges of one set may overlap, so how often it covers is counted. Within one position an end may
            // come before the beginning that keeps the set covering: both are applied before anyone looks.
            let count = covering.entry(set).or_default();
            *count = if begins { count.wrapping_add(1) } else { count.wrapping_sub(1) };
        }
        covering.retain(|_, count| *count != 0);
        memberships += covering.len();
        CompileError::check(what, memberships as u64, MEMBERSHIPS as u64)?;
        let members: Vec<u32> = covering.keys().copied().collect();
        if intervals.last().is_none_or(|(_, last)| *last != members) {
            intervals.push((start, members));
        }
    }
    Ok(intervals)
}

/// The ranges without the hole.
pub(super) fn without(ranges: &[Range], (hole_first, hole_last): Range) -> Vec<Range> {
    let mut rest = Vec::with_capacity(ranges.len() + 1);
    for (first, last) in ranges.iter().copied() {
        if hole_last < first || last < hole_first {
            rest.push((first, last));
            continue;
        }
        if first < hole_first {
            rest.push((first, hole_first - 1));
        }
        if hole_last < last {
            rest.push((hole_last + 1, last));
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts() {
        let check = |ranges: &[(u32, Range)], expect: &[(u128, &[u32])]| {
            let expect: Vec<Interval> = expect.iter().map(|(start, sets)| (*start, sets.to_vec())).collect();
            assert_eq!(cut(ranges.iter().copied(), "overlaps"), Ok(expect), "{ranges:?}");
        };
        check(&[], &[(0, &[])]);
        check(&[(0, (0, u128::MAX))], &[(0, &[0])]);
        check(&[(7, (5, 5))], &[(0, &[]), (5, &[7]), (6, &[])]);
        check(&[(0, (1, 9)), (1, (4, 5))], &[(0, &[]), (1, &[0]), (4, &[0, 1]), (6, &[0]), (10, &[])]);
        // Overlapping and adjacent ranges of one set are one.
        check(&[(0, (1, 5)), (0, (3, 9)), (0, (10, 12))], &[(0, &[]), (1, &[0]), (13, &[])]);
        check(&[(0, (9, u128::MAX)), (1, (0, 8))], &[(0, &[1]), (9, &[0])]);
    }

    #[test]
    fn holes() {
        let check = |hole, expect: &[Range]| assert_eq!(without(&[(10, 19), (30, 39)], hole), expect);
        check((0, 9), &[(10, 19), (30, 39)]);
        check((0, u128::MAX), &[]);
        check((10, 10), &[(11, 19), (30, 39)]);
        check((39, 50), &[(10, 19), (30, 38)]);
        check((12, 34), &[(10, 11), (35, 39)]);
        check((20, 29), &[(10, 19), (30, 39)]);
        check((15, 15), &[(10, 14), (16, 19), (30, 39)]);
    }

    #[test]
    fn too_many_overlaps_are_refused() {
        let nested = (0..6_000).map(|set| (set, (u128::from(set), u128::MAX)));
        let error = cut(nested, "overlaps of address blocks");
        assert!(matches!(error, Err(CompileError::Limit { what: "overlaps of address blocks", .. })));
    }
}
