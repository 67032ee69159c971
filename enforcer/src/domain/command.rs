//! What can be asked of a running agent, and what it answers. The API carries these as JSON; the CLI prints them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SocketKind;
use super::answer::Explained;
use super::canary::CanaryInfo;
use super::cluster_policy::{ClusterPolicyInfo, SourceInfo};
use super::conditions::PolicyStatus;
use super::quarantine::AllowFrom;
use super::unguarded::{AbsentHook, Unguarded};
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
        /// Take it back unless it is confirmed within so many seconds.
        confirm_within: Option<u64>,
        /// User id of who asks.
        by: Option<u32>,
    },
    /// Keep what was pushed to be confirmed.
    PolicyConfirm {
        /// User id of who asks.
        by: Option<u32>,
    },
    /// Remove policies by `namespace/name`, all or none.
    PolicyDelete {
        /// The names.
        names: Vec<String>,
    },
    /// All loaded policies.
    PolicyList,
    /// Put a workload into quarantine, or change the terms of it.
    QuarantineAdd(QuarantineWish),
    /// Take a workload out of quarantine.
    QuarantineRelease {
        /// `namespace/name`.
        workload: String,
        /// User id of who asks.
        by: Option<u32>,
    },
    /// All quarantines.
    QuarantineList,
    /// All identities.
    IdentityList,
    /// Where every policy object of the cluster stands, those that are refused included.
    PolicyObjects,
    /// All workloads.
    EndpointList,
    /// What becomes of a flow, and why.
    Explain {
        /// Who would open it: `[namespace/]name`, `host`, or an address.
        from: String,
        /// The server, named alike; a service as `[service/][namespace/]name`.
        to: String,
        /// IP protocol number.
        protocol: u8,
        /// Port of the server.
        port: u16,
    },
    /// Whether somebody may create a socket of a kind, and why.
    ExplainSocket {
        /// Who would create it: `[namespace/]name` or `host`.
        from: String,
        /// Of which kind.
        #[serde(with = "kind_names")]
        kind: SocketKind,
    },
    /// How the agent is.
    Status,
}

/// The engine's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Answer to [`Request::PolicyApply`], [`Request::PolicyConfirm`] and [`Request::PolicyDelete`].
    Changed(Changed),
    /// Answer to [`Request::PolicyList`].
    Policies(Vec<PolicyInfo>),
    /// Answer to [`Request::QuarantineAdd`] and [`Request::QuarantineRelease`].
    Quarantine(Box<QuarantineInfo>),
    /// Answer to [`Request::QuarantineList`].
    Quarantines(Vec<QuarantineInfo>),
    /// Answer to [`Request::PolicyObjects`].
    PolicyObjects(Vec<ClusterPolicyInfo>),
    /// Answer to [`Request::IdentityList`].
    Identities(Vec<IdentityInfo>),
    /// Answer to [`Request::EndpointList`].
    Endpoints(Vec<EndpointInfo>),
    /// Answer to [`Request::Explain`] and [`Request::ExplainSocket`].
    Explained(Box<Explained>),
    /// Answer to [`Request::Status`].
    Status(Box<Status>),
    /// Nothing was changed.
    Refused(Refused),
}

/// A quarantine that somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineWish {
    /// `namespace/name` of the workload.
    pub workload: String,
    /// How long, in seconds; `None` for without an end.
    pub seconds: Option<u64>,
    /// Who may open flows to it all the same.
    pub allow_from: Vec<AllowFrom>,
    /// User id of who asks.
    pub by: Option<u32>,
}

