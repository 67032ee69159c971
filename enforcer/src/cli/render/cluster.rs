//! Policies and nodes of a cluster.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::clean;
use super::status::duration;
use super::table::table;
use crate::cluster::policies::Applied;
use crate::domain::cluster_policy::ObjectVersion;
use crate::domain::fleet::{Node, Progress, is_realized};
use crate::domain::policy::model::PolicyKey;
use crate::domain::timestamp::Timestamp;

fn named(key: &PolicyKey) -> String {
    let kind = key.kind.label().to_lowercase();
    let place =
        if key.namespace.is_empty() { key.name.clone() } else { format!("{}/{}", key.namespace, key.name) };
    format!("{kind} {}", clean(&place))
}

/// One line a policy, as kubectl has it.
pub fn applied(applied: &[Applied], dry_run: bool) -> String {
    let dry = if dry_run { " (server dry run)" } else { "" };
    let line = |one: &Applied| {
        let generation = one.object.generation;
        format!("{} {} (generation {generation}){dry}\n", named(&one.key), one.change)
    };
    applied.iter().map(line).collect()
}

/// A policy that was deleted.
pub fn deleted(key: &PolicyKey) -> String {
    format!("{} deleted\n", named(key))
}

/// What has changed of how far a policy is: a line for each node that has got further, and the sum.
pub fn progress(key: &PolicyKey, version: &ObjectVersion, old: Option<&Progress>, new: &Progress) -> String {
    let mut text = String::new();
    let was = |node: &String| old.is_some_and(|old| old.realized.contains(node));
    for node in new.realized.iter().filter(|node| !was(node)) {
        let _infallible = writeln!(text, "{}: {} enforced", clean(node), named(key));
    }
    for (node, why) in &new.waiting {
        if old.is_none_or(|old| !old.waiting.contains(&(node.clone(), why.clone()))) {
            let _infallible = writeln!(text, "{}: {} waits: {}", clean(node), named(key), clean(why));
        }
    }
    let generation = version.generation;
    let _infallible = writeln!(
        text,
        "{} of {} nodes enforce {} (generation {generation})",
        new.realized.len(),
        new.desired,
        named(key)
    );
    text
}

/// The time is over.
pub fn missing(
    key: &PolicyKey,
    version: &ObjectVersion,
    known: Option<&Progress>,
    patience: Duration,
) -> String {
    let after = duration(patience.as_secs());
    let what = format!("{} (generation {})", named(key), version.generation);
    let Some(progress) = known else { return format!("after {after}, nothing is known of {what}") };
    if progress.desired == 0 {
        return format!(
            "after {after}, no node reports; {what} is stored, and nobody is known to enforce it"
        );
    }
    let list: Vec<String> = progress.waiting.iter().map(|(node, why)| format!("{node} ({why})")).collect();
    let shown = list.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = match list.len().saturating_sub(10) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (done, all) = (progress.realized.len(), progress.desired);
    format!("after {after}, {done} of {all} nodes enforce {what}; not {shown}{more}")
}

/// How far a policy is by its status.
pub fn counts(key: &PolicyKey, status: &Value) -> String {
    let number = |name: &str| status[name].as_u64().unwrap_or(0);
    format!("{} of {} nodes enforce {}\n", number("nodesRealized"), number("nodesDesired"), named(key))
}

/// A policy, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    kind: &'static str,
    namespace: String,
    name: String,
    change: &'static str,
    generation: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes_desired: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes_realized: Option<usize>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    waiting: BTreeMap<String, String>,
}

/// Policies, for programs.
pub fn records(applied: &[Applied], seen: &BTreeMap<PolicyKey, Progress>) -> Vec<Record> {
    let record = |one: &Applied| {
        let progress = seen.get(&one.key);
        Record {
            kind: one.key.kind.label(),
            namespace: one.key.namespace.clone(),
            name: one.key.name.clone(),
            change: one.change,
            generation: one.object.generation,
            nodes_desired: progress.map(|progress| progress.desired),
            nodes_realized: progress.map(|progress| progress.realized.len()),
            waiting: progress.map(|progress| progress.waiting.iter().cloned().collect()).unwrap_or_default(),
        }
    };
    applied.iter().map(record).collect()
}

/// A node, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRecord {
    node: String,
    version: String,
    generation: u64,
    phase: String,
    present: bool,
    heard: String,
    policies: usize,
    enforced: usize,
    problems: Vec<String>,
}

/// Nodes, for programs.
pub fn node_records(nodes: &[Node], now: Timestamp) -> Vec<NodeRecord> {
    let record = |node: &Node| NodeRecord {
        node: node.name.clone(),
        version: node.report.version.clone(),
        generation: node.report.generation,
        phase: node.report.phase.clone(),
        present: node.is_present(now),
        heard: node.heard.whole_seconds(),
        policies: node.report.standings.len(),
        enforced: node.report.standings.values().filter(|word| is_realized(word)).count(),
        problems: node.report.problems.clone(),
    };
    nodes.iter().map(record).collect()
}

/// `status --cluster`
pub fn nodes(nodes: &[Node], now: Timestamp) -> String {
    let row = |node: &Node| {
        let age = u64::try_from(now.seconds.saturating_sub(node.heard.seconds)).unwrap_or(0);
        let enforced = node.report.standings.values().filter(|word| is_realized(word)).count();
        let phase = if node.is_present(now) {
            node.report.phase.clone()
        } else {
            format!("unheard (was {})", node.report.phase)
        };
        vec![
            node.name.clone(),
            node.report.version.clone(),
            node.report.generation.to_string(),
            phase,
            format!("{enforced}/{}", node.report.standings.len()),
            duration(age),
            node.report.problems.join("; "),
        ]
    };
    let rows: Vec<_> = nodes.iter().map(row).collect();
    table(&["NODE", "VERSION", "GENERATION", "PHASE", "POLICIES", "HEARD", "PROBLEMS"], &rows)
}

/// Names of nodes, not more than can be read.
pub fn names(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = names.iter().take(SHOWN).map(|name| clean(name)).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
