//! What a change would lead to: computed on copies, so that what can't be done has changed nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::cluster::Looks;
use super::confirm::Unconfirmed;
use super::event::Ticket;
use super::index::Facts;
use super::keys::Keys;
use super::phase::Area;
use super::policies::{PolicySet, Touched};
use super::schedule::Schedule;
use super::state::{Inputs, Published, State, Waiting};
use super::{confirm, keys, quarantine, room, schedule, views};
use crate::domain::command::{Changed, PolicyChange, PolicyFile, Refused, Reply, Request};
use crate::domain::delta::{Bound, Operation, Tables};
use crate::domain::id::{Generation, IdentityId};
use crate::domain::quarantine::Quarantines;
use crate::domain::registry::Registry;

/// What people have asked for, as far as it is or is about to be in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) policies: PolicySet,
    pub(super) quarantines: Quarantines,
    /// The push that is in force and not confirmed.
    pub(super) unconfirmed: Option<Unconfirmed>,
}

/// What a change leads to.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) asked: Arc<Asked>,
    pub(super) revision: u64,
    /// Replaces the state's registry; `None` if no table had to be made.
    pub(super) registry: Option<Registry>,
    /// Tables that are not in force.
    pub(super) table: Option<Published>,
    /// Identities that they know beside those of the tables in force, if there is no other difference.
    pub(super) placed: Vec<IdentityId>,
    /// What brings the kernel's bindings and addresses to what is wanted.
    pub(super) operations: Vec<Operation>,
    pub(super) answer: Option<Answer>,
    /// Whether it only has more labels count; what is asked for is not in force with it.
    pub(super) widens: bool,
}

