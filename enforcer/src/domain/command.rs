//! What can be asked of a running agent, and what it answers. The API carries these as JSON; the CLI prints them.

use serde::{Deserialize, Serialize};

use super::workload::EndpointState;

/// One file (or standard input) of policy documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyFile {
    /// Name for diagnostics: a path, or `<stdin>`.
    pub name: String,
    /// The text, one or more YAML documents.
    pub text: String,
}

/// A request to the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Add or replace policies, all or none.
    PolicyApply {
        /// The documents.
        files: Vec<PolicyFile>,
        /// Say what would change, change nothing.
        dry_run: bool,
    },
    /// Remove policies by `namespace/name`, all or none.
    PolicyDelete {
        /// The names.
        names: Vec<String>,
    },
    /// All loaded policies.
    PolicyList,
    /// All identities.
    IdentityList,
    /// All workloads.
    EndpointList,
    /// How the agent is.
    Status,
}

/// The engine's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Answer to [`Request::PolicyApply`] and [`Request::PolicyDelete`].
    Changed(Changed),
    /// Answer to [`Request::PolicyList`].
    Policies(Vec<PolicyInfo>),
    /// Answer to [`Request::IdentityList`].
    Identities(Vec<IdentityInfo>),
    /// Answer to [`Request::EndpointList`].
    Endpoints(Vec<EndpointInfo>),
    /// Answer to [`Request::Status`].
    Status(Box<Status>),
    /// Nothing was changed.
    Refused(Refused),
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// One sentence: what, why, and what to do next.
    pub message: String,
    /// Problems of the documents as text, one per line `file:line:column: message`; empty for other reasons.
    pub diagnostics: Vec<String>,
    /// Whether something asked for does not exist.
    pub not_found: bool,
}

/// What a change did (or would do).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The generation that enforces the change; for a dry run the one that is enforced now.
    pub generation: u64,
    /// Whether this was a dry run.
    pub dry_run: bool,
    /// What became of each policy, in the order of names.
    pub policies: Vec<PolicyChange>,
    /// Entries of the policy table before and after.
    pub entries_before: u64,
    /// As above.
    pub entries_after: u64,
}

/// What became of one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChange {
    /// `namespace/name`.
    pub name: String,
    /// `created`, `configured`, `unchanged` or `deleted`.
    pub change: Change,
    /// Workloads it selects now, in the order of names.
    pub selects: Vec<String>,
}

/// Words as in kubectl.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is new.
    Created,
    /// It replaced another version.
    Configured,
    /// It was there already, word for word.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// A loaded policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: String,
    /// `enforce` or `audit`.
    pub mode: String,
    /// `pushed`, or the file it came from.
    pub origin: String,
    /// Number of rules.
    pub rules: u32,
    /// Directions it isolates.
    pub isolates: Vec<String>,
    /// Workloads it selects now.
    pub selects: Vec<String>,
    /// The document.
    pub text: String,
}

/// An identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityInfo {
    /// Its number.
    pub id: u32,
    /// Namespace, empty for reserved identities.
    pub namespace: String,
    /// `key=value` labels, or `reserved:NAME`.
    pub labels: Vec<String>,
    /// Workloads that have it now.
    pub workloads: Vec<String>,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Identity number.
    pub identity: u32,
    /// `key=value` labels.
    pub labels: Vec<String>,
    /// Directory in the cgroup tree.
    pub cgroup: Option<String>,
    /// Id of that directory, if it exists.
    pub cgroup_id: Option<u64>,
    /// Addresses.
    pub addresses: Vec<String>,
    /// Where it stands.
    pub state: EndpointState,
    /// Policies that isolate its ingress.
    pub ingress_policies: Vec<String>,
    /// Policies that isolate its egress.
    pub egress_policies: Vec<String>,
}

/// How the agent is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// `starting`, `syncing`, `enforcing`, `degraded` or `draining`.
    pub state: String,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// `enforce`, `audit` or `off`.
    pub mode: String,
    /// Generation that is enforced.
    pub generation: u64,
    /// Loaded policies.
    pub policies: u64,
    /// Entries of the enforced table.
    pub entries: u64,
    /// Identities known.
    pub identities: u64,
    /// Workloads known.
    pub endpoints: u64,
    /// Workloads whose directory does not exist.
    pub endpoints_waiting: u64,
    /// Kernel release.
    pub kernel: String,
    /// Mount point of the cgroup v2 tree.
    pub cgroup_root: String,
    /// Where pins are.
    pub pins: String,
    /// Hooks attached, by program name.
    pub hooks: Vec<String>,
    /// What is no fault and worth knowing, one sentence each.
    #[serde(default)]
    pub notices: Vec<String>,
    /// What this version does not guard, one sentence each.
    pub unguarded: Vec<String>,
    /// Seconds since the agent started.
    pub uptime_seconds: u64,
}
