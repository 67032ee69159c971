//! Where each policy stands, and since when: a view of the state that remembers its own changes.
//!
//! A policy is *programmed* when the table in force was made with it as it is now, and *enforcing* when a connection was
//! tried since then and refused (see [`canary`](super::canary)). Until the next attempt after a publication, what was proven
//! for the one before still counts for policies that were in it as they are now: the condition says of which generation it
//! speaks.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::canary::Proof;
use super::phase::Area;
use super::policies::Loaded;
use super::state::State;
use crate::domain::Mode;
use crate::domain::canary::ERRNO;
use crate::domain::conditions::{
    Condition, ConditionStatus, ConditionType, PolicyStatus, Why, is_pending, pending,
};
use crate::domain::policy::model::{PolicyKey, PolicyMode};
use crate::domain::timestamp::Timestamp;
use crate::domain::unguarded::missing_hooks;

/// Where policies stood when they were last looked at.
#[derive(Debug, Default)]
pub(super) struct Book {
    seen: Option<Seen>,
    entries: BTreeMap<PolicyKey, Entry>,
    counts: BTreeMap<&'static str, u64>,
}

/// Everything that decides where policies stand, besides themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    revision: u64,
    /// The generation in force, and whether it was made from that revision.
    generation: u64,
    is_current: bool,
    hooks: bool,
    mode: Mode,
    proof: Why,
    proven: u64,
    unconfirmed: bool,
}

#[derive(Debug)]
struct Entry {
    loaded: Arc<Loaded>,
    accepted: Timestamp,
    /// The generation in which it first was as it is now; 0 for none.
    first: u64,
    programmed: Mark,
    enforcing: Mark,
}

/// An answer with its age.
#[derive(Clone, Copy, Debug)]
struct Mark {
    status: ConditionStatus,
    why: Why,
    generation: u64,
    since: Timestamp,
}

impl Mark {
    fn new(since: Timestamp) -> Self {
        Self { status: ConditionStatus::False, why: Why::NotPublished, generation: 0, since }
    }

    /// The moment is that of the last change of the status; reasons come and go within it.
    fn becomes(&mut self, (status, why): (ConditionStatus, Why), generation: u64, now: Timestamp) {
        let since = if self.status == status { self.since } else { now };
        *self = Self { status, why, generation, since };
    }
}

/// Looks where policies stand now, if anything has changed that they depend on.
pub(super) fn note(state: &mut State) {
    let seen = look(state);
    let mut book = std::mem::take(&mut state.conditions);
    if book.seen.as_ref() != Some(&seen) {
        let now = state.now.wall;
        book.entries.retain(|key, _| state.asked.policies.has(key));
        for (loaded, is_pushed) in state.asked.policies.effective() {
            let entry =
                book.entries.entry(loaded.policy.key.clone()).or_insert_with(|| Entry::new(loaded, now));
            if !Arc::ptr_eq(&entry.loaded, loaded) {
                let is_same = entry.loaded == *loaded;
                entry.loaded = Arc::clone(loaded);
                if !is_same {
                    entry.first = 0;
                }
            }
            entry.note(state, &seen, is_pushed);
        }
        book.counts = Why::of_policies().map(|why| (why.label(), 0)).collect();
        for entry in book.entries.values() {
            *book.counts.entry(entry.enforcing.why.label()).or_default() += 1;
        }
        book.seen = Some(seen);
    }
    state.conditions = book;
}

fn look(state: &State) -> Seen {
    let published = state.published.as_ref();
    Seen {
        revision: state.revision,
        generation: state.enforced(),
        is_current: published.is_some_and(|published| published.inputs.revision == state.revision),
        hooks: lacking(state).is_some_and(|lacking| lacking.is_empty()),
        mode: state.facts.mode,
        proof: match &state.canary.proof {
            Proof::Waiting => Why::CanaryPending,
            Proof::Refused => Why::Enforcing,
            Proof::Failed(_) => Why::CanaryFailed,
            Proof::Unproven(_) => Why::NotProven,
        },
        proven: state.canary.proven,
        unconfirmed: state.asked.unconfirmed.is_some(),
    }
}