impl Plan {
    /// Nothing to be done.
    fn new(asked: Arc<Asked>, revision: u64) -> Self {
        Self {
            asked,
            revision,
            registry: None,
            table: None,
            placed: Vec::new(),
            operations: Vec::new(),
            answer: None,
            widens: false,
        }
    }
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

/// Makes the change that a request asks for, or its answer if there is nothing to do. A plan that only widens is to be
/// carried out first; then it is asked for again.
pub(super) fn requested(state: &mut State, waiting: &Waiting) -> Result<Plan, Reply> {
    let Waiting { ticket, request } = waiting;
    match request {
        Request::PolicyApply { files, dry_run, confirm_within, by } => {
            let push = pushed(state, files, *dry_run, confirm_within.map(|seconds| (seconds, *by)));
            policies(state, *ticket, push)
        }
        Request::PolicyDelete { names } => {
            let push = confirm::refuse_second(state).and_then(|()| {
                let (policies, touched) = state.asked.policies.delete(names)?;
                let asked = Asked { policies, ..(*state.asked).clone() };
                Ok(Push { asked, touched, dry_run: false, log: None })
            });
            policies(state, *ticket, push)
        }
        Request::PolicyConfirm { by } => {
            let push = confirm::confirmed(state).map(|(asked, touched)| {
                let log = format!("the push is confirmed by user {}", quarantine::user(*by));
                Push { asked, touched, dry_run: false, log: Some(log) }
            });
            policies(state, *ticket, push)
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
        | Request::PolicyObjects
        | Request::Explain { .. }
        | Request::ExplainSocket { .. }
        | Request::Status => Err(views::answer(state, request)),
    }
}

/// A change of the policies.
struct Push {
    asked: Asked,
    touched: Touched,
    dry_run: bool,
    log: Option<String>,
}

fn pushed(
    state: &State,
    files: &[PolicyFile],
    dry_run: bool,
    confirm: Option<(u64, Option<u32>)>,
) -> Result<Push, Refused> {
    if !dry_run {
        confirm::refuse_second(state)?;
    }
    let (policies, touched) = state.asked.policies.apply(files)?;
    let mut asked = Asked { policies, ..(*state.asked).clone() };
    let mut log = None;
    if let Some((seconds, by)) = confirm {
        let push = confirm::unconfirmed(state, seconds, by)?;
        // What changes nothing need not be confirmed.
        if asked.policies != state.asked.policies {
            log = Some(format!(
                "a push by user {} is taken back at {} unless it is confirmed",
                quarantine::user(by),
                push.until.wall.whole_seconds()
            ));
            asked.unconfirmed = Some(push);
        }
    }
    Ok(Push { asked, touched, dry_run, log })
}

fn policies(state: &mut State, ticket: Ticket, push: Result<Push, Refused>) -> Result<Plan, Reply> {
    let Push { asked, touched, dry_run, log } = push.map_err(Reply::Refused)?;
    let unchanged = asked == *state.asked;
    let same_policies = asked.policies == state.asked.policies;
    let revision = if same_policies { state.revision } else { state.revision + 1 };
    let confirm_until = asked.unconfirmed.as_ref().map(|push| push.until.wall.whole_seconds());
    let wanted = Keys::of(&asked, &state.facts.labels);
    if !dry_run && let Some(first) = keys::widen(state, &wanted) {
        return Ok(first);
    }
    let mut plan = plan(state, Arc::new(asked), revision).map_err(Reply::Refused)?;
    let entries_before =
        state.published.as_ref().map_or(0, |published| published.publication.table.entries() as u64);
    let table = plan.table.as_ref().map(|made| &made.publication.table);
    let changed = Changed {
        generation: match table {
            Some(table) if !dry_run => table.generation().0,
            _ => state.enforced(),
        },
        dry_run,
        policies: changes(state, touched),
        confirm_until: confirm_until.filter(|_| !dry_run),
        entries_before,
        entries_after: table.map_or(entries_before, |table| table.entries() as u64),
    };
    let reply = Reply::Changed(changed);
    if dry_run || (unchanged && state.published.is_some() && state.hooks.is_some()) {
        return Err(reply);
    }
    plan.answer = Some(Answer { ticket, reply, bindings: false, log });
    Ok(plan)
}

fn quarantines(
    state: &mut State,
    ticket: Ticket,
    changed: Result<quarantine::Change, Refused>,
) -> Result<Plan, Reply> {
    let quarantine::Change { quarantines, info, log } = changed.map_err(Reply::Refused)?;
    let asked = Asked { quarantines, ..(*state.asked).clone() };
    let wanted = Keys::of(&asked, &state.facts.labels);
    if let Some(first) = keys::widen(state, &wanted) {
        return Ok(first);
    }
    let mut plan = plan(state, Arc::new(asked), state.revision).map_err(Reply::Refused)?;
    let reply = Reply::Quarantine(Box::new(info));
    plan.answer = Some(Answer { ticket, reply, bindings: true, log: Some(log) });
    Ok(plan)
}

fn changes(state: &State, touched: Touched) -> Vec<PolicyChange> {
    let endpoints = state.endpoints();
    touched
        .into_iter()
        .map(|(key, (change, loaded))| PolicyChange {
            name: key.to_string(),
            change,
            selects: views::selects(&endpoints, &state.namespaces, &loaded.policy),
        })
        .collect()
}

/// Works out what is asked for leads to, together with what the sources say now.
pub(super) fn plan(state: &mut State, asked: Arc<Asked>, revision: u64) -> Result<Plan, Refused> {
    let operations = want(state, &asked);
    let guests = quarantine::guests(state, &asked.quarantines);
    let known = state.looks.take_if(|looks| looks.are_of(&asked));
    let mut looks = known.unwrap_or_else(|| Looks::new(&asked));
    let schedule = Schedule::new(state, &asked, &looks);
    let namespaces = looks.namespaces(&state.namespaces, state.namespaces_version);
    let services = if looks.egress { Arc::clone(&state.index.services.known) } else { Arc::default() };
    // What is only looked at leaves nothing behind.
    if Arc::ptr_eq(&asked, &state.asked) {
        state.looks = Some(looks);
    }
    let last = state.registry.last_identity();
    let trust_domain = state.facts.trust_domain.clone();
    let inputs = Inputs { revision, last, guests, namespaces, services, schedule, trust_domain };
    let mut plan = Plan { operations, ..Plan::new(asked, revision) };
    let grown = state.published.as_ref().and_then(|published| published.grown(&inputs, &state.registry));
    if let Some((grown, placed)) = grown {
        if !placed.is_empty() {
            (plan.table, plan.placed) = (Some(grown), placed);
        }
        return Ok(plan);
    }
    let mut registry = state.registry.clone();
    let generation = Generation(state.generation.0 + 1);
    let (publication, classifiers) = schedule::tables(&plan.asked, &inputs, &mut registry, generation)?;
    let (publication, asked) = (Arc::new(publication), Arc::clone(&plan.asked));
    plan.table = Some(Published { asked, publication, classifiers, inputs, grows: true });
    plan.registry = Some(registry);
    Ok(plan)
}

/// What is asked for already, with the tables in force.
pub(super) fn as_it_is(state: &mut State) -> Plan {
    let asked = Arc::clone(&state.asked);
    let operations = want(state, &asked);
    Plan { operations, ..Plan::new(asked, state.revision) }
}

/// What brings the kernel's bindings and addresses to what they should be. Notes what is disputed between workloads.
fn want(state: &mut State, asked: &Asked) -> Vec<Operation> {
    let nothing = Tables::default();
    let programmed = state.programmed.as_ref().unwrap_or(&nothing);
    let facts = Facts {
        sources: &state.sources,
        changed: std::mem::take(&mut state.changed),
        managed: &state.managed,
        // Before the source speaks, what an earlier agent found stays.
        own: state.own.as_ref().unwrap_or(&programmed.own).clone(),
        quarantines: &asked.quarantines,
        keys: &state.keys,
        canary: state.canary.binding(),
        programmed,
    };
    state.index.follow(facts, &mut state.registry);
    let touched = room::fit(&mut state.index, programmed, &state.sources, state.facts.limits);
    state.index.know_services(&touched, false, &BTreeSet::new());
    let operations = room::in_order(state.index.delta(programmed), programmed, state.facts.limits);
    if let Some(problems) = state.index.news() {
        state.set_problems(Area::Workload, problems);
    }
    operations
}

/// Replaces identities above `last`, which the enforced table does not know, by one that is denied everything.
pub(super) fn known_only(operations: Vec<Operation>, have: &Tables, last: IdentityId) -> Vec<Operation> {
    let known = |id: IdentityId| if id > last { IdentityId::UNMANAGED } else { id };
    let replace = |operation| match operation {
        Operation::Bind(cgroup, bound) => {
            let bound = Bound { identity: known(bound.identity), after: known(bound.after), ..bound };
            (have.bindings.get(&cgroup) != Some(&bound)).then_some(Operation::Bind(cgroup, bound))
        }
        Operation::SetAddress(net, id) => {
            let id = known(id);
            (have.addresses.get(&net) != Some(&id)).then_some(Operation::SetAddress(net, id))
        }
        other => Some(other),
    };
    operations.into_iter().filter_map(replace).collect()
}
