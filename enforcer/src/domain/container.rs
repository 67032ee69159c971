//! Containers of a pod: directories below the pod's own, with an identity each.
//!
//! A container is a workload whose name is `POD/CONTAINER`. It has what its pod has (labels, ports, account) and beside that a
//! label that no source and no policy can write, with its name. So whatever selects the pod selects its containers, and a policy
//! that names a container selects by one label more. Nothing else in the product knows of containers, but for this:
//!
//! **From another network namespace a container can't be told**: the pod has one address for all of them. So the address of
//! a pod whose containers are known stands for an identity of its own, [`SOME`] container of it. Both ends of its flows are
//! judged on this host, and the end that knows the container by its socket judges exactly; the other end must not deny what it
//! can't know. What that means for each policy is in `policy::compile::containers`.
//!
//! **What is new in a pod is none of its containers yet.** A runtime makes a container's directory before anybody is told whose it
//! is. Where pods come from a cluster or a runtime, processes in no known container of theirs have an identity of their own,
//! [`UNKNOWN`], which has what all containers of the pod have: what is denied to one of them is denied to it, and what only
//! one of them may it may not.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::labels::{Condition, Requirement, Selector};
use super::workload::{Workload, WorkloadKey};

/// Key of the label with a container's name. No label of a workload has such a key, because of the colon.
pub const LABEL: &str = "reserved:container";
/// The label's value where any container of the pod can be meant.
pub const SOME: &str = "*";
/// The label's value of processes that are in no known container, where they may be in any.
pub const UNKNOWN: &str = "?";
/// Most containers of one pod.
pub const MAX_CONTAINERS: usize = 100;

/// What a workload has to do with containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Containers {
    /// Nothing is known of any.
    #[default]
    Unknown,
    /// Those that it has on this host are told as workloads of their own, see [`with_containers`]. The names of all that it may
    /// have, if they are known.
    Told(Option<Arc<BTreeSet<String>>>),
    /// It is the container of this name.
    One(String),
}

impl Containers {
    /// The value of the label of its processes, if it has one.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::One(name) => Some(name),
            Self::Unknown | Self::Told(_) => None,
        }
    }
}

impl WorkloadKey {
    /// The name of a container of this pod.
    #[must_use]
    pub fn container(&self, name: &str) -> Self {
        Self { namespace: self.namespace.clone(), name: format!("{}/{name}", self.name) }
    }

    /// The name of the pod, if this is the name of a container.
    pub fn pod(&self) -> Option<Self> {
        let (pod, _) = self.name.split_once('/')?;
        Some(Self { namespace: self.namespace.clone(), name: pod.to_owned() })
    }

    /// Names between which those of all containers of this pod are, and no others.
    pub fn containers(&self) -> std::ops::Range<Self> {
        let with = |name: String| Self { namespace: self.namespace.clone(), name };
        // The digit 0 comes right behind the slash.
        with(format!("{}/", self.name))..with(format!("{}0", self.name))
    }
}

/// A pod and its containers: name and directory of each. The pod comes first. Those are all that it has, unless the pod says more.
pub fn with_containers(
    mut pod: Workload,
    containers: impl IntoIterator<Item = (String, String)>,
) -> Vec<Workload> {
    let mut all: Vec<Workload> = containers
        .into_iter()
        .map(|(name, directory)| Workload {
            key: pod.key.container(&name),
            cgroup: Some(directory),
            addresses: Vec::new(),
            containers: Containers::One(name),
            ..pod.clone()
        })
        .collect();
    if !all.is_empty() && pod.containers == Containers::Unknown {
        let names = all.iter().filter_map(|one| one.containers.label().map(str::to_owned));
        pod.containers = Containers::Told(Some(Arc::new(names.collect())));
    }
    all.insert(0, pod);
    all
}

/// The condition that somebody is the container of this name.
pub fn is_called(name: &str) -> Requirement {
    Requirement { key: LABEL.to_owned(), condition: Condition::In([name.to_owned()].into()) }
}

/// The container that a selector names, if it names one.
pub fn named(selector: &Selector) -> Option<&str> {
    let requirement = selector.requirements.iter().find(|requirement| requirement.key == LABEL)?;
    let Condition::In(names) = &requirement.condition else { return None };
    names.first().map(String::as_str)
}

/// The same selector for whole pods: without the container.
pub fn of_pod(selector: &Selector) -> Selector {
    let others = selector.requirements.iter().filter(|requirement| requirement.key != LABEL);
    Selector { requirements: others.cloned().collect() }
}

/// The same selector for [`SOME`] container of these pods, or for what is in an [`UNKNOWN`] one.
pub fn of_any(selector: &Selector, which: &str) -> Selector {
    let mut some = of_pod(selector);
    some.requirements.push(is_called(which));
    some.requirements.sort();
    some
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_containers_are_next_to_each_other() {
        let key = |name: &str| WorkloadKey { namespace: "shop".into(), name: name.into() };
        let web = key("web");
        assert_eq!(web.container("proxy"), key("web/proxy"));
        assert_eq!(web.container("proxy").pod(), Some(web.clone()));
        assert_eq!(web.pod(), None);
        let all = web.containers();
        for (name, is_one) in [
            ("web/a", true),
            ("web/z-9", true),
            ("web", false),
            ("web-1", false),
            ("web.x", false),
            ("web0", false),
        ] {
            assert_eq!(all.contains(&key(name)), is_one, "{name}");
        }
        assert!(!all.contains(&WorkloadKey { namespace: "bank".into(), ..web.container("a") }));
    }
}
