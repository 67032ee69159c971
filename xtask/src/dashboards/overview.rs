//! What goes on, at one look.

use super::layout::Dashboard;
use super::panel::Panel;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "overview",
        uid: "enforcer-overview",
        title: "Enforcer / Overview",
        about: "Who talks, who is refused, and whether it is enforced everywhere.",
        variables: Vec::new(),
        rows: vec![
            ("Now", now()),
            ("Verdicts", verdicts()),
            ("Traffic", traffic()),
            ("Policies", policies()),
        ],
    }
}

fn now() -> Vec<Panel> {
    vec![
        Panel::stat("Agents", "short", "Agents that answer.")
            .ask("sum(up{job=\"enforcer\",@agent})", "agents"),
        Panel::stat(
            "Not enforcing",
            "short",
            "Agents that do not enforce what they were told. Their last good state holds.",
        )
        .ask("sum(1 - enforcer_ready{@agent})", "agents")
        .bad_from(1.0),
        Panel::stat("Denials", "cps", "Flows that are refused, each second.")
            .ask("sum(rate(enforcer_flows_total{verdict=\"DROPPED\",@agent}[$__rate_interval]))", "denials"),
        Panel::stat("Workloads", "short", "Workloads that are known, wherever they stand.")
            .ask("sum(enforcer_endpoint_state{@agent})", "workloads"),
        Panel::stat("Quarantined", "short", "Workloads in quarantine.")
            .ask("sum(enforcer_quarantined_workloads{@agent})", "workloads")
            .bad_from(1.0),
        Panel::stat("Policies", "short", "Loaded policies, of the agent that has most.")
            .ask("max(enforcer_policy{@agent})", "policies"),
        Panel::stat(
            "Problems",
            "short",
            "Problems that agents tell; `enforcer status` has a sentence for each.",
        )
        .ask("sum(enforcer_degraded{@agent})", "problems")
        .bad_from(1.0),
        Panel::stat(
            "Ways past",
            "short",
            "Ways past enforcer that are open on some host; `enforcer status --unguarded` says why.",
        )
        .ask("count(sum by (vector) (enforcer_unguarded_vectors{@agent}) > 0) or vector(0)", "ways"),
    ]
}

fn verdicts() -> Vec<Panel> {
    vec![
        Panel::series("Verdicts", "cps", "Flows by what became of them. One flow is judged at both ends.")
            .ask("sum by (verdict) (rate(enforcer_flows_total{@agent}[$__rate_interval]))", "{{verdict}}")
            .stacked(),
        Panel::series("Denials by reason", "cps", "POLICY_DENIED: no rule allows it; POLICY_DENY: a rule forbids it.")
            .ask("sum by (reason, direction) (rate(enforcer_drop_total{@agent}[$__rate_interval]))", "{{reason}} {{direction}}"),
        Panel::series("Most denied", "cps", "The ten pairs that are refused most. Policy verdicts has the command that explains each.")
            .ask("topk(10, sum by (source, destination, port) (rate(enforcer_policy_verdicts_total{action=\"dropped\",@agent}[$__rate_interval])))", "{{source}} -> {{destination}}:{{port}}")
            .wide(24),
    ]
}

fn traffic() -> Vec<Panel> {
    vec![
        Panel::series("New connections", "cps", "Connections that were established, as their clients count them.")
            .ask("topk(10, sum by (source, destination) (rate(enforcer_connections_opened_total{role=\"client\",@agent}[$__rate_interval])))", "{{source}} -> {{destination}}"),
        Panel::series("Open connections", "short", "Connections that are open, as their clients count them.")
            .ask("topk(10, sum by (source, destination) (enforcer_connections_active{role=\"client\",@agent}))", "{{source}} -> {{destination}}"),
        Panel::series("Bytes", "Bps", "Sent and received by clients. A TCP connection adds what it carried when it ends.")
            .ask("sum by (protocol) (rate(enforcer_sent_bytes_total{role=\"client\",@agent}[$__rate_interval]))", "{{protocol}} sent")
            .ask("sum by (protocol) (rate(enforcer_received_bytes_total{role=\"client\",@agent}[$__rate_interval]))", "{{protocol}} received"),
        Panel::series("Round trips", "s", "Mean smoothed round-trip time of the connections that ended, as clients measured it.")
            .ask("topk(10, sum by (source, destination) (rate(enforcer_round_trip_seconds_total{role=\"client\",@agent}[$__rate_interval])) / sum by (source, destination) (rate(enforcer_connections_closed_total{role=\"client\",@agent}[$__rate_interval]) > 0))", "{{source}} -> {{destination}}"),
    ]
}

fn policies() -> Vec<Panel> {
    vec![
        Panel::series("Policy generation", "short", "Number of the tables in force; a step is a change.")
            .ask("enforcer_policy_generation{state=\"enforced\",@agent}", "{{instance}}"),
        Panel::series("Rules that deny", "cps", "The ten rules that refuse most.")
            .ask("topk(10, sum by (policy, rule) (rate(enforcer_rule_hits_total{action=\"dropped\",@agent}[$__rate_interval])))", "{{policy}} {{rule}}"),
    ]
}
