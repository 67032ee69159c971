//! What policies mean for a cluster.

use std::collections::BTreeMap;

use serde::Serialize;

use super::clean;
use super::table::table;
use crate::domain::answer::{Answer, Explained, Side};
use crate::domain::offline::Reach;

/// A table for each port: a row for who opens flows, a column for each server.
pub fn matrix(matrix: &BTreeMap<String, Reach>) -> String {
    let mut parts = Vec::new();
    for (port, reach) in matrix {
        let names: Vec<&str> = reach.keys().map(String::as_str).collect();
        let header: Vec<&str> = std::iter::once(port.as_str()).chain(names.iter().copied()).collect();
        let rows: Vec<Vec<String>> = reach
            .iter()
            .map(|(from, row)| {
                let cell = |to: &&str| match row.get(*to) {
                    Some(true) => "yes".to_owned(),
                    Some(false) => "no".to_owned(),
                    None => String::new(),
                };
                std::iter::once(from.clone()).chain(names.iter().map(cell)).collect()
            })
            .collect();
        parts.push(table(&header, &rows));
    }
    parts.join("\n")
}

/// What becomes of a flow, and why.
pub fn answer(answer: &Answer) -> String {
    let Answer { from, to, port, verdict, ends } = answer;
    let mut text = if to.is_empty() {
        format!("{} creates a socket of the kind {}: {verdict}\n", clean(from), clean(port))
    } else {
        format!("{} -> {} {port}: {verdict}\n", clean(from), clean(to))
    };
    for end in ends {
        text.push_str(&side(end));
    }
    text
}

/// The same as a running agent says it; for a service also of those who answer for it.
pub fn explained(explained: &Explained) -> String {
    let Explained { generation, mode, .. } = explained;
    judgement(explained)
        + &format!("by generation {generation} of the agent's tables, mode {}\n", clean(mode))
}

/// The same as agents of several nodes say it: what is the same once.
pub fn explained_by(answers: &[(String, Explained)]) -> String {
    let part = |same: Vec<&(String, Explained)>| {
        let Some((_, first)) = same.first() else { return String::new() };
        let by = same.iter().map(|(node, it)| format!("{} (generation {})", clean(node), it.generation));
        let by = by.collect::<Vec<_>>().join(", ");
        format!("{}by {by}, mode {}\n", judgement(first), clean(&first.mode))
    };
    same(answers).into_iter().map(part).collect::<Vec<_>>().join("\n")
}

/// Answers that say the same of a flow, together; generations are counted by each node for itself.
pub fn same(answers: &[(String, Explained)]) -> Vec<Vec<&(String, Explained)>> {
    let mut groups: Vec<Vec<&(String, Explained)>> = Vec::new();
    for one in answers {
        let is_same = |group: &&mut Vec<&(String, Explained)>| {
            group.first().is_some_and(|first| {
                Explained { generation: 0, ..first.1.clone() } == Explained { generation: 0, ..one.1.clone() }
            })
        };
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    groups
}

/// The answer of a node, for programs.
#[derive(Debug, Serialize)]
pub struct ExplainedRecord<'a> {
    node: &'a str,
    #[serde(flatten)]
    explained: &'a Explained,
}

/// Answers of nodes, for programs.
pub fn explained_records(answers: &[(String, Explained)]) -> Vec<ExplainedRecord<'_>> {
    answers.iter().map(|(node, explained)| ExplainedRecord { node, explained }).collect()
}

fn judgement(explained: &Explained) -> String {
    let Explained { answer: whole, backends, notes, .. } = explained;
    let mut text = answer(whole);
    for backend in backends {
        text.push_str("backend ");
        text.push_str(&answer(backend));
    }
    let notes = notes.iter().map(|note| format!("note: {}\n", clean(note)));
    text.extend(notes);
    text
}

fn side(side: &Side) -> String {
    let Side { direction, subject, verdict, reason, text, precedence, rule, rule_name, errno, .. } = side;
    let mut lines = vec![format!("  {direction} of {}: {verdict}, {reason} ({text})", clean(subject))];
    let mut by = rule.as_ref().map_or_else(|| "no policy".to_owned(), |rule| clean(rule).into_owned());
    if let Some(name) = rule_name {
        by = format!("{by} ({})", clean(name));
    }
    lines.push(format!("    decided by {by}, precedence {precedence}"));
    if let Some(rule) = &side.passed_by {
        lines.push(format!("    passed on by {}", clean(rule)));
    }
    if let Some(errno) = errno {
        lines.push(format!("    the application gets {errno}"));
    }
    if !side.isolated_by.is_empty() {
        lines.push(format!("    isolated by {}", clean(&side.isolated_by.join(", "))));
    }
    if let Some(miss) = &side.nearest_miss {
        lines.push(format!("    nearest miss: {}", clean(miss)));
    }
    lines.join("\n") + "\n"
}

/// How one expectation file went.
pub fn tested(file: &str, flows: usize, differences: &[String]) -> String {
    let word = if differences.is_empty() { "ok" } else { "FAILED" };
    let mut text = format!("{word} {}: {}\n", clean(file), super::policy::count(flows, "flow", "flows"));
    text.extend(differences.iter().flat_map(|difference| ["  ".into(), clean(difference), "\n".into()]));
    text
}

/// How all of them went.
pub fn tests(flows: usize, differences: usize) -> String {
    let flows = super::policy::count(flows, "flow", "flows");
    match differences {
        0 => format!("{flows} as expected\n"),
        number => format!("{} of {flows}\n", super::policy::count(number, "difference", "differences")),
    }
}
