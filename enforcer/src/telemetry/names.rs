//! How numbers are shown.

use enforcer_common::id::{CgroupId, IdentityId, RuleId};
use rpds::RedBlackTreeSetSync;

use crate::domain::flow::{FlowEndpoint, FlowRule};
use crate::domain::labels::LabelSet;
use crate::domain::names::Names;
use crate::domain::policy::model::RuleKey;
use crate::domain::workload::ByName;

/// The only kind of policy that this version has.
const KIND: &str = "TrafficPolicy";
/// Workloads of one identity that a flow names one by one.
const NAMED_WORKLOADS: usize = 8;

/// `ingress[0]`, or `ingress (isolated)`.
pub(super) fn rule_place(key: &RuleKey) -> String {
    let direction = key.direction.label();
    match key.index {
        Some(index) => format!("{direction}[{index}]"),
        None => format!("{direction} (isolated)"),
    }
}

/// The rule of a flow, with its own name behind its place if it has one.
pub(super) fn rule(names: &Names, id: RuleId) -> Option<FlowRule> {
    if id == RuleId::NONE {
        return None;
    }
    let kind = |key: Option<&RuleKey>| key.map_or(KIND, |key| key.policy.kind.label()).to_owned();
    Some(match names.rules.get(&id) {
        Some((key, own)) => FlowRule {
            namespace: key.policy.namespace.clone(),
            name: key.policy.name.clone(),
            kind: kind(Some(key)),
            rule: own.as_ref().map_or_else(|| rule_place(key), |own| format!("{} ({own})", rule_place(key))),
        },
        // A rule of tables that another agent published and whose names are gone.
        None => FlowRule {
            namespace: String::new(),
            name: String::new(),
            kind: kind(None),
            rule: format!("rule {id}"),
        },
    })
}

/// One end of a flow. `cgroup` is where its socket was made, 0 if not known.
pub(super) fn endpoint(names: &Names, identity: u32, cgroup: u64) -> FlowEndpoint {
    let id = IdentityId(identity);
    let (namespace, labels) = match names.identities.get(&id) {
        Some(key) => (key.namespace.clone(), label_texts(&key.labels)),
        None => (String::new(), vec![reserved(id)]),
    };
    let service = names.identities.get(&id).and_then(|key| key.service.clone());
    let workloads = match names.cgroups.get(&CgroupId(cgroup)) {
        Some(one) => vec![one.name.clone()],
        None if service.is_some() => service.into_iter().collect(),
        None => names.workloads.get(&id).map(|workloads| several(workloads)).unwrap_or_default(),
    };
    FlowEndpoint { identity, namespace, labels, workloads, cgroup_id: cgroup }
}

/// The first few names; how many more there are is said in the last place.
fn several(workloads: &RedBlackTreeSetSync<ByName>) -> Vec<String> {
    let mut several: Vec<String> =
        workloads.iter().take(NAMED_WORKLOADS).map(|workload| workload.name.clone()).collect();
    if workloads.size() > NAMED_WORKLOADS {
        several.push(format!("({} more)", workloads.size() - NAMED_WORKLOADS));
    }
    several
}

fn label_texts(labels: &LabelSet) -> Vec<String> {
    labels.0.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn reserved(id: IdentityId) -> String {
    id.reserved_name().map_or_else(|| format!("identity:{id}"), |name| format!("reserved:{name}"))
}

/// What a metric calls an identity: (namespace, name). The name is the value of the first of `name_labels` that it has,
/// else the only workload's name, else all labels; of a service its own name.
pub(super) fn short(names: &Names, id: IdentityId, name_labels: &[String]) -> (String, String) {
    let Some(key) = names.identities.get(&id) else { return (String::new(), reserved(id)) };
    if let Some(service) = &key.service {
        return (key.namespace.clone(), service.clone());
    }
    let labelled = name_labels.iter().find_map(|label| key.labels.0.get(label));
    let only = names.workloads.get(&id).filter(|workloads| workloads.size() == 1);
    let name = match (labelled, only.and_then(|workloads| workloads.first())) {
        (Some(name), _) if !name.is_empty() => name.clone(),
        (_, Some(one)) => one.name.clone(),
        _ => key.labels.to_string(),
    };
    (key.namespace.clone(), name)
}
