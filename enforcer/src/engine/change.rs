//! A change on its way: save, publish, apply, attach.
//!
//! There is one at a time. Its order is what keeps a crash at any point harmless: numbers and pushed documents are on
//! disk before the kernel knows them; the tables know an identity before something is bound to it; the hooks are
//! attached when there is something to enforce. What fails leaves the last good state in force, is a problem until it
//! works, and is tried again with growing pauses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::event::{Done, Effect, Level, Save, Step};
use super::phase::Area;
use super::planning::{Answer, Plan, as_it_is, known_only as known_operations, plan, requested};
use super::policies::refused;
use super::state::{Published, Retry, State, Stored};
use super::{audit, keys, schedule, views};
use crate::domain::command::Reply;
use crate::domain::delta::Operation;

/// Pause before the first repetition of a failed change.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between repetitions.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Failed operations that are named one by one.
const NAMED_FAILURES: usize = 3;

/// A change of which one step was asked for and is not acknowledged.
#[derive(Debug)]
pub(super) struct InFlight {
    step: Step,
    plan: Plan,
    save: Save,
    operations: Vec<Operation>,
    failed: bool,
}

/// Begins what waits, if nothing is under way: pushes in the order of their arrival, one change each, then whatever
/// the sources said meanwhile, as one change.
pub(super) fn begin(state: &mut State, effects: &mut Vec<Effect>) {
    // What a change under way was made from must not pass away beneath it.
    if state.in_flight.is_none() {
        schedule::pass(state, effects);
    }
    if state.draining || !state.synced() {
        return;
    }
    while state.in_flight.is_none() {
        let Some(waiting) = state.queue.pop_front() else { break };
        match requested(state, &waiting) {
            Ok(plan) if plan.widens => {
                state.queue.push_front(waiting);
                start(state, plan, effects);
            }
            Ok(plan) => start(state, plan, effects),
            Err(reply) => effects.push(Effect::Reply { ticket: waiting.ticket, reply }),
        }
    }
    if state.in_flight.is_none() && state.dirty {
        refresh(state, effects);
    }
}

/// Brings the kernel to what the sources say.
fn refresh(state: &mut State, effects: &mut Vec<Effect>) {
    let wanted = state.keys_now();
    if let Some(first) = keys::widen(state, &wanted) {
        start(state, first, effects);
        if state.in_flight.is_some() {
            state.dirty = true;
            return;
        }
    }
    // What nobody names any more is left out.
    state.keys = wanted;
    state.dirty = false;
    match plan(state, Arc::clone(&state.asked), state.revision) {
        Ok(plan) => {
            state.set_problem(Area::Table, "table", None);
            start(state, plan, effects);
        }
        Err(refused) => {
            state.set_problem(Area::Table, "table", Some(refused.message));
            let plan = as_it_is(state);
            known_only(state, flight(plan, Save::default()), effects);
        }
    }
}

fn flight(plan: Plan, save: Save) -> InFlight {
    InFlight { step: Step::Save, plan, save, operations: Vec::new(), failed: false }
}

fn start(state: &mut State, plan: Plan, effects: &mut Vec<Effect>) {
    state.dirty = false;
    let save = unsaved(state, &plan);
    advance(state, flight(plan, save), effects);
}

/// What has to be on disk before the kernel learns of this plan.
fn unsaved(state: &State, plan: &Plan) -> Save {
    let registry = plan.registry.as_ref().unwrap_or(&state.registry);
    let registry = (registry.last() != state.saved).then(|| registry.clone());
    if plan.widens || is_settled(state, plan) {
        return Save { registry, ..Save::default() };
    }
    let Stored { documents, quarantines, confirmation } = Stored::of(&plan.asked);
    let stored = &state.stored;
    Save {
        registry,
        remove: stored.documents.keys().filter(|key| !documents.contains_key(key)).cloned().collect(),
        write: documents.into_iter().filter(|(key, text)| stored.documents.get(key) != Some(text)).collect(),
        quarantines: quarantines.filter(|wanted| stored.quarantines.as_ref() != Some(wanted)),
        confirmation: confirmation.filter(|wanted| stored.confirmation.as_ref() != Some(wanted)),
    }
}

