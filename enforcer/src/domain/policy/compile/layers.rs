//! The layers in which rules have an order, and what stands beneath a rule that passes.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_common::abi::policy::Plane;
use enforcer_common::id::RuleId;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::{Tier, Word};

use super::Compiler;
use super::containers::Lens;
use super::lower::{LoweredPolicy, LoweredRule};
use crate::domain::policy::model::{Action, Layer, Policy, RuleDirection};
use crate::domain::table::CompileError;

/// Places in an order.
const PLACES: u64 = 1 << 16;

/// Places of the rules of ordered layers: the first has the highest priority.
#[derive(Debug, Default)]
pub(super) struct Ranks {
    by_rule: BTreeMap<RuleId, u16>,
}

impl Ranks {
    pub(super) fn new(live: &[LoweredPolicy<'_>]) -> Result<Self, CompileError> {
        let mut orders: BTreeMap<(bool, RuleDirection), Vec<_>> = BTreeMap::new();
        for LoweredPolicy { policy, sections, .. } in live {
            let (is_admin, priority) = match policy.layer {
                Layer::Admin { priority } => (true, priority),
                Layer::Baseline { priority } => (false, priority),
                Layer::Namespaced => continue,
            };
            for section in sections {
                let order = orders.entry((is_admin, section.section)).or_default();
                order.extend(section.rules.iter().enumerate().map(|(index, lowered)| {
                    (priority, policy.key.name.as_str(), &policy.key, index, lowered.id)
                }));
            }
        }
        let mut by_rule = BTreeMap::new();
        for ((is_admin, _), mut order) in orders {
            let what = if is_admin { "rules of the admin tier" } else { "rules of the baseline tier" };
            CompileError::check(what, order.len() as u64, PLACES)?;
            order.sort_unstable();
            // A policy about a container comes once for each lens.
            order.dedup();
            by_rule.extend(order.into_iter().map(|(.., id)| id).zip((0..=u16::MAX).rev()));
        }
        Ok(Self { by_rule })
    }

    /// The word of a rule. A lenient one denies nothing, and lets through what it would pass on; a strict one allows nothing, and
    /// denies what it would pass on.
    pub(super) fn word(
        &self,
        policy: &Policy,
        section: RuleDirection,
        lowered: &LoweredRule<'_>,
        lens: Lens,
    ) -> Word {
        let LoweredRule { rule, id, .. } = lowered;
        let errno = rule.errno.unwrap_or(policy.errno);
        let place = self.by_rule.get(id).copied().unwrap_or(0);
        let tier = match (policy.layer, rule.action) {
            (Layer::Admin { .. }, _) => Tier::Admin,
            (Layer::Baseline { .. }, _) => Tier::Baseline,
            // Precedence 4 and 3.
            (Layer::Namespaced, Action::Allow) => Tier::Allow,
            (Layer::Namespaced, Action::Deny) => Tier::Deny,
            // Documents can't say this: it is as if the rule was not there.
            (Layer::Namespaced, Action::Pass) => return Word::NONE,
        };
        let word = match (rule.action, lens) {
            (Action::Allow, Lens::Strict) | (Action::Deny, Lens::Lenient) => return Word::NONE,
            (Action::Allow, _) => Word::allow(tier, Reason::AllowedByRule, *id),
            (Action::Deny, _) => Word::deny(tier, errno, Reason::DeniedByRule, *id),
            (Action::Pass, _) if tier == Tier::Admin => match lens {
                Lens::Exact => Word::allow(tier, Reason::Passed, *id),
                Lens::Lenient => Word::allow(tier, Reason::AllowedByRule, *id),
                Lens::Strict => Word::deny(tier, errno, Reason::DeniedByRule, *id),
            },
            // Beneath the baseline tier there is only the default, which what stands behind the rule is no more than.
            (Action::Pass, Lens::Strict) => return Word::NONE,
            // Of sockets it is the configuration, which the table does not know: whoever asks takes it for the last word.
            (Action::Pass, _) if section == RuleDirection::Sockets => Word::allow(tier, Reason::Passed, *id),
            (Action::Pass, _) => Word::allow(tier, Reason::AllowedByDefault, RuleId::NONE),
        };
        word.with_priority(place)
    }
}

/// For whom the planes beneath are filled: the subjects that Pass rules of the admin tier select.
#[derive(Debug, Default)]
pub(super) struct Beneath {
    subjects: BTreeMap<(bool, RuleDirection), BTreeSet<u32>>,
}

impl Beneath {
    pub(super) fn new(live: &[LoweredPolicy<'_>], compiler: &Compiler) -> Self {
        let mut subjects: BTreeMap<_, BTreeSet<u32>> = BTreeMap::new();
        for LoweredPolicy { policy, subjects: question, sections, lens } in live {
            if !policy.layer.is_admin() || *lens != Lens::Exact {
                continue;
            }
            for section in sections {
                let passes = section
                    .rules
                    .iter()
                    .any(|lowered| lowered.rule.action == Action::Pass && !lowered.rule.is_over(compiler.at));
                if !passes {
                    continue;
                }
                let classes = compiler.identities.asked(*question);
                for plane in compiler.planes(policy.mode) {
                    let key = (*plane == Plane::Hypothetical, section.section);
                    subjects.entry(key).or_default().extend(classes);
                }
            }
        }
        Self { subjects }
    }

    /// Whether a flow of this subject can meet a Pass rule in this plane.
    pub(super) fn contains(&self, plane: Plane, section: RuleDirection, subject: u32) -> bool {
        let subjects = self.subjects.get(&(plane == Plane::Hypothetical, section));
        subjects.is_some_and(|subjects| subjects.contains(&subject))
    }
}
