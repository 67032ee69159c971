//! What a cluster's API tells besides workloads: policy objects, and how the source of all of it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::event::POLICY_OBJECTS;
use super::phase::Area;
use super::policies::{Documents, Loaded};
use super::state::State;
use crate::domain::Mode;
use crate::domain::cluster_policy::{ClusterPolicy, ClusterPolicyInfo, KUBERNETES, SourceInfo};
use crate::domain::conditions::Why;
use crate::domain::fleet::AUDITING;
use crate::domain::policy::model::{PolicyKey, PolicyMode};

/// Problems of one object that are shown in full.
const SHOWN: usize = 2;

/// Policy objects by name.
pub(super) type Objects = BTreeMap<PolicyKey, Arc<ClusterPolicy>>;

/// Takes all policy objects of the cluster. Each is judged by itself: where one is refused, its last good version counts,
/// and the others are not touched.
pub(super) fn take(state: &mut State, objects: Vec<Arc<ClusterPolicy>>) {
    state.dirty |= state.missing.remove(POLICY_OBJECTS);
    let before = &state.asked.policies.cluster;
    let loaded = |object: &Arc<ClusterPolicy>| {
        let good = object.good.as_ref()?;
        let known = before.get(&object.key).filter(|known| known.text == good.text);
        let loaded = known.cloned().unwrap_or_else(|| {
            let (policy, text) = (good.policy.clone(), good.text.clone());
            Arc::new(Loaded { policy, text, file: KUBERNETES.to_owned() })
        });
        Some((object.key.clone(), loaded))
    };
    let documents: Documents = objects.iter().filter_map(loaded).collect();
    state.objects = objects.into_iter().map(|object| (object.key.clone(), object)).collect();
    if *before != documents {
        Arc::make_mut(&mut state.asked).policies.cluster = documents;
        state.revision += 1;
        state.dirty = true;
    }
    super::note_conflicts(state);
}

/// Policy objects that are refused, one sentence each.
pub(super) fn refused(objects: &Objects) -> impl Iterator<Item = (String, String)> {
    objects.values().filter(|object| !object.problems.is_empty()).map(|object| {
        let ClusterPolicy { key, object: _, good, problems } = &**object;
        let shown: Vec<&str> = problems.iter().take(SHOWN).map(String::as_str).collect();
        let more = match problems.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" | and {more} more"),
        };
        let kept = match good {
            Some(good) => {
                format!("its last good version (generation {}) stays in force", good.object.generation)
            }
            None => "nothing of it is in force".to_owned(),
        };
        let message =
            format!("policy {key} of the cluster is refused and {kept}: {}{more}", shown.join(" | "));
        (format!("object {key}"), message)
    })
}

/// How a source is, and what keeps it from knowing all there is.
pub(super) fn source(state: &mut State, info: SourceInfo) {
    let of_source = format!("{} ", info.name);
    state.problems.retain(|(area, object), _| *area != Area::Source || !object.starts_with(&of_source));
    let numbered = info.problems.iter().enumerate();
    let problems =
        numbered.map(|(at, problem)| ((Area::Source, format!("{of_source}{at}")), problem.clone()));
    state.problems.extend(problems);
    state.infos.insert(info.name.clone(), info);
}

/// Where a policy stands, in a word.
fn standing(state: &State, loaded: &Loaded) -> String {
    let word = super::conditions::word(state, loaded);
    let is_own = loaded.policy.mode == PolicyMode::Audit && state.facts.mode == Mode::Enforce;
    if is_own && word == Why::AuditMode.label() { AUDITING.to_owned() } else { word.to_owned() }
}

/// Where every policy object stands.
pub(super) fn infos(state: &State) -> Vec<ClusterPolicyInfo> {
    let in_force = |object: &ClusterPolicy| {
        let good = object.good.as_ref()?;
        let published = state.published.as_ref()?;
        let is_current = published.inputs.revision == state.revision;
        (is_current && state.asked.policies.hides(&object.key).is_none()).then(|| good.object.clone())
    };
    let info = |object: &Arc<ClusterPolicy>| ClusterPolicyInfo {
        key: object.key.clone(),
        object: object.object.clone(),
        problems: object.problems.clone(),
        in_force: in_force(object),
        hidden_by: state.asked.policies.hides(&object.key).map(str::to_owned),
        standing: state
            .asked
            .policies
            .cluster
            .get(&object.key)
            .map(|it| standing(state, it))
            .unwrap_or_default(),
    };
    state.objects.values().map(info).collect()
}
