//! What passes with time: which tables follow the one in force, and what the engine does when their time has come.
//!
//! The kernel needs nobody for it. The engine follows on its next tick, publishing the same verdicts as the table that
//! took over, so that what it says is what is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cluster::Looks;
use super::event::{Effect, Level};
use super::planning::Asked;
use super::policies::{PolicySet, refused};
use super::quarantine;
use super::state::{Inputs, State};
use crate::domain::command::Refused;
use crate::domain::id::Generation;
use crate::domain::policy::compile::{Classifier, Compiled, Scene, compile_growing};
use crate::domain::policy::model::{Policy, RuleKey};
use crate::domain::publication::{Publication, SUCCESSORS};
use crate::domain::registry::Registry;
use crate::domain::time::{BootTime, Offset};
use crate::domain::timestamp::Timestamp;

/// When which policies count. A table is made again when this differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// What is judged as the present.
    pub(super) at: Timestamp,
    /// What is over already, as far as it was ever ahead.
    pub(super) over: BTreeSet<Timestamp>,
    /// The moments ahead, with the wall clock's word for each.
    pub(super) ahead: BTreeMap<BootTime, Timestamp>,
    /// Between the clocks.
    pub(super) offset: Offset,
    /// When the policies before an unconfirmed push come back.
    pub(super) back: Option<BootTime>,
}

impl Schedule {
    /// The schedule of what is asked for, now.
    pub(super) fn new(state: &State, asked: &Asked, looks: &Looks) -> Self {
        let offset = offset(state);
        let at = offset.wall(state.now.boot);
        let back = asked.unconfirmed.as_ref().map(|push| push.until.boot);
        let mut over = BTreeSet::new();
        let mut ahead: BTreeMap<BootTime, Timestamp> =
            back.map(|back| (back, offset.wall(back))).into_iter().collect();
        for (moment, is_before) in &looks.expiries {
            let from = offset.boot(*moment);
            if *moment <= at {
                over.insert(*moment);
            } else if back.is_none_or(|back| (from >= back) == *is_before) {
                ahead.insert(from, *moment);
            }
        }
        Self { at, over, ahead, offset, back }
    }

    /// Whether tables made by the other schedule are right by this one. Time alone makes no difference.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let clocks = self.ahead.is_empty() || self.offset == other.offset;
        clocks && self.over == other.over && self.back == other.back
    }
}

/// Between the clocks. What was published counts by the clocks as they were then, unless they were set meanwhile.
fn offset(state: &State) -> Offset {
    let now = state.now.offset();
    state.published.as_ref().map_or(now, |published| published.inputs.schedule.offset.unless_set(now))
}

/// Makes the table in force and its successors, each with what tells classes of identities that come later.
pub(super) fn tables(
    asked: &Asked,
    inputs: &Inputs,
    registry: &mut Registry,
    generation: Generation,
) -> Result<(Publication, Arc<[Classifier]>), Refused> {
    let Inputs { schedule, guests, namespaces, services, trust_domain, .. } = inputs;
    if schedule.ahead.len() > SUCCESSORS {
        return Err(refused(format!(
            "the policies have {} moments ahead at which something expires, and the kernel keeps {SUCCESSORS}: round \
             the times of `expiresAt`, so that several rules expire together; nothing was changed",
            schedule.ahead.len(),
        )));
    }
    let before = asked.before();
    let mut scene = Scene {
        at: schedule.at,
        guests: guests.clone(),
        namespaces: (**namespaces).clone(),
        services: services.values().map(|service| (**service).clone()).collect(),
        trust_domain: trust_domain.clone(),
    };
    let mut table = |at: Timestamp, is_back: bool| {
        let set: &PolicySet = before.as_ref().filter(|_| is_back).unwrap_or(&asked.policies);
        scene.at = at;
        let policies = set.effective().map(|(loaded, _)| &loaded.policy);
        compile_growing(policies, &scene, registry, generation).map_err(|error| {
            refused(format!("{error}: split the policies into fewer distinct selectors; nothing was changed"))
        })
    };
    let Compiled { table: first, classifier } = table(schedule.at, false)?;
    let mut classifiers = vec![classifier];
    let mut next = Vec::with_capacity(schedule.ahead.len());
    for (from, at) in &schedule.ahead {
        let is_back = schedule.back.is_some_and(|back| back <= *from);
        let Compiled { table, classifier } = table(*at, is_back)?;
        next.push((*from, Arc::new(table)));
        classifiers.push(classifier);
    }
    Ok((Publication { table: Arc::new(first), next }, classifiers.into()))
}

/// Does what time has brought. Not while a change is under way: what it was made from must not pass away beneath it.
pub(super) fn pass(state: &mut State, effects: &mut Vec<Effect>) {
    quarantine::expire(state, effects);
    roll_back(state, effects);
    let Some(published) = &state.published else { return };
    let schedule = &published.inputs.schedule;
    let clocks_set = !schedule.ahead.is_empty() && offset(state) != schedule.offset;
    if clocks_set || published.publication.has_passed(state.now.boot) {
        state.dirty = true;
    }
}

/// Takes an unconfirmed push back whose time is over.
fn roll_back(state: &mut State, effects: &mut Vec<Effect>) {
    let now = state.now.boot;
    if state.asked.unconfirmed.as_ref().is_none_or(|push| push.until.boot > now) {
        return;
    }
    let asked = Arc::make_mut(&mut state.asked);
    let Some(push) = asked.unconfirmed.take() else { return };
    asked.policies.pushed = push.before;
    state.revision += 1;
    state.dirty = true;
    state.touched = true;
    super::note_conflicts(state);
    let message = taken_back(push.since, push.until.wall);
    effects.push(Effect::Log { level: Level::Warn, message: message.clone() });
    state.rolled_back = Some(message);
}

/// What is said of a push that was taken back.
pub(super) fn taken_back(since: Timestamp, until: Timestamp) -> String {
    format!(
        "the push of {} was not confirmed by {} and was taken back: the policies before it are in force",
        since.whole_seconds(),
        until.whole_seconds()
    )
}

/// Says what is over since the last time.
pub(super) fn tell(state: &mut State, at: Timestamp, effects: &mut Vec<Effect>) {
    let over: BTreeSet<(String, Timestamp)> =
        state.asked.policies.effective().flat_map(|(loaded, _)| over(&loaded.policy, at)).collect();
    for (what, expired) in over.difference(&state.over) {
        let message = format!("{what} expired at {} and is left out", expired.whole_seconds());
        effects.push(Effect::Log { level: Level::Info, message });
    }
    state.over = over;
}

fn over(policy: &Policy, at: Timestamp) -> Vec<(String, Timestamp)> {
    if policy.is_over(at) {
        return policy
            .expires
            .map(|expires| (format!("policy {}", policy.key), expires))
            .into_iter()
            .collect();
    }
    let rules = policy.all_rules().filter(|(_, _, rule)| rule.is_over(at));
    rules
        .filter_map(|(direction, index, rule)| {
            let key = RuleKey { policy: policy.key.clone(), direction, index: Some(index) };
            Some((format!("rule {key}"), rule.expires?))
        })
        .collect()
}
