//! The registry: which number stands for which identity and which rule.
//!
//! Numbers are given once and kept across restarts (the store saves the registry before the kernel sees a new
//! number), because kernel counters outlive the daemon and are keyed by them.

use std::collections::BTreeMap;

use enforcer_common::id::{IdentityId, RuleId};
use serde::{Deserialize, Serialize};

use super::labels::LabelSet;
use super::policy::model::RuleKey;

/// What distinguishes an identity: its namespace and labels, never its name or address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdentityKey {
    /// Namespace of the workloads.
    pub namespace: String,
    /// Labels of the workloads.
    pub labels: LabelSet,
}

/// Numbers of identities and rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Saved", into = "Saved")]
pub struct Registry {
    identities: BTreeMap<IdentityKey, IdentityId>,
    rules: BTreeMap<RuleKey, RuleId>,
    /// Highest numbers given so far; 0 before the first.
    last_identity: u32,
    last_rule: u32,
}

impl Registry {
    /// The number of this identity; a new one is given if it has none.
    pub fn identity(&mut self, key: &IdentityKey) -> IdentityId {
        if let Some(id) = self.identities.get(key) {
            return *id;
        }
        self.last_identity = self.last_identity.max(IdentityId::FIRST_WORKLOAD.0 - 1) + 1;
        let id = IdentityId(self.last_identity);
        self.identities.insert(key.clone(), id);
        id
    }

    /// The number of this rule; a new one is given if it has none.
    pub fn rule(&mut self, key: &RuleKey) -> RuleId {
        if let Some(id) = self.rules.get(key) {
            return *id;
        }
        self.last_rule += 1;
        let id = RuleId(self.last_rule);
        self.rules.insert(key.clone(), id);
        id
    }

    /// All identities with a number, in the order of their keys.
    pub fn identities(&self) -> impl Iterator<Item = (&IdentityKey, IdentityId)> {
        self.identities.iter().map(|(key, id)| (key, *id))
    }

    /// The identity with this number (linear; keep an index where it is asked often).
    pub fn identity_key(&self, id: IdentityId) -> Option<&IdentityKey> {
        self.identities.iter().find(|(_, found)| **found == id).map(|(key, _)| key)
    }

    /// All rules with a number, in the order of their keys.
    pub fn rules(&self) -> impl Iterator<Item = (&RuleKey, RuleId)> {
        self.rules.iter().map(|(key, id)| (key, *id))
    }
}

/// The saved form: lists, because JSON has no structured keys.
#[derive(Serialize, Deserialize)]
struct Saved {
    identities: Vec<(u32, IdentityKey)>,
    rules: Vec<(u32, RuleKey)>,
}

impl From<Saved> for Registry {
    fn from(saved: Saved) -> Self {
        let last_identity = saved.identities.iter().map(|(id, _)| *id).max().unwrap_or(0);
        let last_rule = saved.rules.iter().map(|(id, _)| *id).max().unwrap_or(0);
        Self {
            last_identity,
            last_rule,
            identities: saved.identities.into_iter().map(|(id, key)| (key, IdentityId(id))).collect(),
            rules: saved.rules.into_iter().map(|(id, key)| (key, RuleId(id))).collect(),
        }
    }
}

impl From<Registry> for Saved {
    fn from(registry: Registry) -> Self {
        Self {
            identities: registry.identities.into_iter().map(|(key, id)| (id.0, key)).collect(),
            rules: registry.rules.into_iter().map(|(key, id)| (id.0, key)).collect(),
        }
    }
}
