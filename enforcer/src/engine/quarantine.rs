//! Putting workloads into quarantine and taking them out again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::event::{Effect, Level};
use super::policies::refused;
use super::state::State;
use super::told;
use crate::domain::audit::fact::Changed;
use crate::domain::command::{QuarantineInfo, QuarantineWish, Refused};
use crate::domain::labels::{Condition, Requirement, Selector};
use crate::domain::policy::compile::{Guest, Guests};
use crate::domain::policy::diagnostic::{nearest, quote};
use crate::domain::policy::model::{Entity, Namespaces, Peer};
use crate::domain::quarantine::{AllowFrom, MAX_ALLOW_FROM, Quarantine, Quarantines, workload_key};
use crate::domain::workload::WorkloadKey;

/// Longest time that a quarantine can be given; longer is without an end.
const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);

/// A change of the quarantines.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) quarantines: Quarantines,
    /// The quarantine that it is about.
    pub(super) info: QuarantineInfo,
    /// For the log.
    pub(super) log: String,
}

/// Puts a workload into quarantine, or changes the quarantine that it is in.
pub(super) fn add(state: &State, wish: &QuarantineWish) -> Result<Change, Refused> {
    let QuarantineWish { workload, seconds, allow_from, by } = wish;
    let key = known(state, workload)?;
    if allow_from.len() > MAX_ALLOW_FROM {
        return Err(refused(format!(
            "{} peers are more than the {MAX_ALLOW_FROM} that can be let in: give them a label of their own; nothing \
             was changed",
            allow_from.len()
        )));
    }
    for allowed in allow_from {
        if let AllowFrom::Workload(guest) = allowed {
            known(state, &guest.to_string())?;
        }
    }
    let duration = seconds.map(Duration::from_secs);
    if let Some(duration) = duration
        && !(Duration::from_secs(1)..=LONGEST).contains(&duration)
    {
        let message = "a quarantine lasts from a second to ten years; leave the time out for one without an end; \
                       nothing was changed";
        return Err(refused(message));
    }
    let mut allow_from = allow_from.clone();
    allow_from.sort();
    allow_from.dedup();
    let until = duration.map(|duration| state.now.after(duration, &state.facts.boot_id));
    let since = state.asked.quarantines.get(&key).map_or(state.now.wall, |known| known.since);
    let quarantine = Quarantine { since, until, allow_from, by: *by };
    let info = info(state, &key, &quarantine);
    let log = format!("quarantine of {key}: {}; asked for by user {}", terms(&info), user(*by));
    let mut quarantines = state.asked.quarantines.clone();
    quarantines.insert(key, quarantine);
    Ok(Change { quarantines, info, log })
}

/// Takes a workload out of quarantine. It need not exist any more.
pub(super) fn release(state: &State, workload: &str, by: Option<u32>) -> Result<Change, Refused> {
    let key = workload_key(workload).map_err(|problem| refused(format!("{problem}; nothing was changed")))?;
    let mut quarantines = state.asked.quarantines.clone();
    let Some(quarantine) = quarantines.remove(&key) else {
        let message = format!(
            "workload {key} is not in quarantine; nothing was changed: `enforcer quarantine list` shows who is"
        );
        return Err(Refused { not_found: true, ..refused(message) });
    };
    let log = format!("quarantine of {key} ends; asked for by user {}", user(by));
    Ok(Change { quarantines, info: info(state, &key, &quarantine), log })
}

/// The workload of this name.
fn known(state: &State, workload: &str) -> Result<WorkloadKey, Refused> {
    let key = workload_key(workload).map_err(|problem| refused(format!("{problem}; nothing was changed")))?;
    if told::workload(&state.sources, &key).is_some() {
        return Ok(key);
    }
    let names: Vec<String> = told::workloads(&state.sources).keys().map(ToString::to_string).collect();
    let near = nearest(&key.to_string(), names.iter().map(String::as_str));
    let near = near.map(|near| format!("did you mean {}? ", quote(near))).unwrap_or_default();
    let message =
        format!("there is no workload {key}; nothing was changed: {near}`enforcer endpoint list` shows all");
    Err(Refused { not_found: true, ..refused(message) })
}

