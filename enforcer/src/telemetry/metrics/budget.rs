//! How many series are told apart. Sums stay exact beyond it.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_common::abi::flow::Traffic;

/// What the label says that tells the overflow from everything else.
pub(super) const OVERFLOW: &str = "_overflow";

/// What series count.
pub(super) trait Amount {
    /// Adds another.
    fn add(&mut self, other: &Self);
    /// Series with more of it are worth more.
    fn weight(&self) -> u64;
}

impl Amount for u64 {
    fn add(&mut self, other: &Self) {
        *self += other;
    }

    fn weight(&self) -> u64 {
        *self
    }
}

impl Amount for Traffic {
    fn add(&mut self, other: &Self) {
        self.add(other);
    }

    fn weight(&self) -> u64 {
        self.bytes_sent + self.bytes_received
    }
}

/// Which series, by their labels, are told apart.
#[derive(Debug)]
pub(super) struct Budget<const LABELS: usize> {
    limit: usize,
    given: BTreeSet<[String; LABELS]>,
    overflow: fn(&[String; LABELS]) -> [String; LABELS],
}

impl<const LABELS: usize> Budget<LABELS> {
    /// `overflow` tells the labels of the series that takes in one that is beyond the limit.
    pub(super) fn new(limit: usize, overflow: fn(&[String; LABELS]) -> [String; LABELS]) -> Self {
        Self { limit, given: BTreeSet::new(), overflow }
    }

    /// Sums what is beyond the budget. Of new series, those with the highest counts get the places that are left.
    pub(super) fn fold<A: Amount>(
        &mut self,
        series: BTreeMap<[String; LABELS], A>,
    ) -> BTreeMap<[String; LABELS], A> {
        let (mut kept, mut new): (Vec<_>, Vec<_>) =
            series.into_iter().partition(|(labels, _)| self.given.contains(labels));
        new.sort_by_key(|(_, amount)| std::cmp::Reverse(amount.weight()));
        let places = self.limit.saturating_sub(self.given.len()).min(new.len());
        let rest = new.split_off(places);
        self.given.extend(new.iter().map(|(labels, _)| labels.clone()));
        kept.extend(new);
        let mut folded: BTreeMap<_, A> = kept.into_iter().collect();
        for (labels, amount) in rest {
            add(&mut folded, (self.overflow)(&labels), amount);
        }
        folded
    }
}

/// Adds to the series with these labels.
pub(super) fn add<K: Ord, A: Amount>(series: &mut BTreeMap<K, A>, labels: K, amount: A) {
    use std::collections::btree_map::Entry;
    match series.entry(labels) {
        Entry::Vacant(place) => {
            place.insert(amount);
        }
        Entry::Occupied(mut found) => found.get_mut().add(&amount),
    }
}
