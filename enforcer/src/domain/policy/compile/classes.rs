//! Identity classes: identities that the same selectors match share a class.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_common::id::IdentityId;
use enforcer_common::limits::{SUBJECT_CLASSES, TABLE_ROWS};

use super::wards::{Guest, Wards};
use crate::domain::labels::{Condition, Selector};
use crate::domain::policy::model::{Namespaces, Peer, Peers, Policy};
use crate::domain::registry::{IdentityKey, Registry};
use crate::domain::table::CompileError;

/// Reserved identities that are somebody. Each has a class of its own, whatever the policies say.
const RESERVED: [IdentityId; 3] = [IdentityId::HOST, IdentityId::WORLD, IdentityId::UNMANAGED];

/// The namespaces a selector looks at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope<'a> {
    All,
    In(BTreeSet<&'a str>),
}

impl<'a> Scope<'a> {
    pub(super) fn one(namespace: &'a str) -> Self {
        Self::In(BTreeSet::from([namespace]))
    }

    pub(super) fn of(namespaces: &'a Namespaces, own: &'a str) -> Self {
        match namespaces {
            Namespaces::Own => Self::one(own),
            Namespaces::All => Self::All,
            Namespaces::Named(names) => Self::In(names.iter().map(String::as_str).collect()),
            Namespaces::Labelled(_) => Self::In(BTreeSet::new()),
        }
    }

    fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::In(names) => names.contains(namespace),
        }
    }
}

/// What is asked of an identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question<'a> {
    /// Whether a selector matches it, where the selector stands.
    Labels(Scope<'a>, &'a Selector),
    /// Whether it is this one.
    One(IdentityId),
    /// Whether it is in quarantine with the guests of this number.
    Ward(usize),
}

/// Classes of all identities.
#[derive(Debug)]
pub(super) struct IdentityClasses<'a> {
    /// Class by identity number.
    numbers: Vec<u32>,
    questions: BTreeMap<Question<'a>, Vec<u32>>,
    next: u32,
}

impl<'a> IdentityClasses<'a> {
    pub(super) fn new(
        policies: &[&'a Policy],
        wards: &Wards<'a>,
        registry: &Registry,
    ) -> Result<Self, CompileError> {
        let people = People::new(registry);
        let last = people.list.last().map_or(IdentityId::UNMANAGED, |(id, _)| *id);
        // Before anything of that size is made.
        CompileError::check("identities", u64::from(last.0) + 1, u64::from(TABLE_ROWS) * 16)?;

        let mut questions = questions(policies, &people);
        ask_of_wards(&mut questions, wards);
        let mut matched: Vec<Vec<u32>> = vec![Vec::new(); people.list.len()];
        for (question, number) in questions.keys().zip(0..) {
            for person in people.answer(question, wards) {
                matched[person].push(number);
            }
        }
        let mut numbers = vec![0; last.0 as usize + 1];
        let mut next = 1;
        for reserved in RESERVED {
            numbers[reserved.0 as usize] = next;
            next += 1;
        }
        let mut classes: BTreeMap<&[u32], u32> = BTreeMap::new();
        let mut of_question: Vec<Vec<u32>> = vec![Vec::new(); questions.len()];
        for ((id, _), matched) in people.list.iter().zip(&matched) {
            numbers[id.0 as usize] = *classes.entry(matched).or_insert_with(|| {
                for question in matched {
                    of_question[*question as usize].push(next);
                }
                next += 1;
                next - 1
            });
        }
        CompileError::check("subject classes", u64::from(next - 1), SUBJECT_CLASSES.into())?;
        questions.values_mut().zip(of_question).for_each(|(classes, found)| *classes = found);
        Ok(Self { numbers, questions, next })
    }

    /// The class of a reserved identity.
    pub(super) fn of(&self, id: IdentityId) -> u32 {
        self.numbers.get(id.0 as usize).copied().unwrap_or(0)
    }

    /// Classes that a selector matches: workloads only, never a reserved identity.
    pub(super) fn selected(&self, scope: Scope<'a>, selector: &'a Selector) -> &[u32] {
        self.asked(&Question::Labels(scope, selector))
    }

    /// Classes of which the answer is yes.
    pub(super) fn asked(&self, question: &Question<'a>) -> &[u32] {
        self.questions.get(question).map_or(&[], Vec::as_slice)
    }

    /// The first number that is not a class of identities.
    pub(super) fn next_class(&self) -> u32 {
        self.next
    }

    pub(super) fn into_numbers(self) -> Vec<u32> {
        self.numbers
    }
}

/// Every distinct question of the policies; peers only of policies that select somebody.
fn questions<'a>(policies: &[&'a Policy], people: &People<'_>) -> BTreeMap<Question<'a>, Vec<u32>> {
    let mut questions = BTreeMap::new();
    for policy in policies {
        let own = Scope::of(&policy.subject.namespaces, &policy.key.namespace);
        if people.select(&own, &policy.subject.selector).next().is_none() {
            continue;
        }
        questions.insert(Question::Labels(own, &policy.subject.selector), Vec::new());
        for rule in [&policy.ingress, &policy.egress].into_iter().flatten().flatten() {
            let Peers::AnyOf(peers) = &rule.peers else { continue };
            for peer in peers {
                if let Peer::Workloads { namespaces, selector, .. } = peer {
                    let scope = Scope::of(namespaces, &policy.key.namespace);
                    questions.insert(Question::Labels(scope, selector), Vec::new());
                }
            }
        }
    }
    questions
}

