//! Whether a node is fit for an agent.

use super::table::Columns;
use super::{Paint, clean};
use crate::kernel::preflight::{Check, Preflight, Verdict};

/// `preflight`
pub fn preflight(found: &Preflight, color: bool) -> String {
    let header = ["CHECK", "RESULT", "DETAIL"];
    let mut columns = Columns::new(&header);
    let row =
        |check: &Check| vec![check.name.to_owned(), word(check.result).to_owned(), check.detail.clone()];
    found.checks.iter().for_each(|check| columns.fit(&row(check)));
    let mut text = columns.line(&header.map(str::to_owned), |_, cell| cell.to_owned());
    for check in &found.checks {
        let paint = match check.result {
            Verdict::Ok => Paint::Green,
            Verdict::Warn => Paint::Yellow,
            Verdict::Fail => Paint::Red,
        };
        text.push_str(&columns.line(&row(check), |index, cell| paint.on(cell, color && index == 1)));
        if !check.next.is_empty() {
            text += "  next: ";
            text += &clean(&check.next);
            text.push('\n');
        }
    }
    let count = |result| found.checks.iter().filter(|check| check.result == result).count();
    let (failed, warned) = (count(Verdict::Fail), count(Verdict::Warn));
    let fit = if found.ok() { "is fit for an agent" } else { "is not fit for an agent" };
    let node = clean(&found.node);
    format!("{text}\n{node} {fit}: {failed} failed, {warned} to be looked at\n")
}

fn word(result: Verdict) -> &'static str {
    match result {
        Verdict::Ok => "ok",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    }
}
