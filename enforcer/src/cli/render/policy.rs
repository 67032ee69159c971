//! What became of policies.

use super::clean;
use crate::domain::command::{Change, Changed, PolicyChange, PolicyFile, PolicyInfo};
use crate::domain::conditions::PolicyStatus;
use crate::domain::policy::diagnostic::Diagnostic;

/// One line a policy, as kubectl has it, then the generation.
pub fn changed(changed: &Changed) -> String {
    let Changed { generation, dry_run, policies, confirm_until, entries_before, entries_after } = changed;
    let mut lines = Vec::new();
    for PolicyChange { name, change, selects } in policies {
        let dry = if *dry_run { " (dry run)" } else { "" };
        lines.push(format!("trafficpolicy {} {}{dry}\n", clean(name), word(*change)));
        if *dry_run && !selects.is_empty() {
            lines.push(format!("  selects {}\n", clean(&selects.join(", "))));
        }
    }
    let entries = format!("table entries {entries_before} -> {entries_after}");
    lines.push(if *dry_run {
        format!("generation {generation} stays enforced; would change {entries}\n")
    } else {
        format!("generation {generation} enforced; {entries}\n")
    });
    if let Some(until) = confirm_until {
        let until = clean(until);
        lines.push(format!("taken back at {until} unless `enforcer policy confirm` comes first\n"));
    }
    lines.concat()
}

fn word(change: Change) -> &'static str {
    match change {
        Change::Created => "created",
        Change::Configured => "configured",
        Change::Unchanged => "unchanged",
        Change::Deleted => "deleted",
    }
}

/// What is probably not meant: a policy that selects nobody protects nobody.
pub fn warnings(changed: &Changed) -> Vec<String> {
    let idle = changed
        .policies
        .iter()
        .filter(|policy| policy.change != Change::Deleted && policy.selects.is_empty());
    idle.map(|policy| format!("{} selects no workload now; see `enforcer endpoint list`", policy.name))
        .collect()
}

/// The document, ended as a file should be.
pub fn document(text: &str) -> String {
    // Tabs are text in YAML, and harmless.
    let line = |line: &str| line.split('\t').map(clean).collect::<Vec<_>>().join("\t") + "\n";
    text.lines().map(line).collect()
}

/// The status as one more field of the document; as a comment where the document is not made of lines, or has one already.
pub fn status(policy: &PolicyInfo) -> String {
    if policy.status.conditions.is_empty() {
        return String::new();
    }
    let is_text = |line: &&str| {
        let line = line.trim_start();
        !line.is_empty() && !line.starts_with(['#', '%']) && !line.starts_with("---")
    };
    let first = policy.text.lines().find(is_text).unwrap_or_default();
    let indentation = &first[..first.len() - first.trim_start_matches(' ').len()];
    let field = format!("{indentation}status:");
    let is_there = policy.text.lines().any(|line| line.starts_with(&field));
    let is_block = first.trim_start().starts_with(|letter: char| letter.is_ascii_alphabetic());
    let margin = if is_block && !is_there { indentation.to_owned() } else { "# ".to_owned() };
    let lines = status_lines(&policy.status);
    lines.iter().flat_map(|line| [margin.as_str(), line, "\n"]).collect()
}

fn status_lines(status: &PolicyStatus) -> Vec<String> {
    let text = |text: &str| serde_json::Value::from(clean(text)).to_string();
    let mut lines = vec!["status:".to_owned(), "  conditions:".to_owned()];
    for condition in &status.conditions {
        lines.push(format!("  - type: {:?}", condition.kind));
        lines.push(format!("    status: \"{}\"", condition.status.label()));
        lines.push(format!("    reason: {}", clean(&condition.reason)));
        lines.push(format!("    message: {}", text(&condition.message)));
        lines.push(format!("    lastTransitionTime: {}", text(&condition.last_transition_time)));
        lines.push(format!("    observedGeneration: {}", condition.observed_generation));
    }
    lines
}

/// `3 policies in 2 files are valid`
pub fn valid(policies: usize, files: usize) -> String {
    let verb = if policies == 1 { "is" } else { "are" };
    format!("{} in {} {verb} valid", count(policies, "policy", "policies"), count(files, "file", "files"))
}

/// `2 errors and 1 warning in 3 files`
pub fn problems(files: &[PolicyFile], diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let warnings = diagnostics.len() - errors;
    let errors = count(errors, "error", "errors");
    let warnings = match warnings {
        0 => String::new(),
        number => format!(" and {}", count(number, "warning", "warnings")),
    };
    format!("{errors}{warnings} in {}", count(files.len(), "file", "files"))
}

pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
