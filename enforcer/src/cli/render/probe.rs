//! What the kernel can do, and what the programs cost it.

use super::Paint;
use super::table::{Columns, table};
use crate::kernel::probe::{ProbeReport, ProgramCost};

/// `probe`
pub fn report(report: &ProbeReport, color: bool) -> String {
    let header = ["FEATURE", "PRESENT", "NEEDED", "DETAIL"];
    let mut columns = Columns::new(&header);
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let rows: Vec<_> = report
        .features
        .iter()
        .map(|feature| {
            vec![feature.name.clone(), yes(feature.present), yes(feature.required), feature.detail.clone()]
        })
        .collect();
    for row in &rows {
        columns.fit(row);
    }
    let mut text = columns.line(&header.map(str::to_owned), |_, cell| cell.to_owned());
    for (row, feature) in rows.iter().zip(&report.features) {
        let paint = match (feature.present, feature.required) {
            (true, _) => Paint::Green,
            (false, true) => Paint::Red,
            (false, false) => Paint::Yellow,
        };
        text.push_str(&columns.line(row, |index, cell| paint.on(cell, color && index == 1)));
    }
    let missing: Vec<_> =
        report.features.iter().filter(|it| it.required && !it.present).map(|it| &*it.name).collect();
    let kernel = super::clean(&report.kernel).into_owned();
    if report.ok() {
        format!("{text}\nkernel {kernel} can run enforcer\n")
    } else {
        format!("{text}\nkernel {kernel} can't run enforcer: it lacks {}\n", missing.join(", "))
    }
}

/// `probe --programs`
pub fn costs(costs: &[ProgramCost]) -> String {
    let rows: Vec<_> = costs
        .iter()
        .map(|cost| {
            vec![
                cost.program.clone(),
                cost.instructions_verified.to_string(),
                cost.xlated_bytes.to_string(),
                cost.jited_bytes.to_string(),
                cost.load_microseconds.to_string(),
            ]
        })
        .collect();
    table(&["PROGRAM", "VERIFIED-INSTRUCTIONS", "XLATED-BYTES", "JITED-BYTES", "LOAD-MICROSECONDS"], &rows)
}
