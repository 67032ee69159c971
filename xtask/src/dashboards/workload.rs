//! One workload: whom it calls, who calls it, what is refused.

use super::layout::{Dashboard, NAMESPACE, WORKLOAD};
use super::panel::Panel;

/// Selects flows that the workload opens.
const OUT: &str = r#"source_namespace=~"$namespace",source=~"$workload",@agent"#;
/// Selects flows that it answers.
const IN: &str = r#"destination_namespace=~"$namespace",destination=~"$workload",@agent"#;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "workload",
        uid: "enforcer-workload",
        title: "Enforcer / Workload",
        about: "What one workload does and what is done to it.",
        variables: vec![NAMESPACE, WORKLOAD],
        rows: vec![
            ("Verdicts", verdicts()),
            ("How quick it is", times()),
            ("As client", carried(OUT, "client", "destination")),
            ("As server", carried(IN, "server", "source")),
        ],
    }
}

/// `query` with `%` for what it selects by.
fn ask(panel: Panel, query: &str, flows: &str, legend: &'static str) -> Panel {
    panel.ask(&query.replace('%', flows), legend)
}

fn verdicts() -> Vec<Panel> {
    const BY: &str = "sum by (action, direction) (rate(enforcer_policy_verdicts_total{%}[$__rate_interval]))";
    const DENIED: &str = "topk(10, sum by (source, destination, port, policy, rule) (rate(enforcer_policy_verdicts_total{action=\"dropped\",%}[$__rate_interval])))";
    const EDGE: &str = "{{source}} -> {{destination}}:{{port}} by {{policy}} {{rule}}";
    vec![
        ask(
            Panel::series(
                "It calls",
                "cps",
                "Verdicts about flows that it opens, of its own egress and of their servers' ingress.",
            ),
            BY,
            OUT,
            "{{action}} {{direction}}",
        ),
        ask(
            Panel::series("It is called", "cps", "Verdicts about flows that others open to it."),
            BY,
            IN,
            "{{action}} {{direction}}",
        ),
        ask(
            Panel::series("Refused calls", "cps", "What it was refused, and by which rule."),
            DENIED,
            OUT,
            EDGE,
        ),
        ask(Panel::series("Refused callers", "cps", "Who was refused, and by which rule."), DENIED, IN, EDGE),
    ]
}

/// Of the workload as a server.
fn times() -> Vec<Panel> {
    const SERVER: &str = r#"destination_namespace=~"$namespace",destination=~"$workload",@agent"#;
    let quantile = |part: &str, metric: &str| {
        format!(
            "histogram_quantile({part}, sum by (le, destination) (rate({metric}_bucket{{role=\"client\",{SERVER}}}[$__rate_interval])))"
        )
    };
    let both = |panel: Panel, metric: &str| {
        panel
            .ask(&quantile("0.5", metric), "{{destination}} median")
            .ask(&quantile("0.99", metric), "{{destination}} 99 %")
    };
    vec![
        both(
            Panel::series(
                "Handshakes",
                "s",
                "From the first SYN to its answer, repeated SYNs included, as its clients on this host saw it.",
            ),
            "enforcer_handshake_seconds",
        ),
        both(
            Panel::series(
                "Round trips of its clients",
                "s",
                "Smoothed round-trip time at the end of connections with it, as clients on this host measured it.",
            ),
            "enforcer_round_trip_seconds",
        ),
    ]
}

/// What its flows carry, by whom they are with, as this end counts it.
fn carried(flows: &str, role: &str, other: &str) -> Vec<Panel> {
    let flows = format!("role=\"{role}\",{flows}");
    let legend = if other == "source" { "{{source}}" } else { "{{destination}}:{{port}}" };
    let by = if other == "source" {
        "source_namespace, source"
    } else {
        "destination_namespace, destination, port"
    };
    let rate = |metric: &str| format!("topk(10, sum by ({by}) (rate({metric}{{%}}[$__rate_interval])))");
    let over = format!(
        "topk(10, sum by ({by}) (rate(enforcer_retransmitted_packets_total{{%}}[$__rate_interval])) / sum by ({by}) (rate(enforcer_sent_packets_total{{protocol=\"TCP\",%}}[$__rate_interval]) > 0))"
    );
    let mean = format!(
        "topk(10, sum by ({by}) (rate(enforcer_round_trip_seconds_total{{%}}[$__rate_interval])) / sum by ({by}) (rate(enforcer_connections_closed_total{{%}}[$__rate_interval]) > 0))"
    );
    let panel = Panel::series;
    vec![
        ask(
            panel("New connections", "cps", "Connections that were established."),
            &rate("enforcer_connections_opened_total"),
            &flows,
            legend,
        ),
        ask(
            panel("Open connections", "short", "Connections that are open."),
            &format!("topk(10, sum by ({by}) (enforcer_connections_active{{%}}))"),
            &flows,
            legend,
        ),
        ask(
            panel("Bytes sent", "Bps", "A TCP connection adds what it carried when it ends."),
            &rate("enforcer_sent_bytes_total"),
            &flows,
            legend,
        ),
        ask(
            panel("Bytes received", "Bps", "A TCP connection adds what it carried when it ends."),
            &rate("enforcer_received_bytes_total"),
            &flows,
            legend,
        ),
        ask(
            panel("Packets received", "pps", "A TCP connection adds its segments when it ends."),
            &rate("enforcer_received_packets_total"),
            &flows,
            legend,
        ),
        ask(
            panel("Retransmits", "percentunit", "Share of the TCP segments that had to be sent again."),
            &over,
            &flows,
            legend,
        ),
        ask(
            panel("Round trips", "s", "Mean smoothed round-trip time of the connections that ended."),
            &mean,
            &flows,
            legend,
        ),
    ]
}
