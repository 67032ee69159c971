//! What the sources have told: everything that each of them has said and not taken back, by name.
//!
//! A snapshot is worked into what was told before as the changes that it amounts to, so that both ways of telling end in
//! the same state, and what follows from an event costs what it changes.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::cluster::{Namespace, Service, ServiceKey};
use crate::domain::cluster_policy::KUBERNETES;
use crate::domain::labels::LabelSet;
use crate::domain::workload::{ByName, Changes, Resolved, WorkloadKey};

/// Sources in the order in which they count.
pub(super) type Sources = BTreeMap<Origin, Source>;

/// How much the word of a source counts where several speak of one thing; less is more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The cluster's API, where labels and accounts are what somebody was allowed to write.
    Cluster,
    /// The administrator of this host.
    File,
    /// Runtimes, which repeat what they were told when something was started.
    Runtime,
}

/// A source: its rank, and its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    pub(super) rank: Rank,
    pub(super) name: String,
}

impl Origin {
    pub(super) fn new(name: String) -> Self {
        let rank = match name.as_str() {
            KUBERNETES => Rank::Cluster,
            "static" => Rank::File,
            // Further files, by name.
            name if name.starts_with("file:") => Rank::File,
            // Anything else calls itself after what it listens to.
            _ => Rank::Runtime,
        };
        Self { rank, name }
    }
}

/// What one source has told. Of two things with the same name the first of a snapshot counts.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) workloads: BTreeMap<ByName, Resolved>,
    pub(super) services: BTreeMap<ServiceKey, Service>,
    pub(super) namespaces: BTreeMap<String, LabelSet>,
    /// Names that the last snapshot has more than once.
    pub(super) repeated: BTreeSet<WorkloadKey>,
    pub(super) repeated_services: BTreeSet<ServiceKey>,
}

/// Names of what is not as it was.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) workloads: BTreeSet<WorkloadKey>,
    pub(super) services: BTreeSet<ServiceKey>,
    pub(super) namespaces: BTreeSet<String>,
}

impl Changed {
    pub(super) fn is_empty(&self) -> bool {
        self.workloads.is_empty() && self.services.is_empty() && self.namespaces.is_empty()
    }
}

impl Source {
    /// Takes a snapshot in the place of everything that was told before.
    pub(super) fn replace(
        &mut self,
        workloads: Vec<Resolved>,
        namespaces: Vec<Namespace>,
        services: Vec<Service>,
        changed: &mut Changed,
    ) {
        let mut rest = std::mem::take(&mut self.workloads);
        for key in std::mem::take(&mut self.repeated) {
            changed.workloads.insert(key);
        }
        for resolved in workloads {
            let key = &resolved.workload.key;
            if self.workloads.contains_key(key) {
                changed.workloads.insert(key.clone());
                self.repeated.insert(key.clone());
                continue;
            }
            match rest.remove_entry(key) {
                // The very one that is in every index.
                Some((name, old)) if old == resolved => _ = self.workloads.insert(name, old),
                _ => self.upsert(resolved, changed),
            }
        }
        changed.workloads.extend(rest.into_keys().map(|name| (*name).clone()));

        let mut rest = std::mem::take(&mut self.services);
        changed.services.append(&mut self.repeated_services);
        for service in services {
            let key = service.key();
            if self.services.contains_key(&key) {
                changed.services.insert(key.clone());
                self.repeated_services.insert(key);
                continue;
            }
            if rest.remove(&key).as_ref() != Some(&service) {
                changed.services.insert(key.clone());
            }
            self.services.insert(key, service);
        }
        changed.services.extend(rest.into_keys());

        let mut rest = std::mem::take(&mut self.namespaces);
        for Namespace { name, labels } in namespaces {
            if self.namespaces.contains_key(&name) {
                continue;
            }
            if rest.remove(&name).as_ref() != Some(&labels) {
                changed.namespaces.insert(name.clone());
            }
            self.namespaces.insert(name, labels);
        }
        changed.namespaces.extend(rest.into_keys());
    }

    /// Takes changes.
    pub(super) fn change(&mut self, changes: Changes, changed: &mut Changed) {
        let Changes { workloads, gone, namespaces, gone_namespaces, services, gone_services } = changes;
        for resolved in workloads {
            let key = &resolved.workload.key;
            if self.repeated.remove(key) || self.workloads.get(key) != Some(&resolved) {
                self.upsert(resolved, changed);
            }
        }
        for key in gone {
            if self.workloads.remove(&key).is_some() {
                self.repeated.remove(&key);
                changed.workloads.insert(key);
            }
        }
        for service in services {
            let key = service.key();
            if self.repeated_services.remove(&key) || self.services.get(&key) != Some(&service) {
                changed.services.insert(key.clone());
                self.services.insert(key, service);
            }
        }
        for key in gone_services {
            if self.services.remove(&key).is_some() {
                self.repeated_services.remove(&key);
                changed.services.insert(key);
            }
        }
        for Namespace { name, labels } in namespaces {
            if self.namespaces.get(&name) != Some(&labels) {
                changed.namespaces.insert(name.clone());
                self.namespaces.insert(name, labels);
            }
        }
        for name in gone_namespaces {
            if self.namespaces.remove(&name).is_some() {
                changed.namespaces.insert(name);
            }
        }
    }