/// A quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineInfo {
    /// Namespace of the workload.
    pub namespace: String,
    /// Name of the workload.
    pub name: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// When it ends by itself, RFC 3339; `None` for never.
    pub until: Option<String>,
    /// Who may open flows to it all the same.
    pub allow_from: Vec<String>,
    /// User id of who asked for it, if known.
    pub by: Option<u32>,
    /// Whether a source knows the workload now. If not, the quarantine waits for it.
    pub exists: bool,
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
    /// When it is taken back unless it is confirmed, RFC 3339; `None` if it need not be.
    pub confirm_until: Option<String>,
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
    /// `pushed`, `kubernetes`, or the file it came from.
    pub origin: String,
    /// Number of rules.
    pub rules: u32,
    /// How many of them are over: all of them if the policy is.
    pub expired: u32,
    /// When something of it expires next, RFC 3339; `None` for never.
    pub expires: Option<String>,
    /// Its sections: directions it isolates, `listen` and `sockets`.
    pub isolates: Vec<String>,
    /// Workloads it selects now.
    pub selects: Vec<String>,
    /// The document.
    pub text: String,
    /// Where it stands.
    #[serde(default)]
    pub status: PolicyStatus,
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
    /// Whether it is in quarantine.
    pub quarantined: bool,
    /// Policies that isolate its ingress.
    pub ingress_policies: Vec<String>,
    /// Policies that isolate its egress.
    pub egress_policies: Vec<String>,
    /// Policies that say on which ports it may listen.
    pub listen_policies: Vec<String>,
    /// Policies that say which kinds of sockets it may create.
    #[serde(default)]
    pub socket_policies: Vec<String>,
}

/// A push that is in force and not confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnconfirmedInfo {
    /// When it was pushed, RFC 3339.
    pub since: String,
    /// When it is taken back, RFC 3339.
    pub until: String,
    /// Seconds until then.
    pub seconds_left: u64,
    /// User id of who pushed it, if known.
    pub by: Option<u32>,
}

/// What an agent has given up at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Whether system calls that it does not need are refused.
    pub seccomp: bool,
    /// Whether nothing that it starts can get privileges that it has not.
    pub no_new_privileges: bool,
    /// The capabilities that it has kept.
    pub capabilities: Vec<String>,
    /// What could not be given up, one sentence each.
    pub problems: Vec<String>,
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
    /// The push that waits for its confirmation.
    pub unconfirmed: Option<UnconfirmedInfo>,
    /// What is to be said of the last push, if it was taken back.
    pub rolled_back: Option<String>,
    /// Peers of policies that are accepted and match nobody yet, by policy and rule.
    #[serde(default)]
    pub pending_peers: Vec<String>,
    /// What the canary has proven.
    #[serde(default)]
    pub canary: CanaryInfo,
    /// Entries of the enforced table.
    pub entries: u64,
    /// Identities known.
    pub identities: u64,
    /// Workloads known.
    pub endpoints: u64,
    /// Workloads whose directory does not exist.
    pub endpoints_waiting: u64,
    /// Workloads in quarantine, those included that do not exist now.
    pub quarantined: Vec<String>,
    /// Kernel release.
    pub kernel: String,
    /// Mount point of the cgroup v2 tree.
    pub cgroup_root: String,
    /// Where pins are.
    pub pins: String,
    /// What the agent has given up.
    #[serde(default)]
    pub confinement: Confinement,
    /// Hooks attached, by program name.
    pub hooks: Vec<String>,
    /// Hooks that this kernel does without.
    pub absent_hooks: Vec<AbsentHook>,
    /// What is no fault and worth knowing, one sentence each.
    #[serde(default)]
    pub notices: Vec<String>,
    /// How sources of containers and units stand: connected, absent, failing.
    #[serde(default)]
    pub runtimes: BTreeMap<String, String>,
    /// Ways past enforcer that are open on this host.
    pub unguarded: Vec<Unguarded>,
    /// Seconds since the agent started.
    pub uptime_seconds: u64,
    /// How the sources are that can be away.
    #[serde(default)]
    pub sources: Vec<SourceInfo>,
}

/// Kinds of sockets by their names.
mod kind_names {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::SocketKind;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(kind: &SocketKind, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(kind.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SocketKind, D::Error> {
        let name = String::deserialize(from)?;
        SocketKind::from_name(&name)
            .ok_or_else(|| D::Error::custom(format!("no kind of sockets is called {name}")))
    }
}
