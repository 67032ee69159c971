//! `cargo xtask bypass`: what leaks past the hooks, by way, kernel and privilege.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::setup::{self, Scope};
use crate::suite::{self, Binaries, Profile, Tally};
use crate::{shell, vm};

/// Try every known way round enforcement and print what leaks where
///
/// Without options on this kernel and on those of the matrix. Exit 1 when something leaks that is not listed in
/// docs/threat-model.md, or a probe would not leak without the hooks that close it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only on this kernel
    #[arg(long, conflicts_with = "vm")]
    native: bool,
    /// Only on these kernels of the matrix: 6.1,6.12
    #[arg(long, value_delimiter = ',', value_name = "KERNELS")]
    vm: Vec<String>,
    /// Seconds until an emulated machine counts as hung
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    timeout: u64,
}

/// What the suite begins its cells with.
const CELL: &str = "BYPASS ";
/// The suite's own name for all of it.
const FILTER: &str = "bypass::";
/// This kernel, in the heading.
const NATIVE: &str = "here";

/// One cell as the suite tells it.
#[derive(Debug, Clone, Deserialize)]
struct Cell {
    row: u8,
    name: String,
    closed_by: String,
    privilege: String,
    family: String,
    /// Nothing where it can't be tried.
    leaked: Option<u64>,
    note: String,
}

/// The cells of one kernel, and how its run ended.
#[derive(Debug)]
struct Column {
    kernel: String,
    cells: Vec<Cell>,
    trouble: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    let is_native = arguments.native || arguments.vm.is_empty();
    let kernels = match (arguments.native, arguments.vm.as_slice()) {
        (true, _) => Vec::new(),
        (false, []) => setup::KERNELS.iter().map(|line| line.name.to_owned()).collect(),
        (false, chosen) => chosen.to_vec(),
    };
    if is_native {
        shell::warm_sudo()?;
    }
    setup::ensure(&root, if kernels.is_empty() { Scope::Build } else { Scope::Test })?;
    let binaries = suite::build(&root, Profile::Debug)?;
    let mut columns = Vec::new();
    if is_native {
        columns.push(native(&root, &binaries)?);
    }
    columns.extend(machines(&root, &kernels, &binaries, arguments.timeout));
    print!("{}", matrix(&columns));
    let mut is_good = true;
    for column in &columns {
        let cells = column.cells.iter().filter(|cell| cell.leaked.is_some()).count();
        println!("{}: {cells} probes; {}", column.kernel, column.trouble.as_deref().unwrap_or("as listed"));
        is_good &= column.trouble.is_none() && cells > 0;
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn native(root: &Path, binaries: &Binaries) -> Result<Column> {
    shell::heading("on this kernel");
    let mut command = suite::native(root, binaries)?;
    let mut child = command
        .arg(FILTER)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", binaries.live.display()))?;
    let output = child.stdout.take().context("the suite has no output")?;
    let (mut tally, mut cells) = (Tally::default(), Vec::new());
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read the suite")?;
        tally.read(&line);
        match read(&line) {
            Some(cell) => cells.push(cell),
            None => println!("{line}"),
        }
    }
    let status = child.wait().context("cannot wait for the suite")?;
    let ended = (!status.success()).then(|| format!("the suite ended with {status}"));
    let trouble = ended.or_else(|| (tally.closed == 0).then(|| "the suite did not reach its end".to_owned()));
    Ok(Column { kernel: NATIVE.to_owned(), cells, trouble })
}

fn machines(root: &Path, kernels: &[String], binaries: &Binaries, timeout: u64) -> Vec<Column> {
    if kernels.is_empty() {
        return Vec::new();
    }
    shell::heading("on other kernels");
    let options = vm::Options {
        timeout: Duration::from_secs(timeout),
        cpus: vm::CPUS,
        append: Vec::new(),
        live: vec![FILTER.to_owned()],
    };
    let column = |(kernel, outcome): (String, Result<vm::Outcome>)| match outcome {
        Ok(outcome) => {
            let cells = outcome.cells.iter().filter_map(|line| read(line)).collect();
            Column { kernel, cells, trouble: outcome.trouble() }
        }
        Err(error) => Column { kernel, cells: Vec::new(), trouble: Some(format!("{error:#}")) },
    };
    vm::run_all(root, kernels, binaries, &options).into_iter().map(column).collect()
}

/// Whether a line is a cell, for whoever shows the other ones.
pub(crate) fn is_cell(line: &str) -> bool {
    line.starts_with(CELL)
}

fn read(line: &str) -> Option<Cell> {
    serde_json::from_str(line.strip_prefix(CELL)?).ok()
}

/// Where a cell stands.
type Key = (u8, String, String, String);

/// The table: one line for each way and family, one column for each kernel and privilege.
fn matrix(columns: &[Column]) -> String {
    let mut order: Vec<(Key, Vec<String>)> = Vec::new();
    let mut notes: BTreeMap<String, usize> = BTreeMap::new();
    let privileges = ["root", "nobody"];
    for (index, column) in columns.iter().enumerate() {
        for cell in &column.cells {
            let key = (cell.row, cell.name.clone(), cell.family.clone(), cell.closed_by.clone());
            let at = order.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
                order.push((key, vec![String::new(); columns.len() * privileges.len()]));
                order.len() - 1
            });
            let Some(place) = privileges.iter().position(|name| *name == cell.privilege) else { continue };
            let mut text = cell.leaked.map_or_else(|| "-".to_owned(), |leaked| leaked.to_string());
            if !cell.note.is_empty() && cell.leaked != Some(0) {
                let next = notes.len() + 1;
                text = format!("{text}[{}]", notes.entry(cell.note.clone()).or_insert(next));
            }
            if let Some(slot) = order.get_mut(at).and_then(|(_, slots)| slots.get_mut(index * 2 + place)) {
                *slot = text;
            }
        }
    }
    let mut heads = vec!["row".to_owned(), "way".to_owned(), "family".to_owned(), "closed by".to_owned()];
    for column in columns {
        heads.extend(privileges.iter().map(|privilege| format!("{} {privilege}", column.kernel)));
    }
    let mut lines = vec![heads];
    for ((row, name, family, closed_by), slots) in order {
        let mut line = vec![row.to_string(), name, family, closed_by];
        line.extend(slots);
        lines.push(line);
    }
    let mut text = aligned(&lines);
    let mut notes: Vec<_> = notes.into_iter().collect();
    notes.sort_by_key(|(_, number)| *number);
    text.push_str("packets or other things leaked; 0: closed; -: can't be tried there; empty: not for it\n");
    for (note, number) in notes {
        // Writing to a string does not fail.
        writeln!(text, "[{number}] {note}").ok();
    }
    text
}

