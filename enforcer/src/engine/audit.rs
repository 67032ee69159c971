//! What changed of what people asked for, told when it is in force. Who asked is the agent's to know.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::event::{Effect, Ticket};
use super::policies::{Loaded, PolicySet};
use super::quarantine;
use super::state::State;
use crate::domain::audit::fact::Changed;
use crate::domain::policy::model::PolicyKey;
use crate::domain::quarantine::Quarantines;

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Audited {
    /// 0 before anything was in force.
    revision: u64,
    policies: Effective,
    quarantines: Quarantines,
}

/// The policies that count, and whether they were pushed.
type Effective = BTreeMap<PolicyKey, (Arc<Loaded>, bool)>;

impl Audited {
    /// Of what an earlier agent saved: that was told by the agent that was asked for it.
    pub(super) fn new(policies: &PolicySet, quarantines: &Quarantines) -> Self {
        Self { revision: 0, policies: effective(policies), quarantines: quarantines.clone() }
    }
}

fn effective(policies: &PolicySet) -> Effective {
    let all = policies.effective();
    all.map(|(loaded, pushed)| (loaded.policy.key.clone(), (Arc::clone(loaded), pushed))).collect()
}

/// Tells what is in force now and was not when this was called last.
pub(super) fn tell(state: &mut State, ticket: Option<Ticket>, effects: &mut Vec<Effect>) {
    let mut changes = Vec::new();
    // Most changes are of workloads only, and comparing ten thousand policies for each of them is not free.
    if state.audited.revision != state.revision {
        let now = effective(&state.asked.policies);
        let before = std::mem::replace(&mut state.audited.policies, now);
        state.audited.revision = state.revision;
        compare(&before, &state.audited.policies, &mut changes);
    }
    if state.audited.quarantines != state.asked.quarantines {
        let now = state.asked.quarantines.clone();
        let before = std::mem::replace(&mut state.audited.quarantines, now);
        changes.extend(quarantine::compare(state, &before));
    }
    if !changes.is_empty() {
        effects.push(Effect::Changed { ticket, generation: state.enforced(), changes });
    }
}

fn compare(before: &Effective, now: &Effective, changes: &mut Vec<Changed>) {
    let policy =
        |key: &PolicyKey, before: Option<&(Arc<Loaded>, bool)>, after: Option<&(Arc<Loaded>, bool)>| {
            let origin = after.or(before).map_or_else(String::new, |(loaded, pushed)| {
                if *pushed { "pushed".to_owned() } else { loaded.file.clone() }
            });
            let text = |of: Option<&(Arc<Loaded>, bool)>| of.map(|(loaded, _)| loaded.text.clone());
            Changed::Policy {
                name: key.to_string(),
                kind: key.kind.label(),
                origin,
                before: text(before),
                after: text(after),
            }
        };
    for (key, after) in now {
        let old = before.get(key);
        let is_same = |(loaded, pushed): &(Arc<Loaded>, bool)| {
            *pushed == after.1 && (Arc::ptr_eq(loaded, &after.0) || loaded.text == after.0.text)
        };
        if !old.is_some_and(is_same) {
            changes.push(policy(key, old, Some(after)));
        }
    }
    for (key, old) in before.iter().filter(|(key, _)| !now.contains_key(*key)) {
        changes.push(policy(key, Some(old), None));
    }
}
