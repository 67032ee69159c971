//! The audit log.

use super::clean;
use crate::domain::audit::record::Record;
use crate::domain::audit::verify::Report;

/// What verifying found: one line for each finding, and where the chain stands.
pub fn report(report: &Report) -> String {
    let mut lines: Vec<String> =
        report.findings.iter().map(|finding| clean(&finding.to_string()).into_owned()).collect();
    if report.more > 0 {
        lines.push(format!("{} more", report.more));
    }
    if report.noted_is_older {
        lines.push(
            "the noted head is older than the oldest record that is kept, so it can't be compared".to_owned(),
        );
    }
    let word = if report.findings.is_empty() { "whole" } else { "NOT whole" };
    let Report { records, first, head, .. } = report;
    lines.push(format!("{word}: {records} records, {first} to {}", head.sequence));
    lines.push(format!("head: {head}\n"));
    lines.join("\n")
}

/// The same for programs.
pub fn json(report: &Report) -> serde_json::Result<String> {
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|finding| {
            serde_json::json!({
                "file": finding.file,
                "line": finding.line,
                "sequence": finding.sequence,
                "message": finding.to_string(),
            })
        })
        .collect();
    super::json::object(&serde_json::json!({
        "whole": report.findings.is_empty(),
        "findings": findings,
        "more": report.more,
        "records": report.records,
        "first": report.first,
        "head": report.head.to_string(),
        "noted_is_older": report.noted_is_older,
    }))
}

/// `17  2026-11-22T12:53:39Z  flow-denied  failure  12 denied by egress: ...`
pub fn line(record: &Record) -> String {
    let event = &record.event;
    let who = record.user.as_ref().map(|user| format!(" (user {})", user.id)).unwrap_or_default();
    let text = format!(
        "{}  {}  {}  {}  {}{who}",
        event.sequence,
        record.timestamp.whole_seconds(),
        event.action,
        event.outcome,
        record.message,
    );
    format!("{}\n", clean(&text))
}
