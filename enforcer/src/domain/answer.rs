//! The answer to "why": what becomes of a flow, by which policy and rule, on which line of the precedence list, and what
//! came closest.

use enforcer_common::abi::config::SocketKind;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::Verdict;
use serde::{Deserialize, Serialize};

use super::offline::{End, Flow, Judgement, Site, judge, port_text};
use super::policy::explain::{explain, explain_socket};
use super::policy::model::{Policy, RuleDirection, RuleKey};

/// What becomes of a flow, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Who would open it.
    pub from: String,
    /// The server; empty where it is about a socket that is created.
    pub to: String,
    /// `PROTOCOL/port` of the server; the kind of a socket that is created.
    pub port: String,
    /// `FORWARDED`, `DROPPED` or `AUDIT`.
    pub verdict: String,
    /// How each end that is judged judges it, the client first.
    pub ends: Vec<Side>,
}

/// What a running agent says of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The generation of the tables that were asked.
    pub generation: u64,
    /// The agent's mode: `enforce`, `audit` or `off`.
    pub mode: String,
    /// What becomes of the flow.
    #[serde(flatten)]
    pub answer: Answer,
    /// For a service: what becomes of the flow to each of those who answer for it, on their own port.
    pub backends: Vec<Answer>,
    /// What else there is to be said, one sentence each.
    pub notes: Vec<String>,
}

/// How one end is judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// `egress` or `ingress`; `sockets` of a socket that is created.
    pub direction: String,
    /// Whose policies are asked.
    pub subject: String,
    /// `FORWARDED`, `DROPPED` or `AUDIT`.
    pub verdict: String,
    /// The reason in the words of flows.
    pub reason: String,
    /// The same as a sentence.
    pub text: String,
    /// Line of the precedence list that decides, 1 to 7.
    pub precedence: u8,
    /// The policy that decides.
    pub policy: Option<String>,
    /// Its rule, or its isolation.
    pub rule: Option<String>,
    /// The name that people gave the rule.
    pub rule_name: Option<String>,
    /// The rule of the admin tier that passed the flow on to what is beneath.
    pub passed_by: Option<String>,
    /// What the application gets.
    pub errno: Option<String>,
    /// The policies that isolate the subject in this direction, if that is why.
    pub isolated_by: Vec<String>,
    /// The allow rule that came closest, and what it missed by.
    pub nearest_miss: Option<String>,
}

/// Answers for one flow.
pub fn answer(site: &impl Site, flow: &Flow) -> Answer {
    let judged = judge(site, flow);
    let egress = judged.egress.iter().map(|judgement| (&flow.from, judgement));
    let ingress = judged.ingress.iter().map(|(end, judgement)| (end, judgement));
    let ends: Vec<Side> = egress.chain(ingress).map(|(end, judgement)| side(site, end, judgement)).collect();
    let verdict = ["DROPPED", "AUDIT"].into_iter().find(|word| ends.iter().any(|side| side.verdict == *word));
    Answer {
        from: flow.from.to_string(),
        to: flow.to.to_string(),
        port: port_text(flow.protocol, flow.port),
        verdict: verdict.unwrap_or("FORWARDED").to_owned(),
        ends,
    }
}

/// Answers whether somebody may create a socket of a kind that the configuration allows, or not. The host may create all.
pub fn answer_socket(site: &impl Site, from: &End, kind: SocketKind, allowed: bool) -> Answer {
    let from = site.known(from);
    let is_host = *from == End::Host;
    let (subject, _) = site.number(&from);
    let judged = site.table().decide_socket(subject, kind, allowed || is_host);
    let word = judged.reported();
    let reason = Reason::from_code(word.reason_code()).unwrap_or(Reason::None);
    let policies = site.policies();
    let context = site.context(judged.is_audited());
    let found = explain_socket(policies.iter().copied(), &context, (subject, kind), word);
    let text = match reason {
        Reason::AllowedByDefault if is_host => "the host may create sockets of every kind",
        Reason::AllowedByDefault => "no rule speaks of this kind, and the setting allowed-sockets names it",
        Reason::SocketKind => "no rule speaks of this kind, and the setting allowed-sockets does not name it",
        reason => reason.text(),
    };
    let side = Side {
        direction: RuleDirection::Sockets.label().to_owned(),
        subject: from.to_string(),
        verdict: label(&judged).to_owned(),
        reason: reason.label().to_owned(),
        text: text.to_owned(),
        precedence: found.precedence,
        policy: found.rule.as_ref().map(|key| key.policy.to_string()),
        rule: found.rule.as_ref().map(ToString::to_string),
        rule_name: rule_name(&policies, found.rule.as_ref()),
        passed_by: found.passed.as_ref().map(ToString::to_string),
        errno: word.is_deny().then(|| word.errno().name().to_owned()),
        isolated_by: Vec::new(),
        nearest_miss: None,
    };
    Answer {
        from: from.to_string(),
        to: String::new(),
        port: kind.name().to_owned(),
        verdict: side.verdict.clone(),
        ends: vec![side],
    }
}

/// The name that people gave a rule.
fn rule_name(policies: &[&Policy], rule: Option<&RuleKey>) -> Option<String> {
    let key = rule?;
    let policy = policies.iter().find(|one| one.key == key.policy)?;
    policy.section(key.direction)?.get(usize::try_from(key.index?).ok()?)?.name.clone()
}

fn side(site: &impl Site, subject: &End, Judgement { query, verdict }: &Judgement) -> Side {
    let word = verdict.reported();
    let reason = Reason::from_code(word.reason_code()).unwrap_or(Reason::None);
    let policies = site.policies();
    let context = site.context(verdict.is_audited());
    let found = explain(policies.iter().copied(), &context, query, word);
    // What came closest matters where nothing matched.
    let isolations = if reason == Reason::Isolated { found.isolations } else { Vec::new() };
    let mut misses: Vec<_> = isolations.iter().flat_map(|isolation| &isolation.misses).collect();
    misses.sort_by_key(|miss| std::cmp::Reverse((miss.peer, miss.port)));
    Side {
        direction: query.direction.label().to_owned(),
        subject: subject.to_string(),
        verdict: label(verdict).to_owned(),
        reason: reason.label().to_owned(),
        text: reason.text().to_owned(),
        precedence: found.precedence,
        policy: found.rule.as_ref().map(|key| key.policy.to_string()),
        rule: found.rule.as_ref().map(ToString::to_string),
        rule_name: rule_name(&policies, found.rule.as_ref()),
        passed_by: found.passed.as_ref().map(ToString::to_string),
        errno: word.is_deny().then(|| word.errno().name().to_owned()),
        isolated_by: isolations.iter().map(|isolation| isolation.rule.policy.to_string()).collect(),
        nearest_miss: misses.first().map(ToString::to_string),
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
