//! `cargo xtask soak`: the long forms of the suite's faults, one after the other, and a table of their figures.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::setup::{self, Scope};
use crate::suite::{self, Binaries, Profile, Tally};
use crate::{shell, test, vm};

/// Run the long forms of all faults, or of those named, and print a table of their figures
///
/// Kills, swaps, full maps and other things that go wrong on real machines; takes about an hour, with
/// a release build. Exit 1 when a gate was missed.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Faults: all if none is named
    #[arg(value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(names()))]
    names: Vec<String>,
    /// The short forms, as in the suite
    #[arg(long)]
    short: bool,
    /// Seconds until an emulated machine counts as hung
    #[arg(long, default_value_t = 1_800, value_name = "SECONDS")]
    vm_timeout: u64,
}

/// Where a fault is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On this kernel.
    Here,
    /// In emulated machines: it would harm this one, or this one lacks something.
    Machines,
}

/// All faults: the names of their tests, and where they are tried.
const FAULTS: [(&str, Place); 13] = [
    ("kills", Place::Here),
    ("points", Place::Here),
    ("swaps", Place::Here),
    ("memory", Place::Machines),
    ("full_maps", Place::Here),
    ("full_bindings", Place::Here),
    ("idle", Place::Here),
    ("stalled", Place::Here),
    ("state_files", Place::Here),
    ("clock", Place::Machines),
    ("churn", Place::Here),
    ("storm", Place::Here),
    ("first_instruction", Place::Here),
];

/// What the suite's long forms are asked for by.
const LONG: &str = "--soak";

fn names() -> [&'static str; FAULTS.len()] {
    FAULTS.map(|(name, _)| name)
}

/// One line of the table.
struct Row {
    name: String,
    place: String,
    time: Duration,
    /// With its verdict at the end; a sentence if there are none.
    figures: String,
    good: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    shell::warm_sudo()?;
    let chosen: Vec<(&str, Place)> = FAULTS
        .into_iter()
        .filter(|(name, _)| arguments.names.is_empty() || arguments.names.iter().any(|chosen| chosen == name))
        .collect();
    let machines: Vec<&str> =
        chosen.iter().filter(|(_, place)| *place == Place::Machines).map(|(name, _)| *name).collect();
    setup::ensure(&root, if machines.is_empty() { Scope::Build } else { Scope::Test })?;
    let profile = if arguments.short { Profile::Debug } else { Profile::Release };
    let binaries = suite::build(&root, profile)?;
    let mut rows = Vec::new();
    for (name, _) in chosen.iter().filter(|(_, place)| *place == Place::Here) {
        shell::heading(name);
        rows.push(here(&root, &binaries, name, arguments.short)?);
    }
    for name in machines {
        shell::heading(name);
        rows.extend(elsewhere(&root, &binaries, name, arguments));
    }
    Ok(finish(&rows))
}

/// What the suite is started with for one fault.
fn options(name: &str, short: bool) -> Vec<String> {
    let mut options = vec!["--exact".to_owned(), format!("faults::{name}"), "--test-threads=1".to_owned()];
    if !short {
        options.push(LONG.to_owned());
    }
    options
}

fn here(root: &Path, binaries: &Binaries, name: &str, short: bool) -> Result<Row> {
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut command = suite::native(root, binaries)?;
    let status = test::stream(command.args(options(name, short)), &mut tally)?;
    if tally.closed == 0 {
        bail!("the suite did not come to its end ({status})");
    }
    Ok(row(name, "here", start.elapsed(), &tally, (!status.success()).then(|| status.to_string()).as_deref()))
}

fn elsewhere(root: &Path, binaries: &Binaries, name: &str, arguments: &Arguments) -> Vec<Row> {
    let kernels: Vec<String> = setup::KERNELS.iter().map(|line| line.name.to_owned()).collect();
    let run = vm::Options {
        timeout: Duration::from_secs(arguments.vm_timeout),
        cpus: vm::CPUS,
        live: options(name, arguments.short),
        append: Vec::new(),
    };
    let outcomes = vm::run_all(root, &kernels, binaries, &run);
    let told = outcomes.into_iter().map(|(kernel, outcome)| match outcome {
        Ok(outcome) => row(name, &kernel, outcome.report.total, &outcome.tally, outcome.trouble().as_deref()),
        Err(error) => row(name, &kernel, Duration::ZERO, &Tally::default(), Some(&format!("{error:#}"))),
    });
    told.collect()
}

/// A fault without figures was not judged, whatever the exit code says.
fn row(name: &str, place: &str, time: Duration, tally: &Tally, trouble: Option<&str>) -> Row {
    let figures: Vec<&str> = tally
        .figures
        .iter()
        .map(|line| line.split_once(": ").map_or(line.as_str(), |(_, rest)| rest))
        .collect();
    let words = match (figures.is_empty(), &trouble, tally.skips.first()) {
        (false, ..) => figures.join(" | "),
        (true, _, Some(skip)) => format!("not judged: {skip}"),
        (true, Some(trouble), None) => format!("not judged: {trouble}"),
        (true, None, None) => "not judged: the suite told no figures".to_owned(),
    };
    let good = trouble.is_none() && !figures.is_empty() && figures.iter().all(|line| line.ends_with(" ok"));
    Row { name: name.to_owned(), place: place.to_owned(), time, figures: words, good }
}

fn finish(rows: &[Row]) -> ExitCode {
    shell::heading("figures");
    let mut verdicts: BTreeMap<bool, usize> = BTreeMap::new();
    for row in rows {
        *verdicts.entry(row.good).or_default() += 1;
        let Row { name, place, time, figures, good } = row;
        let mark = if *good { "ok    " } else { "FAILED" };
        println!("{mark} {name:<18} {place:<6} {:>7.1} s  {figures}", time.as_secs_f64());
    }
    let count = |good| verdicts.get(&good).copied().unwrap_or_default();
    println!("{} ok, {} failed", count(true), count(false));
    if count(false) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(lines: &str, trouble: Option<&str>) -> Row {
        let mut tally = Tally::default();
        lines.lines().for_each(|line| tally.read(line));
        row("kills", "here", Duration::ZERO, &tally, trouble)
    }

    #[test]
    fn only_figures_with_their_verdict_are_good() {
        let good = judged("soak: kills: leaks=0 gate=0 ok\n", None);
        assert!(good.good);
        assert_eq!(good.figures, "leaks=0 gate=0 ok");
        assert!(!judged("soak: kills: leaks=1 gate=0 FAILED\n", Some("exit 101")).good);
        assert!(!judged("soak: kills: leaks=0 gate=0 ok\n", Some("hung")).good);
        assert!(!judged("", None).good, "silence is no verdict");
        let skipped = judged("SKIP faults::memory: no controller\n", None);
        assert!(!skipped.good && skipped.figures.contains("no controller"));
    }
}
