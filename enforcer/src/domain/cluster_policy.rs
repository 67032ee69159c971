//! Policies that are kept in a cluster's API, and how a source of such things is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::policy::model::{Policy, PolicyKey};

/// What stands for a file where a policy came from a cluster's API.
pub const KUBERNETES: &str = "kubernetes";

/// Which object of the cluster something was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectVersion {
    /// Its UID; one that is made anew under the same name has another.
    pub uid: String,
    /// `metadata.generation`: counts changes of what is asked for; 0 if the server counts none.
    pub generation: i64,
}

/// A policy object of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPolicy {
    /// Its name.
    pub key: PolicyKey,
    /// The object as it is now.
    pub object: ObjectVersion,
    /// Its last good version, which stays in force while the present one is refused.
    pub good: Option<Arc<GoodPolicy>>,
    /// Everything that is wrong with the present version, one sentence each; empty if it is the good one.
    pub problems: Vec<String>,
}

/// A version of an object that is a valid policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoodPolicy {
    /// The policy.
    pub policy: Policy,
    /// The document, without what the API server adds.
    pub text: String,
    /// Which version of the object it is.
    pub object: ObjectVersion,
}

/// Where a policy object of a cluster stands on this node, for whoever reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterPolicyInfo {
    /// Its name.
    pub key: PolicyKey,
    /// The object as it is now.
    pub object: ObjectVersion,
    /// Everything that is wrong with it, one sentence each.
    pub problems: Vec<String>,
    /// Which version is in force, if any is: the last good one.
    pub in_force: Option<ObjectVersion>,
    /// Where the policy that is in force comes from instead, if not from this object: `pushed`, or a file.
    pub hidden_by: Option<String>,
    /// Where the version in force stands: the reason of its condition Enforcing, or `Auditing` if audit is its own mode.
    #[serde(default)]
    pub standing: String,
}

/// How a source of workloads and policies is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Its name, e.g. `kubernetes`.
    pub name: String,
    /// `synced`, `waiting` (for the first word), `restored` (what was saved on disk is used) or `away` (what was told last
    /// is used).
    pub state: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// When what is used was last known to be so, RFC 3339; empty for never.
    pub known: String,
    /// With whom it talks.
    pub server: String,
    /// What it has told, by kind.
    pub kinds: Vec<KindInfo>,
    /// What keeps it from knowing all there is, one sentence each.
    pub problems: Vec<String>,
}

/// How one kind of objects of a source is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindInfo {
    /// The kind, e.g. `Pod`.
    pub kind: String,
    /// How many there are.
    pub objects: u64,
    /// `synced`, `waiting`, `restored`, `away` or `not-installed`.
    pub state: String,
    /// Since when, RFC 3339.
    pub since: String,
}
