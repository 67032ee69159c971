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
//!
//! Processes in an [unknown](crate::domain::container::UNKNOWN) container of a pod are known by their socket, and may be in any
//! of them. There is nobody else who judges exactly, so they may what every container of the pod may:
//!
//! * A policy about a container is *strict* about them: it isolates and denies, what it would pass on is denied, and what it
//!   allows is left out.
//! * So is a rule that names a container as a peer of ingress.

use std::collections::{BTreeMap, BTreeSet};

use super::classes::IdentityClasses;
use super::questions::QuestionId;
use crate::domain::container::{self, SOME, UNKNOWN};
use crate::domain::labels::Selector;
use crate::domain::policy::model::{Peer, Peers, Policy};

/// How a policy or rule about a container is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lens {
    /// For the container that it names; so is everything that names none.
    Exact,
    /// For some container.
    Lenient,
    /// For processes in an unknown container.
    Strict,
}

/// What a selector that names a container means for the pods.
#[derive(Debug)]
struct Wide {
    /// The pods themselves.
    pods: Selector,
    /// Some container of them.
    some: Selector,
    /// Processes in an unknown container of them.
    unknown: Selector,
}

/// What selectors that name a container mean for pods. Made before anything borrows from it.
#[derive(Debug, Default)]
pub(super) struct Widened {
    by_selector: BTreeMap<Selector, Wide>,
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
            let wide = Wide {
                pods: container::of_pod(selector),
                some: container::of_any(selector, SOME),
                unknown: container::of_any(selector, UNKNOWN),
            };
            self.by_selector.insert(selector.clone(), wide);
        }
    }

    /// The pods of a selector that names a container.
    pub(super) fn pods(&self, selector: &Selector) -> Option<&Selector> {
        self.by_selector.get(selector).map(|wide| &wide.pods)
    }

    /// Who is meant through a lens by a selector that names a container.
    pub(super) fn through(&self, lens: Lens, selector: &Selector) -> Option<&Selector> {
        let wide = self.by_selector.get(selector)?;
        match lens {
            Lens::Exact => None,
            Lens::Lenient => Some(&wide.some),
            Lens::Strict => Some(&wide.unknown),
        }
    }
}

/// Classes of those of whose pods some policy about a container speaks.
pub(super) fn contested(questions: &[QuestionId], identities: &IdentityClasses) -> BTreeSet<u32> {
    questions.iter().flat_map(|question| identities.asked(*question)).copied().collect()
}
