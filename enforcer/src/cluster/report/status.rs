//! The status of a policy object, made of what all nodes say.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::domain::cluster_policy::ClusterPolicyInfo;
use crate::domain::fleet::{self, Node, Progress, REFUSED};
use crate::domain::policy::model::PolicyKind;
use crate::domain::timestamp::Timestamp;

/// Nodes that a message names.
const NAMED: usize = 5;

/// Kinds whose status is ours, with the plural.
pub(super) const fn plural(kind: PolicyKind) -> Option<&'static str> {
    match kind {
        PolicyKind::TrafficPolicy => Some("trafficpolicies"),
        PolicyKind::ClusterTrafficPolicy => Some("clustertrafficpolicies"),
        _ => None,
    }
}

/// What the status should be; `before` is what it is.
pub(super) fn status(
    info: &ClusterPolicyInfo,
    nodes: &BTreeMap<String, Node>,
    before: &Value,
    now: Timestamp,
) -> Value {
    let progress = fleet::progress(nodes.values(), &info.object, now);
    let refused: Vec<&str> =
        progress.waiting.iter().filter(|(_, why)| why == REFUSED).map(|(node, _)| node.as_str()).collect();
    let accepted = if !info.problems.is_empty() {
        ("False", "Refused", info.problems.join(" | "))
    } else if refused.is_empty() {
        ("True", "Accepted", "it is valid".to_owned())
    } else {
        ("False", "Refused", format!("refused by {}", some(&refused)))
    };
    let all = progress.desired > 0 && progress.programmed == progress.desired;
    let counted = format!("{} of {} nodes", progress.programmed, progress.desired);
    let programmed = if all { ("True", "AllNodes", counted) } else { ("False", "SomeNodes", counted) };
    let enforcing = enforcing(&progress);
    let condition = |kind: &str, (status, reason, message): (&str, &str, String)| {
        let known = before["conditions"].as_array().into_iter().flatten();
        let known = known.clone().find(|it| it["type"] == kind && it["status"] == status);
        let since = known.and_then(|it| it["lastTransitionTime"].as_str()).map(str::to_owned);
        let message: String = message.chars().take(1000).collect();
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since.unwrap_or_else(|| now.whole_seconds()),
            "observedGeneration": info.object.generation,
        })
    };
    json!({
        "nodesDesired": progress.desired,
        "nodesRealized": progress.realized.len(),
        "conditions": [
            condition("Accepted", accepted),
            condition("Programmed", programmed),
            condition("Enforcing", enforcing),
        ],
    })
}

fn enforcing(progress: &Progress) -> (&'static str, &'static str, String) {
    let counted = format!("{} of {} nodes", progress.realized.len(), progress.desired);
    if progress.is_done() {
        return ("True", "AllNodes", counted);
    }
    if progress.desired == 0 {
        return ("Unknown", "NoNodes", "no node has said anything yet".to_owned());
    }
    let waiting: Vec<String> = progress.waiting.iter().map(|(node, why)| format!("{node} ({why})")).collect();
    let waiting: Vec<&str> = waiting.iter().map(String::as_str).collect();
    ("False", "SomeNodes", format!("{counted}; not {}", some(&waiting)))
}

/// The first of them, and how many more there are.
fn some(all: &[&str]) -> String {
    let first = all.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
