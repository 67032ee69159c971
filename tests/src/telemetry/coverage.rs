//! Which metrics dashboards and rules name: none that is not there, and of those that are there all, or a reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use enforcer::telemetry::metrics::{Kind, METRICS};

use super::boards::{self, Shape, label_values, query_result};
use super::promql;

/// What no dashboard and no rule asks for, and why.
const UNUSED: &[(&str, &str)] = &[
    (
        "enforcer_policy_max_revision",
        "another name of enforcer_policy_generation, for those who know that one",
    ),
    ("enforcer_policy_status", "`enforcer policy list` says it by name, and what a policy waits for"),
    (
        "enforcer_cluster_reports_total",
        "what is not told is seen in the cluster: `enforcer status --cluster` says since when; this is for alerts of one's own",
    ),
    (
        "enforcer_canary_last_success_timestamp_seconds",
        "what does not come is a problem, which enforcer_degraded has; this is for alerts of one's own",
    ),
    (
        "enforcer_state_hash",
        "what is not in force is a problem, which enforcer_degraded has; this proves that all of it is",
    ),
    ("enforcer_source_up", "a source that is away is a problem, which enforcer_degraded has"),
    ("enforcer_source_objects", "`enforcer status` tells it by node, where it means something"),
    ("enforcer_canary_verdicts_total", "so that sums add up to what the kernel has counted"),
    ("enforcer_socket_storage_charged", "never changes while a host is up; `enforcer status` tells it"),
    ("enforcer_audit_records_total", "the log is there to be read"),
    ("enforcer_history_samples_total", "what is late is not lost"),
    ("enforcer_history_set_aside_total", "enforcer_history_writable alerts to the same"),
    ("enforcer_history_bytes", "bounded by the setting history-size"),
];

/// What Prometheus itself adds to a scrape.
const OWN: [&str; 2] = ["up", "scrape_samples_scraped"];

/// The metric of the table that a name of the exposition belongs to.
fn in_table(name: &str) -> Option<&'static str> {
    let belongs = |metric: &&enforcer::telemetry::metrics::Definition| {
        let part = name.strip_prefix(metric.name);
        let parts = ["_bucket", "_sum", "_count"];
        part == Some("") || metric.kind == Kind::Histogram && part.is_some_and(|part| parts.contains(&part))
    };
    METRICS.iter().copied().find(|metric| belongs(metric)).map(|metric| metric.name)
}

/// Metrics of a query that are nowhere.
pub(super) fn unknown(query: &str) -> Vec<String> {
    let known =
        |name: &String| OWN.contains(&name.as_str()) || name.contains(':') || in_table(name).is_some();
    promql::metrics(query).into_iter().filter(|name| !known(name)).collect()
}

/// Queries of rules: what stands behind `expr:`, in one line or below it.
fn rules(text: &str) -> Vec<String> {
    let mut queries: Vec<String> = Vec::new();
    let mut depth = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if depth.is_some_and(|depth| indent > depth)
            && let Some(query) = queries.last_mut()
        {
            query.push_str(line);
            query.push('\n');
            continue;
        }
        depth = None;
        if let Some(query) = line.trim_start().strip_prefix("expr:") {
            let block = ["|", ">", "|-", ">-"].contains(&query.trim());
            queries.push(if block { String::new() } else { query.to_owned() });
            depth = Some(indent);
        }
    }
    queries
}

/// Everything that is wrong, in sentences.
pub(super) fn problems(deploy: &Path) -> Vec<String> {
    let rules_file = deploy.join("prometheus/rules.yaml");
    let text =
        fs::read_to_string(&rules_file).unwrap_or_else(|error| panic!("{}: {error}", rules_file.display()));
    let mut queries: Vec<(String, String)> =
        rules(&text).into_iter().map(|query| ("rules.yaml".to_owned(), query)).collect();
    for board in boards::all(&deploy.join("grafana")) {
        for question in board.questions() {
            let query = match question.shape {
                Shape::Labels => {
                    let one = || label_values(&question.query).map(|(metric, _)| metric);
                    query_result(&question.query).or_else(one).unwrap_or_default().to_owned()
                }
                _ => question.query,
            };
            queries.push((format!("{} / {}", board.title, question.place), query));
        }
    }
    let mut problems = Vec::new();
    let mut used = BTreeSet::new();
    for (place, query) in &queries {
        let named = promql::metrics(query);
        if named.is_empty() {
            problems.push(format!("{place} asks for no metric: {query}"));
        }
        problems.extend(unknown(query).iter().map(|name| format!("{place}: there is no metric {name}")));
        used.extend(named.iter().filter_map(|name| in_table(name)));
    }
    for metric in METRICS {
        let excused = UNUSED.iter().any(|(name, _)| *name == metric.name);
        if used.contains(metric.name) == excused {
            let is = if excused { "is said to be unused and is not" } else { "is asked for nowhere" };
            problems.push(format!("{} {is}", metric.name));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::deploy;
    use super::*;

    #[test]
    fn every_name_is_a_metric_and_every_metric_is_named() {
        assert_eq!(problems(&deploy()), Vec::<String>::new());
    }

    #[test]
    fn a_misspelt_metric_is_found() {
        assert_eq!(unknown("rate(enforcer_policy_verdict_total[5m])"), ["enforcer_policy_verdict_total"]);
        assert_eq!(unknown("rate(enforcer_policy_verdicts_total[5m])"), Vec::<String>::new());
        assert_eq!(unknown("enforcer_policy_publish_seconds_bucket"), Vec::<String>::new());
        assert_eq!(unknown("enforcer_ready_bucket"), ["enforcer_ready_bucket"]);
    }

    #[test]
    fn queries_are_read_from_rules() {
        let text = "- record: a\n  expr: sum(b)\n- alert: c\n  expr: |\n    d > 1\n    and e\n  for: 5m\n";
        assert_eq!(rules(text), [" sum(b)".to_owned(), "    d > 1\n    and e\n".to_owned()]);
    }
}
