//! What follows from what the sources told: who claims which directory and which address, and with that what the kernel's
//! tables should be, place by place. Kept from event to event, so that an event costs what it changes.
//!
//! Where two workloads claim the same directory or address and are not the same to policies, nobody can tell which
//! one acts. The claim is given to [`IdentityId::UNMANAGED`], which is denied everything, until it is settled.
//!
//! # What must stay true
//! * It is a function of what the sources have told, the managed directories, the quarantines and the registry, not of the
//!   order of events (property-tested against one that was made at once).
//! * Where the kernel's tables differ from what is wanted, the place is noted as due. More may be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::claims::{Claim, Claims, claimed, dispute, foremost};
use super::containers::{Known, Who};
use super::keys::Keys;
use super::planning::Asked;
use super::room::Overflow;
use super::services::Services;
use super::told::{self, Changed, Sources};
use crate::domain::cluster::ServiceKey;
use crate::domain::delta::{Bound, Operation, Tables, Wanted, delta};
use crate::domain::id::{CgroupId, IdentityId, RuleId};
use crate::domain::names::Names;
use crate::domain::quarantine::Quarantines;
use crate::domain::registry::Registry;
use crate::domain::workload::{ByName, EndpointState, Resolved, WorkloadKey};

/// What a problem is about. The order is that of importance: of two about one object, the last is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    Workload(WorkloadKey),
    Directory(CgroupId),
    Service(ServiceKey),
    Address(IpNet),
    Room(&'static str),
}

/// Where a workload that counts stands.
#[derive(Clone, Copy, Debug)]
struct Placed {
    cgroup: Option<CgroupId>,
    bound: Bound,
    known_as: IdentityId,
    state: EndpointState,
}

impl Placed {
    /// The identities that it counts to: by its directory, and by its addresses.
    fn identities(self) -> BTreeSet<IdentityId> {
        BTreeSet::from([self.bound.identity, self.known_as])
    }
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Index {
    placed: BTreeMap<ByName, Placed>,
    cgroups: Claims<CgroupId, Claim>,
    nets: Claims<IpNet, Claim>,
    pub(super) services: Services,
    managed: BTreeSet<CgroupId>,
    canary: Option<(CgroupId, Bound)>,
    /// Lengths of the prefixes that were ever claimed, of IPv4 and of IPv6.
    pub(super) lengths: [BTreeSet<u8>; 2],
    /// The host's own addresses.
    pub(super) own: BTreeSet<IpAddr>,
    /// The quarantines that are counted in.
    quarantines: Quarantines,
    /// The labels that count.
    keys: Keys,
    /// What there is no room for.
    overflow: Overflow,
    /// Places that may not be in the kernel what they should be.
    cgroups_due: BTreeSet<CgroupId>,
    nets_due: BTreeSet<IpNet>,
    /// (object, sentence)
    problems: BTreeMap<About, (String, String)>,
    problems_changed: bool,
    pub(super) names: Names,
    pub(super) names_changed: bool,
    /// Workloads that the names handed out last may have under another identity; see [`Names::changed`].
    pub(super) renamed: BTreeMap<WorkloadKey, Option<IdentityId>>,
    /// Whose rules have names, and the highest number of a rule then.
    pub(super) rules_of: Option<(Arc<Asked>, RuleId)>,
    counts: [u64; 4],
    /// Whether it was ever brought up to date.
    is_made: bool,
}

/// What an update has touched.
#[derive(Debug, Default)]
pub(super) struct Touched {
    cgroups: BTreeSet<CgroupId>,
    pub(super) nets: BTreeSet<IpNet>,
}

/// What a workload's directory is bound to. Gives a number to a new identity, in quarantine to both.
fn bound(who: &Who<'_>, registry: &mut Registry) -> Bound {
    let ordinary = registry.identity(&who.ordinary);
    let Some(quarantine) = who.quarantine else { return Bound::always(ordinary) };
    let identity = registry.identity(&who.present());
    match &quarantine.until {
        Some(until) => Bound { identity, until: Some(until.boot), after: ordinary },
        None => Bound::always(identity),
    }
}

/// What the index is brought up to date with.
pub(super) struct Facts<'a> {
    pub(super) sources: &'a Sources,
    pub(super) changed: Changed,
    pub(super) managed: &'a BTreeMap<String, Option<CgroupId>>,
    pub(super) own: BTreeSet<IpAddr>,
    pub(super) quarantines: &'a Quarantines,
    pub(super) keys: &'a Keys,
    /// The directory of the agent's own process that has itself refused.
    pub(super) canary: Option<(CgroupId, Bound)>,
    pub(super) programmed: &'a Tables,
}

