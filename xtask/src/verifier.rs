//! `cargo xtask verifier`: what the kernel's verifier thinks of each program.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::setup::{self, Scope};
use crate::{ebpf, shell, suite};

/// Load every kernel program and print its size, verified instructions and load time
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fail when a program needs more verified instructions than this
    #[arg(long, default_value_t = 200_000)]
    budget: u64,
}

/// Heading, and the field of the product's answer that it shows.
const COLUMNS: [(&str, &str); 4] = [
    ("verified", "instructions_verified"),
    ("translated B", "xlated_bytes"),
    ("native B", "jited_bytes"),
    ("load us", "load_microseconds"),
];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    shell::warm_sudo()?;
    setup::ensure(&root, Scope::Build)?;
    let object = ebpf::build(&root, &ebpf::find(&root)?)?;
    let size = std::fs::metadata(&object).with_context(|| format!("cannot read {}", object.display()))?.len();
    let enforcer = suite::build_enforcer(&root)?;
    let mut probe = shell::as_root(enforcer, &[])?;
    probe.args(["probe", "--programs", "-o", "json"]);
    let answer = shell::capture(&mut probe, "`enforcer probe --programs`")?;
    let programs = parse(&answer)?;
    println!("object {size} bytes, {}", object.display());
    print!("{}", table(&programs));
    let over: Vec<_> =
        programs.iter().filter(|row| row.numbers[0].is_some_and(|count| count > arguments.budget)).collect();
    for row in &over {
        println!("{} is over the budget of {} verified instructions", row.program, arguments.budget);
    }
    Ok(if over.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

struct Row {
    program: String,
    numbers: [Option<u64>; COLUMNS.len()],
}

fn parse(answer: &str) -> Result<Vec<Row>> {
    let answer: Value =
        serde_json::from_str(answer).context("`enforcer probe --programs` answered no JSON")?;
    let Some(programs) = answer.get("programs").and_then(Value::as_array) else {
        bail!("`enforcer probe --programs` answered no list of programs")
    };
    programs
        .iter()
        .map(|entry| {
            let program = entry.get("program").and_then(Value::as_str).context("a program without a name")?;
            let numbers = COLUMNS.map(|(_, field)| entry.get(field).and_then(Value::as_u64));
            Ok(Row { program: program.to_owned(), numbers })
        })
        .collect()
}

fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.program.len()).chain(["program".len()]).max().unwrap_or_default();
    let line = |name: &str, cells: [String; COLUMNS.len()]| {
        let cells = cells.map(|cell| format!("  {cell:>12}")).concat();
        format!("{name:<width$}{cells}\n")
    };
    let mut text = line("program", COLUMNS.map(|(heading, _)| heading.to_owned()));
    for row in rows {
        // Older kernels do not tell every number.
        text +=
            &line(&row.program, row.numbers.map(|number| number.map_or("-".to_owned(), |n| n.to_string())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_aligns_and_marks_what_is_unknown() {
        let rows = parse(
            r#"{"programs":[{"program":"connect4","instructions_verified":120,"load_microseconds":7}]}"#,
        )
        .unwrap();
        assert_eq!(
            table(&rows),
            "program       verified  translated B      native B       load us\n\
             connect4           120             -             -             7\n"
        );
        assert!(parse("{}").is_err());
    }
}
