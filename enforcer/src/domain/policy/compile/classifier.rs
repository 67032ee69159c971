//! Which class an identity has that came after the table was made.
//!
//! It asks the questions that the table was made from. There is no answer where the table itself would have been another
//! with that identity in it: it is the first in its namespace, the first whom some policy selects, the first with its port
//! under a name that some rule uses, or the first with its answers. Services and workloads in quarantine are left to the
//! compiler as well.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::people::People;
use super::questions::{Question, Questions, Scope, ScopeId, Who};
use crate::domain::account::{AccountPattern, TrustDomain};
use crate::domain::labels::Selector;
use crate::domain::quarantine::is_marked;
use crate::domain::registry::IdentityKey;
use crate::domain::workload::NamedPort;

/// Classes by answers, and the questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classifier {
    /// Every namespace that somebody was in, with the questions that look at it.
    namespaces: BTreeMap<String, Vec<Asked>>,
    /// The questions that look at all of them.
    everywhere: Vec<Asked>,
    selectors: Vec<Selector>,
    trust_domain: TrustDomain,
    accounts: Vec<AccountPattern>,
    /// Ports that somebody had under the names that rules use.
    ports: BTreeMap<String, BTreeSet<NamedPort>>,
    /// Classes by the numbers of the questions that are answered with yes.
    classes: HashMap<Box<[u32]>, u32>,
}

/// A question, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    /// Its number; `None` for that of a policy that selected nobody.
    number: Option<u32>,
    selector: usize,
    account: Option<usize>,
    /// A port, and the number of its name.
    named: Option<(usize, NamedPort)>,
}

/// What a table was made from.
pub(super) struct Made<'a, 'q> {
    pub(super) people: &'a People<'a>,
    pub(super) trust_domain: &'a TrustDomain,
    pub(super) questions: &'a Questions<'q>,
    /// Whom policies mean that select nobody.
    pub(super) dormant: &'a [Who<'q>],
    /// Names of ports that rules use.
    pub(super) names: &'a BTreeSet<&'q str>,
    pub(super) classes: HashMap<Box<[u32]>, u32>,
}

impl Classifier {
    pub(super) fn new(made: Made<'_, '_>) -> Self {
        let Made { people, trust_domain, questions, dormant, names, classes } = made;
        let names: Vec<&str> = names.iter().copied().collect();
        let mut classifier = Self { classes, trust_domain: trust_domain.clone(), ..Self::default() };
        for name in &names {
            classifier.ports.insert((*name).to_owned(), people.named(name));
        }
        for namespace in people.namespaces() {
            classifier.namespaces.insert(namespace.to_owned(), Vec::new());
        }
        let mut selectors = BTreeMap::new();
        let mut accounts = BTreeMap::new();
        let mut number = |Who { selector, account, .. }: Who<'_>, list: &mut Self| {
            let selector = *selectors.entry(selector.clone()).or_insert_with(|| {
                list.selectors.push(selector.clone());
                list.selectors.len() - 1
            });
            let account = account.map(|account| {
                *accounts.entry(account.clone()).or_insert_with(|| {
                    list.accounts.push(account.clone());
                    list.accounts.len() - 1
                })
            });
            (selector, account)
        };
        for (question, at) in questions.list().iter().zip(0..) {
            let (who, named) = match question {
                Question::Who(who) => (who, None),
                Question::Named(who, name, port) => {
                    (who, Some((names.binary_search(name).unwrap_or(usize::MAX), *port)))
                }
                // Nobody who comes later is one of those.
                Question::One(_) | Question::Ward(_) => continue,
            };
            let (selector, account) = number(*who, &mut classifier);
            classifier.ask(questions, who.scope, Asked { number: Some(at), selector, account, named });
        }
        for who in dormant {
            let (selector, account) = number(*who, &mut classifier);
            classifier.ask(questions, who.scope, Asked { number: None, selector, account, named: None });
        }
        classifier
    }

    fn ask(&mut self, questions: &Questions<'_>, scope: ScopeId, asked: Asked) {
        match questions.scope(scope) {
            Scope::All => self.everywhere.push(asked),
            Scope::In(names) => {
                for name in names {
                    if let Some(list) = self.namespaces.get_mut(*name) {
                        list.push(asked);
                    }
                }
            }
        }
    }

    /// The class of an identity that the table was made without; `None` if it takes another table to know.
    pub fn classify(&self, key: &IdentityKey) -> Option<u32> {
        if !key.is_workload() || is_marked(key) {
            return None;
        }
        let questions = self.namespaces.get(&key.namespace)?;
        let is_new = |(name, port): (&String, &NamedPort)| {
            self.ports.get(name).is_some_and(|known| !known.contains(port))
        };
        if key.ports.iter().any(is_new) {
            return None;
        }
        let names: Vec<Option<&NamedPort>> = self.ports.keys().map(|name| key.ports.get(name)).collect();
        // Many questions look for the same labels.
        let mut selected: Vec<Option<bool>> = vec![None; self.selectors.len()];
        let mut yes = Vec::new();
        for Asked { number, selector, account, named } in self.everywhere.iter().chain(questions) {
            let has_port = |(name, port): &(usize, NamedPort)| names.get(*name) == Some(&Some(port));
            let has_account = |account: &usize| {
                let pattern = self.accounts.get(*account);
                pattern.is_some_and(|pattern| {
                    pattern.matches(&self.trust_domain, &key.namespace, key.account.as_deref())
                })
            };
            let selects =
                || self.selectors.get(*selector).is_some_and(|selector| selector.matches(&key.labels));
            if named.as_ref().is_none_or(has_port)
                && account.as_ref().is_none_or(has_account)
                && *selected.get_mut(*selector)?.get_or_insert_with(selects)
            {
                // A policy that selected nobody selects somebody now.
                yes.push((*number)?);
            }
        }
        yes.sort_unstable();
        self.classes.get(yes.as_slice()).copied()
    }
}
