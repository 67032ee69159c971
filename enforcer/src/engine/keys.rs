//! Which labels tell identities apart. A cluster's pods have dozens of labels, some of them different for each, and every set
//! of them would be an identity. So only those count that a policy, a quarantine or the configuration names; what policies
//! can tell apart stays apart. The file of workloads is the administrator's own, and all of its labels count.
//!
//! # Never a moment between
//! A policy that names another label must not be in force while pods are bound to identities without it: it would take
//! them for pods that do not have the label. So the labels of a change count first, under the policies in force, which can't
//! tell the difference; then the change is made; and what nobody names any more is left out afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::planning::{Asked, Plan, plan};
use super::state::State;
use super::told::{self, Rank, Sources};
use crate::domain::container;
use crate::domain::policy::model::{Peer, Peers, Policy};
use crate::domain::quarantine::AllowFrom;
use crate::domain::registry::IdentityKey;
use crate::domain::workload::Workload;

/// Keys of labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys(Arc<BTreeSet<String>>);

impl Keys {
    /// Those that count for what is asked for, besides those that always do.
    pub(super) fn of(asked: &Asked, always: &BTreeSet<String>) -> Self {
        let before = asked.before();
        let sets = std::iter::once(&asked.policies).chain(&before);
        let policies = sets.flat_map(|set| set.effective().map(|(loaded, _)| &loaded.policy));
        let mut keys: BTreeSet<String> = always.clone();
        for policy in policies {
            keys.extend(of_policy(policy).map(str::to_owned));
        }
        for allowed in asked.quarantines.values().flat_map(|quarantine| &quarantine.allow_from) {
            if let AllowFrom::Labels(labels) = allowed {
                keys.extend(labels.keys().cloned());
            }
        }
        Self(Arc::new(keys))
    }

    fn has_all(&self, others: &Self) -> bool {
        others.0.is_subset(&self.0)
    }

    fn with(&self, others: &Self) -> Self {
        Self(Arc::new(self.0.union(&others.0).cloned().collect()))
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
            key.labels.0.retain(|label, _| label == container::LABEL || self.0.contains(label));
        }
        key
    }

    /// Workloads that have a label that counts by only one of the two.
    pub(super) fn differ<'a>(
        &'a self,
        before: &'a Self,
        sources: &'a Sources,
    ) -> impl Iterator<Item = &'a Workload> {
        let keys: Vec<&String> = self.0.symmetric_difference(&before.0).collect();
        let of_others = sources.iter().filter(|(origin, _)| origin.rank != Rank::File);
        of_others
            .flat_map(|(_, source)| source.workloads.values())
            .map(|resolved| &*resolved.workload)
            .filter(move |workload| keys.iter().any(|key| workload.labels.0.contains_key(*key)))
    }
}

/// Keys of the labels of workloads that a policy looks at.
fn of_policy(policy: &Policy) -> impl Iterator<Item = &str> {
    let peers = policy.all_rules().flat_map(|(_, _, rule)| match &rule.peers {
        Peers::Everyone => [].iter(),
        Peers::AnyOf(peers) => peers.iter(),
    });
    let of_peers = peers.filter_map(|peer| match peer {
        Peer::Workloads { selector, .. } => Some(selector),
        Peer::Cidr { .. } | Peer::Entity(_) | Peer::Pending(_) => None,
    });
    let selectors = of_peers.chain([&policy.subject.selector]);
    selectors.flat_map(|selector| &selector.requirements).map(|requirement| requirement.key.as_str())
}

impl State {
    /// What a workload that counts is to policies, as long as it is in no quarantine.
    pub(super) fn ordinary(&self, workload: &Workload) -> IdentityKey {
        let rank = told::rank(&self.sources, &workload.key).unwrap_or(Rank::File);
        self.keys.identity(workload, rank)
    }

    /// The same where it is known by its address.
    pub(super) fn ordinary_at_address(&self, workload: &Workload) -> IdentityKey {
        let rank = told::rank(&self.sources, &workload.key).unwrap_or(Rank::File);
        self.keys.identity_at_address(workload, rank)
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
