//! Policies with expected reachability from public suites (`tests/conformance/`), judged offline: by the table that the agent
//! would load, with the function that the kernel runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use enforcer::domain::cluster_file::{Cluster, parse_cluster};
use enforcer::domain::command::PolicyFile;
use enforcer::domain::offline::{End, Flow, Offline, parse_port, port_text};
use enforcer::domain::policy::check::check;
use enforcer::domain::policy::diagnostic::{Diagnostic, Source};
use enforcer::domain::timestamp::Timestamp;
use enforcer::domain::workload::WorkloadKey;
use enforcer::domain::yaml::{self, Node, Reader, Value};

/// The sets, in the order in which they are told.
pub const SETS: [&str; 5] =
    ["e2e-netpol", "generated", "recipes", "cluster-network-policy", "cluster-network-policy-changed"];
/// Longest file of a set, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// One case: policies in a cluster, and what reaches what.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, unique in its set.
    pub name: String,
    /// What it is about, in the words of its source.
    pub title: String,
    /// Which cluster it is in.
    pub cluster: Cluster,
    /// The documents of its policies.
    pub policies: String,
    /// What is expected of each flow.
    pub flows: Vec<(Flow, bool)>,
}

/// How a set went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Cases judged.
    pub cases: usize,
    /// Flows judged: ordered pairs of pods on one protocol and port.
    pub pairs: usize,
    /// What came out otherwise than expected, one sentence each.
    pub differences: Vec<String>,
}

/// Folder of the sets: `ENFORCER_CONFORMANCE`, or the one of the sources.
pub fn folder() -> PathBuf {
    let sources = || Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    std::env::var_os("ENFORCER_CONFORMANCE").map_or_else(sources, PathBuf::from)
}

/// The cases of a set.
///
/// # Errors
/// If the files are not as they should be.
pub fn load(set: &str) -> anyhow::Result<Vec<Case>> {
    let file = read(&folder().join(format!("{set}.yaml")))?;
    let source = Source::new(0, &file);
    let mut reader = Reader::new(&source);
    let documents = yaml::parse_up_to(&mut reader, MAX_BYTES);
    told(&reader.finish())?;
    let root = documents.first().map(|document| &document.root);
    let Some(Value::List(items)) = root.and_then(|root| root.field("cases")).map(|node| &node.value) else {
        bail!("{} has no `cases`", file.name);
    };
    let mut clusters = BTreeMap::new();
    items.iter().map(|item| case(item, &mut clusters)).collect()
}

fn read(path: &Path) -> anyhow::Result<PolicyFile> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("read {name}"))?;
    Ok(PolicyFile { name, text })
}

fn told(diagnostics: &[Diagnostic]) -> anyhow::Result<()> {
    let errors: Vec<_> =
        diagnostics.iter().filter(|found| found.is_error()).map(ToString::to_string).collect();
    if errors.is_empty() { Ok(()) } else { bail!("{}", errors.join("\n")) }
}

fn case(item: &Node, clusters: &mut BTreeMap<String, Cluster>) -> anyhow::Result<Case> {
    let text = |field: &str| {
        let text = item.field(field).and_then(Node::as_text);
        text.map(str::to_owned).with_context(|| format!("a case has no `{field}`"))
    };
    let name = text("name")?;
    let cluster = text("cluster")?;
    if !clusters.contains_key(&cluster) {
        let file = read(&folder().join("clusters").join(format!("{cluster}.yaml")))?;
        let outcome = parse_cluster(&[file]);
        told(&outcome.diagnostics)?;
        clusters.insert(cluster.clone(), outcome.cluster);
    }
    let cluster = clusters.get(&cluster).cloned().unwrap_or_default();
    let flows = flows(item, &cluster).with_context(|| format!("case {name}"))?;
    Ok(Case { title: text("title")?, policies: text("policies")?, name, cluster, flows })
}

/// `reach`, a table for each port, or `checks`, single flows.
fn flows(item: &Node, cluster: &Cluster) -> anyhow::Result<Vec<(Flow, bool)>> {
    let mut flows = Vec::new();
    if let Some(Value::List(checks)) = item.field("checks").map(|node| &node.value) {
        for check in checks {
            let text = |field: &str| {
                check.field(field).and_then(Node::as_text).with_context(|| format!("no `{field}` in a check"))
            };
            let Some(Value::Bool(allowed)) = check.field("allowed").map(|node| &node.value) else {
                bail!("no `allowed` in a check")
            };
            let (protocol, port) = parse_port(text("port")?).context("not a port")?;
            let flow = Flow { from: end(text("from")?)?, to: end(text("to")?)?, protocol, port };
            flows.push((flow, *allowed));
        }
    }
    let Some(Value::Mapping(tables)) = item.field("reach").map(|node| &node.value) else { return Ok(flows) };
    let names: Vec<String> = cluster.pods.iter().map(|pod| pod.workload.key.to_string()).collect();
    for table in tables {
        let (protocol, port) = parse_port(&table.key).context("not a port")?;
        let Value::Mapping(rows) = &table.value.value else { bail!("not a table") };
        let found: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
        if found != names {
            bail!("the rows of {} are not the pods of the cluster: {found:?} {names:?}", table.key);
        }
        for row in rows {
            let cells = row.value.as_text().context("not a row")?;
            if cells.chars().count() != names.len() {
                bail!("row {} has another length than the list of pods", row.key);
            }
            for (to, cell) in names.iter().zip(cells.chars()) {
                let allowed = match cell {
                    'X' => true,
                    '.' => false,
                    // Undefined: a pod and itself.
                    '-' if *to == row.key => continue,
                    _ => bail!("a cell of row {} is neither `X` nor `.`", row.key),
                };
                flows.push((Flow { from: end(&row.key)?, to: end(to)?, protocol, port }, allowed));
            }
        }
    }
    Ok(flows)
}