/// Whether the disk has what is asked for, but for numbers.
fn is_settled(state: &State, plan: &Plan) -> bool {
    state.settled.as_ref().is_some_and(|settled| Arc::ptr_eq(settled, &plan.asked))
}

/// Asks for the next step that has something to do, beginning with the flight's own; ends the change after the last.
fn advance(state: &mut State, mut flight: InFlight, effects: &mut Vec<Effect>) {
    if flight.step == Step::Save {
        if flight.save != Save::default() {
            effects.push(Effect::Save(Box::new(flight.save.clone())));
            state.in_flight = Some(flight);
            return;
        }
        state.set_problem(Area::Store, "save", None);
        if !flight.plan.widens {
            state.settled = Some(Arc::clone(&flight.plan.asked));
        }
        flight.step = Step::Publish;
    }
    if flight.step == Step::Publish {
        if let Some(registry) = flight.plan.registry.take() {
            state.registry = registry;
        }
        if views::bring_names(state, &flight.plan.asked) {
            effects.push(Effect::PublishNames(Arc::clone(&state.names)));
        }
        if let Some(Published { publication, .. }) = &flight.plan.table {
            state.generation = publication.table.generation();
            let publication = Arc::clone(publication);
            let placed = flight.plan.placed.clone();
            effects.push(if placed.is_empty() {
                Effect::Publish(publication)
            } else {
                Effect::Place { publication, placed }
            });
            state.in_flight = Some(flight);
            return;
        }
        // Nothing to publish: what is in force is what is wanted.
        state.set_problem(Area::Kernel, "publish", None);
        settle(state, &mut flight, effects);
    }
    if flight.step == Step::Apply {
        flight.operations = std::mem::take(&mut flight.plan.operations);
        if !flight.operations.is_empty() {
            effects.push(Effect::Apply(flight.operations.clone()));
            state.in_flight = Some(flight);
            return;
        }
        state.set_problem(Area::Kernel, "apply", None);
        bound(state, &mut flight, None, effects);
        flight.step = Step::Attach;
    }
    if state.hooks.is_none() && state.published.is_some() {
        effects.push(Effect::Attach);
        state.in_flight = Some(flight);
        return;
    }
    finish(state, flight.failed, effects);
}

/// The policies of the plan are what the kernel's hooks go by: answers who asked for it, unless there are no hooks yet.
fn settle(state: &mut State, flight: &mut InFlight, effects: &mut Vec<Effect>) {
    let is_asked = !flight.plan.widens;
    if is_asked && !Arc::ptr_eq(&state.asked, &flight.plan.asked) {
        state.asked = Arc::clone(&flight.plan.asked);
        super::note_conflicts(state);
        let wanted = state.keys_now();
        state.dirty |= state.keys != wanted;
    }
    if is_asked && state.revision != flight.plan.revision {
        // Of the pushes before this one there is nothing to be said any more.
        state.rolled_back = None;
    }
    if is_asked {
        state.revision = flight.plan.revision;
    }
    if let Some(published) = flight.plan.table.take() {
        if flight.plan.placed.is_empty() {
            schedule::tell(state, published.inputs.schedule.at, effects);
        }
        state.published = Some(published);
    }
    if is_asked {
        audit::tell(state, flight.plan.answer.as_ref().map(|answer| answer.ticket), effects);
    }
    if state.hooks.is_some() && flight.plan.answer.as_ref().is_some_and(|answer| !answer.bindings) {
        answer(flight, effects);
    }
    flight.step = Step::Apply;
}

