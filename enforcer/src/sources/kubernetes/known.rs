//! A pod that is known, with its directories, and what is told of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::pod::Pod;
use crate::domain::container::{Containers, MAX_CONTAINERS};
use crate::domain::workload::{Resolved, Workload, WorkloadKey};
use crate::sources::directories::{Directories, Directory};

/// Finds directories.
pub(super) trait Find {
    /// That of a pod, by its UID or the hash of its configuration.
    fn pod(&self, uid: &str) -> Option<Directory>;
    /// That of a container, by its id.
    fn container(&self, id: &str) -> Option<Directory>;
}

impl Find for Directories {
    fn pod(&self, uid: &str) -> Option<Directory> {
        Self::pod(self, uid)
    }

    fn container(&self, id: &str) -> Option<Directory> {
        Self::container(self, id)
    }
}

/// A pod that is known.
#[derive(Debug)]
pub(super) struct Known {
    /// Shared with what is being saved.
    pub(super) pod: Arc<Pod>,
    /// Whether its directory was ever seen.
    pub(super) seen: bool,
    /// Its directory, if it runs on this node and that is there.
    pub(super) directory: Option<Directory>,
    /// The names of all containers that it may have, if it runs on this node.
    pub(super) names: Option<Arc<BTreeSet<String>>>,
    /// Those whose directories are there.
    pub(super) containers: Vec<(String, Directory)>,
}

impl Known {
    /// Looks for its directories.
    pub(super) fn look(&mut self, find: &impl Find) {
        self.directory = find.pod(name_of(&self.pod));
        self.seen |= self.directory.is_some();
        self.containers.clear();
        let Some(own) = &self.directory else { return };
        let started = self.pod.containers.iter().filter_map(|(name, id)| Some((name, id.as_ref()?)));
        let there = started.filter_map(|(name, id)| Some((name.clone(), find.container(id)?)));
        // What a status says of another pod's container says nothing.
        let in_own = there.filter(|(_, directory)| directory.above.contains(&own.id));
        self.containers.extend(in_own.take(MAX_CONTAINERS));
    }
}

/// By what the kubelet names the directory of a pod.
pub(super) fn name_of(pod: &Pod) -> &str {
    pod.hash.as_deref().unwrap_or(&pod.uid)
}

/// The name under which a pod without an object is told, and the one under which it is told once another pod has its name.
pub(super) fn names_of_ended(known: &Known) -> [WorkloadKey; 2] {
    let key = known.pod.key.clone();
    let uid = known.pod.uid.get(..8).unwrap_or(&known.pod.uid);
    let other = WorkloadKey { name: format!("{}.{uid}", key.name), ..key.clone() };
    [key, other]
}

/// A pod, and its containers behind it.
pub(super) fn resolved(
    key: WorkloadKey,
    known: &Known,
    addresses: Vec<IpNet>,
    is_local: bool,
) -> Vec<Resolved> {
    let Known { pod, directory, names, containers, .. } = known;
    let waits = || format!("/.../pod{}", name_of(pod));
    let path = directory.as_ref().map(|directory| directory.path.clone());
    let workload = Workload {
        key,
        labels: Arc::clone(&pod.labels),
        cgroup: path.or_else(|| is_local.then(waits)),
        addresses,
        ports: pod.ports.clone(),
        account: pod.account.clone(),
        containers: if is_local { Containers::Told(names.clone()) } else { Containers::Unknown },
    };
    let of_containers: Vec<Resolved> = containers
        .iter()
        .map(|(name, directory)| {
            let container = Workload {
                key: workload.key.container(name),
                cgroup: Some(directory.path.clone()),
                addresses: Vec::new(),
                containers: Containers::One(name.clone()),
                ..workload.clone()
            };
            at(container, Some(directory))
        })
        .collect();
    std::iter::once(at(workload, directory.as_ref())).chain(of_containers).collect()
}

fn at(workload: Workload, directory: Option<&Directory>) -> Resolved {
    let (cgroup, above) =
        directory.map_or((None, Vec::new()), |directory| (Some(directory.id), directory.above.clone()));
    Resolved { workload: Arc::new(workload), cgroup, above }
}
