//! What the kernel should have: bindings and addresses, from what the sources say.
//!
//! The result depends on the last snapshot of each source and on nothing else, in particular not on the order in
//! which the snapshots came.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::domain::delta::{Bound, Operation, Tables};
use crate::domain::id::{CgroupId, IdentityId};
use crate::domain::quarantine::{Quarantines, marked};
use crate::domain::registry::{IdentityKey, Registry};
use crate::domain::workload::{Resolved, Workload, WorkloadKey};

/// Snapshots by the name of their source.
pub(super) type Sources = BTreeMap<String, Vec<Resolved>>;

/// Workloads by name. Of two with the same name the first counts, in the order of sources and then of the snapshot.
pub(super) type Endpoints<'a> = BTreeMap<&'a WorkloadKey, &'a Resolved>;

/// The identity that a workload has now: one of its own while it is in quarantine.
pub(super) fn present_key(workload: &Workload, quarantines: &Quarantines) -> IdentityKey {
    let ordinary = IdentityKey::of(workload);
    if quarantines.contains_key(&workload.key) { marked(&ordinary, &workload.key.name) } else { ordinary }
}

/// The workloads that count, and what is said about those that do not: (object, sentence).
pub(super) fn endpoints(sources: &Sources) -> (Endpoints<'_>, Vec<(String, String)>) {
    let mut endpoints: BTreeMap<&WorkloadKey, (&str, &Resolved)> = BTreeMap::new();
    let mut problems = Vec::new();
    for (source, workloads) in sources {
        for resolved in workloads {
            let key = &resolved.workload.key;
            match endpoints.get(key) {
                None => drop(endpoints.insert(key, (source, resolved))),
                Some((first, _)) => problems.push((
                    key.to_string(),
                    format!("workload {key} of source `{source}` is not used: source `{first}` has one of that name"),
                )),
            }
        }
    }
    (endpoints.into_iter().map(|(key, (_, resolved))| (key, resolved)).collect(), problems)
}

/// What the kernel should have, and what could not be decided: (object, sentence). Gives numbers to new identities.
///
/// Where two workloads claim the same directory or address and are not the same to policies, nobody can tell which
/// one acts. The claim is given to [`IdentityId::UNMANAGED`], which is denied everything, until it is settled.
pub(super) fn tables(
    endpoints: &Endpoints<'_>,
    managed: &BTreeMap<String, Option<CgroupId>>,
    quarantines: &Quarantines,
    registry: &mut Registry,
) -> (Tables, Vec<(String, String)>) {
    let mut cgroups: BTreeMap<CgroupId, Claim<'_>> = BTreeMap::new();
    let mut addresses: BTreeMap<IpNet, Claim<'_>> = BTreeMap::new();
    for (key, resolved) in endpoints {
        let bound = bound(&resolved.workload, quarantines, registry);
        if let Some(cgroup) = resolved.cgroup {
            Claim::add(&mut cgroups, cgroup, key, bound);
        }
        for address in &resolved.workload.addresses {
            Claim::add(&mut addresses, address.trunc(), key, bound);
        }
    }
    let mut problems = Vec::new();
    for (cgroup, claim) in &cgroups {
        if let Some(others) = claim.others() {
            let place = endpoints
                .get(claim.first)
                .and_then(|resolved| resolved.workload.cgroup.clone())
                .unwrap_or_else(|| cgroup.to_string());
            problems.push((place.clone(), format!("cgroup {place} belongs to workload {others}")));
        }
    }
    for (address, claim) in &addresses {
        if let Some(others) = claim.others() {
            problems.push((address.to_string(), format!("address {address} belongs to workload {others}")));
        }
    }
    let mut bindings: BTreeMap<CgroupId, Bound> =
        managed.values().flatten().map(|cgroup| (*cgroup, Bound::always(IdentityId::UNMANAGED))).collect();
    bindings.extend(cgroups.into_iter().map(|(cgroup, claim)| (cgroup, claim.bound)));
    let addresses = addresses.into_iter().map(|(address, claim)| (address, claim.bound.identity)).collect();
    (Tables { bindings, addresses, ..Tables::default() }, problems)
}

/// What a workload's directory is bound to. Gives a number to a new identity, in quarantine to both.
fn bound(workload: &Workload, quarantines: &Quarantines, registry: &mut Registry) -> Bound {
    let ordinary = registry.identity(&IdentityKey::of(workload));
    let Some(quarantine) = quarantines.get(&workload.key) else { return Bound::always(ordinary) };
    let identity = registry.identity(&present_key(workload, quarantines));
    match &quarantine.until {
        Some(until) => Bound { identity, until: Some(until.boot), after: ordinary },
        None => Bound::always(identity),
    }
}

/// Replaces identities above `last`, which the enforced table does not know, by one that is denied everything.
pub(super) fn known_only(tables: &Tables, last: IdentityId) -> Tables {
    let known = |id: IdentityId| if id > last { IdentityId::UNMANAGED } else { id };
    let bound = |bound: Bound| Bound { identity: known(bound.identity), after: known(bound.after), ..bound };
    Tables {
        bindings: tables.bindings.iter().map(|(cgroup, to)| (*cgroup, bound(*to))).collect(),
        addresses: tables.addresses.iter().map(|(address, id)| (*address, known(*id))).collect(),
        own: tables.own.clone(),
    }
}

/// Who wants a directory or an address.
struct Claim<'a> {
    first: &'a WorkloadKey,
    /// Other claimants, in the order of names.
    rest: Vec<&'a WorkloadKey>,
    bound: Bound,
}

impl<'a> Claim<'a> {
    fn add<K: Ord>(claims: &mut BTreeMap<K, Self>, place: K, key: &'a WorkloadKey, bound: Bound) {
        let claim = claims.entry(place).or_insert(Self { first: key, rest: Vec::new(), bound });
        if claim.first != key {
            claim.rest.push(key);
        }
        if claim.bound != bound {
            claim.bound = Bound::always(IdentityId::UNMANAGED);
        }
    }

    /// The end of a sentence about a disputed place.
    fn others(&self) -> Option<String> {
        if self.rest.is_empty() {
            return None;
        }
        let rest: Vec<String> = self.rest.iter().map(ToString::to_string).collect();
        let consequence = if self.bound.identity == IdentityId::UNMANAGED {
            "it is denied everything until only one of them claims it"
        } else {
            "flows are reported under the first name"
        };
        Some(format!("{} and to {} as well; {consequence}", self.first, rest.join(", ")))
    }
}

/// Notes that the kernel took an operation.
pub(super) fn apply(tables: &mut Tables, operation: Operation) {
    match operation {
        Operation::SetAddress(net, id) => drop(tables.addresses.insert(net, id)),
        Operation::RemoveAddress(net) => drop(tables.addresses.remove(&net)),
        Operation::Bind(cgroup, bound) => drop(tables.bindings.insert(cgroup, bound)),
        Operation::Unbind(cgroup) => drop(tables.bindings.remove(&cgroup)),
        Operation::SetOwn(address) => drop(tables.own.insert(address)),
        Operation::RemoveOwn(address) => drop(tables.own.remove(&address)),
    }
}
