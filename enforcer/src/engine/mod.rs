//! The engine: from everything that happens to everything that should be done. Pure: it computes, and others act.
//!
//! ```text
//!  Starting --Adopted--> Syncing --first change complete--> Enforcing <--> Degraded
//!      |                    |                                   |  problems: none / some
//!      |  unknown numbers   +----------------+------------------+
//!      +------> Refuse                       | Shutdown
//!                                            v
//!                                        Draining --change under way complete--> Stop (links stay)
//! ```
//!
//! * *Starting*: the kernel is not ready. Questions are answered, changes wait.
//! * *Syncing*: required sources have not spoken, or the first tables are not in force. What an earlier agent left in
//!   the kernel keeps enforcing and is not touched: a table made from half of the policies would open what the other
//!   half closes. For the same reason a source that can't be read keeps the agent here, with its reason.
//! * *Enforcing*, *Degraded*: the last good state is in force. Every problem has an [`Area`] (a metric label) and one
//!   sentence (readiness, status, log), and goes away when its cause does.
//! * *Draining*: no new change begins; the one under way is completed and answered.
//!
//! # Batches
//! [`step`] takes events one by one. Events only note what they say; work begins at [`Event::Quiet`], which the agent
//! sends when nothing else is pending, and while a change is under way everything else waits for its end. So any
//! number of events costs one publication, and a push is never mixed with another push.
//!
//! # What must stay true
//! * The wanted state is a function of what each source has told, the pushed documents and the registry, never
//!   of the order of events (property-tested).
//! * At most one acknowledged effect is outstanding.
//! * A request that is taken is answered exactly once, unless its sender is gone before its turn; a push is answered
//!   when its tables are in force and the hooks are attached, or with what kept it from being so. Then it has changed
//!   nothing; but where only the hooks are missing it is kept, which the answer says.

mod addresses;
mod audit;
mod canary;
mod change;
mod claims;
mod cluster;
mod conditions;
mod confirm;
mod containers;
mod event;
mod explain;
mod index;
mod keys;
mod objects;
mod phase;
mod planning;
mod policies;
mod quarantine;
mod room;
mod schedule;
mod services;
mod state;
mod sums;
mod told;
mod views;

#[cfg(test)]
mod tests;

pub use event::{
    Adopted, Done, Effect, Event, Facts, Level, MANAGED, OWN, POLICIES, POLICY_OBJECTS, Remembered, Report,
    Save, Step, Ticket,
};
pub use phase::{Area, Phase};
pub use room::Limits;
pub use state::{Error, State};
pub use sums::Sums;
pub use views::opened_kinds;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use self::policies::refused;
use self::state::Waiting;
use self::told::{Changed, Origin, Source};
use crate::domain::command::{PolicyFile, Reply, Request};
use crate::domain::delta::Tables;
use crate::domain::id::{CgroupId, Generation, IdentityId, RuleId};
use crate::domain::time::Clocks;
use crate::domain::workload::WorkloadEvent;

/// Diagnostics of a directory that are shown in full; the rest is counted.
const SHOWN_DIAGNOSTICS: usize = 3;

/// Takes one event and says what is to be done about it, in this order.
#[must_use]
pub fn step(state: &mut State, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    // Time and questions change none of the numbers, and counting ten thousand workloads every second is not free.
    let is_news =
        !matches!(event, Event::Tick(_) | Event::Quiet | Event::Coverage(_) | Event::Request { .. });
    state.touched |= is_news;
    state.sums.1 |= is_news;
    match event {
        Event::Adopted(adopted) => adopt(state, adopted, &mut effects),
        Event::Workloads(WorkloadEvent::Snapshot { source, workloads, namespaces, services }) => {
            told(state, source, true, |told, changed| told.replace(workloads, namespaces, services, changed));
        }
        Event::Workloads(WorkloadEvent::Changes { source, changes }) => {
            told(state, source, false, |told, changed| told.change(*changes, changed));
        }
        Event::Workloads(WorkloadEvent::Standing { source, standing }) => {
            state.standings.insert(source, standing);
        }
        Event::Workloads(WorkloadEvent::Problem { source, message }) => {
            state.set_problem(Area::Source, &source, Some(message));
        }
        Event::Managed(directories) => managed(state, directories),
        Event::OwnAddresses(addresses) => own_addresses(state, addresses),
        Event::PolicyFiles(files) => policy_files(state, files),
        Event::PolicyObjects(objects) => objects::take(state, objects),
        Event::Source(info) => objects::source(state, info),
        Event::SourceProblem { source, message } => {
            state.set_problem(Area::Source, source, Some(message));
        }
        Event::Request { ticket, request, now } => {
            state.now = now;
            ask(state, ticket, request, &mut effects);
        }
        Event::Gone(ticket) => state.queue.retain(|waiting| waiting.ticket != ticket),
        Event::Done(done) => change::done(state, done, &mut effects),
        Event::Failed { step, message } => change::failed(state, step, &message, &mut effects),
        Event::KernelProblems(problems) => {
            let numbered = problems.into_iter().enumerate().map(|(at, message)| (at.to_string(), message));
            state.set_problems(Area::Drift, numbered);
        }
        Event::Coverage(coverage) => state.coverage = coverage,
        Event::KernelSeen { notices, hooks } => kernel_seen(state, notices, hooks, &mut effects),
        Event::Canary(told) => canary::note(state, told),
        Event::Part { name, problem } => state.set_problem(Area::Part, name, problem),
        Event::Tick(now) => tick(state, now),
        Event::Quiet => {
            refuse_blocked(state, &mut effects);
            change::begin(state, &mut effects);
            state.report(&mut effects);
        }
        Event::Shutdown => drain(state, &mut effects),
    }
    conditions::note(state);
    state.announce(&mut effects);
    effects
}

