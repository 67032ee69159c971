//! The registry: which number stands for which identity and which rule.
//!
//! Numbers are given once and kept across restarts (the store saves the registry before the kernel sees a new
//! number), because kernel counters outlive the daemon and are keyed by them.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_common::id::{IdentityId, RuleId};
use serde::{Deserialize, Serialize};

use super::labels::LabelSet;
use super::policy::model::RuleKey;
use super::workload::{NamedPorts, Workload};

/// No number is as high as this: they are given one by one, so a file that names one was not written by the store, and to
/// go on from there would end in numbers that are given twice.
const NEVER: u32 = 1 << 31;

/// What distinguishes an identity: what policies can tell workloads apart by, never a workload's name or address.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IdentityKey {
    /// Namespace of the workloads.
    pub namespace: String,
    /// Labels of the workloads.
    pub labels: LabelSet,
    /// Ports of the workloads that have names.
    #[serde(default, skip_serializing_if = "NamedPorts::is_empty")]
    pub ports: NamedPorts,
    /// Service account of the workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Name of the service, if it is one and no workload. A service has nothing else but its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

impl IdentityKey {
    /// Workloads that have neither named ports nor an account.
    pub fn new(namespace: impl Into<String>, labels: LabelSet) -> Self {
        Self { namespace: namespace.into(), labels, ..Self::default() }
    }

    /// A service.
    pub fn service(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), service: Some(name.into()), ..Self::default() }
    }

    /// What a workload is to policies.
    pub fn of(workload: &Workload) -> Self {
        Self {
            namespace: workload.key.namespace.clone(),
            labels: workload.labels.clone(),
            ports: workload.ports.clone(),
            account: workload.account.clone(),
            service: None,
        }
    }

    /// Whether it is one of workloads, which selectors speak of.
    pub fn is_workload(&self) -> bool {
        self.service.is_none()
    }
}

/// Numbers of identities and rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Saved", into = "Saved")]
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

    /// The number of this identity, if it has one.
    pub fn known(&self, key: &IdentityKey) -> Option<IdentityId> {
        self.identities.get(key).copied()
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

    /// The number of this rule, if it has one.
    pub fn known_rule(&self, key: &RuleKey) -> Option<RuleId> {
        self.rules.get(key).copied()
    }

    /// The highest number of an identity given so far.
    pub fn last_identity(&self) -> IdentityId {
        IdentityId(self.last_identity)
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

/// Why a saved registry cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Two things have one number, or one thing two.
    #[error("number {0} is given twice, or to something that has another one")]
    Twice(u32),
    /// Numbers are given one by one, and nothing ever needed so many.
    #[error("number {0} was never given: they begin at the bottom")]
    Never(u32),
    /// The number means something else on every host.
    #[error("number {0} is reserved")]
    Reserved(u32),
}

impl TryFrom<Saved> for Registry {
    type Error = Invalid;

    fn try_from(saved: Saved) -> Result<Self, Invalid> {
        let mut registry = Self::default();
        let mut seen = BTreeSet::new();
        for (id, key) in saved.identities {
            if id < IdentityId::FIRST_WORKLOAD.0 {
                return Err(Invalid::Reserved(id));
            }
            if id >= NEVER {
                return Err(Invalid::Never(id));
            }
            if !seen.insert(id) || registry.identities.insert(key, IdentityId(id)).is_some() {
                return Err(Invalid::Twice(id));
            }
            registry.last_identity = registry.last_identity.max(id);
        }
        seen.clear();
        for (id, key) in saved.rules {
            if id == RuleId::NONE.0 {
                return Err(Invalid::Reserved(id));
            }
            if id >= NEVER {
                return Err(Invalid::Never(id));
            }
            if !seen.insert(id) || registry.rules.insert(key, RuleId(id)).is_some() {
                return Err(Invalid::Twice(id));
            }
            registry.last_rule = registry.last_rule.max(id);
        }
        Ok(registry)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> IdentityKey {
        let labels = [("app".to_owned(), name.to_owned())].into();
        IdentityKey::new("default", LabelSet(labels))
    }

    #[test]
    fn numbers_stay_across_saving_and_are_never_given_twice() {
        let mut registry = Registry::default();
        let web = registry.identity(&key("web"));
        assert_eq!(web, IdentityId::FIRST_WORKLOAD);
        let saved = serde_json::to_string(&registry).unwrap();
        let mut loaded: Registry = serde_json::from_str(&saved).unwrap();
        assert_eq!(loaded, registry);
        assert_eq!(loaded.identity(&key("web")), web);
        assert_eq!(loaded.identity(&key("api")), IdentityId(web.0 + 1));
    }

    #[test]
    fn a_registry_that_contradicts_itself_is_refused() {
        let row =
            |id: u32, name: &str| format!(r#"[{id},{{"namespace":"default","labels":{{"app":"{name}"}}}}]"#);
        for (rows, needle) in [
            ([row(256, "web"), row(256, "api")], "256 is given twice"),
            ([row(256, "web"), row(257, "web")], "257 is given twice"),
            ([row(1, "web"), row(257, "api")], "1 is reserved"),
            ([row(256, "web"), row(u32::MAX, "api")], "4294967295 was never given"),
        ] {
            let text = format!(r#"{{"identities":[{}],"rules":[]}}"#, rows.join(","));
            let error = serde_json::from_str::<Registry>(&text).unwrap_err().to_string();
            assert!(error.contains(needle), "{error}");
        }
        let rule = |id: u32| {
            let rule = r#"{"policy":{"namespace":"default","name":"db"},"direction":"ingress","index":null}"#;
            serde_json::from_str::<Registry>(&format!(r#"{{"identities":[],"rules":[[{id},{rule}]]}}"#))
        };
        assert!(rule(NEVER - 1).is_ok());
        assert!(rule(NEVER).unwrap_err().to_string().contains("was never given"));
    }
}