fn end(text: &str) -> anyhow::Result<End> {
    if let Ok(address) = text.parse() {
        return Ok(End::Address(address));
    }
    let (namespace, name) = text.split_once('/').with_context(|| format!("{text} is no pod"))?;
    Ok(End::Workload(WorkloadKey { namespace: namespace.to_owned(), name: name.to_owned() }))
}

/// Judges every case of a set.
///
/// # Errors
/// If a file is not as it should be.
pub fn judge(set: &str) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    for case in load(set)? {
        outcome.cases += 1;
        outcome.pairs += case.flows.len();
        match differences(&case) {
            Ok(found) => outcome.differences.extend(found),
            Err(error) => outcome.differences.push(format!("{}: {error:#}", case.name)),
        }
    }
    Ok(outcome)
}

fn differences(case: &Case) -> anyhow::Result<Vec<String>> {
    let file = PolicyFile { name: case.name.clone(), text: case.policies.clone() };
    let checked = check(&[file]);
    told(&checked.diagnostics)?;
    let policies = checked.policies.into_iter().map(|checked| checked.policy).collect();
    let offline = Offline::new(policies, &case.cluster, Timestamp::EARLIEST)?;
    let known: BTreeSet<&End> = offline.ends().collect();
    let mut differences = Vec::new();
    for (flow, expected) in &case.flows {
        for end in [&flow.from, &flow.to] {
            if !matches!(end, End::Address(_)) && !known.contains(end) {
                bail!("{end} is not in the cluster");
            }
        }
        let judged = offline.judge(flow);
        if judged.is_allowed() == *expected {
            continue;
        }
        let mut text = String::new();
        let port = port_text(flow.protocol, flow.port);
        let wanted = if *expected { "allowed" } else { "denied" };
        write!(text, "{}: {} -> {} {port} should be {wanted}", case.name, flow.from, flow.to)?;
        if let Some(judgement) = judged.decisive() {
            let word = judgement.verdict.enforced;
            let rule = crate::numbers::rule(offline.registry(), word.rule());
            let rule = rule.map_or_else(|| "no rule".to_owned(), |rule| rule.to_string());
            write!(text, "; {} by {rule}", judgement.query.direction.label())?;
        }
        differences.push(text);
    }
    Ok(differences)
}

/// Judges all sets and prints how they went; whether all are exact.
///
/// # Errors
/// If a file is not as it should be.
pub fn run() -> anyhow::Result<bool> {
    const SHOWN: usize = 20;
    println!("{:<32} {:>6} {:>8} {:>12}", "SET", "CASES", "PAIRS", "DIFFERENCES");
    let mut exact = true;
    for set in SETS {
        let outcome = judge(set)?;
        println!("{set:<32} {:>6} {:>8} {:>12}", outcome.cases, outcome.pairs, outcome.differences.len());
        for difference in outcome.differences.iter().take(SHOWN) {
            println!("  {difference}");
        }
        exact &= outcome.differences.is_empty();
    }
    Ok(exact)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(set: &str, cases: usize, pairs: usize) {
        let outcome = judge(set).unwrap();
        assert!(outcome.differences.is_empty(), "{}", outcome.differences.join("\n"));
        assert_eq!((outcome.cases, outcome.pairs), (cases, pairs));
    }

    #[test]
    fn e2e_netpol() {
        exact("e2e-netpol", 65, 506);
    }

    #[test]
    fn generated() {
        exact("generated", 128, 54_684);
    }

    #[test]
    fn recipes() {
        exact("recipes", 15, 14_400);
    }

    #[test]
    fn cluster_network_policy() {
        exact("cluster-network-policy", 46, 81);
    }

    #[test]
    fn cluster_network_policy_changed() {
        exact("cluster-network-policy-changed", 25, 85);
    }

    #[test]
    fn a_wrong_table_is_a_difference() {
        let mut case = load("e2e-netpol").unwrap().remove(0);
        assert_eq!(differences(&case).unwrap(), [""; 0]);
        case.flows[0].1 = !case.flows[0].1;
        let told = differences(&case).unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("should be"), "{told:?}");
    }
}