/// Takes over what the kernel has, unless its numbers mean something else than the registry says.
fn adopt(state: &mut State, adopted: Adopted, effects: &mut Vec<Effect>) {
    let Adopted { generation, bindings, addresses, own, counted, counted_rules } = adopted;
    let identities: BTreeSet<IdentityId> = state.registry.identities().map(|(_, id)| id).collect();
    let rules: BTreeSet<RuleId> = state.registry.rules().map(|(_, id)| id).collect();
    let bound = bindings.values().flat_map(|bound| [bound.identity, bound.after]);
    let unknown = bound
        .chain(addresses.values().copied())
        .chain(counted)
        .find(|id| *id >= IdentityId::FIRST_WORKLOAD && !identities.contains(id))
        .map(|id| format!("identity {id}"));
    let unknown_rule = || {
        counted_rules
            .iter()
            .find(|id| **id != RuleId::NONE && !rules.contains(id))
            .map(|id| format!("rule {id}"))
    };
    if let Some(unknown) = unknown.or_else(unknown_rule) {
        effects.push(Effect::Refuse(format!(
            "the kernel maps under {pins} use {unknown}, which the saved registry does not know, so they were made \
             with another state directory: start with that one, or run `enforcer uninstall` to begin anew",
            pins = state.facts.pins,
        )));
        return;
    }
    let (bindings, addresses) = (bindings.into_iter().collect(), addresses.into_iter().collect());
    state.programmed = Some(Tables { bindings, addresses, own });
    state.generation = generation.unwrap_or(Generation(0));
    state.adopted = generation;
    state.dirty = true;
    effects.extend(state.rolled_back.clone().map(|message| Effect::Log { level: Level::Warn, message }));
}

/// Takes what a source says; a snapshot also says that it is all there is.
fn told(state: &mut State, name: String, is_all: bool, take: impl FnOnce(&mut Source, &mut Changed)) {
    state.set_problem(Area::Source, &name, None);
    state.dirty |= is_all && state.missing.remove(&name);
    take(state.sources.entry(Origin::new(name)).or_default(), &mut state.changed);
    let namespaces = std::mem::take(&mut state.changed.namespaces);
    if !namespaces.is_empty() {
        cluster::follow(&mut state.namespaces, &state.sources, &namespaces);
        state.namespaces_version += 1;
        state.dirty = true;
    }
    state.dirty |= !state.changed.is_empty();
}

fn managed(state: &mut State, directories: BTreeMap<String, Option<CgroupId>>) {
    state.set_problem(Area::Source, MANAGED, None);
    let absent = directories.iter().filter(|(_, id)| id.is_none()).map(|(directory, _)| {
        let message = format!(
            "managed cgroup {directory} does not exist, so nothing is denied by default there; it is picked up when \
             it appears"
        );
        (directory.clone(), message)
    });
    state.set_problems(Area::Managed, absent);
    if state.missing.remove(MANAGED) || state.managed != directories {
        state.managed = directories;
        state.dirty = true;
    }
}

/// Notes what was seen, and says what is new of it.
fn kernel_seen(state: &mut State, notices: Vec<String>, hooks: Vec<String>, effects: &mut Vec<Effect>) {
    for notice in notices.iter().filter(|notice| !state.notices.contains(notice)) {
        effects.push(Effect::Log { level: Level::Warn, message: notice.clone() });
    }
    state.notices = notices;
    // Before the first attachment there is nothing to be lost.
    if state.hooks.is_some() {
        state.hooks = Some(hooks);
    }
}