/// Hooks that should be attached and are not; `None` before the first attachment.
fn lacking(state: &State) -> Option<Vec<&'static str>> {
    Some(missing_hooks(state.hooks.as_ref()?, &state.coverage.absent))
}

impl Entry {
    fn new(loaded: &Arc<Loaded>, now: Timestamp) -> Self {
        let mark = Mark::new(now);
        Self { loaded: Arc::clone(loaded), accepted: now, first: 0, programmed: mark, enforcing: mark }
    }

    fn note(&mut self, state: &State, seen: &Seen, is_pushed: bool) {
        let now = state.now.wall;
        let policy = &self.loaded.policy;
        if self.first == 0 && seen.is_current {
            self.first = seen.generation;
        }
        let at = state.published.as_ref().map(|published| published.inputs.schedule.at);
        let programmed = if self.first == 0 {
            (ConditionStatus::False, Why::NotPublished)
        } else if at.is_some_and(|at| policy.is_over(at)) {
            (ConditionStatus::False, Why::Expired)
        } else if is_pending(policy) {
            (ConditionStatus::True, Why::PendingPeers)
        } else {
            (ConditionStatus::True, Why::Programmed)
        };
        let generation = if self.first == 0 { 0 } else { seen.generation };
        self.programmed.becomes(programmed, generation, now);
        let (status, why) = self.enforcing(state, seen, is_pushed);
        let generation = if status == ConditionStatus::True { seen.proven } else { generation };
        self.enforcing.becomes((status, why), generation, now);
    }

    fn enforcing(&self, state: &State, seen: &Seen, is_pushed: bool) -> (ConditionStatus, Why) {
        let policy = &self.loaded.policy;
        let no = |why| (ConditionStatus::False, why);
        if self.programmed.status != ConditionStatus::True {
            return no(self.programmed.why);
        }
        match seen.mode {
            Mode::Off => return no(Why::Off),
            Mode::Audit => return no(Why::AuditMode),
            Mode::Enforce => {}
        }
        if !seen.hooks {
            return no(Why::HooksNotAttached);
        }
        if policy.mode == PolicyMode::Audit {
            return no(Why::AuditMode);
        }
        if seen.proof == Why::CanaryFailed {
            return no(Why::CanaryFailed);
        }
        if self.programmed.why == Why::PendingPeers {
            return no(Why::PendingPeers);
        }
        match seen.proof {
            Why::Enforcing if seen.proven >= self.first => {
                let push = state.asked.unconfirmed.as_ref().filter(|_| is_pushed);
                let is_new = push.is_some_and(|push| push.before.get(&policy.key) != Some(&self.loaded));
                (ConditionStatus::True, if is_new { Why::Unconfirmed } else { Why::Enforcing })
            }
            Why::NotProven => (ConditionStatus::Unknown, Why::NotProven),
            _ => (ConditionStatus::Unknown, Why::CanaryPending),
        }
    }
}

/// Where a loaded policy stands.
pub(super) fn status(state: &State, loaded: &Loaded) -> PolicyStatus {
    let Some(entry) = state.conditions.entries.get(&loaded.policy.key) else {
        return PolicyStatus::default();
    };
    let condition = |kind, mark: Mark, message| Condition {
        kind,
        status: mark.status,
        reason: mark.why.label().to_owned(),
        message,
        last_transition_time: mark.since.whole_seconds(),
        observed_generation: mark.generation,
    };
    let accepted = Mark {
        status: ConditionStatus::True,
        why: Why::Accepted,
        generation: entry.programmed.generation,
        since: entry.accepted,
    };
    let (programmed, enforcing) = (entry.programmed, entry.enforcing);
    PolicyStatus {
        summary: enforcing.why.label().to_owned(),
        generation: entry.first,
        since: enforcing.since.whole_seconds(),
        pending: pending(&loaded.policy),
        conditions: vec![
            condition(ConditionType::Accepted, accepted, "it is valid and loaded".to_owned()),
            condition(ConditionType::Programmed, programmed, message(state, loaded, programmed)),
            condition(ConditionType::Enforcing, enforcing, message(state, loaded, enforcing)),
        ],
    }
}

