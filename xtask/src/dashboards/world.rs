//! What goes to the world, and what comes from there.

use super::layout::{Dashboard, SOURCE_NAMESPACE};
use super::panel::{Panel, grown};

/// Selects what leaves.
const OUT: &str = r#"destination="reserved:world",source_namespace=~"$source_namespace",@agent"#;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "world",
        uid: "enforcer-world",
        title: "Enforcer / World",
        about: "Flows with addresses that nobody is known by. Names (FQDN) are no part of identities yet, so there are no metrics of them.",
        variables: vec![SOURCE_NAMESPACE],
        rows: vec![("To the world", to_the_world()), ("From the world", from_the_world())],
    }
}

fn to_the_world() -> Vec<Panel> {
    let ask = |panel: Panel, query: &str, legend| panel.ask(&query.replace('%', OUT), legend);
    vec![
        ask(
            Panel::series("Verdicts", "cps", "What workloads tried, and what became of it."),
            "sum by (action) (rate(enforcer_policy_verdicts_total{%}[$__rate_interval]))",
            "{{action}}",
        )
        .stacked(),
        ask(
            Panel::series("Who", "cps", "The ten workloads that open most flows to the world."),
            "topk(10, sum by (source_namespace, source) (rate(enforcer_policy_verdicts_total{%}[$__rate_interval])))",
            "{{source_namespace}}/{{source}}",
        ),
        ask(
            Panel::series("Ports", "cps", "By protocol and port."),
            "topk(10, sum by (protocol, port) (rate(enforcer_policy_verdicts_total{%}[$__rate_interval])))",
            "{{protocol}}/{{port}}",
        ),
        ask(
            Panel::series(
                "Bytes",
                "Bps",
                "Sent to the world. A TCP connection adds what it carried when it ends.",
            ),
            "topk(10, sum by (source_namespace, source) (rate(enforcer_sent_bytes_total{role=\"client\",%}[$__rate_interval])))",
            "{{source_namespace}}/{{source}}",
        ),
        ask(
            Panel::table("Who called the world", "short", "In the time that is shown, by what became of it."),
            &format!(
                "topk(100, sum by (source_namespace, source, protocol, port, action, policy, rule) ({}) > 0)",
                grown("enforcer_policy_verdicts_total{%}")
            ),
            "",
        ),
    ]
}

fn from_the_world() -> Vec<Panel> {
    const IN: &str = r#"source="reserved:world",@agent"#;
    vec![
        Panel::series("Verdicts", "cps", "What came in from addresses that nobody is known by.")
            .ask(&format!("sum by (action) (rate(enforcer_policy_verdicts_total{{{IN}}}[$__rate_interval]))"), "{{action}}")
            .stacked(),
        Panel::series("To whom", "cps", "The ten servers that the world calls most.")
            .ask(&format!("topk(10, sum by (destination_namespace, destination, port) (rate(enforcer_policy_verdicts_total{{{IN}}}[$__rate_interval])))"), "{{destination_namespace}}/{{destination}}:{{port}}"),
    ]
}
