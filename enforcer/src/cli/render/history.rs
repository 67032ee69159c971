//! The flow history as a table.

use super::Paint;
use super::table::Columns;
use crate::domain::flow::FlowEndpoint;
use crate::domain::history::HistoryEdge;
use crate::domain::timestamp::Timestamp;

const HEADER: [&str; 9] =
    ["FIRST", "LAST", "SOURCE", "DESTINATION", "PORT", "VERDICT", "COUNT", "BYTES", "DECIDED BY"];
const VERDICT: usize = 5;

/// One line for each edge.
pub fn table(edges: &[HistoryEdge], color: bool) -> String {
    let rows: Vec<[String; 9]> = edges.iter().map(row).collect();
    let mut columns = Columns::new(&HEADER);
    for row in &rows {
        columns.fit(row);
    }
    let mut text = columns.line(&HEADER.map(str::to_owned), |_, cell| cell.to_owned());
    for row in &rows {
        let paint = match row[VERDICT].as_str() {
            verdict if verdict.starts_with("FORWARDED") => Paint::Green,
            verdict if verdict.starts_with("AUDIT") => Paint::Yellow,
            _ => Paint::Red,
        };
        text += &columns.line(row, |index, cell| paint.on(cell, color && index == VERDICT));
    }
    text
}

fn row(edge: &HistoryEdge) -> [String; 9] {
    let decided = match &edge.decided_by {
        Some(rule) if rule.namespace.is_empty() => format!("{} {}", rule.name, rule.rule),
        Some(rule) => format!("{}/{} {}", rule.namespace, rule.name, rule.rule),
        None => edge.drop_reason_desc.clone(),
    };
    let traffic = &edge.traffic;
    [
        time(&edge.first_seen),
        time(&edge.last_seen),
        end(&edge.source),
        end(&edge.destination),
        format!("{}/{}", edge.l4.protocol, edge.l4.destination_port),
        format!("{} {}", edge.verdict, edge.traffic_direction.to_ascii_lowercase()),
        edge.verdicts.to_string(),
        format!("{}/{}", traffic.source_bytes, traffic.destination_bytes),
        decided,
    ]
}

fn time(text: &str) -> String {
    Timestamp::parse(text).map_or_else(|| text.to_owned(), Timestamp::whole_seconds)
}

/// `default/web`; the labels where several workloads share an identity.
fn end(end: &FlowEndpoint) -> String {
    let name = match end.workloads.as_slice() {
        [one] => one.clone(),
        _ => end.labels.join(","),
    };
    if end.namespace.is_empty() { name } else { format!("{}/{name}", end.namespace) }
}
