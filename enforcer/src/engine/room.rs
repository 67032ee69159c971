//! Room in the kernel's maps. What is wanted is made to fit before anything is applied, so that no map is ever full
//! half-way through a change.
//!
//! A workload whose directory can't be bound must not count as the host, which is allowed much. So a directory above it
//! is bound to an identity that is denied everything, the nearest that leaves room for all of this; the innermost binding
//! counts, so those that are bound keep their identities. Who has a row keeps it: the latest are left out.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::index::{Index, Touched};
use super::told::{self, Sources};
use crate::domain::delta::{Bound, Operation, Tables};
use crate::domain::id::{CgroupId, IdentityId};
use crate::domain::limits;
use crate::domain::workload::{Resolved, WorkloadKey};

/// Workloads that are named one by one.
const NAMED: usize = 3;

/// How much the kernel's maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bindings.
    pub bindings: usize,
    /// Addresses.
    pub addresses: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bindings: limits::BINDINGS, addresses: limits::ADDRESSES }
    }
}

/// What there is no room for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overflow {
    /// What directories are bound to instead of what claims them: nothing, or what is denied everything.
    pub(super) bindings: BTreeMap<CgroupId, Option<Bound>>,
    /// Directories of workloads that are not bound, or are denied with those that are not.
    pub(super) left_out: BTreeSet<CgroupId>,
    /// Addresses that stand for nobody.
    pub(super) addresses: BTreeSet<IpNet>,
}

/// Makes what is wanted fit. Where all of it does, that costs next to nothing.
pub(super) fn fit(index: &mut Index, have: &Tables, sources: &Sources, limits: Limits) -> Touched {
    let mut overflow = Overflow::default();
    let mut said = [("addresses", None), ("bindings", None)];
    // Some may be counted twice here, and then it is looked at closely.
    if index.nets_at_most() > limits.addresses {
        said[0].1 = addresses(index, have, limits.addresses, &mut overflow);
    }
    if index.cgroups_needed() > limits.bindings {
        said[1].1 = Some(bindings(index, have, sources, limits.bindings, &mut overflow));
    }
    index.overflow(overflow, said, have)
}

/// Leaves out the addresses that are beyond the limit, those that are new.
fn addresses(index: &Index, have: &Tables, limit: usize, overflow: &mut Overflow) -> Option<String> {
    let wanted: BTreeSet<IpNet> = index.nets().copied().collect();
    let needed = wanted.len();
    if needed <= limit {
        return None;
    }
    let (old, new): (Vec<IpNet>, Vec<IpNet>) =
        wanted.iter().partition(|net| have.addresses.contains_key(*net));
    let kept: BTreeSet<IpNet> = old.into_iter().chain(new).take(limit).collect();
    overflow.addresses = wanted.difference(&kept).copied().collect();
    let out: Vec<String> = overflow.addresses.iter().map(ToString::to_string).collect();
    Some(format!(
        "{needed} addresses are needed and the kernel has room for {limit}: {} stand for nobody until there are fewer; \
         name prefixes instead of single addresses",
        some(&out)
    ))
}

/// A workload that has a directory.
struct Place<'a> {
    key: &'a WorkloadKey,
    resolved: &'a Resolved,
    cgroup: CgroupId,
}

impl Place<'_> {
    /// The directory above that is bound in its stead: so many levels up, but below every workload that it lies in.
    fn cover(&self, levels: usize, workloads: &BTreeSet<CgroupId>) -> Option<CgroupId> {
        let above = &self.resolved.above;
        let outer = above.iter().position(|id| workloads.contains(id)).unwrap_or(above.len());
        above.get(levels.min(outer).min(above.len().checked_sub(1)?)).copied()
    }
}