impl Index {
    /// Brings it up to date. Gives numbers to new identities.
    pub(super) fn follow(&mut self, facts: Facts<'_>, registry: &mut Registry) -> Touched {
        let Facts { sources, mut changed, managed, own, quarantines, keys, canary, programmed } = facts;
        let mut touched = Touched::default();
        if !std::mem::replace(&mut self.is_made, true) {
            touched.cgroups.extend(programmed.bindings.keys());
            touched.nets.extend(programmed.addresses.keys());
        }
        self.follow_managed(managed, &mut touched);
        if self.canary != canary {
            let before = std::mem::replace(&mut self.canary, canary);
            touched.cgroups.extend(before.into_iter().chain(canary).map(|(cgroup, _)| cgroup));
        }
        if self.quarantines != *quarantines {
            let before = std::mem::replace(&mut self.quarantines, quarantines.clone());
            let keys = before.keys().chain(quarantines.keys());
            let differ = keys.filter(|key| before.get(*key) != quarantines.get(*key));
            // One of a container is about its pod, which it divides.
            let pods = differ.flat_map(|key| [Some(key.clone()), key.pod()]).flatten();
            changed.workloads.extend(pods);
        }
        if self.keys != *keys {
            let before = std::mem::replace(&mut self.keys, keys.clone());
            changed.workloads.extend(keys.differ(&before, sources).map(|workload| workload.key.clone()));
        }
        // What a pod is says what its containers are.
        let of_pods: Vec<WorkloadKey> =
            changed.workloads.iter().flat_map(|key| told::containers(sources, key)).cloned().collect();
        changed.workloads.extend(of_pods);
        for key in &changed.workloads {
            self.place(key, sources, registry, &mut touched);
        }
        let own_changed = std::mem::replace(&mut self.own, own) != self.own;
        for key in &changed.services {
            let service = told::service(sources, key);
            self.services.place(key, service, registry, &mut touched);
            let unused = told::unused_service(sources, key).map(|said| (format!("service {key}"), said));
            self.say(About::Service(key.clone()), unused);
        }
        self.touch(&touched, programmed);
        self.know_services(&touched, own_changed, &changed.services);
        touched
    }

    fn follow_managed(&mut self, managed: &BTreeMap<String, Option<CgroupId>>, touched: &mut Touched) {
        let is_same = managed.values().flatten().all(|cgroup| self.managed.contains(cgroup))
            && managed.values().flatten().count() == self.managed.len();
        if !is_same {
            let now: BTreeSet<CgroupId> = managed.values().flatten().copied().collect();
            touched.cgroups.extend(self.managed.symmetric_difference(&now));
            self.managed = now;
        }
    }

    /// Puts a workload where it belongs now, and nowhere else.
    fn place(
        &mut self,
        key: &WorkloadKey,
        sources: &Sources,
        registry: &mut Registry,
        touched: &mut Touched,
    ) {
        let before = self.placed.remove_entry(key);
        if let Some((name, placed)) = &before {
            self.counts[placed.state as usize] -= 1;
            if let Some(cgroup) = placed.cgroup {
                self.cgroups.remove(&cgroup, key);
                touched.cgroups.insert(cgroup);
            }
            for net in name.0.addresses.iter().map(IpNet::trunc) {
                self.nets.remove(&net, key);
                touched.nets.insert(net);
            }
            for id in placed.identities() {
                self.name(id, |names| _ = names.remove_mut(key));
            }
        }
        let known = Known { sources, keys: &self.keys, quarantines: &self.quarantines };
        let told = told::rank(sources, key).zip(told::workload(sources, key));
        let there = told.map(|(rank, resolved)| (rank, resolved, known.who(resolved)));
        if let Some((rank, resolved, who)) = there.filter(|(.., who)| who.binds) {
            let Resolved { workload, cgroup, .. } = resolved;
            let bound = bound(&who, registry);
            let known_as = registry.identity(&who.present_at_address());
            let name = ByName(Arc::clone(workload));
            let claim = Claim { name: name.clone(), rank, bound, known_as };
            if let Some(cgroup) = *cgroup {
                self.cgroups.add(cgroup, claim.clone());
                touched.cgroups.insert(cgroup);
            }
            for net in workload.addresses.iter().map(IpNet::trunc) {
                self.nets.add(net, claim.clone());
                touched.nets.insert(net);
            }
            let state = match &workload.cgroup {
                Some(_) => EndpointState::WaitingForCgroup,
                None => EndpointState::Remote,
            };
            self.counts[state as usize] += 1;
            let placed = Placed { cgroup: *cgroup, bound, known_as, state };
            for id in placed.identities() {
                self.name(id, |names| names.insert_mut(name.clone()));
            }
            self.placed.insert(name, placed);
        }
        let highest = |placed: &Placed| placed.bound.identity.max(placed.known_as);
        let now = self.placed.get(key).map(highest);
        if now != before.map(|(_, placed)| highest(&placed)) {
            self.renamed.insert(key.clone(), now);
        }
        let unused = told::unused_workload(sources, key).map(|said| (key.to_string(), said));
        self.say(About::Workload(key.clone()), unused);
    }