/// Who may open flows to whom in quarantine, in numbers. To be called when every workload has its number.
pub(super) fn guests(state: &State, quarantines: &Quarantines) -> Guests {
    // By its directory, by its addresses, and by its containers.
    let numbers = |key: &WorkloadKey| {
        let known = state.known_with(quarantines);
        let told = |key| told::workload(&state.sources, key);
        let containers = told::containers(&state.sources, key).into_iter();
        let all = containers.chain([key]).filter_map(told).flat_map(|resolved| {
            let who = known.who(resolved);
            // Somebody who is in quarantine as well is who they were bound to.
            [who.present(), who.present_at_address()]
        });
        all.filter_map(|key| state.registry.known(&key)).collect::<BTreeSet<_>>()
    };
    let guest = |own: &WorkloadKey, allowed: &AllowFrom| {
        vec![match allowed {
            AllowFrom::Workload(key) => return numbers(key).into_iter().map(Guest::Identity).collect(),
            AllowFrom::Labels(labels) => {
                let requirement = |(key, value): (&String, &String)| Requirement {
                    key: key.clone(),
                    condition: Condition::In([value.clone()].into()),
                };
                let selector = Selector { requirements: labels.iter().map(requirement).collect() };
                let namespaces = Namespaces::Named(vec![own.namespace.clone()]);
                Guest::Peer(Peer::Workloads { namespaces, selector, account: None })
            }
            AllowFrom::Net(net) => Guest::Peer(Peer::Cidr { net: *net, except: Vec::new() }),
            AllowFrom::Host => Guest::Peer(Peer::Entity(Entity::Host)),
        }]
    };
    let mut all = Guests::new();
    // A container's own quarantine says more of it than its pod's, and comes behind it.
    for (key, quarantine) in quarantines {
        let guests: Vec<Guest> =
            quarantine.allow_from.iter().flat_map(|allowed| guest(key, allowed)).collect();
        all.extend(numbers(key).into_iter().map(|id| (id, guests.clone())));
    }
    all
}

/// Ends the quarantines whose time has come. The kernel has done so for their directories already.
pub(super) fn expire(state: &mut State, effects: &mut Vec<Effect>) {
    let now = state.now.boot;
    let due = |quarantine: &Quarantine| quarantine.until.as_ref().is_some_and(|until| until.boot <= now);
    if !state.asked.quarantines.values().any(due) {
        return;
    }
    let quarantines = &mut Arc::make_mut(&mut state.asked).quarantines;
    let ended: Vec<WorkloadKey> =
        quarantines.extract_if(.., |_, quarantine| due(quarantine)).map(|(workload, _)| workload).collect();
    for key in ended {
        let message = format!("quarantine of {key} ends: its time is over");
        effects.push(Effect::Log { level: Level::Info, message });
        state.dirty = true;
        state.touched = true;
    }
}

/// What differs from the quarantines before, for the audit log.
pub(super) fn compare(state: &State, before: &Quarantines) -> Vec<Changed> {
    let now = &state.asked.quarantines;
    let new = now.iter().filter(|(key, quarantine)| before.get(*key) != Some(*quarantine));
    let new = new.map(|(key, quarantine)| Changed::Quarantine {
        workload: key.to_string(),
        terms: Some(terms(&info(state, key, quarantine))),
        was_there: before.contains_key(key),
    });
    let over = before.keys().filter(|key| !now.contains_key(*key));
    let over =
        over.map(|key| Changed::Quarantine { workload: key.to_string(), terms: None, was_there: true });
    new.chain(over).collect()
}

/// All quarantines, in the order of names.
pub(super) fn list(state: &State) -> Vec<QuarantineInfo> {
    state.asked.quarantines.iter().map(|(key, quarantine)| info(state, key, quarantine)).collect()
}

fn info(state: &State, key: &WorkloadKey, quarantine: &Quarantine) -> QuarantineInfo {
    QuarantineInfo {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        since: quarantine.since.whole_seconds(),
        until: quarantine.until.as_ref().map(|until| until.wall.whole_seconds()),
        allow_from: quarantine.allow_from.iter().map(ToString::to_string).collect(),
        by: quarantine.by,
        exists: told::workload(&state.sources, key).is_some(),
    }
}

fn terms(info: &QuarantineInfo) -> String {
    let until =
        info.until.as_ref().map_or_else(|| "without an end".to_owned(), |until| format!("until {until}"));
    match info.allow_from.as_slice() {
        [] => format!("{until}, nobody is let in"),
        allowed => format!("{until}, let in: {}", allowed.join(" ")),
    }
}

/// A user id in a sentence.
pub(super) fn user(by: Option<u32>) -> String {
    by.map_or_else(|| "unknown".to_owned(), |by| by.to_string())
}
