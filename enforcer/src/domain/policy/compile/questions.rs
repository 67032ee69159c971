//! What the loaded policies ask of an identity, each distinct question once.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_common::id::IdentityId;

use crate::domain::account::AccountPattern;
use crate::domain::cluster::NamespaceLabels;
use crate::domain::labels::Selector;
use crate::domain::policy::model::Namespaces;
use crate::domain::workload::NamedPort;

/// The namespaces a selector looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope<'a> {
    All,
    In(BTreeSet<&'a str>),
}

impl Scope<'_> {
    pub(super) fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::In(names) => names.contains(namespace),
        }
    }
}

/// Number of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ScopeId(usize);

/// Workloads as selectors describe them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who<'a> {
    pub(super) scope: ScopeId,
    pub(super) selector: &'a Selector,
    pub(super) account: Option<&'a AccountPattern>,
}

/// What is asked of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question<'a> {
    /// Whether it is one of these.
    Who(Who<'a>),
    /// Whether it is one of these and gives this name to this port.
    Named(Who<'a>, &'a str, NamedPort),
    /// Whether it is this one.
    One(IdentityId),
    /// Whether it is in quarantine with the guests of this number.
    Ward(usize),
}

/// Number of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QuestionId(pub(super) usize);

/// Every distinct question, numbered as they came.
#[derive(Debug)]
pub(super) struct Questions<'a> {
    labels: &'a NamespaceLabels,
    /// Namespaces that somebody is in.
    namespaces: Vec<&'a str>,
    scopes: Vec<Scope<'a>>,
    scope_numbers: BTreeMap<Scope<'a>, ScopeId>,
    labelled: BTreeMap<&'a Selector, ScopeId>,
    list: Vec<Question<'a>>,
    numbers: BTreeMap<Question<'a>, QuestionId>,
}

impl<'a> Questions<'a> {
    /// No questions yet.
    pub(super) fn new(labels: &'a NamespaceLabels, namespaces: Vec<&'a str>) -> Self {
        Self {
            labels,
            namespaces,
            scopes: Vec::new(),
            scope_numbers: BTreeMap::new(),
            labelled: BTreeMap::new(),
            list: Vec::new(),
            numbers: BTreeMap::new(),
        }
    }

    /// The number of a question.
    pub(super) fn ask(&mut self, question: Question<'a>) -> QuestionId {
        let next = QuestionId(self.list.len());
        *self.numbers.entry(question).or_insert_with(|| {
            self.list.push(question);
            next
        })
    }

    /// Workloads as selectors describe them; `own` is the policy's own namespace.
    pub(super) fn who(
        &mut self,
        namespaces: &'a Namespaces,
        own: &'a str,
        selector: &'a Selector,
        account: Option<&'a AccountPattern>,
    ) -> Who<'a> {
        let scope = match namespaces {
            Namespaces::Own => self.number(Scope::In(BTreeSet::from([own]))),
            Namespaces::All => self.number(Scope::All),
            Namespaces::Named(names) => {
                // Only those in which somebody is: others tell nobody apart.
                let known = |name: &&String| self.namespaces.binary_search(&name.as_str()).is_ok();
                let names = names.iter().filter(known).map(String::as_str).collect();
                self.number(Scope::In(names))
            }
            Namespaces::Labelled(selector) => self.labelled(selector),
        };
        Who { scope, selector, account }
    }

    /// Namespaces with these labels in which somebody is.
    fn labelled(&mut self, selector: &'a Selector) -> ScopeId {
        if let Some(known) = self.labelled.get(selector) {
            return *known;
        }
        let matching = |name: &&str| selector.matches(&self.labels.of(name));
        let names: BTreeSet<&str> = self.namespaces.iter().copied().filter(matching).collect();
        let scope = if names.len() == self.namespaces.len() { Scope::All } else { Scope::In(names) };
        let number = self.number(scope);
        self.labelled.insert(selector, number);
        number
    }

    fn number(&mut self, scope: Scope<'a>) -> ScopeId {
        if let Some(known) = self.scope_numbers.get(&scope) {
            return *known;
        }
        let number = ScopeId(self.scopes.len());
        self.scopes.push(scope.clone());
        self.scope_numbers.insert(scope, number);
        number
    }

    /// The namespaces with this number.
    pub(super) fn scope(&self, id: ScopeId) -> &Scope<'a> {
        static NOWHERE: Scope<'_> = Scope::In(BTreeSet::new());
        self.scopes.get(id.0).unwrap_or(&NOWHERE)
    }

    /// Every question, by number.
    pub(super) fn list(&self) -> &[Question<'a>] {
        &self.list
    }
}
