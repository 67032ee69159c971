//! A record, in the names of the Elastic Common Schema (ECS 8.17).
//!
//! The order of members is the order of the fields here, and `event` is the last: the hash stands at the end of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Kind;
use super::chain::Hash;
use crate::domain::flow::{FlowEndpoint, FlowRule};
use crate::domain::timestamp::Timestamp;

/// Version of ECS whose names are used.
pub const ECS: &str = "8.17.0";
/// `event.dataset` of every record.
pub const DATASET: &str = "enforcer.audit";

/// One record. What is not known is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it was written.
    #[serde(rename = "@timestamp")]
    pub timestamp: Timestamp,
    /// One sentence for people.
    pub message: String,
    /// Version of the names.
    pub ecs: Ecs,
    /// Where.
    pub host: Host,
    /// The rule that decided, or the policy that changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
    /// Who opened the flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Place>,
    /// Who was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Place>,
    /// What was spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Whose call it was: the workload's process, or the client of the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// Names and labels of workloads, flat.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What ECS has no name for.
    pub enforcer: Own,
    /// What happened.
    pub event: Event,
}

/// `ecs`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ecs {
    /// Its version.
    pub version: String,
}

/// `host`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Name of the host.
    pub hostname: String,
    /// This run of it.
    pub boot: Boot,
}

/// `host.boot`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel's name for this run of the host.
    pub id: String,
}

/// `rule`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Number of the rule, 0 where a policy as a whole is meant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The rule within its policy, such as `ingress[0]`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Kind of the policy.
    pub category: String,
    /// `namespace/name` of the policy.
    pub ruleset: String,
}

/// `source`, `destination`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The workload, or what stands for it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// An address, of the last event that told one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// A port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// `network`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// `egress` or `ingress`: whose policy decided.
    pub direction: String,
    /// Name of the protocol in lower case.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub transport: String,
    /// Number of the protocol.
    pub iana_number: String,
}

/// `process`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id on the host.
    pub pid: u32,
    /// Its command name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// `user`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id on the host.
    pub id: String,
    /// Its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
}

/// `user.group`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Group id on the host.
    pub id: String,
}

/// `enforcer`: what ECS has no name for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// What the record is about.
    pub kind: Kind,
    /// Hash of the record before this one.
    pub previous_hash: Hash,
    /// Generation of the tables in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Verdicts that the record stands for, by the kernel's counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdicts: Option<Verdicts>,
    /// What a document says now that it did not say before, and the reverse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Diff>,
    /// Records that did not get into the log since the last one that did, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<Kind, u64>,
    /// A workload as it is now; `None` in `identity` means that it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
}

/// Verdicts of one edge and interval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// How many. Exact: the difference of the kernel's counter.
    pub count: u64,
    /// What the counter says now; the next record of this edge goes on from here.
    pub total: u64,
    /// The kernel map that has the counter: a new one begins anew.
    pub map: u32,
    /// The row: subject, peer, rule, port, protocol, reason, direction, outcome.
    pub edge: [u32; 8],
    /// Events of them that told details; the others were lost on the way, or sampled out.
    pub events: u64,
    /// What the call ended with, by the last such event.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub errno: String,
    /// The hook that refused, by the last such event.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hook: String,
}

/// How a document changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// Where the document comes from: `pushed`, or a file.
    pub origin: String,
    /// SHA-256 of the document before; none if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Hash>,
    /// SHA-256 of the document now; none if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Hash>,
    /// A unified diff.
    pub diff: String,
    /// Whether the diff is longer than a record may be and was cut.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// `namespace/name`.
    pub name: String,
    /// Its identity now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<u32>,
}

/// `event`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Number of the record; rises by one with each.
    pub sequence: u64,
    /// `event` or `state`, as ECS has it.
    pub kind: String,
    /// As ECS has them.
    pub category: Vec<String>,
    /// As ECS has them.
    #[serde(rename = "type")]
    pub types: Vec<String>,
    /// What was done, in a word of this log.
    pub action: String,
    /// `success`, `failure` or `unknown`.
    pub outcome: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Since when, where the record stands for several things.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
    /// What was found and could not be read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub original: String,
    /// Who wrote it.
    pub provider: String,
    /// [`DATASET`]. Never left out, so that a hash can follow it.
    pub dataset: String,
}

/// What happened, in the words of ECS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// What the record is about.
    pub kind: Kind,
    /// `event.action`.
    pub action: &'static str,
    /// `event.category`.
    pub category: &'static str,
    /// `event.type`.
    pub types: &'static [&'static str],
    /// `event.outcome`.
    pub outcome: &'static str,
}

impl Record {
    /// A record that says so much and nothing else.
    pub fn new(timestamp: Timestamp, host: &Host, action: Action, message: impl Into<String>) -> Self {
        let Action { kind, action, category, types, outcome } = action;
        Self {
            timestamp,
            message: message.into(),
            ecs: Ecs { version: ECS.to_owned() },
            host: host.clone(),
            rule: None,
            source: None,
            destination: None,
            network: None,
            process: None,
            user: None,
            labels: BTreeMap::new(),
            enforcer: Own {
                kind,
                previous_hash: Hash::GENESIS,
                generation: None,
                verdicts: None,
                change: None,
                lost: BTreeMap::new(),
                workload: None,
            },
            event: Event {
                sequence: 0,
                kind: "event".to_owned(),
                category: vec![category.to_owned()],
                types: types.iter().map(|word| (*word).to_owned()).collect(),
                action: action.to_owned(),
                outcome: outcome.to_owned(),
                reason: String::new(),
                start: None,
                end: None,
                original: String::new(),
                provider: "enforcer".to_owned(),
                dataset: DATASET.to_owned(),
            },
        }
    }

    /// Names one end of a flow: `source` or `destination`.
    pub fn name_end(&mut self, end: &'static str, who: &FlowEndpoint) {
        let texts = [
            ("identity", who.identity.to_string()),
            ("namespace", who.namespace.clone()),
            ("workloads", who.workloads.join(",")),
            ("labels", who.labels.join(",")),
        ];
        let known = texts.into_iter().filter(|(_, text)| !text.is_empty());
        self.labels.extend(known.map(|(key, text)| (format!("{end}_{key}"), text)));
    }

    /// Names the rule.
    pub fn name_rule(&mut self, id: u32, rule: FlowRule) {
        let ruleset = match (rule.namespace.as_str(), rule.name) {
            ("", name) => name,
            (namespace, name) => format!("{namespace}/{name}"),
        };
        self.rule = Some(Rule { id: id.to_string(), name: rule.rule, category: rule.kind, ruleset });
    }
}