    /// Changes the names of an identity's workloads.
    fn name(&mut self, id: IdentityId, change: impl FnOnce(&mut rpds::RedBlackTreeSetSync<ByName>)) {
        self.names_changed = true;
        let mut names = self.names.workloads.get(&id).cloned().unwrap_or_default();
        change(Arc::make_mut(&mut names));
        if names.is_empty() {
            self.names.workloads.remove_mut(&id);
        } else {
            self.names.workloads.insert_mut(id, names);
        }
    }

    /// Works out what follows for places that were touched.
    fn touch(&mut self, touched: &Touched, programmed: &Tables) {
        for cgroup in &touched.cgroups {
            self.cgroups_due.insert(*cgroup);
            // Two workloads may claim one directory; as with their flows, the first by name is shown.
            let first = foremost(self.cgroups.of(cgroup)).next().map(|claim| claim.name.clone());
            match first {
                Some(first) => self.names.cgroups.insert_mut(*cgroup, first),
                None => _ = self.names.cgroups.remove_mut(cgroup),
            }
            self.names_changed = true;
            let said = dispute(self.cgroups.of(cgroup)).map(|(first, others)| {
                let place = first.cgroup.clone().unwrap_or_else(|| cgroup.to_string());
                (place.clone(), format!("cgroup {place} belongs to workload {others}"))
            });
            self.say(About::Directory(*cgroup), said);
            self.stand(*cgroup, programmed);
        }
        for net in &touched.nets {
            self.nets_due.insert(*net);
            self.lengths[usize::from(matches!(net, IpNet::V6(_)))].insert(net.prefix_len());
            let workloads = self.nets.of(net);
            let of_services = self.services.dispute(net, !workloads.is_empty());
            let said = of_services.or_else(|| {
                let (_, others) = dispute(workloads)?;
                Some(format!("address {net} belongs to workload {others}"))
            });
            self.say(About::Address(*net), said.map(|said| (net.to_string(), said)));
        }
    }

    /// What a directory should be bound to, if there is room.
    fn claimed_cgroup(&self, cgroup: CgroupId) -> Option<Bound> {
        if let Some((_, bound)) = self.canary.filter(|(of, _)| *of == cgroup) {
            return Some(bound);
        }
        let managed = || self.managed.contains(&cgroup).then_some(Bound::always(IdentityId::UNMANAGED));
        claimed(self.cgroups.of(&cgroup)).map(|(bound, _)| bound).or_else(managed)
    }

    fn wanted_cgroup(&self, cgroup: CgroupId) -> Option<Bound> {
        match self.overflow.bindings.get(&cgroup) {
            Some(instead) => *instead,
            None => self.claimed_cgroup(cgroup),
        }
    }

    /// Who an address should stand for.
    pub(super) fn wanted_net(&self, net: &IpNet) -> Option<IdentityId> {
        if self.overflow.addresses.contains(net) {
            return None;
        }
        let workload = claimed(self.nets.of(net)).map(|(_, known_as)| known_as);
        workload.or_else(|| self.services.claimed(net))
    }

    /// Everything that directories should be bound to.
    pub(super) fn wanted_bindings(&self) -> impl Iterator<Item = (CgroupId, Bound)> {
        let overflow = self.overflow.bindings.keys().copied();
        let places: BTreeSet<CgroupId> = self
            .cgroups
            .places()
            .chain(&self.managed)
            .copied()
            .chain(self.canary.map(|(cgroup, _)| cgroup))
            .chain(overflow)
            .collect();
        places.into_iter().filter_map(|cgroup| Some((cgroup, self.wanted_cgroup(cgroup)?)))
    }

    /// Everybody for whom addresses should stand.
    pub(super) fn wanted_addresses(&self) -> impl Iterator<Item = (IpNet, IdentityId)> {
        self.nets().filter_map(|net| Some((*net, self.wanted_net(net)?)))
    }

