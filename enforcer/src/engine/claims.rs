//! Who lays claim to what: a place, and everyone who names it, in order.

use std::borrow::Borrow;
use std::collections::BTreeMap;

/// Claimants by place. There is one as a rule, so a list is as good as a set.
#[derive(Debug)]
pub(super) struct Claims<K, N>(BTreeMap<K, Vec<N>>);

impl<K, N> Default for Claims<K, N> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, N: Ord> Claims<K, N> {
    /// Notes a claim; one that is there already stays one.
    pub(super) fn add(&mut self, place: K, name: N) {
        let names = self.0.entry(place).or_default();
        if let Err(at) = names.binary_search(&name) {
            names.reserve_exact(1);
            names.insert(at, name);
        }
    }

    /// Forgets a claim.
    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, place: &K, name: &Q)
    where
        N: Borrow<Q>,
    {
        let Some(names) = self.0.get_mut(place) else { return };
        names.retain(|known| known.borrow() != name);
        if names.is_empty() {
            self.0.remove(place);
        }
    }

    /// Who claims it, in the order of names.
    pub(super) fn of(&self, place: &K) -> &[N] {
        self.0.get(place).map_or(&[], Vec::as_slice)
    }

    /// Every place that is claimed.
    pub(super) fn places(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// How many places are claimed.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Places between these, with who claims them.
    pub(super) fn between(&self, first: K, last: K) -> impl Iterator<Item = (&K, &[N])> {
        self.0.range(first..=last).map(|(place, names)| (place, names.as_slice()))
    }
}