/// Where a loaded policy stands, in a word.
pub(super) fn word(state: &State, loaded: &Loaded) -> &'static str {
    let entry = state.conditions.entries.get(&loaded.policy.key);
    entry.map_or(Why::NotPublished.label(), |entry| entry.enforcing.why.label())
}

/// Policies by the word for where they stand, words without policies included.
pub(super) fn counts(state: &State) -> &BTreeMap<&'static str, u64> {
    &state.conditions.counts
}

/// Peers of all policies that are accepted and match nobody yet.
pub(super) fn all_pending(state: &State) -> Vec<String> {
    let policies = state.asked.policies.effective().map(|(loaded, _)| &loaded.policy);
    policies
        .filter(|policy| is_pending(policy))
        .flat_map(|policy| pending(policy).into_iter().map(|peer| format!("{} {peer}", policy.key)))
        .collect()
}

fn message(state: &State, loaded: &Loaded, mark: Mark) -> String {
    let generation = mark.generation;
    match mark.why {
        Why::Accepted => "it is valid and loaded".to_owned(),
        Why::Programmed => format!("generation {generation} has it"),
        Why::Enforcing => {
            format!(
                "under generation {generation} a call that is denied was tried and refused with {}",
                ERRNO.name()
            )
        }
        Why::Unconfirmed => match &state.asked.unconfirmed {
            Some(push) => format!(
                "it is enforced, and taken back at {} unless `enforcer policy confirm` comes first",
                push.until.wall.whole_seconds()
            ),
            None => "it is enforced, and its push is being settled".to_owned(),
        },
        Why::NotPublished => not_published(state),
        Why::Expired => match loaded.policy.expires {
            Some(expires) => {
                format!("it expired at {} and is left out of the table", expires.whole_seconds())
            }
            None => "it expired and is left out of the table".to_owned(),
        },
        Why::PendingPeers => {
            format!("these peers are accepted and match nobody yet: {}", pending(&loaded.policy).join("; "))
        }
        Why::HooksNotAttached => match lacking(state) {
            None => "the hooks are not attached yet".to_owned(),
            Some(lacking) => format!("hooks that judge are not attached: {}", lacking.join(" ")),
        },
        Why::AuditMode if state.facts.mode == Mode::Audit => {
            "the agent's mode is audit: what it denies is reported and let through".to_owned()
        }
        Why::AuditMode => "the policy's mode is audit: what it denies is reported and let through".to_owned(),
        Why::Off => "the agent's mode is off: nothing is judged".to_owned(),
        Why::CanaryFailed | Why::NotProven => match &state.canary.proof {
            Proof::Failed(message) => {
                format!("a call that is denied was not refused as it should be: {message}")
            }
            Proof::Unproven(message) => format!("not proven: {message}"),
            _ => "not proven".to_owned(),
        },
        Why::CanaryPending => {
            format!("generation {generation} has it, and no call has been tried under it yet")
        }
    }
}

/// What a policy waits for that is not in the table.
fn not_published(state: &State) -> String {
    let problem = state.problems.iter().find_map(|((area, _), problem)| {
        let is_meant = matches!(area, Area::Table | Area::Store | Area::Kernel)
            || (*area == Area::Source && !state.missing.is_empty());
        is_meant.then_some(problem)
    });
    let before = match (state.enforced(), &state.published) {
        (0, _) => String::new(),
        (generation, None) => format!("; generation {generation} of the last run is enforced meanwhile"),
        (generation, Some(_)) => format!("; generation {generation} without it is enforced meanwhile"),
    };
    let missing: Vec<&str> = state.missing.iter().map(String::as_str).collect();
    let waits = match problem {
        Some(problem) => problem.clone(),
        None if state.programmed.is_none() => "the agent is starting".to_owned(),
        None if !missing.is_empty() => {
            format!("the agent waits for the first word of {}", missing.join(", "))
        }
        None => "it is about to be published".to_owned(),
    };
    format!("no table has it yet: {waits}{before}")
}