    fn upsert(&mut self, resolved: Resolved, changed: &mut Changed) {
        let name = ByName(std::sync::Arc::clone(&resolved.workload));
        changed.workloads.insert((*name).clone());
        // An index by name keeps its first key, and the key is the workload.
        self.workloads.remove(&name);
        self.workloads.insert(name, resolved);
    }
}

/// The workload of this name that counts: that of the first source, in the order of ranks and names.
pub(super) fn workload<'a>(sources: &'a Sources, key: &WorkloadKey) -> Option<&'a Resolved> {
    sources.values().find_map(|source| source.workloads.get(key))
}

/// The rank of the source whose workload of this name counts.
pub(super) fn rank(sources: &Sources, key: &WorkloadKey) -> Option<Rank> {
    let having = sources.iter().find(|(_, source)| source.workloads.contains_key(key));
    having.map(|(origin, _)| origin.rank)
}

/// The names of the containers that some source tells of a pod.
pub(super) fn containers<'a>(sources: &'a Sources, pod: &WorkloadKey) -> BTreeSet<&'a WorkloadKey> {
    let all = pod.containers();
    let between = |source: &'a Source| {
        let range = source.workloads.range::<WorkloadKey, _>(&all.start..&all.end);
        range.map(|(name, _)| &**name)
    };
    sources.values().flat_map(between).collect()
}

/// The workloads that count, in the order of names. Goes through all of them: for questions, not for changes.
pub(super) fn workloads(sources: &Sources) -> BTreeMap<&WorkloadKey, &Resolved> {
    let mut all = BTreeMap::new();
    for source in sources.values().rev() {
        all.extend(source.workloads.iter().map(|(name, resolved)| (&**name, resolved)));
    }
    all
}

/// What is said of a workload that some source tells and that does not count.
pub(super) fn unused_workload(sources: &Sources, key: &WorkloadKey) -> Option<String> {
    let tell = |source: &Source| (source.workloads.contains_key(key), source.repeated.contains(key));
    let (first, unused) = unused(sources, tell)?;
    Some(format!("workload {key} of source `{unused}` is not used: source `{first}` has one of that name"))
}

/// The service of this name that counts, in the same way.
pub(super) fn service<'a>(sources: &'a Sources, key: &ServiceKey) -> Option<&'a Service> {
    sources.values().find_map(|source| source.services.get(key))
}

/// The services that count, in the order of names. Goes through all of them.
pub(super) fn services(sources: &Sources) -> Vec<&Service> {
    let mut all: BTreeMap<&ServiceKey, &Service> = BTreeMap::new();
    for source in sources.values().rev() {
        all.extend(&source.services);
    }
    all.into_values().collect()
}

/// What is said of a service that some source tells and that does not count.
pub(super) fn unused_service(sources: &Sources, key: &ServiceKey) -> Option<String> {
    let tell = |source: &Source| (source.services.contains_key(key), source.repeated_services.contains(key));
    let (first, unused) = unused(sources, tell)?;
    Some(format!("service {key} of source `{unused}` is not used: source `{first}` has one of that name"))
}

/// The labels of a namespace: where two sources describe it, those of the first.
pub(super) fn namespace<'a>(sources: &'a Sources, name: &str) -> Option<&'a LabelSet> {
    sources.values().find_map(|source| source.namespaces.get(name))
}

/// The source that has something, and the last one that has it too: whether a source has it, and more than once. That a
/// runtime repeats what a source of a better rank says is as it should be.
fn unused(sources: &Sources, tell: impl Fn(&Source) -> (bool, bool)) -> Option<(&str, &str)> {
    let having = sources.iter().map(|(origin, source)| (origin, tell(source))).filter(|(_, (has, _))| *has);
    let mut first: Option<&Origin> = None;
    let mut unused = None;
    for (origin, (_, repeated)) in having {
        let repeats = first.is_some_and(|first| origin.rank != Rank::Runtime || first.rank == Rank::Runtime);
        if repeats || repeated {
            unused = Some(origin.name.as_str());
        }
        first = first.or(Some(origin));
    }
    Some(first?.name.as_str()).zip(unused)
}
