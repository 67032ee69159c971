//! A change on its way: save, publish, apply, attach.
//!
//! There is one at a time. Its order is what keeps a crash at any point harmless: numbers and pushed documents are on
//! disk before the kernel knows them; the tables know an identity before something is bound to it; the hooks are
//! attached when there is something to enforce. What fails leaves the last good state in force, is a problem until it
//! works, and is tried again with growing pauses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::event::{Done, Effect, Level, Save, Step, Ticket};
use super::policies::{PolicySet, Touched, refused};
use super::state::{Area, Inputs, Published, Retry, State, Waiting, size, texts};
use super::{room, views, wanted};
use crate::domain::command::{Changed, PolicyChange, Refused, Reply, Request};
use crate::domain::delta::{Operation, Tables, delta};
use crate::domain::id::{Generation, IdentityId};
use crate::domain::policy::compile::compile;
use crate::domain::policy::model::PolicyKey;
use crate::domain::registry::Registry;
use crate::domain::table::PolicyTable;

/// Pause before the first repetition of a failed change.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between repetitions.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Failed operations that are named one by one.
const NAMED_FAILURES: usize = 3;

/// What a change leads to.
#[derive(Debug)]
struct Plan {
    policies: PolicySet,
    revision: u64,
    /// Replaces the state's registry; `None` if no table had to be made.
    registry: Option<Registry>,
    table: Option<(Arc<PolicyTable>, Inputs)>,
    wanted: Tables,
    answer: Option<(Ticket, Changed)>,
}

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
    if state.draining || !state.synced() {
        return;
    }
    while state.in_flight.is_none() {
        let Some(Waiting { ticket, request }) = state.queue.pop_front() else { break };
        match requested(state, ticket, &request) {
            Ok(plan) => start(state, plan, effects),
            Err(reply) => effects.push(Effect::Reply { ticket, reply }),
        }
    }
    if state.in_flight.is_none() && state.dirty {
        refresh(state, effects);
    }
}

/// Makes the change that a request asks for, or its answer if there is nothing to do.
fn requested(state: &mut State, ticket: Ticket, request: &Request) -> Result<Plan, Reply> {
    let (planned, dry_run) = match request {
        Request::PolicyApply { files, dry_run } => (state.policies.apply(files), *dry_run),
        Request::PolicyDelete { names } => (state.policies.delete(names), false),
        Request::PolicyList | Request::IdentityList | Request::EndpointList | Request::Status => {
            return Err(views::answer(state, request));
        }
    };
    let (policies, touched) = planned.map_err(Reply::Refused)?;
    let unchanged = policies == state.policies;
    let revision = if unchanged { state.revision } else { state.revision + 1 };
    let mut plan = plan(state, policies, revision).map_err(Reply::Refused)?;
    let entries_before = state.published.as_ref().map_or(0, |published| published.table.entries() as u64);
    let table = plan.table.as_ref().map(|(table, _)| table);
    let changed = Changed {
        generation: match table {
            Some(table) if !dry_run => table.generation().0,
            _ => state.enforced(),
        },
        dry_run,
        policies: changes(state, touched),
        entries_before,
        entries_after: table.map_or(entries_before, |table| table.entries() as u64),
    };
    if dry_run || (unchanged && state.published.is_some() && state.hooks.is_some()) {
        return Err(Reply::Changed(changed));
    }
    plan.answer = Some((ticket, changed));
    Ok(plan)
}

fn changes(state: &State, touched: Touched) -> Vec<PolicyChange> {
    let (endpoints, _) = wanted::endpoints(&state.sources);
    touched
        .into_iter()
        .map(|(key, (change, loaded))| PolicyChange {
            name: key.to_string(),
            change,
            selects: views::selects(&endpoints, &loaded.policy),
        })
        .collect()
}

/// Works out what a policy set leads to, together with what the sources say now.
fn plan(state: &mut State, policies: PolicySet, revision: u64) -> Result<Plan, Refused> {
    let wanted = want(state);
    let inputs = Inputs { revision, last: last(&state.registry) };
    if state.published.as_ref().is_some_and(|published| published.inputs == inputs) {
        return Ok(Plan { policies, revision, registry: None, table: None, wanted, answer: None });
    }
    let mut registry = state.registry.clone();
    let generation = Generation(state.generation.0 + 1);
    let set = policies.effective().map(|(loaded, _)| &loaded.policy);
    let table = compile(set, &mut registry, generation).map_err(|error| {
        refused(format!("{error}: split the policies into fewer distinct selectors; nothing was changed"))
    })?;
    let table = Some((Arc::new(table), inputs));
    Ok(Plan { policies, revision, registry: Some(registry), table, wanted, answer: None })
}

/// What the kernel's bindings and addresses should be. Notes what is disputed between workloads.
fn want(state: &mut State) -> Tables {
    let (endpoints, mut problems) = wanted::endpoints(&state.sources);
    let (mut tables, disputes) = wanted::tables(&endpoints, &state.managed, &mut state.registry);
    // Before the source speaks, what an earlier agent found stays.
    let own = state.own.as_ref().or_else(|| state.programmed.as_ref().map(|tables| &tables.own));
    tables.own = own.cloned().unwrap_or_default();
    problems.extend(disputes);
    let (left_out, overflow) =
        room::fit(&mut tables, state.programmed.as_ref(), &endpoints, state.facts.limits);
    problems.extend(overflow);
    state.left_out = left_out;
    state.set_problems(Area::Workload, problems);
    tables
}

