//! Workloads: what has labels and a place in the cgroup tree, or an address elsewhere.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use enforcer_common::id::CgroupId;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::cluster::{Namespace, Service, ServiceKey};
use super::container::Containers;
use super::labels::LabelSet;

/// The namespace of workloads and policies that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Name of a workload: `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkloadKey {
    /// Namespace.
    pub namespace: String,
    /// Name, unique in its namespace.
    pub name: String,
}

impl std::fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A workload as a source describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name.
    pub key: WorkloadKey,
    /// Its labels. Those who have the same may share them.
    pub labels: Arc<LabelSet>,
    /// Directory in the cgroup v2 tree, relative to its root and starting with `/`; `None` for a remote workload.
    pub cgroup: Option<String>,
    /// Addresses by which other hosts know it.
    pub addresses: Vec<IpNet>,
    /// Its ports that have names.
    pub ports: NamedPorts,
    /// The name of its service account.
    pub account: Option<String>,
    /// What it has to do with containers.
    pub containers: Containers,
}

/// Ports by name.
pub type NamedPorts = BTreeMap<String, NamedPort>;

/// A port that has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamedPort {
    /// IP protocol number.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

/// Where a workload stands, for `endpoint list` and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointState {
    /// Its directory is bound to its identity in the kernel.
    Bound,
    /// Its directory does not exist (yet).
    WaitingForCgroup,
    /// It has addresses only.
    Remote,
    /// The kernel's map of bindings has no room for it: it is denied everything.
    NoRoom,
}

/// A workload together with its directory's id, if that exists now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The workload, which the source keeps as well.
    pub workload: Arc<Workload>,
    /// The id of its cgroup directory.
    pub cgroup: Option<CgroupId>,
    /// The ids of the directories above that one, innermost first, without the root of the tree.
    pub above: Vec<CgroupId>,
}

/// A workload in an index by name: compared by its name only, which stands in the workload and nowhere else.
#[derive(Clone, Debug)]
pub struct ByName(pub Arc<Workload>);

impl Deref for ByName {
    type Target = WorkloadKey;

    fn deref(&self) -> &WorkloadKey {
        &self.0.key
    }
}

impl Borrow<WorkloadKey> for ByName {
    fn borrow(&self) -> &WorkloadKey {
        self
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByName {}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

/// What a source says.
///
/// A source that can tell everything at any time may tell snapshots only. One that is told of changes itself begins with a
/// snapshot and goes on with changes; when it has missed some, it begins anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadEvent {
    /// All workloads of this source, with the directories that exist now.
    Snapshot {
        /// Name of the source, e.g. `static`.
        source: String,
        /// All of its workloads.
        workloads: Vec<Resolved>,
        /// All namespaces that it knows.
        namespaces: Vec<Namespace>,
        /// All services that it knows.
        services: Vec<Service>,
    },
    /// What is different since this source spoke last. Before its first snapshot it says nothing of the rest.
    Changes {
        /// Name of the source.
        source: String,
        /// The changes.
        changes: Box<Changes>,
    },
    /// How the source stands. That what it would speak with is not there is no problem.
    Standing {
        /// Name of the source.
        source: String,
        /// A few words for people: `connected: ...`, `absent: ...`.
        standing: String,
    },
    /// The source can't be read; what it said last stays.
    Problem {
        /// Name of the source.
        source: String,
        /// One sentence: what failed, on what, what to do.
        message: String,
    },
}

/// Differences of one source. What is both changed and gone is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Workloads that are new, or not as they were.
    pub workloads: Vec<Resolved>,
    /// Workloads that are gone; they need not have been there.
    pub gone: Vec<WorkloadKey>,
    /// Namespaces that are new, or not as they were.
    pub namespaces: Vec<Namespace>,
    /// Names of namespaces that are gone.
    pub gone_namespaces: Vec<String>,
    /// Services that are new, or not as they were.
    pub services: Vec<Service>,
    /// Services that are gone.
    pub gone_services: Vec<ServiceKey>,
}
