//! Who somebody is to policies, and which pods are divided into their containers.
//!
//! A cluster and runtimes tell every container of a pod on this host. Each would be a binding and, where policies can tell them
//! apart, an identity; so a pod is *divided* only while a policy names one of its containers, or one of them is in quarantine:
//!
//! ```text
//!                    undivided       divided
//!   pod              itself          an unknown container of it, which has what all of them have
//!   its addresses    itself          some container of it
//!   container        (as its pod)    the pod as that container if a policy names it, else the pod
//! ```
//!
//! Bindings hold for everything below a directory. So what a runtime makes in the directory of a divided pod is an unknown
//! container from its first packet on, and itself from the moment in which anybody tells whose it is.
//!
//! Labels, ports and account of a container are always its pod's, by the word that counts for the pod: a runtime knows less of
//! them than the cluster. The file of workloads says itself where containers are, and that the pod is what is outside them.

use super::keys::Keys;
use super::told::{self, Rank, Sources};
use crate::domain::container::{Containers, LABEL, SOME, UNKNOWN};
use crate::domain::quarantine::{self, Quarantine, Quarantines, marked};
use crate::domain::registry::IdentityKey;
use crate::domain::workload::{Resolved, Workload};

/// What it takes to say who somebody is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) sources: &'a Sources,
    /// Labels and names of containers that count.
    pub(super) keys: &'a Keys,
    pub(super) quarantines: &'a Quarantines,
}

/// Who somebody is to policies.
#[derive(Debug)]
pub(super) struct Who<'a> {
    workload: &'a Workload,
    /// Whether a directory is bound to it: a container of an undivided pod is its pod.
    pub(super) binds: bool,
    /// Where it is known by its directory, while it is in no quarantine.
    pub(super) ordinary: IdentityKey,
    /// The quarantine that it is in there.
    pub(super) quarantine: Option<&'a Quarantine>,
    ordinary_at_address: IdentityKey,
    quarantine_at_address: Option<&'a Quarantine>,
}

impl Who<'_> {
    /// Who it is where it is known by its directory.
    pub(super) fn present(&self) -> IdentityKey {
        self.now(&self.ordinary, self.quarantine)
    }

    /// Who its addresses stand for.
    pub(super) fn present_at_address(&self) -> IdentityKey {
        self.now(&self.ordinary_at_address, self.quarantine_at_address)
    }

    /// Whether its directory is that of a divided pod.
    pub(super) fn is_divided(&self) -> bool {
        self.ordinary.labels.0.get(LABEL).is_some_and(|which| which == UNKNOWN)
    }

    fn now(&self, ordinary: &IdentityKey, quarantine: Option<&Quarantine>) -> IdentityKey {
        match quarantine {
            Some(_) => marked(ordinary, &self.workload.key.name),
            None => ordinary.clone(),
        }
    }
}

impl<'a> Known<'a> {
    /// Who a workload that counts is.
    pub(super) fn who(&self, resolved: &'a Resolved) -> Who<'a> {
        let workload = &*resolved.workload;
        let rank = told::rank(self.sources, &workload.key).unwrap_or(Rank::File);
        let own = quarantine::of(self.quarantines, &workload.key);
        let plain = Who {
            workload,
            binds: true,
            ordinary: self.keys.identity(workload, rank),
            quarantine: own,
            ordinary_at_address: self.keys.identity_at_address(workload, rank),
            quarantine_at_address: own,
        };
        match &workload.containers {
            Containers::Unknown => plain,
            _ if rank == Rank::File => plain,
            Containers::Told(_) => {
                let pod = plain.ordinary.clone();
                if !self.is_divided(workload) {
                    return Who { ordinary_at_address: pod, ..plain };
                }
                Who {
                    ordinary: pod.clone().in_container(UNKNOWN),
                    ordinary_at_address: pod.in_container(SOME),
                    quarantine: self.longest(workload).or(own),
                    ..plain
                }
            }
            Containers::One(name) => {
                let Some((rank, pod)) = self.pod(resolved) else { return Who { binds: false, ..plain } };
                let of_pod = self.keys.identity(&pod.workload, rank);
                let is_named = self.keys.name_container(name);
                let ordinary = if is_named { of_pod.in_container(name) } else { of_pod };
                let binds = self.is_divided(&pod.workload);
                Who { binds, ordinary: ordinary.clone(), ordinary_at_address: ordinary, ..plain }
            }
        }
    }

    /// The pod of a container, if its directory is where that of the container is.
    fn pod(&self, container: &Resolved) -> Option<(Rank, &'a Resolved)> {
        let key = container.workload.key.pod()?;
        let pod = told::workload(self.sources, &key)?;
        let rank = told::rank(self.sources, &key).filter(|rank| *rank != Rank::File)?;
        pod.cgroup.filter(|cgroup| container.above.contains(cgroup)).map(|_| (rank, pod))
    }

    /// Whether the containers of a pod have to be told apart.
    fn is_divided(&self, pod: &Workload) -> bool {
        let Containers::Told(names) = &pod.containers else { return false };
        self.keys.name_container_of(names.as_deref())
            || self.quarantines.range(pod.key.containers()).next().is_some()
    }

    /// Of the quarantines of a pod and its containers the one that ends last.
    fn longest(&self, pod: &Workload) -> Option<&'a Quarantine> {
        let of_containers = self.quarantines.range(pod.key.containers()).map(|(_, quarantine)| quarantine);
        let all = of_containers.chain(quarantine::of(self.quarantines, &pod.key));
        all.max_by_key(|quarantine| quarantine.until.as_ref().map_or(u64::MAX, |until| until.boot.0))
    }
}