    /// The operations that bring the kernel's tables to what is wanted.
    pub(super) fn delta(&mut self, programmed: &Tables) -> Vec<Operation> {
        self.settle(programmed);
        let wanted = Wanted {
            bindings: self.cgroups_due.iter().map(|cgroup| (*cgroup, self.wanted_cgroup(*cgroup))).collect(),
            addresses: self.nets_due.iter().map(|net| (*net, self.wanted_net(net))).collect(),
            own: self.own.clone(),
        };
        delta(programmed, &wanted)
    }

    /// Forgets places that are in the kernel what they should be.
    pub(super) fn settle(&mut self, programmed: &Tables) {
        let mut cgroups = std::mem::take(&mut self.cgroups_due);
        let mut nets = std::mem::take(&mut self.nets_due);
        cgroups.retain(|cgroup| self.wanted_cgroup(*cgroup) != programmed.bindings.get(cgroup).copied());
        nets.retain(|net| self.wanted_net(net) != programmed.addresses.get(net).copied());
        (self.cgroups_due, self.nets_due) = (cgroups, nets);
    }

    /// How many directories should be bound.
    pub(super) fn cgroups_needed(&self) -> usize {
        let managed = self.managed.iter().filter(|cgroup| self.cgroups.of(cgroup).is_empty());
        self.cgroups.len() + managed.count() + usize::from(self.canary.is_some())
    }

    /// How many addresses should stand for somebody, or more.
    pub(super) fn nets_at_most(&self) -> usize {
        self.nets.len() + self.services.nets_count()
    }

    /// Every address that should stand for somebody if there were room for all.
    pub(super) fn nets(&self) -> impl Iterator<Item = &IpNet> {
        let of_services = self.services.nets().filter(|net| self.nets.of(net).is_empty());
        self.nets.places().chain(of_services)
    }

    /// Takes note of what there is no room for now.
    pub(super) fn overflow(
        &mut self,
        overflow: Overflow,
        said: [(&'static str, Option<String>); 2],
        programmed: &Tables,
    ) -> Touched {
        for (object, said) in said {
            self.say(About::Room(object), said.map(|said| (object.to_owned(), said)));
        }
        if overflow == self.overflow {
            return Touched::default();
        }
        let before = std::mem::replace(&mut self.overflow, overflow);
        let now = &self.overflow;
        let cgroups =
            [&before, now].into_iter().flat_map(|it| it.bindings.keys().chain(&it.left_out)).copied();
        let nets = before.addresses.symmetric_difference(&now.addresses).copied();
        let touched = Touched { cgroups: cgroups.collect(), nets: nets.collect() };
        self.touch(&touched, programmed);
        touched
    }

    fn say(&mut self, about: About, said: Option<(String, String)>) {
        self.problems_changed |= match said {
            Some(said) => self.problems.insert(about, said.clone()) != Some(said),
            None => self.problems.remove(&about).is_some(),
        };
    }

    /// All problems, if they are others than when this was asked last.
    pub(super) fn news(&mut self) -> Option<Vec<(String, String)>> {
        std::mem::take(&mut self.problems_changed).then(|| self.problems.values().cloned().collect())
    }

    /// Notes where the workloads of a directory stand now.
    pub(super) fn stand(&mut self, cgroup: CgroupId, programmed: &Tables) {
        let bound = programmed.bindings.get(&cgroup);
        for Claim { name, .. } in self.cgroups.of(&cgroup) {
            let Some(placed) = self.placed.get_mut(name) else { continue };
            let state = if name.0.cgroup.is_none() {
                EndpointState::Remote
            } else if self.overflow.left_out.contains(&cgroup) {
                EndpointState::NoRoom
            } else if bound.is_some_and(|bound| bound.identity == placed.bound.identity) {
                EndpointState::Bound
            } else {
                EndpointState::WaitingForCgroup
            };
            self.counts[placed.state as usize] -= 1;
            self.counts[state as usize] += 1;
            placed.state = state;
        }
    }

    /// How many workloads stand there.
    pub(super) fn standing(&self, state: EndpointState) -> u64 {
        self.counts[state as usize]
    }

    /// Whether it was brought up to date before.
    pub(super) fn is_made(&self) -> bool {
        self.is_made
    }

    /// Whether a workload has a place of its own.
    pub(super) fn has(&self, key: &WorkloadKey) -> bool {
        self.placed.contains_key(key)
    }

    /// Whether the workloads of a directory are denied everything for want of room.
    pub(super) fn is_left_out(&self, cgroup: CgroupId) -> bool {
        self.overflow.left_out.contains(&cgroup)
    }
}