fn own_addresses(state: &mut State, addresses: BTreeSet<IpAddr>) {
    state.set_problem(Area::Source, OWN, None);
    if state.own.as_ref() != Some(&addresses) {
        state.own = Some(addresses);
        state.dirty = true;
    }
}

/// Takes the files of the directories if all of them are good; otherwise the last good ones stay.
fn policy_files(state: &mut State, files: Vec<PolicyFile>) {
    if state.files.as_ref() == Some(&files) {
        state.set_problem(Area::Source, POLICIES, None);
        return;
    }
    match policies::parse(&files) {
        Ok(documents) => {
            state.set_problem(Area::Source, POLICIES, None);
            state.files = Some(files);
            state.missing.remove(POLICIES);
            if state.asked.policies.directory != documents {
                Arc::make_mut(&mut state.asked).policies.directory = documents;
                state.revision += 1;
            }
            state.dirty = true;
            note_conflicts(state);
        }
        Err(diagnostics) => {
            let shown: Vec<&str> = diagnostics.iter().take(SHOWN_DIAGNOSTICS).map(String::as_str).collect();
            let more = match diagnostics.len().saturating_sub(SHOWN_DIAGNOSTICS) {
                0 => String::new(),
                more => format!(" | and {more} more"),
            };
            let kept =
                if state.files.is_some() { "the last good ones stay in force" } else { "none is used yet" };
            state.set_problem(
                Area::Source,
                POLICIES,
                Some(format!(
                    "the policy files have problems and {kept}; `enforcer policy validate` shows them all: {}{more}",
                    shown.join(" | "),
                )),
            );
        }
    }
}

/// Notes which documents a policy of another origin keeps from counting, and which objects of the cluster are refused.
fn note_conflicts(state: &mut State) {
    let mut conflicts: Vec<_> = state.asked.policies.conflicts().collect();
    conflicts.extend(objects::refused(&state.objects));
    state.set_problems(Area::Policy, conflicts);
}

/// Answers a question at once; a change waits for its turn.
fn ask(state: &mut State, ticket: Ticket, request: Request, effects: &mut Vec<Effect>) {
    match request {
        Request::PolicyList
        | Request::IdentityList
        | Request::EndpointList
        | Request::QuarantineList
        | Request::PolicyObjects
        | Request::Explain { .. }
        | Request::ExplainSocket { .. }
        | Request::Status => {
            effects.push(Effect::Reply { ticket, reply: views::answer(state, &request) });
        }
        Request::PolicyApply { .. }
        | Request::PolicyConfirm { .. }
        | Request::PolicyDelete { .. }
        | Request::QuarantineAdd(_)
        | Request::QuarantineRelease { .. } => {
            if state.draining {
                effects.push(Effect::Reply { ticket, reply: Reply::Refused(refused(ENDING)) });
            } else {
                state.queue.push_back(Waiting { ticket, request });
            }
        }
    }
}

const ENDING: &str = "the agent is ending; nothing was changed: start it again and repeat the command";

/// Changes can't wait for a source that is not there: says so instead of letting the caller hang.
fn refuse_blocked(state: &mut State, effects: &mut Vec<Effect>) {
    let blocking =
        state.missing.iter().find_map(|source| state.problems.get(&(Area::Source, source.clone())));
    let Some(problem) = blocking.cloned() else { return };
    for Waiting { ticket, .. } in state.queue.drain(..) {
        let reply = Reply::Refused(refused(format!(
            "the agent takes no changes before its sources are read: {problem}"
        )));
        effects.push(Effect::Reply { ticket, reply });
    }
}

fn tick(state: &mut State, now: Clocks) {
    state.now = now;
    if state.sums.1 {
        state.sums = (sums::sums(state), false);
        state.touched = true;
    }
    if state.retry.is_some_and(|retry| retry.at <= now.up) && state.in_flight.is_none() {
        state.dirty = true;
    }
}

fn drain(state: &mut State, effects: &mut Vec<Effect>) {
    if std::mem::replace(&mut state.draining, true) {
        return;
    }
    for Waiting { ticket, .. } in state.queue.drain(..) {
        effects.push(Effect::Reply { ticket, reply: Reply::Refused(refused(ENDING)) });
    }
    if state.in_flight.is_none() {
        effects.push(Effect::Stop);
    }
}
