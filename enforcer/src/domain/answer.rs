//! The answer to "why": what becomes of a flow, by which policy and rule, on which line of the precedence list, and what
//! came closest.

use std::collections::BTreeMap;

use enforcer_common::id::RuleId;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::{Query, Verdict};
use serde::Serialize;

use super::offline::{End, Flow, Judgement, Offline, port_text};
use super::policy::explain::why;
use super::policy::model::{Action, Layer, Policy, PolicyKey, RuleKey};

/// What becomes of a flow, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Who would open it.
    pub from: String,
    /// The server.
    pub to: String,
    /// `PROTOCOL/port` of the server.
    pub port: String,
    /// `FORWARDED`, `DROPPED` or `AUDIT`.
    pub verdict: &'static str,
    /// How each end that is judged judges it, the client first.
    pub ends: Vec<Side>,
}

/// How one end is judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// `egress` or `ingress`.
    pub direction: &'static str,
    /// Whose policies are asked.
    pub subject: String,
    /// `FORWARDED`, `DROPPED` or `AUDIT`.
    pub verdict: &'static str,
    /// The reason in the words of flows.
    pub reason: &'static str,
    /// The same as a sentence.
    pub text: &'static str,
    /// Line of the precedence list that decides; `None` if nothing on it does.
    pub precedence: Option<u8>,
    /// The policy that decides.
    pub policy: Option<String>,
    /// Its rule, or its isolation.
    pub rule: Option<String>,
    /// The name that people gave the rule.
    pub rule_name: Option<String>,
    /// What the application gets.
    pub errno: Option<&'static str>,
    /// The policies that isolate the subject in this direction, if that is why.
    pub isolated_by: Vec<String>,
    /// The allow rule that came closest, and what it missed by.
    pub nearest_miss: Option<String>,
}

/// Answers for one flow.
pub fn answer(offline: &Offline, flow: &Flow) -> Answer {
    let judged = offline.judge(flow);
    let rules: BTreeMap<RuleId, &RuleKey> = offline.registry().rules().map(|(key, id)| (id, key)).collect();
    let egress = judged.egress.iter().map(|judgement| (&flow.from, judgement));
    let ingress = judged.ingress.iter().map(|(end, judgement)| (end, judgement));
    let ends: Vec<Side> =
        egress.chain(ingress).map(|(end, judgement)| side(offline, &rules, end, judgement)).collect();
    let verdict = ["DROPPED", "AUDIT"].into_iter().find(|word| ends.iter().any(|side| side.verdict == *word));
    Answer {
        from: flow.from.to_string(),
        to: flow.to.to_string(),
        port: port_text(flow.protocol, flow.port),
        verdict: verdict.unwrap_or("FORWARDED"),
        ends,
    }
}

fn side(
    offline: &Offline,
    rules: &BTreeMap<RuleId, &RuleKey>,
    subject: &End,
    Judgement { query, verdict }: &Judgement,
) -> Side {
    let word = verdict.reported();
    let reason = Reason::from_code(word.reason_code()).unwrap_or(Reason::None);
    let key = rules.get(&word.rule()).copied();
    let policy = key.and_then(|key| offline.policies().iter().find(|policy| policy.key == key.policy));
    let rule = key
        .zip(policy)
        .and_then(|(key, policy)| policy.section(key.direction)?.get(usize::try_from(key.index?).ok()?));
    let (isolated_by, nearest_miss) = isolation(offline, query, reason);
    Side {
        direction: query.direction.label(),
        subject: subject.to_string(),
        verdict: label(verdict),
        reason: reason.label(),
        text: reason.text(),
        precedence: precedence(reason, key, policy),
        policy: key.map(|key| key.policy.to_string()),
        rule: key.map(ToString::to_string),
        rule_name: rule.and_then(|rule| rule.name.clone()),
        errno: word.is_deny().then(|| word.errno().name()),
        isolated_by,
        nearest_miss,
    }
}

fn label(verdict: &Verdict) -> &'static str {
    if verdict.enforced.is_deny() {
        "DROPPED"
    } else if verdict.is_audited() {
        "AUDIT"
    } else {
        "FORWARDED"
    }
}

/// The number that the precedence list gives to what decided.
fn precedence(reason: Reason, key: Option<&RuleKey>, policy: Option<&Policy>) -> Option<u8> {
    if reason == Reason::Quarantined {
        return Some(1);
    }
    let (Some(key), Some(policy)) = (key, policy) else { return Some(7) };
    let Some(index) = key.index else { return Some(5) };
    match policy.layer {
        Layer::Admin { .. } => Some(2),
        Layer::Baseline { .. } => Some(6),
        Layer::Namespaced => {
            let rule = policy.section(key.direction)?.get(usize::try_from(index).ok()?)?;
            Some(if rule.action == Action::Deny { 3 } else { 4 })
        }
    }
}

/// Who isolates the subject, and which allow rule came closest.
fn isolation(offline: &Offline, query: &Query, reason: Reason) -> (Vec<String>, Option<String>) {
    if !matches!(reason, Reason::Isolated) {
        return (Vec::new(), None);
    }
    let isolations = why(offline.policies(), (offline.registry(), offline.namespaces()), query);
    let mut misses: Vec<_> = isolations.iter().flat_map(|isolation| &isolation.misses).collect();
    misses.sort_by_key(|miss| std::cmp::Reverse((miss.peer, miss.port)));
    let policies: Vec<&PolicyKey> = isolations.iter().map(|isolation| &isolation.rule.policy).collect();
    let by = policies.iter().map(ToString::to_string).collect();
    (by, misses.first().map(ToString::to_string))
}
