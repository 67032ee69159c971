//! What the policies look at besides workloads: labels of namespaces, services, time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::planning::Asked;
use super::services::Known;
use super::told::{self, Sources};
use crate::domain::cluster::{KnownService, NAME_LABEL, Namespace, NamespaceLabels, canonical};
use crate::domain::labels::LabelSet;
use crate::domain::policy::model::{Namespaces, Peer, Peers, Policy};
use crate::domain::publication::Publication;
use crate::domain::timestamp::Timestamp;

/// Brings the labels of some namespaces up to date. Where two sources describe one, the first counts, in the order of names.
pub(super) fn follow(labels: &mut NamespaceLabels, sources: &Sources, changed: &BTreeSet<String>) {
    for name in changed {
        match told::namespace(sources, name) {
            Some(found) => {
                let namespace = Namespace { name: name.clone(), labels: found.clone() };
                labels.0.extend(std::iter::once(namespace).collect::<NamespaceLabels>().0);
            }
            None => _ = labels.0.remove(name),
        }
    }
}

/// What the policies that are asked for look at. Found once for each that is asked for.
#[derive(Debug)]
pub(super) struct Looks {
    /// Kept, so that nothing else can ever lie at the same place.
    asked: Arc<Asked>,
    /// Keys of labels of namespaces.
    keys: BTreeSet<String>,
    /// When something expires, and whether it does so in what comes back if the push is not confirmed.
    pub(super) expiries: BTreeSet<(Timestamp, bool)>,
    /// Whether some policy says what may be called.
    pub(super) egress: bool,
    /// The labels of namespaces with those keys, and which labels they were taken from.
    namespaces: Option<(u64, Arc<NamespaceLabels>)>,
}

impl Looks {
    pub(super) fn new(asked: &Arc<Asked>) -> Self {
        let before = asked.before();
        let mut looks = Self {
            asked: Arc::clone(asked),
            keys: BTreeSet::new(),
            expiries: BTreeSet::new(),
            egress: false,
            namespaces: None,
        };
        for (set, is_before) in
            [(&asked.policies, false)].into_iter().chain(before.iter().map(|set| (set, true)))
        {
            for policy in set.effective().map(|(loaded, _)| &loaded.policy) {
                looks
                    .keys
                    .extend(namespace_labels(policy).filter(|key| *key != NAME_LABEL).map(str::to_owned));
                looks.expiries.extend(policy.expiries().map(|moment| (moment, is_before)));
                looks.egress |= policy.egress.is_some();
            }
        }
        looks
    }

    /// Whether they are those of the same.
    pub(super) fn are_of(&self, asked: &Arc<Asked>) -> bool {
        Arc::ptr_eq(&self.asked, asked)
    }

    /// The labels of namespaces that some policy looks at, out of these, which have a number for each of their states.
    /// Others make no difference to tables, and a namespace's name is always there.
    pub(super) fn namespaces(&mut self, labels: &NamespaceLabels, version: u64) -> Arc<NamespaceLabels> {
        if let Some((of, found)) = &self.namespaces
            && *of == version
        {
            return Arc::clone(found);
        }
        let found = Arc::new(looked_at(&self.keys, labels));
        self.namespaces = Some((version, Arc::clone(&found)));
        found
    }
}

fn looked_at(keys: &BTreeSet<String>, labels: &NamespaceLabels) -> NamespaceLabels {
    let mut found = NamespaceLabels::default();
    for (namespace, labels) in labels.0.iter().filter(|_| !keys.is_empty()) {
        let looked_at = labels.0.iter().filter(|(key, _)| keys.contains(*key));
        let looked_at: BTreeMap<_, _> = looked_at.map(|(key, value)| (key.clone(), value.clone())).collect();
        if !looked_at.is_empty() {
            found.0.insert(namespace.clone(), LabelSet(looked_at));
        }
    }
    found
}

/// Keys of the labels of namespaces that a policy looks at.
fn namespace_labels(policy: &Policy) -> impl Iterator<Item = &str> {
    let peers = policy.all_rules().flat_map(|(_, _, rule)| match &rule.peers {
        Peers::Everyone => [].iter(),
        Peers::AnyOf(peers) => peers.iter(),
    });
    let of_peers = peers.filter_map(|peer| match peer {
        Peer::Workloads { namespaces, .. } => Some(namespaces),
        Peer::Cidr { .. } | Peer::Entity(_) | Peer::Pending(_) => None,
    });
    of_peers
        .chain([&policy.subject.namespaces])
        .filter_map(|namespaces| match namespaces {
            Namespaces::Labelled(selector) => Some(&selector.requirements),
            Namespaces::Own | Namespaces::All | Namespaces::Named(_) => None,
        })
        .flatten()
        .map(|requirement| requirement.key.as_str())
}

/// Whether the tables in force say of these services what they would say of those: the same services, with the same
/// classes behind the same ports.
pub(super) fn are_alike(publication: &Publication, these: &Known, those: &Known) -> bool {
    if Arc::ptr_eq(these, those) {
        return true;
    }
    if these.len() != those.len() {
        return false;
    }
    let tables: Vec<_> = publication.chain().map(|(table, _)| table).collect();
    let seen = |service: &KnownService| {
        let classes = |address: &IpAddr| -> Vec<u32> {
            tables.iter().map(|table| table.class_of_address(canonical(*address))).collect()
        };
        let mut addresses: Vec<_> = service.addresses.iter().map(classes).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let ports: Vec<_> = service
            .ports
            .iter()
            .map(|(front, answering)| {
                let mut answering: Vec<_> = answering
                    .iter()
                    .map(|one| {
                        let identity: Vec<u32> =
                            tables.iter().map(|table| table.class_of_identity(one.identity)).collect();
                        (identity, classes(&one.address), one.port)
                    })
                    .collect();
                answering.sort_unstable();
                answering.dedup();
                (*front, answering)
            })
            .filter(|(_, answering)| !answering.is_empty())
            .collect();
        (service.identity, addresses, ports)
    };
    these
        .iter()
        .zip(those.iter())
        .all(|((one, this), (other, that))| one == other && (this == that || seen(this) == seen(that)))
}
