//! Answers to questions, names and numbers: the state as others see it. Nothing here changes it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::event::Report;
use super::planning::Asked;
use super::policies::Loaded;
use super::state::State;
use super::{canary, conditions, confirm, explain, objects, quarantine};
use crate::domain::SocketKind;
use crate::domain::cluster::NamespaceLabels;
use crate::domain::command::{EndpointInfo, IdentityInfo, PolicyInfo, Reply, Request, Status};
use crate::domain::id::{IdentityId, RuleId};
use crate::domain::labels::LabelSet;
use crate::domain::policy::model::{Action, Policy, PolicyMode, Ports, Rule, RuleDirection, RuleKey};
use crate::domain::registry::{IdentityKey, Registry};
use crate::domain::timestamp::Timestamp;
use crate::domain::workload::{EndpointState, Resolved, Workload, WorkloadKey};

/// Every place where a workload can stand.
const STATES: [EndpointState; 4] =
    [EndpointState::Bound, EndpointState::WaitingForCgroup, EndpointState::Remote, EndpointState::NoRoom];

/// Answers a question that changes nothing.
pub(super) fn answer(state: &State, request: &Request) -> Reply {
    match request {
        Request::PolicyList => Reply::Policies(policies(state)),
        Request::IdentityList => Reply::Identities(identities(state)),
        Request::EndpointList => Reply::Endpoints(endpoints(state)),
        Request::QuarantineList => Reply::Quarantines(quarantine::list(state)),
        Request::PolicyObjects => Reply::PolicyObjects(objects::infos(state)),
        Request::Explain { from, to, protocol, port } => {
            explain::explain(state, from, to, (*protocol, *port))
        }
        Request::ExplainSocket { from, kind } => explain::explain_socket(state, from, *kind),
        Request::Status => Reply::Status(Box::new(status(state))),
        Request::PolicyApply { .. }
        | Request::PolicyConfirm { .. }
        | Request::PolicyDelete { .. }
        | Request::QuarantineAdd(_)
        | Request::QuarantineRelease { .. } => {
            Reply::Refused(super::policies::refused("a change is no question; nothing was changed"))
        }
    }
}

/// Kinds of sockets that rules allow to some workloads now, each with the first policy that does.
pub fn opened_kinds(state: &State) -> BTreeMap<SocketKind, String> {
    let mut opened = BTreeMap::new();
    for policy in state.asked.policies.effective().map(|(loaded, _)| &loaded.policy) {
        if policy.mode != PolicyMode::Enforce || policy.is_over(state.now.wall) {
            continue;
        }
        let rules = policy.sockets.iter().flatten();
        for rule in rules.filter(|rule| rule.action == Action::Allow && !rule.is_over(state.now.wall)) {
            let Ports::Kinds(kinds) = &rule.ports else { continue };
            for kind in kinds {
                opened.entry(*kind).or_insert_with(|| policy.key.to_string());
            }
        }
    }
    opened
}

/// Whether a policy speaks of a workload.
fn selects_one(policy: &Policy, workload: &Workload, labels: &NamespaceLabels) -> bool {
    policy.selects(&IdentityKey::of(workload), labels)
}

/// The workloads that count, by name.
type Endpoints<'a> = BTreeMap<&'a WorkloadKey, &'a Resolved>;

/// Workloads that a policy selects, in the order of names.
pub(super) fn selects(endpoints: &Endpoints<'_>, labels: &NamespaceLabels, policy: &Policy) -> Vec<String> {
    let selected = endpoints.values().filter(|resolved| selects_one(policy, &resolved.workload, labels));
    selected.map(|resolved| resolved.workload.key.to_string()).collect()
}

fn policies(state: &State) -> Vec<PolicyInfo> {
    let endpoints = state.endpoints();
    let mode = |policy: &Policy| match policy.mode {
        PolicyMode::Enforce => "enforce",
        PolicyMode::Audit => "audit",
    };
    let info = |loaded: &Loaded, pushed: bool| {
        let Loaded { policy, text, file } = loaded;
        let next = policy.expiries().filter(|expires| *expires > state.now.wall).min();
        let is_over = |rule: &Rule| policy.is_over(state.now.wall) || rule.is_over(state.now.wall);
        let count = |rules: usize| u32::try_from(rules).unwrap_or(u32::MAX);
        PolicyInfo {
            namespace: policy.key.namespace.clone(),
            name: policy.key.name.clone(),
            kind: policy.key.kind.label().to_owned(),
            mode: mode(policy).to_owned(),
            origin: if pushed { "pushed".to_owned() } else { file.clone() },
            rules: count(policy.all_rules().count()),
            expired: count(policy.all_rules().filter(|(_, _, rule)| is_over(rule)).count()),
            expires: next.map(Timestamp::whole_seconds),
            isolates: policy.sections().map(|(section, _)| section.label().to_owned()).collect(),
            selects: selects(&endpoints, &state.namespaces, policy),
            text: text.clone(),
            status: conditions::status(state, loaded),
        }
    };
    state.asked.policies.effective().map(|(loaded, pushed)| info(loaded, pushed)).collect()
}