/// Leaves out as few workloads as it takes, and denies everything in a directory above each.
fn bindings(
    index: &Index,
    have: &Tables,
    sources: &Sources,
    limit: usize,
    overflow: &mut Overflow,
) -> String {
    let needed = index.cgroups_needed();
    let endpoints = told::workloads(sources);
    let mut seen = BTreeSet::new();
    let mut places: Vec<Place<'_>> = endpoints
        .iter()
        .filter(|(key, _)| index.has(key))
        .filter_map(|(key, resolved)| Some(Place { key, resolved, cgroup: resolved.cgroup? }))
        .filter(|place| seen.insert(place.cgroup))
        .collect();
    // First those that nothing above could stand for, then those that have a row.
    let is_there = |cgroup| have.bindings.contains_key(&cgroup);
    places.sort_by_key(|place| (!place.resolved.above.is_empty(), !is_there(place.cgroup), place.cgroup));
    // Everything else is a managed directory.
    let fixed = needed - places.len();
    let levels = places.iter().map(|place| place.resolved.above.len()).max().unwrap_or(0).max(1);
    let (kept, covers) = (0..levels)
        .find_map(|level| split(&places, level, fixed, limit, &seen))
        .unwrap_or_else(|| (limit.saturating_sub(fixed), BTreeSet::new()));
    let mut names = Vec::new();
    for place in &places[kept..] {
        overflow.bindings.insert(place.cgroup, None);
        overflow.left_out.insert(place.cgroup);
        names.push(place.key.to_string());
    }
    // A workload may lie in the way: it is denied with them, and told with them.
    for place in places[..kept].iter().filter(|place| covers.contains(&place.cgroup)) {
        overflow.left_out.insert(place.cgroup);
        names.push(place.key.to_string());
    }
    let denied = covers.iter().map(|cgroup| (*cgroup, Some(Bound::always(IdentityId::UNMANAGED))));
    overflow.bindings.extend(denied);
    let covered = paths(&places[kept..], &covers);
    let consequence = if covers.is_empty() {
        "they count as what is above them".to_owned()
    } else {
        format!("everything is denied in {} but to those that are bound", some(&covered))
    };
    format!(
        "{needed} bindings are needed and the kernel has room for {limit}: {} can't be bound, and {consequence} until \
         there are fewer workloads",
        some(&names)
    )
}

/// How many places can be kept when the others are covered from this level, and the covers; `None` if that needs more
/// room than there is.
fn split(
    places: &[Place<'_>],
    level: usize,
    fixed: usize,
    limit: usize,
    workloads: &BTreeSet<CgroupId>,
) -> Option<(usize, BTreeSet<CgroupId>)> {
    let mut kept = places.len();
    let mut covers = BTreeSet::new();
    while fixed + kept + covers.len() > limit {
        kept = kept.checked_sub(1)?;
        covers.extend(places.get(kept)?.cover(level, workloads));
    }
    Some((kept, covers))
}

/// The paths of covers, from those of the workloads below.
fn paths(places: &[Place<'_>], covers: &BTreeSet<CgroupId>) -> Vec<String> {
    let mut paths = BTreeMap::new();
    for place in places {
        let directory = place.resolved.workload.cgroup.as_deref().unwrap_or_default().trim_end_matches('/');
        let above = directory.rmatch_indices('/').map(|(at, _)| &directory[..at]);
        for (id, path) in place.resolved.above.iter().zip(above) {
            if covers.contains(id) {
                paths.insert(*id, path.to_owned());
            }
        }
    }
    paths.into_values().collect()
}

/// The first few, and how many more there are.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Puts as many removals before the additions as it takes for the maps never to be full on the way. What is removed is
/// gone from the host as a rule; where it is not, it is nobody's a little earlier.
pub(super) fn in_order(operations: Vec<Operation>, have: &Tables, limits: Limits) -> Vec<Operation> {
    let new = |operation: &&Operation| match operation {
        Operation::Bind(cgroup, _) => !have.bindings.contains_key(cgroup),
        _ => false,
    };
    let new_address = |operation: &&Operation| match operation {
        Operation::SetAddress(net, _) => !have.addresses.contains_key(net),
        _ => false,
    };
    let mut unbind =
        (have.bindings.size() + operations.iter().filter(new).count()).saturating_sub(limits.bindings);
    let mut remove = (have.addresses.size() + operations.iter().filter(new_address).count())
        .saturating_sub(limits.addresses);
    if unbind + remove == 0 {
        return operations;
    }
    let (mut first, rest): (Vec<Operation>, Vec<Operation>) =
        operations.into_iter().partition(|operation| match operation {
            Operation::Unbind(_) => take(&mut unbind),
            Operation::RemoveAddress(_) => take(&mut remove),
            _ => false,
        });
    first.extend(rest);
    first
}

fn take(left: &mut usize) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}