/// The bindings of the plan are in the kernel, but for those that it refused: answers who waited for that.
fn bound(state: &State, flight: &mut InFlight, refusal: Option<&str>, effects: &mut Vec<Effect>) {
    if let Some(refusal) = refusal
        && let Some(answer) = flight.plan.answer.take()
    {
        let message = format!("{refusal}; the change is saved, and in force as soon as that is corrected");
        effects.push(Effect::Reply { ticket: answer.ticket, reply: Reply::Refused(refused(message)) });
    } else if state.hooks.is_some() {
        answer(flight, effects);
    }
}

/// Tells who asked for this change that it is in force.
fn answer(flight: &mut InFlight, effects: &mut Vec<Effect>) {
    if let Some(Answer { ticket, reply, log, .. }) = flight.plan.answer.take() {
        effects.extend(log.map(|message| Effect::Log { level: Level::Info, message }));
        effects.push(Effect::Reply { ticket, reply });
    }
}

fn finish(state: &mut State, failed: bool, effects: &mut Vec<Effect>) {
    if failed {
        let attempt = state.retry.map_or(0, |retry| retry.attempt + 1);
        let pause = FIRST_PAUSE.saturating_mul(1 << attempt.min(8)).min(LONGEST_PAUSE);
        state.retry = Some(Retry { at: state.now.up + pause, attempt });
    } else {
        state.retry = None;
        revoke(state, effects);
    }
    if state.draining {
        effects.push(Effect::Stop);
    }
}

/// Has open sockets judged by what is in force now. Not after half a change: what was cut off can't be mended.
fn revoke(state: &mut State, effects: &mut Vec<Effect>) {
    if let (Some(published), Some(tables), Some(_)) = (&state.published, &state.programmed, &state.hooks)
        && std::mem::take(&mut state.unjudged) > 0
    {
        effects
            .push(Effect::Revoke { table: Arc::clone(&published.publication.table), tables: tables.clone() });
    }
}

/// A step was performed.
pub(super) fn done(state: &mut State, done: Done, effects: &mut Vec<Effect>) {
    let step = match done {
        Done::Saved => Step::Save,
        Done::Published => Step::Publish,
        Done::Applied(_) => Step::Apply,
        Done::Attached(_) => Step::Attach,
    };
    let Some(mut flight) = take(state, step, effects) else { return };
    state.unjudged += u32::from(step != Step::Save);
    match done {
        Done::Saved => {
            if let Some(registry) = &flight.save.registry {
                state.saved = registry.last();
            }
            if !flight.plan.widens && !is_settled(state, &flight.plan) {
                state.stored = Stored::of(&flight.plan.asked);
            }
            flight.save = Save::default();
        }
        Done::Published => {
            state.set_problem(Area::Kernel, "publish", None);
            settle(state, &mut flight, effects);
        }
        Done::Applied(failures) => {
            let refusal = applied(state, &mut flight, &failures);
            bound(state, &mut flight, refusal.as_deref(), effects);
            flight.step = Step::Attach;
        }
        Done::Attached(hooks) => {
            state.set_problem(Area::Kernel, "attach", None);
            state.hooks = Some(hooks);
            answer(&mut flight, effects);
            return finish(state, flight.failed, effects);
        }
    }
    advance(state, flight, effects);
}

/// Notes which operations the kernel took and which it did not; says so of the latter.
fn applied(state: &mut State, flight: &mut InFlight, failures: &[(usize, String)]) -> Option<String> {
    let failed: BTreeMap<usize, &String> = failures.iter().map(|(at, message)| (*at, message)).collect();
    let operations = std::mem::take(&mut flight.operations);
    if let Some(programmed) = &mut state.programmed {
        for (at, operation) in operations.iter().enumerate() {
            if !failed.contains_key(&at) {
                programmed.apply(*operation);
                if let Operation::Bind(cgroup, _) | Operation::Unbind(cgroup) = operation {
                    state.index.stand(*cgroup, programmed);
                }
            }
        }
        state.index.settle(programmed);
    }
    flight.failed |= !failed.is_empty();
    let problem = (!failed.is_empty()).then(|| {
        let mut named: Vec<&str> =
            failed.values().take(NAMED_FAILURES).map(|message| message.as_str()).collect();
        let more = format!("{} more", failed.len().saturating_sub(NAMED_FAILURES));
        if failed.len() > NAMED_FAILURES {
            named.push(&more);
        }
        format!("the kernel refused bindings or addresses, which are tried again: {}", named.join("; "))
    });
    state.set_problem(Area::Kernel, "apply", problem.clone());
    problem
}

