//! Quarantine in a table: precedence 1.
//!
//! Whoever carries the mark is denied everything, in both directions. Those who are let in may open flows to it: a word
//! of the same tier with a higher priority. An identity with the mark of which the scene says nothing lets nobody in, so
//! a binding that outlives its quarantine closes and does not open.

use std::collections::BTreeMap;

use enforcer_common::id::{IdentityId, RuleId};
use enforcer_common::reason::{Errno, Reason};
use enforcer_common::verdict::{Direction, Tier, Word};

use super::entries::Entries;
use super::lower::Party;
use super::questions::QuestionId;
use super::{ANY, ANY_PORT, Compiler, Target};
use crate::domain::policy::model::{Peer, PolicyMode};
use crate::domain::quarantine::is_marked;
use crate::domain::registry::Registry;
use crate::domain::table::CompileError;

/// Who may open flows to a workload in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guest {
    /// One identity.
    Identity(IdentityId),
    /// A peer as rules have them; [`Namespaces::Own`](crate::domain::policy::model::Namespaces::Own) is nobody here.
    Peer(Peer),
}

/// Guests by the identity that lets them in.
pub type Guests = BTreeMap<IdentityId, Vec<Guest>>;

/// Identities in quarantine, those with the same guests together.
#[derive(Debug, Default)]
pub(super) struct Wards<'a> {
    pub(super) list: Vec<(&'a [Guest], Vec<IdentityId>)>,
}

impl<'a> Wards<'a> {
    pub(super) fn new(registry: &Registry, guests: &'a Guests) -> Self {
        let mut wards = Self::default();
        let marked = registry.identities().filter(|(key, _)| is_marked(key)).map(|(_, id)| id);
        // By number, so that the table does not depend on the order of names.
        let marked: std::collections::BTreeSet<IdentityId> = marked.collect();
        for id in marked {
            let guests = guests.get(&id).map_or(&[][..], Vec::as_slice);
            match wards.list.iter_mut().find(|(known, _)| *known == guests) {
                Some((_, ids)) => ids.push(id),
                None => wards.list.push((guests, vec![id])),
            }
        }
        wards
    }
}

impl Compiler {
    /// The words of everyone in quarantine.
    pub(super) fn wards(
        &self,
        wards: &[(QuestionId, Vec<Party>)],
        entries: &mut Entries,
    ) -> Result<(), CompileError> {
        let deny = Word::deny(Tier::Quarantine, Errno::Perm, Reason::Quarantined, RuleId::NONE);
        let allow = Word::allow(Tier::Quarantine, Reason::AllowedByRule, RuleId::NONE).with_priority(1);
        for (ward, guests) in wards {
            let subjects = self.identities.asked(*ward);
            let target = |direction| Target {
                planes: self.planes(PolicyMode::Enforce),
                beneath: None,
                direction,
                subjects,
            };
            for direction in Direction::ALL {
                target(direction).add(entries, ANY, ANY_PORT, deny)?;
            }
            target(Direction::Ingress).add(entries, &self.parties(guests), ANY_PORT, allow)?;
            target(Direction::Ingress).mark(entries, guests)?;
        }
        Ok(())
    }
}
