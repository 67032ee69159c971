//! What a change would lead to: computed on copies, so that what can't be done has changed nothing.

use std::sync::Arc;

use super::event::Ticket;
use super::policies::{PolicySet, Touched, refused};
use super::state::{Area, Inputs, State, Waiting};
use super::{quarantine, views, wanted};
use crate::domain::command::{Changed, PolicyChange, Refused, Reply, Request};
use crate::domain::delta::Tables;
use crate::domain::id::{Generation, IdentityId};
use crate::domain::policy::compile::{Scene, compile_scene};
use crate::domain::quarantine::Quarantines;
use crate::domain::registry::Registry;
use crate::domain::table::PolicyTable;

/// What people have asked for, as far as it is or is about to be in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) policies: PolicySet,
    pub(super) quarantines: Quarantines,
}

/// What a change leads to.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) asked: Asked,
    pub(super) revision: u64,
    /// Replaces the state's registry; `None` if no table had to be made.
    pub(super) registry: Option<Registry>,
    pub(super) table: Option<(Arc<PolicyTable>, Inputs)>,
    pub(super) wanted: Tables,
    pub(super) answer: Option<Answer>,
}

/// What to tell who asked for a change.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) ticket: Ticket,
    pub(super) reply: Reply,
    /// Whether the change is in force with its bindings only, and not with its tables already.
    pub(super) bindings: bool,
    /// A line for the log when it is in force.
    pub(super) log: Option<String>,
}

/// Makes the change that a request asks for, or its answer if there is nothing to do.
pub(super) fn requested(state: &mut State, waiting: &Waiting) -> Result<Plan, Reply> {
    let Waiting { ticket, request } = waiting;
    match request {
        Request::PolicyApply { files, dry_run } => {
            let planned = state.asked.policies.apply(files);
            policies(state, *ticket, planned, *dry_run)
        }
        Request::PolicyDelete { names } => {
            let planned = state.asked.policies.delete(names);
            policies(state, *ticket, planned, false)
        }
        Request::QuarantineAdd(wish) => {
            let added = quarantine::add(state, wish);
            quarantines(state, *ticket, added)
        }
        Request::QuarantineRelease { workload, by } => {
            let released = quarantine::release(state, workload, *by);
            quarantines(state, *ticket, released)
        }
        Request::PolicyList
        | Request::IdentityList
        | Request::EndpointList
        | Request::QuarantineList
        | Request::Status => Err(views::answer(state, request)),
    }
}

fn policies(
    state: &mut State,
    ticket: Ticket,
    planned: Result<(PolicySet, Touched), Refused>,
    dry_run: bool,
) -> Result<Plan, Reply> {
    let (policies, touched) = planned.map_err(Reply::Refused)?;
    let unchanged = policies == state.asked.policies;
    let revision = if unchanged { state.revision } else { state.revision + 1 };
    let asked = Asked { policies, ..state.asked.clone() };
    let mut plan = plan(state, asked, revision).map_err(Reply::Refused)?;
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
    let reply = Reply::Changed(changed);
    if dry_run || (unchanged && state.published.is_some() && state.hooks.is_some()) {
        return Err(reply);
    }
    plan.answer = Some(Answer { ticket, reply, bindings: false, log: None });
    Ok(plan)
}

fn quarantines(
    state: &mut State,
    ticket: Ticket,
    changed: Result<quarantine::Change, Refused>,
) -> Result<Plan, Reply> {
    let quarantine::Change { quarantines, info, log } = changed.map_err(Reply::Refused)?;
    let asked = Asked { quarantines, ..state.asked.clone() };
    let mut plan = plan(state, asked, state.revision).map_err(Reply::Refused)?;
    let reply = Reply::Quarantine(Box::new(info));
    plan.answer = Some(Answer { ticket, reply, bindings: true, log: Some(log) });
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

/// Works out what is asked for leads to, together with what the sources say now.
pub(super) fn plan(state: &mut State, asked: Asked, revision: u64) -> Result<Plan, Refused> {
    let wanted = want(state, &asked.quarantines);
    let guests = quarantine::guests(state, &asked.quarantines);
    let inputs = Inputs { revision, last: last(&state.registry), scene: Scene { guests } };
    let mut plan = Plan { asked, revision, registry: None, table: None, wanted, answer: None };
    if state.published.as_ref().is_some_and(|published| published.inputs == inputs) {
        return Ok(plan);
    }
    let mut registry = state.registry.clone();
    let generation = Generation(state.generation.0 + 1);
    let set = plan.asked.policies.effective().map(|(loaded, _)| &loaded.policy);
    let table = compile_scene(set, &inputs.scene, &mut registry, generation).map_err(|error| {
        refused(format!("{error}: split the policies into fewer distinct selectors; nothing was changed"))
    })?;
    plan.table = Some((Arc::new(table), inputs));
    plan.registry = Some(registry);
    Ok(plan)
}

/// What is asked for already, with the tables in force.
pub(super) fn as_it_is(state: &mut State) -> Plan {
    let asked = state.asked.clone();
    let wanted = want(state, &asked.quarantines);
    Plan { asked, revision: state.revision, registry: None, table: None, wanted, answer: None }
}

/// What the kernel's bindings and addresses should be. Notes what is disputed between workloads.
fn want(state: &mut State, quarantines: &Quarantines) -> Tables {
    let (endpoints, mut problems) = wanted::endpoints(&state.sources);
    let (tables, disputes) = wanted::tables(&endpoints, &state.managed, quarantines, &mut state.registry);
    problems.extend(disputes);
    state.set_problems(Area::Workload, problems);
    tables
}

fn last(registry: &Registry) -> IdentityId {
    registry.identities().map(|(_, id)| id).max().unwrap_or_default()
}
