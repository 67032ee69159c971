//! The loaded policies by origin, and what a request would make of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::domain::command::{Change, PolicyFile, Refused};
use crate::domain::policy::check::{Checked, check};
use crate::domain::policy::model::{Policy, PolicyKey};

/// A policy with its document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) policy: Policy,
    pub(super) text: String,
    /// The file of the document. For a pushed policy the name that its sender gave.
    pub(super) file: String,
}

/// Policies by key.
pub(super) type Documents = BTreeMap<PolicyKey, Arc<Loaded>>;

/// All loaded policies. Where several origins have a policy of the same name, the pushed one counts, else that of the
/// directory: whoever can change a file must not be able to replace, unseen, what an administrator pushed, nor whoever can
/// write an object of the cluster what the administrator of this host wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PolicySet {
    pub(super) pushed: Documents,
    pub(super) directory: Documents,
    pub(super) cluster: Documents,
}

/// A policy that a request touches: what becomes of it, and the document that says whom it selects.
pub(super) type Touched = BTreeMap<PolicyKey, (Change, Arc<Loaded>)>;

impl PolicySet {
    /// The policies that count, in the order of names; `true` marks the pushed ones.
    pub(super) fn effective(&self) -> impl Iterator<Item = (&Arc<Loaded>, bool)> {
        let mut all: BTreeMap<&PolicyKey, (&Arc<Loaded>, bool)> =
            self.cluster.iter().chain(&self.directory).map(|(key, loaded)| (key, (loaded, false))).collect();
        all.extend(self.pushed.iter().map(|(key, loaded)| (key, (loaded, true))));
        all.into_values()
    }

    /// How many policies count.
    pub(super) fn len(&self) -> usize {
        let of_files = self.directory.keys().filter(|key| !self.pushed.contains_key(*key)).count();
        let of_cluster = self.cluster.keys().filter(|key| self.hides(key).is_none()).count();
        self.pushed.len() + of_files + of_cluster
    }

    /// Whether a policy of this name is loaded.
    pub(super) fn has(&self, key: &PolicyKey) -> bool {
        [&self.pushed, &self.directory, &self.cluster].into_iter().any(|of| of.contains_key(key))
    }

    /// The origin whose policy of this name keeps that of the cluster from counting.
    pub(super) fn hides(&self, key: &PolicyKey) -> Option<&str> {
        if self.pushed.contains_key(key) {
            return Some("pushed");
        }
        self.directory.get(key).map(|loaded| loaded.file.as_str())
    }

    /// Documents that a policy of the same name keeps from counting, one sentence each.
    pub(super) fn conflicts(&self) -> impl Iterator<Item = (String, String)> {
        let of_cluster = self.cluster.keys().filter_map(|key| {
            let instead = match self.hides(key)? {
                "pushed" => {
                    "one was pushed on this node: remove that with `enforcer policy delete`".to_owned()
                }
                file => format!("{file} has one of the same name: remove it there"),
            };
            let message = format!("policy {key} of the cluster is not used because {instead}");
            Some((format!("cluster {key}"), message))
        });
        let of_files = self.directory.values().filter(|loaded| self.pushed.contains_key(&loaded.policy.key)).map(|loaded| {
            let Loaded { policy, file, .. } = &**loaded;
            let key = &policy.key;
            let message = format!(
                "policy {key} in {file} is not used because a pushed policy has the same name: remove one, the \
                 pushed one with `enforcer policy delete {key}`"
            );
            (key.to_string(), message)
        });
        of_files.chain(of_cluster)
    }

    /// The set after a push.
    pub(super) fn apply(&self, files: &[PolicyFile]) -> Result<(Self, Touched), Refused> {
        let incoming = parse(files).map_err(|diagnostics| {
            let count = diagnostics.len();
            let problems = if count == 1 { "problem" } else { "problems" };
            Refused {
                message: format!("the documents have {count} {problems}; nothing was changed"),
                diagnostics,
                not_found: false,
            }
        })?;
        if incoming.is_empty() {
            return Err(refused("the files contain no policy; nothing was changed"));
        }
        let owned: Vec<String> = incoming
            .keys()
            .filter(|key| !self.pushed.contains_key(key))
            .filter_map(|key| Some(format!("{key} comes from {}", self.directory.get(key)?.file)))
            .collect();
        if !owned.is_empty() {
            let owned = owned.join(", ");
            return Err(refused(format!("policy {owned}: edit that file instead; nothing was changed")));
        }
        let mut next = self.clone();
        let mut touched = Touched::new();
        for (key, loaded) in incoming {
            let change = match self.pushed.get(&key) {
                None => Change::Created,
                Some(old) if old.text == loaded.text => Change::Unchanged,
                Some(_) => Change::Configured,
            };
            if change != Change::Unchanged {
                next.pushed.insert(key.clone(), Arc::clone(&loaded));
            }
            touched.insert(key, (change, loaded));
        }
        Ok((next, touched))
    }

    /// The set after a deletion of `namespace/name`s.
    pub(super) fn delete(&self, names: &[String]) -> Result<(Self, Touched), Refused> {
        let keys: BTreeSet<PolicyKey> = names.iter().filter_map(|name| name.parse().ok()).collect();
        if keys.is_empty() {
            return Err(refused("no policy is named; nothing was changed"));
        }
        let mut next = self.clone();
        let mut touched = Touched::new();
        let (mut owned, mut missing, mut of_cluster) = (Vec::new(), Vec::new(), Vec::new());
        for key in keys {
            match (next.pushed.remove(&key), self.directory.get(&key)) {
                (Some(loaded), _) => drop(touched.insert(key, (Change::Deleted, loaded))),
                (None, Some(loaded)) => owned.push(format!("{key} comes from {}", loaded.file)),
                (None, None) if self.cluster.contains_key(&key) => of_cluster.push(key),
                (None, None) => missing.push(key.to_string()),
            }
        }
        if let Some(key) = of_cluster.first() {
            let kind = key.kind.prefix();
            let namespace =
                if key.kind.is_namespaced() { format!(" -n {}", key.namespace) } else { String::new() };
            return Err(refused(format!(
                "policy {key} comes from the cluster: `kubectl delete {kind}{namespace} {}` removes it on every node; \
                 nothing was changed",
                key.name
            )));
        }
        if !missing.is_empty() {
            let names = missing.join(", ");
            return Err(Refused {
                message: format!(
                    "there is no policy {names}; nothing was changed: `enforcer policy list` shows all"
                ),
                diagnostics: Vec::new(),
                not_found: true,
            });
        }
        if !owned.is_empty() {
            let owned = owned.join(", ");
            return Err(refused(format!(
                "policy {owned}: remove the document from that file instead; nothing was changed"
            )));
        }
        Ok((next, touched))
    }
}

/// Policies of the files, or everything that is wrong with them.
pub(super) fn parse(files: &[PolicyFile]) -> Result<Documents, Vec<String>> {
    let checked = check(files)
        .into_result()
        .map_err(|diagnostics| diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let loaded = checked.into_iter().map(|Checked { policy, place, text }| {
        let file = files.get(place.file).map(|file| file.name.clone()).unwrap_or_default();
        (policy.key.clone(), Arc::new(Loaded { policy, text, file }))
    });
    Ok(loaded.collect())
}

/// A refusal in one sentence.
pub(super) fn refused(message: impl Into<String>) -> Refused {
    Refused { message: message.into(), diagnostics: Vec::new(), not_found: false }
}
