//! Containers in a table.
//!
//! A policy that names a container selects by one label more, and that is all there is to it where the container is known by its
//! socket. The other end of a flow knows it by its pod's address, which stands for [some](crate::domain::container::SOME)
//! container of the pod. There a policy must not deny what it would not deny each of them, because the end that knows the
//! container judges as well; and it may only let through what that end will judge. So:
//!
//! * A policy about a container is *lenient* about some container of its pods: it does not isolate, what it denies is left out, and
//!   what it passes on is let through.
//! * A rule that names a container as a peer of ingress means some container of those pods too, as leniently. Unless a policy about
//!   a container speaks of the server's pod: then the client's end is lenient itself, and could not tell which container
//!   is let in by whom.

use std::collections::{BTreeMap, BTreeSet};

use super::classes::IdentityClasses;
use super::questions::QuestionId;
use crate::domain::container;
use crate::domain::labels::Selector;
use crate::domain::policy::model::{Peer, Peers, Policy};

/// What selectors that name a container mean for pods. Made before anything borrows from it.
#[derive(Debug, Default)]
pub(super) struct Widened {
    /// The selector of the pod, and of some container of it.
    by_selector: BTreeMap<Selector, (Selector, Selector)>,
}

impl Widened {
    pub(super) fn new(policies: &[&Policy]) -> Self {
        let mut widened = Self::default();
        for policy in policies {
            widened.add(&policy.subject.selector);
            for rule in policy.ingress.iter().flatten() {
                let Peers::AnyOf(peers) = &rule.peers else { continue };
                for peer in peers {
                    if let Peer::Workloads { selector, .. } = peer {
                        widened.add(selector);
                    }
                }
            }
        }
        widened
    }

    fn add(&mut self, selector: &Selector) {
        if container::named(selector).is_some() {
            let pair = (container::of_pod(selector), container::of_some(selector));
            self.by_selector.insert(selector.clone(), pair);
        }
    }

    /// The pods of a selector that names a container.
    pub(super) fn pods(&self, selector: &Selector) -> Option<&Selector> {
        self.by_selector.get(selector).map(|(pods, _)| pods)
    }

    /// Some container of these pods.
    pub(super) fn some(&self, selector: &Selector) -> Option<&Selector> {
        self.by_selector.get(selector).map(|(_, some)| some)
    }
}

/// Classes of those of whose pods some policy about a container speaks.
pub(super) fn contested(questions: &[QuestionId], identities: &IdentityClasses) -> BTreeSet<u32> {
    questions.iter().flat_map(|question| identities.asked(*question)).copied().collect()
}
