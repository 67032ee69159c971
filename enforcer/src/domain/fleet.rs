//! What the nodes of a cluster say of themselves, and what follows from it for a policy.
//!
//! Each node writes one small object that is its own (a Lease), so no two nodes ever write the same one, and nobody has to
//! agree with anybody. How far a policy is, readers work out: [`progress`].

use std::collections::BTreeMap;

use super::cluster_policy::{ClusterPolicyInfo, ObjectVersion};
use super::conditions::Why;
use super::timestamp::Timestamp;

/// The namespace in which the nodes' Leases are.
pub const NAMESPACE: &str = "enforcer-system";
/// The label by which Leases of nodes are found, and its value.
pub const LABEL: (&str, &str) = ("enforcer.dev/lease", "node");
/// How a node's Lease is called: this, and the node's name.
pub const LEASE_PREFIX: &str = "enforcer-node-";
/// Problems that a node tells of; there may be more.
const PROBLEMS: usize = 5;
/// Letters of a problem that are told.
const LETTERS: usize = 300;
/// All annotations of an object may have 256 KiB.
const POLICIES_BYTES: usize = 200 * 1024;

const VERSION: &str = "enforcer.dev/version";
const PHASE: &str = "enforcer.dev/phase";
const GENERATION: &str = "enforcer.dev/generation";
const PROBLEM: &str = "enforcer.dev/problems";
const POLICIES: &str = "enforcer.dev/policies";

/// Where a policy stands that is enforced as it should be, in a list without words.
const ENFORCING: &str = "Enforcing";
/// Its own mode is audit, and that is what happens.
pub const AUDITING: &str = "Auditing";
/// The node refuses the object.
pub const REFUSED: &str = "Refused";
/// A file or a push of the node hides the object.
pub const HIDDEN: &str = "Hidden";

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// Version of its agent.
    pub version: String,
    /// State of its agent, as `enforcer status` has it.
    pub phase: String,
    /// Generation of its tables.
    pub generation: u64,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// Where policy objects stand, by [`mark`]: the reason of the condition Enforcing, or a word of this module.
    pub standings: BTreeMap<String, String>,
}

/// A node, as the cluster knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it said last.
    pub report: NodeReport,
    /// When that was.
    pub heard: Timestamp,
    /// For how many seconds that counts.
    pub lasts: i64,
}

impl Node {
    /// Whether its word still counts.
    pub fn is_present(&self, now: Timestamp) -> bool {
        self.heard.seconds.saturating_add(self.lasts) >= now.seconds
    }
}

/// One version of one object, in few letters: the first 48 bits of its UID, and its generation.
pub fn mark(object: &ObjectVersion) -> String {
    let uid: String = object.uid.chars().filter(|letter| *letter != '-').take(12).collect();
    format!("{uid}:{}", object.generation)
}

/// Where an object stands on a node, in a word.
pub fn standing(info: &ClusterPolicyInfo) -> String {
    let word = if !info.problems.is_empty() {
        REFUSED
    } else if info.hidden_by.is_some() {
        HIDDEN
    } else if info.in_force.as_ref() != Some(&info.object) {
        Why::NotPublished.label()
    } else {
        &info.standing
    };
    word.to_owned()
}

/// Whether a word says that everything happens that the policy asks for.
pub fn is_realized(standing: &str) -> bool {
    [ENFORCING, AUDITING, Why::Unconfirmed.label()].contains(&standing)
}

/// Whether a word says that the table in force has the policy.
pub fn is_programmed(standing: &str) -> bool {
    let lacks = [Why::NotPublished.label(), Why::Expired.label(), REFUSED, HIDDEN, ""];
    !lacks.contains(&standing)
}

impl NodeReport {
    /// As annotations of the node's Lease.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let short = |problem: &String| problem.chars().take(LETTERS).collect::<String>();
        let problems: Vec<String> = self.problems.iter().take(PROBLEMS).map(short).collect();
        let mut policies = String::new();
        for (mark, standing) in &self.standings {
            if policies.len() > POLICIES_BYTES {
                break;
            }
            if !policies.is_empty() {
                policies.push(' ');
            }
            policies.push_str(mark);
            if standing != ENFORCING {
                policies.push(':');
                policies.push_str(standing);
            }
        }
        [
            (VERSION, self.version.clone()),
            (PHASE, self.phase.clone()),
            (GENERATION, self.generation.to_string()),
            (PROBLEM, problems.join("\n")),
            (POLICIES, policies),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// From the annotations of a node's Lease; what is missing or no sense is as if nothing had been said.
    pub fn read(annotations: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| annotations.get(name).map_or("", String::as_str);
        let entry = |entry: &str| {
            let mut parts = entry.splitn(3, ':');
            let mark = format!("{}:{}", parts.next()?, parts.next()?);
            Some((mark, parts.next().unwrap_or(ENFORCING).to_owned()))
        };
        Self {
            version: text(VERSION).to_owned(),
            phase: text(PHASE).to_owned(),
            generation: text(GENERATION).parse().unwrap_or(0),
            problems: text(PROBLEM).lines().map(str::to_owned).collect(),
            standings: text(POLICIES).split_whitespace().filter_map(entry).collect(),
        }
    }
}

/// How far a policy is in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Nodes that are to enforce it: all that have ever said something, and are still nodes.
    pub desired: usize,
    /// Nodes on which it happens as asked for.
    pub realized: Vec<String>,
    /// Nodes whose tables have it.
    pub programmed: usize,
    /// The others, and why.
    pub waiting: Vec<(String, String)>,
}

