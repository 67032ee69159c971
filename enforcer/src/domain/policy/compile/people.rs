//! Everyone whom policies can speak of, with indexes, so that a question looks at few of them.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_common::id::IdentityId;

use super::questions::{Question, Questions, Scope, Who};
use super::wards::Wards;
use crate::domain::account::TrustDomain;
use crate::domain::labels::{Condition, Selector};
use crate::domain::registry::{IdentityKey, Registry};
use crate::domain::workload::NamedPort;

/// All identities of workloads by number.
pub(super) struct People<'r> {
    trust_domain: &'r TrustDomain,
    pub(super) list: Vec<(IdentityId, &'r IdentityKey)>,
    by_namespace: BTreeMap<&'r str, Vec<usize>>,
    by_label: BTreeMap<&'r str, BTreeMap<&'r str, Vec<usize>>>,
    by_port: BTreeMap<&'r str, BTreeMap<NamedPort, Vec<usize>>>,
}

impl<'r> People<'r> {
    pub(super) fn new(registry: &'r Registry, trust_domain: &'r TrustDomain) -> Self {
        let mut list: Vec<_> = registry
            .identities()
            .map(|(key, id)| (id, key))
            // A number below this can only come from a broken file, and must not give a workload the host's class.
            .filter(|(id, key)| *id >= IdentityId::FIRST_WORKLOAD && key.is_workload())
            .collect();
        list.sort_unstable_by_key(|(id, _)| *id);
        let mut by_namespace: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        let mut by_label: BTreeMap<_, BTreeMap<_, Vec<usize>>> = BTreeMap::new();
        let mut by_port: BTreeMap<_, BTreeMap<_, Vec<usize>>> = BTreeMap::new();
        for (index, (_, key)) in list.iter().enumerate() {
            by_namespace.entry(key.namespace.as_str()).or_default().push(index);
            for (label, value) in &key.labels.0 {
                by_label.entry(label.as_str()).or_default().entry(value.as_str()).or_default().push(index);
            }
            for (name, port) in &key.ports {
                by_port.entry(name.as_str()).or_default().entry(*port).or_default().push(index);
            }
        }
        Self { trust_domain, list, by_namespace, by_label, by_port }
    }

    /// Every namespace that somebody is in, in the order of names.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &'r str> + '_ {
        self.by_namespace.keys().copied()
    }

    /// Every port to which somebody gives this name.
    pub(super) fn named(&self, name: &str) -> BTreeSet<NamedPort> {
        self.by_port.get(name).into_iter().flat_map(BTreeMap::keys).copied().collect()
    }

    /// Indexes of the identities of which the answer is yes, each once.
    pub(super) fn answer(
        &self,
        question: &Question<'_>,
        questions: &Questions<'_>,
        wards: &Wards<'_>,
    ) -> Vec<usize> {
        let index = |id: &IdentityId| self.list.binary_search_by_key(id, |(known, _)| *known).ok();
        match question {
            Question::Who(who) => self.select(who, questions).collect(),
            Question::Named(who, name, port) => {
                let named = self.by_port.get(name).and_then(|ports| ports.get(port));
                let named = named.map_or(&[][..], Vec::as_slice).iter().copied();
                named.filter(|index| self.is_one(*index, who, questions)).collect()
            }
            Question::One(id) => index(id).into_iter().collect(),
            Question::Ward(number) => wards
                .list
                .get(*number)
                .map_or(&[][..], |(_, ids)| ids.as_slice())
                .iter()
                .filter_map(index)
                .collect(),
        }
    }

    /// Indexes of the identities that are meant, each once.
    pub(super) fn select<'s>(
        &'s self,
        who: &'s Who<'_>,
        questions: &'s Questions<'_>,
    ) -> impl Iterator<Item = usize> + 's {
        let candidates = self.candidates(questions.scope(who.scope), who.selector);
        candidates.into_iter().flatten().copied().filter(move |index| self.is_one(*index, who, questions))
    }

    fn is_one(&self, index: usize, who: &Who<'_>, questions: &Questions<'_>) -> bool {
        let (_, key) = self.list[index];
        questions.scope(who.scope).contains(&key.namespace)
            && who.selector.matches(&key.labels)
            && who.account.is_none_or(|account| {
                account.matches(self.trust_domain, &key.namespace, key.account.as_deref())
            })
    }

    /// Disjoint lists that contain at least everyone who matches: by namespace, or by the values of the rarest label
    /// that must have one of some values.
    fn candidates(&self, scope: &Scope<'_>, selector: &Selector) -> Vec<&[usize]> {
        let by_namespace: Vec<&[usize]> = match scope {
            Scope::All => self.by_namespace.values().map(Vec::as_slice).collect(),
            Scope::In(names) => names
                .iter()
                .filter_map(|name| self.by_namespace.get::<str>(name))
                .map(Vec::as_slice)
                .collect(),
        };
        let by_label = selector.requirements.iter().filter_map(|requirement| {
            let Condition::In(values) = &requirement.condition else { return None };
            let Some(label) = self.by_label.get(requirement.key.as_str()) else { return Some(Vec::new()) };
            Some(values.iter().filter_map(|value| label.get(value.as_str())).map(Vec::as_slice).collect())
        });
        let size = |lists: &Vec<&[usize]>| lists.iter().map(|list| list.len()).sum::<usize>();
        by_label.chain([by_namespace]).min_by_key(size).unwrap_or_default()
    }
}