fn last(registry: &Registry) -> IdentityId {
    registry.identities().map(|(_, id)| id).max().unwrap_or_default()
}

/// Brings the kernel to what the sources say.
fn refresh(state: &mut State, effects: &mut Vec<Effect>) {
    state.dirty = false;
    match plan(state, state.policies.clone(), state.revision) {
        Ok(plan) => {
            state.set_problem(Area::Table, "table", None);
            start(state, plan, effects);
        }
        Err(refused) => {
            state.set_problem(Area::Table, "table", Some(refused.message));
            let plan = Plan {
                policies: state.policies.clone(),
                revision: state.revision,
                registry: None,
                table: None,
                wanted: want(state),
                answer: None,
            };
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
    let wanted: BTreeMap<PolicyKey, String> = texts(&plan.policies.pushed);
    Save {
        registry: (size(registry) != state.saved).then(|| registry.clone()),
        remove: state.stored.keys().filter(|key| !wanted.contains_key(key)).cloned().collect(),
        write: wanted.into_iter().filter(|(key, text)| state.stored.get(key) != Some(text)).collect(),
    }
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
        flight.step = Step::Publish;
    }
    if flight.step == Step::Publish {
        if let Some(registry) = flight.plan.registry.take() {
            state.registry = registry;
        }
        let names = views::names_with(state, &flight.plan.policies);
        if names != *state.names {
            state.names = Arc::new(names);
            effects.push(Effect::PublishNames(Arc::clone(&state.names)));
        }
        if let Some((table, _)) = &flight.plan.table {
            state.generation = table.generation();
            effects.push(Effect::Publish(Arc::clone(table)));
            state.in_flight = Some(flight);
            return;
        }
        // Nothing to publish: what is in force is what is wanted.
        state.set_problem(Area::Kernel, "publish", None);
        settle(state, &mut flight, effects);
    }
    if flight.step == Step::Apply {
        if let Some(programmed) = &state.programmed {
            let operations = delta(programmed, &flight.plan.wanted);
            flight.operations = room::in_order(operations, programmed, state.facts.limits);
        }
        if !flight.operations.is_empty() {
            effects.push(Effect::Apply(flight.operations.clone()));
            state.in_flight = Some(flight);
            return;
        }
        state.set_problem(Area::Kernel, "apply", None);
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
    if let Some((table, inputs)) = flight.plan.table.take() {
        state.published = Some(Published { table, inputs });
    }
    state.policies = std::mem::take(&mut flight.plan.policies);
    state.revision = flight.plan.revision;
    super::note_conflicts(state);
    if state.hooks.is_some() {
        answer(flight, effects);
    }
    flight.step = Step::Apply;
}

/// Tells who asked for this change that it is in force.
fn answer(flight: &mut InFlight, effects: &mut Vec<Effect>) {
    if let Some((ticket, changed)) = flight.plan.answer.take() {
        effects.push(Effect::Reply { ticket, reply: Reply::Changed(changed) });
    }
}

fn finish(state: &mut State, failed: bool, effects: &mut Vec<Effect>) {
    if failed {
        let attempt = state.retry.map_or(0, |retry| retry.attempt + 1);
        let pause = FIRST_PAUSE.saturating_mul(1 << attempt.min(8)).min(LONGEST_PAUSE);
        state.retry = Some(Retry { at: state.now + pause, attempt });
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
        effects.push(Effect::Revoke { table: Arc::clone(&published.table), tables: tables.clone() });
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
                state.saved = size(registry);
            }
            state.stored = texts(&flight.plan.policies.pushed);
            flight.save = Save::default();
        }
        Done::Published => {
            state.set_problem(Area::Kernel, "publish", None);
            settle(state, &mut flight, effects);
        }
        Done::Applied(failures) => {
            applied(state, &mut flight, &failures);
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

/// Notes which operations the kernel took and which it did not.
fn applied(state: &mut State, flight: &mut InFlight, failures: &[(usize, String)]) {
    let failed: BTreeMap<usize, &String> = failures.iter().map(|(at, message)| (*at, message)).collect();
    let operations = std::mem::take(&mut flight.operations);
    if let Some(programmed) = &mut state.programmed {
        for (at, operation) in operations.iter().enumerate() {
            if !failed.contains_key(&at) {
                wanted::apply(programmed, *operation);
            }
        }
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
    state.set_problem(Area::Kernel, "apply", problem);
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
    if step == Step::Save {
        // Some of the documents may be there and some not: all of them count as different from what is wanted.
        let Save { write, remove, .. } = std::mem::take(&mut flight.save);
        let touched = write.into_iter().map(|(key, _)| key).chain(remove);
        state.stored.extend(touched.map(|key| (key, String::new())));
    }
    match (step, flight.plan.answer.take()) {
        (Step::Save | Step::Publish, Some((ticket, _))) => {
            let reply = Reply::Refused(refused(format!(
                "{what} failed: {message}; the policies in force were not changed: correct that and push again"
            )));
            effects.push(Effect::Reply { ticket, reply });
            // What was saved for this push is taken back, and what else the change had to bring is still due.
            state.dirty = true;
            finish(state, true, effects);
        }
        (Step::Save | Step::Publish, None) => {
            flight.plan.policies = state.policies.clone();
            flight.plan.revision = state.revision;
            flight.plan.table = None;
            known_only(state, flight, effects);
        }
        (Step::Apply | Step::Attach, answer) => {
            if let Some((ticket, _)) = answer {
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
    flight.plan.wanted = wanted::known_only(&flight.plan.wanted, published.inputs.last);
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