/// Adds what has to be told apart because of quarantines.
fn ask_of_wards<'a>(questions: &mut BTreeMap<Question<'a>, Vec<u32>>, wards: &Wards<'a>) {
    for (index, (guests, _)) in wards.list.iter().enumerate() {
        questions.insert(Question::Ward(index), Vec::new());
        for guest in *guests {
            let question = match guest {
                Guest::Identity(id) => Question::One(*id),
                Guest::Peer(Peer::Workloads { namespaces, selector, .. }) => {
                    Question::Labels(Scope::of(namespaces, ""), selector)
                }
                Guest::Peer(Peer::Cidr { .. } | Peer::Entity(_) | Peer::Pending(_)) => continue,
            };
            questions.insert(question, Vec::new());
        }
    }
}

/// All identities of workloads by number, with indexes, so that a selector looks at few of them.
struct People<'r> {
    list: Vec<(IdentityId, &'r IdentityKey)>,
    by_namespace: BTreeMap<&'r str, Vec<usize>>,
    by_label: BTreeMap<&'r str, BTreeMap<&'r str, Vec<usize>>>,
}

impl<'r> People<'r> {
    fn new(registry: &'r Registry) -> Self {
        let mut list: Vec<_> = registry
            .identities()
            .map(|(key, id)| (id, key))
            // A number below this can only come from a broken file, and must not give a workload the host's class.
            .filter(|(id, _)| *id >= IdentityId::FIRST_WORKLOAD)
            .collect();
        list.sort_unstable();
        let mut by_namespace: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        let mut by_label: BTreeMap<_, BTreeMap<_, Vec<usize>>> = BTreeMap::new();
        for (index, (_, key)) in list.iter().enumerate() {
            by_namespace.entry(key.namespace.as_str()).or_default().push(index);
            for (label, value) in &key.labels.0 {
                by_label.entry(label.as_str()).or_default().entry(value.as_str()).or_default().push(index);
            }
        }
        Self { list, by_namespace, by_label }
    }

    /// Indexes of the identities of which the answer is yes, each once.
    fn answer(&self, question: &Question<'_>, wards: &Wards<'_>) -> Vec<usize> {
        let index = |id: &IdentityId| self.list.binary_search_by_key(id, |(known, _)| *known).ok();
        match question {
            Question::Labels(scope, selector) => self.select(scope, selector).collect(),
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

    /// Indexes of the identities that a selector matches, each once.
    fn select<'s>(
        &'s self,
        scope: &'s Scope<'_>,
        selector: &'s Selector,
    ) -> impl Iterator<Item = usize> + 's {
        let candidates = self.candidates(scope, selector);
        candidates.into_iter().flatten().copied().filter(|index| {
            let (_, key) = self.list[*index];
            scope.contains(&key.namespace) && selector.matches(&key.labels)
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
