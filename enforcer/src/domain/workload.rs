//! Workloads: what has labels and a place in the cgroup tree, or an address elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use enforcer_common::id::CgroupId;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::cluster::{Namespace, Service};
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
    /// Its labels.
    pub labels: LabelSet,
    /// Directory in the cgroup v2 tree, relative to its root and starting with `/`; `None` for a remote workload.
    pub cgroup: Option<String>,
    /// Addresses by which other hosts know it.
    pub addresses: Vec<IpNet>,
    /// Its ports that have names.
    pub ports: NamedPorts,
    /// The name of its service account.
    pub account: Option<String>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// What a source says. Sources always tell the whole set they know, so that a lost message heals with the next.
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
    /// The source can't be read; its last snapshot stays.
    Problem {
        /// Name of the source.
        source: String,
        /// One sentence: what failed, on what, what to do.
        message: String,
    },
}