impl Progress {
    /// Whether nothing is missing. In a cluster without nodes, something is.
    pub fn is_done(&self) -> bool {
        self.desired > 0 && self.realized.len() == self.desired
    }
}

/// Says how far a version of a policy object is. A node that is no longer heard of does not count as one that enforces it:
/// what it said was true then.
pub fn progress<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    object: &ObjectVersion,
    now: Timestamp,
) -> Progress {
    let mark = mark(object);
    let mut progress = Progress::default();
    for node in nodes {
        progress.desired += 1;
        let standing = node.report.standings.get(&mark).map_or("", String::as_str);
        if !node.is_present(now) {
            let since = node.heard.whole_seconds();
            progress.waiting.push((node.name.clone(), format!("not heard of since {since}")));
            continue;
        }
        progress.programmed += usize::from(is_programmed(standing));
        if is_realized(standing) {
            progress.realized.push(node.name.clone());
        } else {
            let why = if standing.is_empty() { "has not seen it yet" } else { standing };
            progress.waiting.push((node.name.clone(), why.to_owned()));
        }
    }
    progress
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(uid: &str, generation: i64) -> ObjectVersion {
        ObjectVersion { uid: uid.into(), generation }
    }

    fn node(name: &str, heard: i64, standings: &[(&ObjectVersion, &str)]) -> Node {
        let standings = standings.iter().map(|(object, word)| (mark(object), (*word).to_owned())).collect();
        let report = NodeReport { standings, ..NodeReport::default() };
        Node { name: name.into(), report, heard: Timestamp { seconds: heard, nanos: 0 }, lasts: 120 }
    }

    #[test]
    fn a_report_is_what_it_was_when_it_is_read_again() {
        let a = version("1f3a9c2e-5b71-4c00-8000-0123456789ab", 3);
        let b = version("2f3a9c2e-5b71-4c00-8000-0123456789ab", 1);
        let report = NodeReport {
            version: "0.1.0".into(),
            phase: "enforcing".into(),
            generation: 7,
            problems: vec!["one".into(), "two: three".into()],
            standings: [(mark(&a), "Enforcing".to_owned()), (mark(&b), "Refused".to_owned())].into(),
        };
        let annotations = report.annotations();
        assert_eq!(annotations["enforcer.dev/policies"], "1f3a9c2e5b71:3 2f3a9c2e5b71:1:Refused");
        assert_eq!(NodeReport::read(&annotations), report);
        assert_eq!(NodeReport::read(&BTreeMap::new()), NodeReport::default());
    }

    #[test]
    fn five_hundred_policies_are_few_kilobytes() {
        let standings = (0..500).map(|n| (format!("{n:012x}:1"), "Enforcing".to_owned())).collect();
        let report = NodeReport { standings, ..NodeReport::default() };
        let bytes: usize = report.annotations().values().map(String::len).sum();
        assert!(bytes < 8 * 1024, "{bytes}");
    }

    #[test]
    fn only_the_present_word_on_the_present_version_counts() {
        let now = Timestamp { seconds: 1000, nanos: 0 };
        let (old, new) = (version("aaaa", 1), version("aaaa", 2));
        let nodes = [
            node("n1", 950, &[(&new, "Enforcing")]),
            node("n2", 950, &[(&old, "Enforcing")]),
            node("n3", 800, &[(&new, "Enforcing")]),
            node("n4", 950, &[(&new, "CanaryPending")]),
        ];
        let progress = progress(&nodes, &new, now);
        assert_eq!((progress.desired, progress.programmed), (4, 2));
        assert_eq!(progress.realized, ["n1"]);
        let waiting: Vec<_> = progress.waiting.iter().map(|(node, why)| format!("{node}: {why}")).collect();
        assert_eq!(
            waiting,
            ["n2: has not seen it yet", "n3: not heard of since 1970-01-01T00:13:20Z", "n4: CanaryPending",]
        );
        assert!(!progress.is_done());
        assert!(super::progress(&nodes[..1], &new, now).is_done());
        assert!(!super::progress(&[], &new, now).is_done(), "nobody is not everybody");
    }
}
