//! The registry: which number stands for which identity and which rule.
//!
//! Numbers are given once and kept across restarts (the store saves the registry before the kernel sees a new
//! number), because kernel counters outlive the daemon and are keyed by them.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use enforcer_common::id::{IdentityId, RuleId};
use serde::{Deserialize, Serialize};

use super::container::{self, Containers};
use super::delta::Shared;
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

    /// What a workload is to policies, where it is known by its directory.
    pub fn of(workload: &Workload) -> Self {
        Self::with_container(workload, workload.containers.label())
    }

    /// What it is where it is known by its address: of a pod whose containers are told apart, any of them.
    pub fn at_address(workload: &Workload) -> Self {
        match workload.containers {
            Containers::Told(_) => Self::with_container(workload, Some(container::SOME)),
            Containers::Unknown | Containers::One(_) => Self::of(workload),
        }
    }

    fn with_container(workload: &Workload, name: Option<&str>) -> Self {
        let key = Self {
            namespace: workload.key.namespace.clone(),
            labels: (*workload.labels).clone(),
            ports: workload.ports.clone(),
            account: workload.account.clone(),
            service: None,
        };
        match name {
            Some(name) => key.in_container(name),
            None => key,
        }
    }

    /// The same as this container of the pod, or as some or an unknown one.
    #[must_use]
    pub fn in_container(mut self, name: &str) -> Self {
        self.labels.0.insert(container::LABEL.to_owned(), name.to_owned());
        self
    }

    /// Whether it is one of workloads, which selectors speak of.
    pub fn is_workload(&self) -> bool {
        self.service.is_none()
    }
}

/// Numbers of identities and rules. A copy costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Added", into = "Added")]
pub struct Registry {
    identities: Shared<Arc<IdentityKey>, IdentityId>,
    numbers: Shared<IdentityId, Arc<IdentityKey>>,
    rules: Shared<RuleKey, RuleId>,
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
        let key = Arc::new(key.clone());
        self.numbers.insert_mut(id, Arc::clone(&key));
        self.identities.insert_mut(key, id);
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
        self.rules.insert_mut(key.clone(), id);
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

    /// The highest numbers given so far. Numbers are never taken back, so they tell versions apart.
    pub fn last(&self) -> (IdentityId, RuleId) {
        (IdentityId(self.last_identity), RuleId(self.last_rule))
    }

    /// All identities with a number, in the order of their keys.
    pub fn identities(&self) -> impl Iterator<Item = (&IdentityKey, IdentityId)> {
        self.identities.iter().map(|(key, id)| (&**key, *id))
    }

    /// All identities with a number, by number.
    pub fn numbers(&self) -> &Shared<IdentityId, Arc<IdentityKey>> {
        &self.numbers
    }

    /// Identities with a number above this one.
    pub fn above(&self, last: IdentityId) -> impl Iterator<Item = (IdentityId, &IdentityKey)> {
        let range = (Bound::Excluded(last), Bound::Unbounded);
        self.numbers.range(range).map(|(id, key)| (*id, &**key))
    }

    /// What got a number after these, the highest of that time.
    pub fn since(&self, (identity, rule): (IdentityId, RuleId)) -> Added {
        let mut added = Added::default();
        added.identities.extend(self.above(identity).map(|(id, key)| (id.0, key.clone())));
        if self.last_rule > rule.0 {
            let new = self.rules.iter().filter(|(_, id)| **id > rule);
            added.rules.extend(new.map(|(key, id)| (id.0, key.clone())));
        }
        added
    }

    /// Whether it has all of these.
    pub fn has(&self, added: &Added) -> bool {
        let Added { identities, rules } = added;
        identities.iter().all(|(id, key)| self.known(key) == Some(IdentityId(*id)))
            && rules.iter().all(|(id, key)| self.known_rule(key) == Some(RuleId(*id)))
    }

    /// Takes numbers over that were given after its own.
    ///
    /// # Errors
    /// If they contradict it, or each other.
    pub fn add(&mut self, added: Added) -> Result<(), Invalid> {
        for (id, key) in added.identities {
            let id = IdentityId(Self::plausible(id, IdentityId::FIRST_WORKLOAD.0)?);
            if self.numbers.contains_key(&id) || self.identities.contains_key(&key) {
                return Err(Invalid::Twice(id.0));
            }
            let key = Arc::new(key);
            self.numbers.insert_mut(id, Arc::clone(&key));
            self.identities.insert_mut(key, id);
            self.last_identity = self.last_identity.max(id.0);
        }
        let mut seen: BTreeSet<RuleId> = self.rules.values().copied().collect();
        for (id, key) in added.rules {
            let id = RuleId(Self::plausible(id, RuleId::NONE.0 + 1)?);
            if !seen.insert(id) || self.rules.contains_key(&key) {
                return Err(Invalid::Twice(id.0));
            }
            self.rules.insert_mut(key, id);
            self.last_rule = self.last_rule.max(id.0);
        }
        Ok(())
    }

    /// The number, if one like it is ever given.
    fn plausible(id: u32, first: u32) -> Result<u32, Invalid> {
        match id {
            id if id < first => Err(Invalid::Reserved(id)),
            id if id >= NEVER => Err(Invalid::Never(id)),
            id => Ok(id),
        }
    }

    /// The identity with this number.
    pub fn identity_key(&self, id: IdentityId) -> Option<&IdentityKey> {
        self.numbers.get(&id).map(|key| &**key)
    }

    /// All rules with a number, in the order of their keys.
    pub fn rules(&self) -> impl Iterator<Item = (&RuleKey, RuleId)> {
        self.rules.iter().map(|(key, id)| (key, *id))
    }
}

/// The saved form, of all numbers or of those that were given after others: lists, because JSON has no structured keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Added {
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

impl TryFrom<Added> for Registry {
    type Error = Invalid;

    fn try_from(saved: Added) -> Result<Self, Invalid> {
        let mut registry = Self::default();
        registry.add(saved)?;
        Ok(registry)
    }
}

impl From<Registry> for Added {
    fn from(registry: Registry) -> Self {
        Self {
            identities: registry.identities.iter().map(|(key, id)| (id.0, (**key).clone())).collect(),
            rules: registry.rules.iter().map(|(key, id)| (id.0, key.clone())).collect(),
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
