//! Where a policy stands: accepted, programmed, enforcing; on which generation, and since when.
//!
//! The shape is that of conditions in Kubernetes (`metav1.Condition`), so that a policy has the same status wherever it is
//! kept. One that is accepted and waits says which of them it waits with, and for what.

use serde::{Deserialize, Serialize};

use super::labels::{Condition as LabelCondition, Requirement, Selector};
use super::policy::model::{Peer, Peers, Pending, Policy};

/// What is asked of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionType {
    /// It is valid and loaded.
    Accepted,
    /// It is in the table that the kernel has.
    Programmed,
    /// What it says holds: proven by a connection that was tried and refused.
    Enforcing,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// Yes.
    True,
    /// No.
    False,
    /// Nobody can tell.
    Unknown,
}

impl ConditionStatus {
    /// As it is written.
    pub const fn label(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Why a condition is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It is valid.
    Accepted,
    /// It is in the table.
    Programmed,
    /// It holds.
    Enforcing,
    /// It holds, and is taken back unless it is confirmed.
    Unconfirmed,
    /// It is not in the table yet.
    NotPublished,
    /// It is over, so the table leaves it out.
    Expired,
    /// Some of its peers are accepted and not known yet: they match nobody.
    PendingPeers,
    /// The hooks that judge are not attached, or not all of them.
    HooksNotAttached,
    /// Its denials are reported and let through.
    AuditMode,
    /// The agent judges nothing.
    Off,
    /// The connection that should have been refused was not.
    CanaryFailed,
    /// No connection has been tried since it was published.
    CanaryPending,
    /// No connection can be tried.
    NotProven,
}

impl Why {
    /// Every reason.
    pub const ALL: [Self; 13] = [
        Self::Accepted,
        Self::Programmed,
        Self::Enforcing,
        Self::Unconfirmed,
        Self::NotPublished,
        Self::Expired,
        Self::PendingPeers,
        Self::HooksNotAttached,
        Self::AuditMode,
        Self::Off,
        Self::CanaryFailed,
        Self::CanaryPending,
        Self::NotProven,
    ];

    /// The `reason` of a condition, and the word in lists and metrics; stable.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Programmed => "Programmed",
            Self::Enforcing => "Enforcing",
            Self::Unconfirmed => "Unconfirmed",
            Self::NotPublished => "NotPublished",
            Self::Expired => "Expired",
            Self::PendingPeers => "PendingPeers",
            Self::HooksNotAttached => "HooksNotAttached",
            Self::AuditMode => "AuditMode",
            Self::Off => "Off",
            Self::CanaryFailed => "CanaryFailed",
            Self::CanaryPending => "CanaryPending",
            Self::NotProven => "NotProven",
        }
    }

    /// Those that a policy as a whole can have: the words of `policy list`, and of the metric.
    pub fn of_policies() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|why| !matches!(why, Self::Accepted | Self::Programmed))
    }
}

/// One answer, as Kubernetes has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is asked.
    #[serde(rename = "type")]
    pub kind: ConditionType,
    /// The answer.
    pub status: ConditionStatus,
    /// Why, in one word: [`Why::label`].
    pub reason: String,
    /// The same in a sentence.
    pub message: String,
    /// Since when `status` is what it is, RFC 3339.
    pub last_transition_time: String,
    /// The generation of the tables for which this was found; 0 for none.
    pub observed_generation: u64,
}

/// Where a policy stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// The whole in one word: `Enforcing`, or what keeps it from that.
    pub summary: String,
    /// The generation of the tables that has it as it is now; 0 for none.
    pub generation: u64,
    /// Since when the summary's condition is what it is, RFC 3339.
    pub since: String,
    /// Peers that are accepted and match nobody yet, by rule.
    pub pending: Vec<String>,
    /// Accepted, Programmed, Enforcing.
    pub conditions: Vec<Condition>,
}

/// Peers of a policy that are accepted and match nobody yet: `egress[0]: domainNames example.com`.
pub fn pending(policy: &Policy) -> Vec<String> {
    let mut all = Vec::new();
    for (section, index, rule) in policy.all_rules() {
        let Peers::AnyOf(peers) = &rule.peers else { continue };
        let pending = peers.iter().filter_map(|peer| match peer {
            Peer::Pending(pending) => Some(pending),
            _ => None,
        });
        all.extend(pending.map(|peer| format!("{}[{index}]: {}", section.label(), words(peer))));
    }
    all
}

/// Whether a policy has such peers.
pub fn is_pending(policy: &Policy) -> bool {
    policy.all_rules().any(|(_, _, rule)| {
        matches!(&rule.peers, Peers::AnyOf(peers) if peers.iter().any(|peer| matches!(peer, Peer::Pending(_))))
    })
}

fn words(pending: &Pending) -> String {
    match pending {
        Pending::Domains(names) => format!("domainNames {}", names.join(", ")),
        Pending::Nodes(selector) => format!("nodes {}", selector_text(selector)),
    }
}

/// As `kubectl -l` writes selectors.
fn selector_text(selector: &Selector) -> String {
    if selector.requirements.is_empty() {
        return "(all)".to_owned();
    }
    let list = |values: &std::collections::BTreeSet<String>| {
        values.iter().map(String::as_str).collect::<Vec<_>>().join(",")
    };
    let text = |Requirement { key, condition }: &Requirement| match condition {
        LabelCondition::In(values) if values.len() == 1 => format!("{key}={}", list(values)),
        LabelCondition::In(values) => format!("{key} in ({})", list(values)),
        LabelCondition::NotIn(values) => format!("{key} notin ({})", list(values)),
        LabelCondition::Exists => key.clone(),
        LabelCondition::DoesNotExist => format!("!{key}"),
    };
    selector.requirements.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::command::PolicyFile;
    use crate::domain::policy::check::check;

    #[test]
    fn peers_that_wait_are_named_with_their_rule() {
        let text = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\n\
                    spec:\n  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n  egress:\n\
                    \x20 - {action: Accept, to: [{networks: [192.0.2.0/24]}]}\n\
                    \x20 - {action: Accept, to: [{domainNames: [example.com, '*.example.org']}, \
                    {nodes: {matchLabels: {a: b}, matchExpressions: [{key: c, operator: DoesNotExist}]}}]}\n";
        let outcome = check(&[PolicyFile { name: "x.yaml".into(), text: text.into() }]);
        assert!(outcome.is_ok(), "{:?}", outcome.diagnostics);
        let policy = &outcome.policies[0].policy;
        assert!(is_pending(policy));
        assert_eq!(
            pending(policy),
            ["egress[1]: domainNames example.com, *.example.org", "egress[1]: nodes a=b,!c"]
        );
    }

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let mut labels: Vec<_> = Why::ALL.iter().map(|why| why.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Why::ALL.len());
    }
}
