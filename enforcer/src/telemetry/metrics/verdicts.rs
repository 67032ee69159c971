//! From the kernel's counters to series.

use std::collections::BTreeMap;

use enforcer_common::abi::flow::{FlowKey, Outcome};
use enforcer_common::id::RuleId;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::Direction;

use super::super::names::rule_place;
use super::budget::{self, OVERFLOW, Sum};
use super::naming::Naming;
use crate::domain::SeriesLabel;
use crate::domain::canary;
use crate::domain::flow::protocol_name as protocol;

/// Values of the labels of `enforcer_policy_verdicts_total`, in the order of its definition.
pub(super) type Labels = [String; 11];
const ACTION: usize = 0;
const DIRECTION: usize = 2;
const POLICY: usize = 9;

/// Values of the labels of `enforcer_rule_hits_total`, in the order of its definition.
pub(super) type RuleLabels = [String; 3];

/// The series that holds a series beyond the budget: action and direction stay.
pub(super) fn overflow(labels: &Labels) -> Labels {
    let mut overflow = Labels::default();
    for at in [ACTION, DIRECTION] {
        overflow[at].clone_from(&labels[at]);
    }
    OVERFLOW.clone_into(&mut overflow[POLICY]);
    overflow
}

/// The series that holds a rule beyond the budget: the action stays.
pub(super) fn rule_overflow([_, _, action]: &RuleLabels) -> RuleLabels {
    [OVERFLOW.to_owned(), String::new(), action.clone()]
}

/// Verdicts by labels. Rows whose labels are the same are summed.
pub(super) fn verdicts(counters: &[(FlowKey, u64)], naming: &mut Naming<'_>) -> BTreeMap<Labels, Sum<u64>> {
    let mut sums = BTreeMap::new();
    for (key, count) in counters.iter().filter(|(key, _)| !is_canary(key)) {
        let (subject, peer) = (naming.of(key.subject), naming.of(key.peer));
        let alive = subject.alive && peer.alive;
        let (source, destination) =
            if key.direction == Direction::Ingress as u8 { (peer, subject) } else { (subject, peer) };
        let (policy, rule) =
            if naming.has(SeriesLabel::Policy) { rule(naming, key.rule) } else { Default::default() };
        let labels = [
            action(key.outcome),
            matched(key.reason).to_owned(),
            direction(key.direction),
            source.name,
            source.namespace,
            destination.name,
            destination.namespace,
            protocol(key.protocol),
            naming.port(key.port),
            policy,
            rule,
        ];
        budget::sum(&mut sums, labels, count, alive);
    }
    sums
}

/// Verdicts by the rule that gave them. A rule is there as long as it has a name.
pub(super) fn rules(counters: &[(FlowKey, u64)], naming: &Naming<'_>) -> BTreeMap<RuleLabels, Sum<u64>> {
    let mut sums = BTreeMap::new();
    for (key, count) in counters.iter().filter(|(key, _)| key.rule != 0 && !is_canary(key)) {
        let (policy, rule) = rule(naming, key.rule);
        budget::sum(&mut sums, [policy, rule, action(key.outcome)], count, true);
    }
    sums
}

fn rule(naming: &Naming<'_>, number: u32) -> (String, String) {
    match naming.names.rules.get(&RuleId(number)) {
        Some((rule, _)) => (rule.policy.to_string(), rule_place(rule)),
        None if number == 0 => (String::new(), String::new()),
        None => (String::new(), format!("rule {number}")),
    }
}

/// All verdicts, whoever they were about.
pub(super) fn flows(counters: &[(FlowKey, u64)]) -> BTreeMap<[String; 3], u64> {
    let mut series: BTreeMap<[String; 3], u64> = BTreeMap::new();
    for (key, count) in counters.iter().filter(|(key, _)| !is_canary(key)) {
        let verdict = Outcome::from_code(key.outcome)
            .map_or_else(|| key.outcome.to_string(), |outcome| outcome.label().to_owned());
        *series.entry([verdict, protocol(key.protocol), direction(key.direction)]).or_default() += count;
    }
    series
}

/// Denials by reason, protocol and direction.
pub(super) fn drops(counters: &[(FlowKey, u64)]) -> BTreeMap<[String; 3], u64> {
    let mut series: BTreeMap<[String; 3], u64> = BTreeMap::new();
    for (key, count) in
        counters.iter().filter(|(key, _)| key.outcome == Outcome::Dropped as u8 && !is_canary(key))
    {
        let reason =
            Reason::from_code(key.reason).map_or_else(|| key.reason.to_string(), |it| it.label().to_owned());
        *series.entry([reason, protocol(key.protocol), direction(key.direction)]).or_default() += count;
    }
    series
}

/// Whether the canary is one of the two ends.
fn is_canary(key: &FlowKey) -> bool {
    canary::is_one_of(key.subject, key.peer)
}

/// How many verdicts were about the canary.
pub(super) fn of_canary(counters: &[(FlowKey, u64)]) -> u64 {
    counters.iter().filter(|(key, _)| is_canary(key)).map(|(_, count)| count).sum()
}

/// Words as in Hubble's metrics. A code that this version does not know is shown as its number, never left out.
fn action(outcome: u8) -> String {
    Outcome::from_code(outcome).map_or_else(|| outcome.to_string(), |it| it.label().to_ascii_lowercase())
}

fn direction(code: u8) -> String {
    Direction::from_code(code).map_or_else(|| code.to_string(), |it| it.label().to_owned())
}

/// `all` if a rule spoke of the flow, `none` if isolation or a default decided.
fn matched(reason: u8) -> &'static str {
    match Reason::from_code(reason) {
        Some(Reason::AllowedByRule | Reason::DeniedByRule) => "all",
        _ => "none",
    }
}