fn aligned(lines: &[Vec<String>]) -> String {
    let count = lines.first().map_or(0, Vec::len);
    let width = |index: usize| lines.iter().filter_map(|line| line.get(index)).map(String::len).max();
    let widths: Vec<usize> = (0..count).map(|index| width(index).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"BYPASS {"closed_by":"egress","family":"IPv4","leaked":2,"name":"x","note":"why","privilege":"root","row":7}"#;

    #[test]
    fn cells_become_a_table() {
        let cell = read(LINE).unwrap();
        let absent = Cell { leaked: None, privilege: "nobody".into(), ..cell.clone() };
        let columns = [
            Column { kernel: "a".into(), cells: vec![cell, absent], trouble: None },
            Column { kernel: "b".into(), cells: Vec::new(), trouble: None },
        ];
        let text = matrix(&columns);
        let mut lines = text.lines();
        assert_eq!(
            lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
            ["row", "way", "family", "closed", "by", "a", "root", "a", "nobody", "b", "root", "b", "nobody"]
        );
        let cells: Vec<_> = lines.next().unwrap().split_whitespace().collect();
        assert_eq!(cells, ["7", "x", "IPv4", "egress", "2[1]", "-[1]"]);
        assert!(text.ends_with("[1] why\n"));
    }

    #[test]
    fn other_lines_are_no_cells() {
        assert!(read("test bypass::nothing_leaks ... ok").is_none());
        assert!(is_cell(LINE) && !is_cell("SKIP x: y"));
    }
}
