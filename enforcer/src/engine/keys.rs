//! Which labels tell identities apart. A cluster's pods have dozens of labels, some of them different for each, and every set
//! of them would be an identity. So only those count that a policy, a quarantine or the configuration names; what policies
//! can tell apart stays apart. The file of workloads is the administrator's own, and all of its labels count.
//!
//! # Never a moment between
//! A policy that names another label must not be in force while pods are bound to identities without it: it would take
//! them for pods that do not have the label. So the labels of a change count first, under the policies in force, which can't
//! tell the difference; then the change is made; and what nobody names any more is left out afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::containers::Known;
use super::planning::{Asked, Plan, plan};
use super::state::State;
use super::told::{self, Rank, Sources};
use crate::domain::container::{self, Containers};
use crate::domain::labels::Selector;
use crate::domain::policy::model::{Peer, Peers, Policy};
use crate::domain::quarantine::{AllowFrom, Quarantines};
use crate::domain::registry::IdentityKey;
use crate::domain::workload::{Resolved, Workload, WorkloadKey};

/// Keys of labels, and names of containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    labels: Arc<BTreeSet<String>>,
    containers: Arc<BTreeSet<String>>,
}

impl Keys {
    /// Those that count for what is asked for, besides those that always do.
    pub(super) fn of(asked: &Asked, always: &BTreeSet<String>) -> Self {
        let before = asked.before();
        let sets = std::iter::once(&asked.policies).chain(&before);
        let policies = sets.flat_map(|set| set.effective().map(|(loaded, _)| &loaded.policy));
        let mut labels: BTreeSet<String> = always.clone();
        let mut containers = BTreeSet::new();
        for selector in policies.flat_map(of_policy) {
            labels.extend(selector.requirements.iter().map(|requirement| requirement.key.clone()));
            containers.extend(container::named(selector).map(str::to_owned));
        }
        for allowed in asked.quarantines.values().flat_map(|quarantine| &quarantine.allow_from) {
            if let AllowFrom::Labels(of_guests) = allowed {
                labels.extend(of_guests.keys().cloned());
            }
        }
        Self { labels: Arc::new(labels), containers: Arc::new(containers) }
    }

    fn has_all(&self, others: &Self) -> bool {
        others.labels.is_subset(&self.labels) && others.containers.is_subset(&self.containers)
    }

    fn with(&self, others: &Self) -> Self {
        let both = |one: &BTreeSet<String>, other| Arc::new(one.union(other).cloned().collect());
        Self {
            labels: both(&self.labels, &others.labels),
            containers: both(&self.containers, &others.containers),
        }
    }

    /// Whether a policy names a container of this name.
    pub(super) fn name_container(&self, name: &str) -> bool {
        self.containers.contains(name)
    }

    /// Whether a policy names one of these, or any if the names are not known.
    pub(super) fn name_container_of(&self, names: Option<&BTreeSet<String>>) -> bool {
        names_one(&self.containers, names)
    }

    /// What a workload is to policies, as long as it is in no quarantine.
    pub(super) fn identity(&self, workload: &Workload, rank: Rank) -> IdentityKey {
        self.restrict(IdentityKey::of(workload), rank)
    }

    /// The same where it is known by its address.
    pub(super) fn identity_at_address(&self, workload: &Workload, rank: Rank) -> IdentityKey {
        self.restrict(IdentityKey::at_address(workload), rank)
    }

    fn restrict(&self, mut key: IdentityKey, rank: Rank) -> IdentityKey {
        if rank != Rank::File {
            key.labels.0.retain(|label, _| label == container::LABEL || self.labels.contains(label));
        }
        key
    }

    /// Workloads that have a label that counts by only one of the two, and pods that have such a container.
    pub(super) fn differ<'a>(
        &'a self,
        before: &'a Self,
        sources: &'a Sources,
    ) -> impl Iterator<Item = &'a Workload> {
        let keys: Vec<&String> = self.labels.symmetric_difference(&before.labels).collect();
        let containers: BTreeSet<String> =
            self.containers.symmetric_difference(&before.containers).cloned().collect();
        let has_container = move |workload: &Workload| match &workload.containers {
            Containers::Told(names) => names_one(&containers, names.as_deref()),
            Containers::Unknown | Containers::One(_) => false,
        };
        let of_others = sources.iter().filter(|(origin, _)| origin.rank != Rank::File);
        of_others
            .flat_map(|(_, source)| source.workloads.values())
            .map(|resolved| &*resolved.workload)
            .filter(move |workload| {
                keys.iter().any(|key| workload.labels.0.contains_key(*key)) || has_container(workload)
            })
    }
}

fn names_one(named: &BTreeSet<String>, names: Option<&BTreeSet<String>>) -> bool {
    match names {
        Some(names) => !named.is_disjoint(names),
        None => !named.is_empty(),
    }
}

/// Selectors of workloads in a policy.
fn of_policy(policy: &Policy) -> impl Iterator<Item = &Selector> {
    let peers = policy.all_rules().flat_map(|(_, _, rule)| match &rule.peers {
        Peers::Everyone => [].iter(),
        Peers::AnyOf(peers) => peers.iter(),
    });
    let of_peers = peers.filter_map(|peer| match peer {
        Peer::Workloads { selector, .. } => Some(selector),
        Peer::Cidr { .. } | Peer::Entity(_) | Peer::Pending(_) => None,
    });
    of_peers.chain([&policy.subject.selector])
}

impl State {
    /// What it takes to say who somebody is, with what is in force.
    pub(super) fn known(&self) -> Known<'_> {
        self.known_with(&self.asked.quarantines)
    }

    /// The same with these quarantines.
    pub(super) fn known_with<'a>(&'a self, quarantines: &'a Quarantines) -> Known<'a> {
        Known { sources: &self.sources, keys: &self.keys, quarantines }
    }

    /// The workloads that count and have a place of their own, in the order of names. Goes through all of them.
    pub(super) fn endpoints(&self) -> BTreeMap<&WorkloadKey, &Resolved> {
        let known = self.known();
        let mut all = told::workloads(&self.sources);
        all.retain(|_, resolved| match resolved.workload.containers {
            Containers::One(_) => known.who(resolved).binds,
            Containers::Unknown | Containers::Told(_) => true,
        });
        all
    }

    /// The keys that count for what is asked for now. Found once for each that is asked for.
    pub(super) fn keys_now(&mut self) -> Keys {
        if let Some((asked, keys)) = &self.keys_of
            && Arc::ptr_eq(asked, &self.asked)
        {
            return keys.clone();
        }
        let keys = Keys::of(&self.asked, &self.facts.labels);
        self.keys_of = Some((Arc::clone(&self.asked), keys.clone()));
        keys
    }
}

/// What has to be done before this can be: more labels count, and nothing else is different. `None` if nothing has to be.
pub(super) fn widen(state: &mut State, wanted: &Keys) -> Option<Plan> {
    if state.keys.has_all(wanted) {
        return None;
    }
    state.keys = state.keys.with(wanted);
    let published = state.published.as_ref()?;
    let in_force = Asked { quarantines: state.asked.quarantines.clone(), ..(*published.asked).clone() };
    let revision = published.inputs.revision;
    // Where no tables can be made so, the change itself will say why.
    let plan = plan(state, Arc::new(in_force), revision).ok()?;
    Some(Plan { widens: true, ..plan })
}
