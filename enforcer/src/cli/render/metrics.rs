//! The table of metrics.

use serde_json::{Value, json};

use super::table::table;
use crate::telemetry::metrics::METRICS;

/// `metrics list`
pub fn list() -> String {
    let rows: Vec<_> = METRICS
        .iter()
        .map(|metric| {
            vec![
                metric.name.to_owned(),
                metric.kind.name().to_owned(),
                metric.unit.to_owned(),
                metric.bound.text(),
                metric.labels.join(","),
                metric.help.to_owned(),
            ]
        })
        .collect();
    table(&["METRIC", "KIND", "UNIT", "SERIES", "LABELS", "MEANING"], &rows)
}

/// The same for programs.
///
/// # Errors
/// If it can't be written as JSON, which does not happen.
pub fn json() -> serde_json::Result<String> {
    let metrics: Vec<Value> = METRICS
        .iter()
        .map(|metric| {
            json!({
                "name": metric.name,
                "kind": metric.kind.name(),
                "unit": metric.unit,
                "series": metric.bound.text(),
                "labels": metric.labels,
                "help": metric.help,
            })
        })
        .collect();
    Ok(format!("{}\n", serde_json::to_string_pretty(&metrics)?))
}