/// A step could not be performed.
pub(super) fn failed(state: &mut State, step: Step, message: &str, effects: &mut Vec<Effect>) {
    let Some(mut flight) = take(state, step, effects) else { return };
    flight.failed = true;
    let (area, object, what) = match step {
        Step::Save => (Area::Store, "save", "saving"),
        Step::Publish => (Area::Kernel, "publish", "publishing the policy tables"),
        Step::Apply => (Area::Kernel, "apply", "changing bindings and addresses"),
        Step::Attach => (Area::Kernel, "attach", "attaching"),
    };
    state.set_problem(area, object, Some(format!("{what} failed and is tried again: {message}")));
    if step == Step::Publish
        && !flight.plan.placed.is_empty()
        && let Some(published) = &mut state.published
    {
        published.grows = false;
    }
    if step == Step::Save {
        state.settled = None;
        // Some of the documents may be there and some not: all of them count as different from what is wanted.
        let Save { write, remove, quarantines, confirmation, .. } = std::mem::take(&mut flight.save);
        let touched = write.into_iter().map(|(key, _)| key).chain(remove);
        state.stored.documents.extend(touched.map(|key| (key, String::new())));
        if quarantines.is_some() {
            state.stored.quarantines = None;
        }
        if confirmation.is_some() {
            state.stored.confirmation = None;
        }
    }
    match (step, flight.plan.answer.take()) {
        (Step::Save | Step::Publish, Some(Answer { ticket, .. })) => {
            let reply = Reply::Refused(refused(format!(
                "{what} failed: {message}; the policies in force were not changed: correct that and push again"
            )));
            effects.push(Effect::Reply { ticket, reply });
            // What was saved for this push is taken back, and what else the change had to bring is still due.
            state.dirty = true;
            finish(state, true, effects);
        }
        (Step::Save | Step::Publish, None) => {
            flight.plan.asked = Arc::clone(&state.asked);
            flight.plan.revision = state.revision;
            flight.plan.table = None;
            known_only(state, flight, effects);
        }
        (Step::Apply | Step::Attach, answer) => {
            if let Some(Answer { ticket, .. }) = answer {
                let reply = Reply::Refused(refused(format!(
                    "{what} failed: {message}; the change is saved, and enforced as soon as that is corrected"
                )));
                effects.push(Effect::Reply { ticket, reply });
            }
            finish(state, true, effects);
        }
    }
}

/// Without the new tables, brings the kernel as near to what is wanted as the tables in force allow, so that a full
/// disk does not keep a restarted workload from its identity.
fn known_only(state: &mut State, mut flight: InFlight, effects: &mut Vec<Effect>) {
    flight.failed = true;
    let Some(published) = &state.published else { return finish(state, true, effects) };
    let operations = std::mem::take(&mut flight.plan.operations);
    if let Some(programmed) = &state.programmed {
        flight.plan.operations = known_operations(operations, programmed, published.inputs.last);
    }
    flight.plan.registry = None;
    flight.step = Step::Apply;
    advance(state, flight, effects);
}

/// The change under way, if it waits for this step.
fn take(state: &mut State, step: Step, effects: &mut Vec<Effect>) -> Option<InFlight> {
    let flight = state.in_flight.take_if(|flight| flight.step == step);
    if flight.is_none() {
        let message = format!("an acknowledgement of {step:?} came that nothing waited for; it was ignored");
        effects.push(Effect::Log { level: Level::Warn, message });
    }
    flight
}
