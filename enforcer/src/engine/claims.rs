//! Who lays claim to what: a place, and everyone who names it, in order.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::told::Rank;
use crate::domain::delta::Bound;
use crate::domain::id::IdentityId;
use crate::domain::workload::{ByName, Workload, WorkloadKey};

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

/// A workload's claim on its directory or on an address, with all that decides what becomes of it. Compared by the name.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) name: ByName,
    /// How much the word of its source counts.
    pub(super) rank: Rank,
    pub(super) bound: Bound,
    /// Who its addresses stand for.
    pub(super) known_as: IdentityId,
}

impl Borrow<WorkloadKey> for Claim {
    fn borrow(&self) -> &WorkloadKey {
        &self.name
    }
}

impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Claim {}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Claim {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(&other.name)
    }
}

/// Those of the claims whose source's word counts most.
pub(super) fn foremost(claims: &[Claim]) -> impl Iterator<Item = &Claim> {
    let best = claims.iter().map(|claim| claim.rank).min();
    claims.iter().filter(move |claim| Some(claim.rank) == best)
}

/// Whose a place is, if it is a directory and if it is an address: of several, who is named by the source whose word counts
/// most.
pub(super) fn claimed(claims: &[Claim]) -> Option<(Bound, IdentityId)> {
    let mut bounds = foremost(claims).map(|claim| (claim.bound, claim.known_as));
    let first = bounds.next()?;
    if bounds.all(|bound| bound == first) {
        Some(first)
    } else {
        Some((Bound::always(IdentityId::UNMANAGED), IdentityId::UNMANAGED))
    }
}

/// The first of several claimants, and the end of a sentence about the place.
pub(super) fn dispute(claims: &[Claim]) -> Option<(Arc<Workload>, String)> {
    if claims.len() < 2 {
        return None;
    }
    let mut foremost = foremost(claims);
    let first = &foremost.next()?.name;
    let rest: Vec<String> = foremost.map(|claim| claim.name.to_string()).collect();
    if rest.is_empty() {
        return outranked(first, claims);
    }
    let (bound, _) = claimed(claims)?;
    let consequence = if bound.identity == IdentityId::UNMANAGED {
        "it is denied everything until only one of them claims it"
    } else {
        "flows are reported under the first name"
    };
    Some((Arc::clone(&first.0), format!("{} and to {} as well; {consequence}", **first, rest.join(", "))))
}

/// What is said where a claim of a file counts less than another. That a runtime knows something by another name is as it
/// should be.
fn outranked(first: &ByName, claims: &[Claim]) -> Option<(Arc<Workload>, String)> {
    let of_file = claims.iter().filter(|claim| claim.name != *first && claim.rank == Rank::File);
    let others: Vec<String> = of_file.map(|claim| claim.name.to_string()).collect();
    if others.is_empty() {
        return None;
    }
    let others = others.join(", ");
    Some((Arc::clone(&first.0), format!("{} as the cluster says, and not to {others} of the file", **first)))
}
