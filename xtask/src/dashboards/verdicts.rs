//! Who is allowed to talk with whom, and who is not, by which policy.

use super::layout::{DESTINATION_NAMESPACE, Dashboard, SOURCE_NAMESPACE};
use super::panel::{Panel, explained, grown};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "policy-verdicts",
        uid: "enforcer-verdicts",
        title: "Enforcer / Policy verdicts",
        about: "Forwarded, dropped and audited flows, who they are between, and by which rule. match = none marks a default.",
        variables: vec![SOURCE_NAMESPACE, DESTINATION_NAMESPACE],
        rows: vec![("Totals", totals()), ("Over time", over_time()), ("Edges", edges()), ("Rules", rules())],
    }
}

/// Verdicts of an action, by how many there were in the time that is shown.
fn counted(action: &str) -> String {
    grown(&format!("enforcer_policy_verdicts_total{{action=\"{action}\",@flow}}"))
}

fn total(title: &'static str, action: &str, about: &'static str) -> Panel {
    Panel::stat(title, "short", about)
        .ask(&format!("sum({}) or vector(0)", counted(action)), "verdicts")
        .wide(6)
}

fn totals() -> Vec<Panel> {
    vec![
        total("Forwarded", "forwarded", "Allowed verdicts in the time that is shown."),
        total("Dropped", "dropped", "Refusals in the time that is shown."),
        total("Audited", "audit", "What would have been refused, and was let through because the policy or the agent only audits."),
        Panel::stat("Workloads still audited", "short", "Pairs that only live because of audit mode: they break when it ends.")
            .ask(&format!("count(sum by (source_namespace, source, destination_namespace, destination, port) ({}) > 0) or vector(0)", counted("audit")), "pairs")
            .wide(6),
    ]
}

fn over_time() -> Vec<Panel> {
    vec![
        Panel::series("By action", "cps", "Verdicts of egress and ingress policies; a flow has one of each.")
            .ask("sum by (action, direction) (rate(enforcer_policy_verdicts_total{@flow}[$__rate_interval]))", "{{action}} {{direction}}")
            .stacked(),
        Panel::series("Denied by a rule, or by none", "cps", "match = none: no rule allows it (default deny). match = all: a rule forbids it.")
            .ask("sum by (match, direction) (rate(enforcer_policy_verdicts_total{action=\"dropped\",@flow}[$__rate_interval]))", "match={{match}} {{direction}}"),
    ]
}

fn edges() -> Vec<Panel> {
    const EDGE: &str =
        "source_namespace, source, destination_namespace, destination, port, protocol, match, policy, rule";
    let edges = |action: &str| format!("sum by ({EDGE}) ({}) > 0", counted(action));
    let told = |action: &str| explained(&format!("topk(100, {})", edges(action)));
    vec![
        Panel::table("Denied edges", "short", "Each pair that was refused, with the rule. The column explain is the command that says why and what came near; names are those that metrics use.")
            .ask(&told("dropped"), ""),
        Panel::table("Audited edges", "short", "Each pair that was let through only because of audit mode.")
            .ask(&told("audit"), ""),
        Panel::table("Who talks to whom", "short", "Allowed pairs. match = none: nobody's rule speaks of it, the default allows it.")
            .ask(&format!("topk(200, {})", edges("forwarded")), ""),
    ]
}

fn rules() -> Vec<Panel> {
    vec![
        Panel::series("Hits by rule", "cps", "Verdicts by the rule that gave them; the twenty with the most.")
            .ask("topk(20, sum by (policy, rule, action) (rate(enforcer_rule_hits_total{@agent}[$__rate_interval])))", "{{policy}} {{rule}} {{action}}")
            .wide(24),
    ]
}