fn label_texts(labels: &LabelSet) -> Vec<String> {
    labels.0.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn identities(state: &State) -> Vec<IdentityInfo> {
    let reserved =
        [IdentityId::UNKNOWN, IdentityId::HOST, IdentityId::WORLD, IdentityId::UNMANAGED, IdentityId::CANARY];
    let reserved = reserved.into_iter().filter_map(|id| {
        let labels = vec![format!("reserved:{}", id.reserved_name()?)];
        Some(IdentityInfo { id: id.0, namespace: String::new(), labels, workloads: Vec::new() })
    });
    let workloads = workloads(state, &state.asked);
    let mut known: Vec<IdentityInfo> = state
        .registry
        .identities()
        .map(|(key, id)| IdentityInfo {
            id: id.0,
            namespace: key.namespace.clone(),
            labels: label_texts(&key.labels),
            workloads: workloads.get(key).into_iter().flatten().map(ToString::to_string).collect(),
        })
        .collect();
    known.sort_by_key(|info| info.id);
    reserved.chain(known).collect()
}

/// Names of the workloads of each identity.
fn workloads(state: &State, asked: &Asked) -> BTreeMap<IdentityKey, Vec<WorkloadKey>> {
    let endpoints = state.endpoints();
    let mut workloads: BTreeMap<IdentityKey, Vec<WorkloadKey>> = BTreeMap::new();
    let known = state.known_with(&asked.quarantines);
    for (key, resolved) in endpoints {
        let who = known.who(resolved);
        for identity in BTreeSet::from([who.present(), who.present_at_address()]) {
            workloads.entry(identity).or_default().push(key.clone());
        }
    }
    workloads
}

/// Where a workload stands. "Bound" is said only of what the kernel has: a directory that exists and is not bound yet
/// counts as waiting.
fn stands(state: &State, resolved: &Resolved, identity: Option<IdentityId>) -> EndpointState {
    if resolved.workload.cgroup.is_none() {
        return EndpointState::Remote;
    }
    if resolved.cgroup.is_some_and(|cgroup| state.index.is_left_out(cgroup)) {
        return EndpointState::NoRoom;
    }
    let bound = resolved.cgroup.and_then(|cgroup| state.programmed.as_ref()?.bindings.get(&cgroup));
    if bound.is_some() && bound.map(|bound| bound.identity) == identity {
        EndpointState::Bound
    } else {
        EndpointState::WaitingForCgroup
    }
}

fn endpoints(state: &State) -> Vec<EndpointInfo> {
    let endpoints = state.endpoints();
    let isolating = |workload: &Workload, section: RuleDirection| -> Vec<String> {
        let effective = state.asked.policies.effective().map(|(loaded, _)| &loaded.policy);
        effective
            .filter(|policy| policy.mode == PolicyMode::Enforce && policy.section(section).is_some())
            .filter(|policy| !policy.is_over(state.now.wall))
            .filter(|policy| selects_one(policy, workload, &state.namespaces))
            .map(|policy| policy.key.to_string())
            .collect()
    };
    let info = |resolved: &Resolved| {
        let workload = &resolved.workload;
        let identity = state.registry.known(&state.known().who(resolved).present());
        EndpointInfo {
            namespace: workload.key.namespace.clone(),
            name: workload.key.name.clone(),
            identity: identity.unwrap_or_default().0,
            labels: label_texts(&workload.labels),
            cgroup: workload.cgroup.clone(),
            cgroup_id: resolved.cgroup.map(|cgroup| cgroup.0),
            addresses: workload.addresses.iter().map(ToString::to_string).collect(),
            state: stands(state, resolved, identity),
            quarantined: state.asked.quarantines.contains_key(&workload.key),
            ingress_policies: isolating(workload, RuleDirection::Ingress),
            egress_policies: isolating(workload, RuleDirection::Egress),
            listen_policies: isolating(workload, RuleDirection::Listen),
            socket_policies: isolating(workload, RuleDirection::Sockets),
        }
    };
    endpoints.into_values().map(info).collect()
}

fn status(state: &State) -> Status {
    let report = report(state);
    let facts = &state.facts;
    Status {
        version: facts.version.clone(),
        state: state.phase().label().to_owned(),
        problems: state.problems.values().cloned().collect(),
        mode: facts.mode.name().to_owned(),
        generation: report.generation,
        policies: report.policies,
        unconfirmed: confirm::info(state),
        rolled_back: state.rolled_back.clone(),
        pending_peers: conditions::all_pending(state),
        canary: canary::info(state),
        entries: report.entries,
        identities: report.identities,
        endpoints: report.bound + report.waiting + report.remote + report.no_room,
        endpoints_waiting: report.waiting,
        quarantined: state.asked.quarantines.keys().map(ToString::to_string).collect(),
        kernel: facts.kernel.clone(),
        cgroup_root: facts.cgroup_root.clone(),
        pins: facts.pins.clone(),
        confinement: facts.confinement.clone(),
        hooks: state.hooks.clone().unwrap_or_default(),
        absent_hooks: state.coverage.absent.clone(),
        notices: state.notices.clone(),
        runtimes: state.standings.clone(),
        unguarded: state.coverage.unguarded.clone(),
        uptime_seconds: state.now.up.as_secs(),
        sources: state.infos.values().cloned().collect(),
    }
}

fn sources(state: &State) -> BTreeMap<(String, String), (u64, bool)> {
    let kinds = state.infos.values().flat_map(|info| info.kinds.iter().map(|kind| (info.name.clone(), kind)));
    let is_up = |state: &str| matches!(state, "synced" | "not-installed");
    kinds.map(|(name, kind)| ((name, kind.kind.clone()), (kind.objects, is_up(&kind.state)))).collect()
}

/// Numbers for the metrics.
pub(super) fn report(state: &State) -> Report {
    let mut report = Report {
        generation: state.enforced(),
        policies: state.asked.policies.len() as u64,
        identities: state.registry.numbers().size() as u64,
        quarantined: state.asked.quarantines.len() as u64,
        canary: canary::armed(state),
        standing: conditions::counts(state).clone(),
        sums: state.sums.0,
        sources: sources(state),
        ..Report::default()
    };
    if let Some(published) = &state.published {
        report.entries = published.publication.table.entries() as u64;
        report.rows = published.publication.table.rows().len() as u64;
    }
    if let Some(programmed) = &state.programmed {
        report.bindings = programmed.bindings.size() as u64;
        report.addresses = programmed.addresses.size() as u64;
    }
    let mut counts = BTreeMap::new();
    // What was told since the last change counts with the next one, in a moment: going through everybody for each question
    // would hold that up.
    if state.index.is_made() {
        counts.extend(STATES.map(|stands| (stands, state.index.standing(stands))));
    } else {
        for resolved in state.endpoints().into_values() {
            let identity = state.registry.known(&state.known().who(resolved).present());
            *counts.entry(stands(state, resolved, identity)).or_default() += 1;
        }
    }
    let count = |stands| counts.get(&stands).copied().unwrap_or_default();
    report.bound = count(EndpointState::Bound);
    report.waiting = count(EndpointState::WaitingForCgroup);
    report.remote = count(EndpointState::Remote);
    report.no_room = count(EndpointState::NoRoom);
    for (area, _) in state.problems.keys() {
        *report.problems.entry(area.label()).or_default() += 1;
    }
    report
}

/// Brings the names to everything that has a number now, with the rules of what is asked for. Whether some are others.
pub(super) fn bring_names(state: &mut State, asked: &Arc<Asked>) -> bool {
    let State { index, registry, names, .. } = state;
    let mut changed = std::mem::take(&mut index.names_changed);
    if index.names.identities.size() != registry.numbers().size() {
        index.names.identities = registry.numbers().clone();
        changed = true;
    }
    let (_, last) = registry.last();
    let is_same = |(of, until): &(Arc<Asked>, RuleId)| Arc::ptr_eq(of, asked) && *until == last;
    if !index.rules_of.as_ref().is_some_and(is_same) {
        index.names.rules = Arc::new(rules(registry, asked));
        index.rules_of = Some((Arc::clone(asked), last));
        changed = true;
    }
    if changed {
        index.names.version += 1;
        index.names.changed = Arc::new(std::mem::take(&mut index.renamed));
        *names = Arc::new(index.names.clone());
    }
    changed
}

fn rules(registry: &Registry, asked: &Asked) -> BTreeMap<RuleId, (RuleKey, Option<String>)> {
    let mut own: BTreeMap<RuleKey, String> = BTreeMap::new();
    for (loaded, _) in asked.policies.effective() {
        for (direction, index, rule) in loaded.policy.all_rules() {
            let key = RuleKey { policy: loaded.policy.key.clone(), direction, index: Some(index) };
            own.extend(rule.name.clone().map(|name| (key, name)));
        }
    }
    registry.rules().map(|(key, id)| (id, (key.clone(), own.get(key).cloned()))).collect()
}
