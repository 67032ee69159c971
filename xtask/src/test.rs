//! `cargo xtask test`: every check there is, in one order, counted into one line.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum;

use crate::fuzz;
use crate::lint;
use crate::setup::{self, Scope};
use crate::suite::{self, Binaries, Profile, Tally};
use crate::{manifests, shell, telemetry, vm};

/// Run format, lints, unit and property tests, fuzzers, the live suite here and on other kernels, and Prometheus
///
/// Ends with one line `N passed, N failed, N skipped`; exit 1 when anything failed or did not run to
/// its end.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave the emulated machines out (they count as skipped)
    #[arg(long)]
    quick: bool,
    /// Cases of each property test; a release asks for 1000000
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    proptest_cases: u64,
    /// Only these steps; can be given more than once
    #[arg(long, value_enum, value_name = "STEP")]
    only: Vec<Step>,
    /// Seconds until an emulated machine counts as hung
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    vm_timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    Fmt,
    Tidy,
    Clippy,
    ClippyEbpf,
    Manifests,
    Unit,
    Fuzz,
    Live,
    Telemetry,
    Vm,
}

/// How the suite's `--can-run` says that this kernel cannot run it.
const CANNOT_RUN: i32 = 3;
/// What the property tests read their number of cases from.
const CASES_ENV: &str = "ENFORCER_PROPTEST_CASES";

/// One row of the summary.
#[derive(Debug)]
struct Row {
    name: String,
    time: Duration,
    passed: u64,
    failed: u64,
    skipped: u64,
    notes: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut run = Run { root: shell::root()?, rows: Vec::new() };
    let wanted = |step: Step| arguments.only.is_empty() || arguments.only.contains(&step);
    if wanted(Step::Live) || wanted(Step::Telemetry) {
        shell::warm_sudo()?;
    }
    let scope = if !wanted(Step::Vm) || arguments.quick {
        without_machines(wanted(Step::Telemetry))
    } else {
        Scope::Test
    };
    // By a tool that is fetched, and written in Python: while the compiler works.
    let root = run.root.clone();
    let manifests = wanted(Step::Manifests).then(|| thread::spawn(move || manifests::check(&root)));
    // These need nothing but the stable toolchain, and are wanted alone while writing.
    let is_bare = |step: &Step| [Step::Fmt, Step::Tidy, Step::Manifests].contains(step);
    let mut tools = None;
    if arguments.only.is_empty() || !arguments.only.iter().all(is_bare) {
        run.check("setup", |root| setup::ensure(root, Scope::Lint));
        // What only the suite needs is fetched and unpacked while the compiler works.
        let root = run.root.clone();
        tools = Some(thread::spawn(move || setup::ensure_beyond(&root, scope, Scope::Lint)));
    }
    let steps = [Step::Fmt, Step::Tidy, Step::Clippy, Step::ClippyEbpf];
    for (step, (name, check)) in steps.into_iter().zip(lint::CHECKS) {
        if wanted(step) {
            run.check(name, check);
        }
    }
    if let Some(manifests) = manifests {
        run.manifests(manifests);
    }
    if wanted(Step::Unit) {
        run.unit(arguments.proptest_cases);
    }
    if let Some(tools) = tools {
        let panicked = |_| Err(anyhow!("the thread that fetches them panicked"));
        run.check("tools", |_| tools.join().unwrap_or_else(panicked));
    }
    if [Step::Fuzz, Step::Live, Step::Telemetry, Step::Vm].into_iter().any(wanted) {
        let mut built = None;
        run.check("build", |root| {
            built = Some(suite::build(root, Profile::Debug)?);
            Ok(())
        });
        // The live tests wait more than they compute.
        let root = run.root.clone();
        let noise = wanted(Step::Fuzz).then(|| thread::spawn(move || fuzz::minute(&root)));
        if wanted(Step::Live) {
            run.live(built.as_ref());
        }
        if let Some(noise) = noise {
            run.fuzz(noise);
        }
        if wanted(Step::Telemetry) {
            run.telemetry();
        }
        if wanted(Step::Vm) {
            run.machines(built.as_ref(), arguments);
        }
    }
    Ok(run.finish())
}

/// What is needed where no machine is started.
fn without_machines(telemetry: bool) -> Scope {
    if telemetry { Scope::Quick } else { Scope::Lint }
}

struct Run {
    root: std::path::PathBuf,
    rows: Vec<Row>,
}

impl Run {
    /// A step that passes or fails as a whole.
    fn check(&mut self, name: &str, check: impl FnOnce(&Path) -> Result<()>) {
        shell::heading(name);
        let start = Instant::now();
        let mut row = Row::new(name);
        match check(&self.root) {
            Ok(()) => row.passed = 1,
            Err(error) => row.fail(format!("{error:#}")),
        }
        self.add(row, start);
    }

    fn manifests(&mut self, checked: JoinHandle<Result<manifests::Outcome>>) {
        shell::heading("manifests");
        let start = Instant::now();
        let mut row = Row::new("manifests");
        match checked.join().unwrap_or_else(|_| Err(anyhow!("the thread that checks them panicked"))) {
            Ok(manifests::Outcome::Valid(_)) => row.passed = 1,
            Ok(manifests::Outcome::Skipped(reason)) => row.skip(&reason),
            Err(error) => row.fail(format!("{error:#}")),
        }
        self.add(row, start);
    }

    fn unit(&mut self, cases: u64) {
        shell::heading("unit and property tests");
        let start = Instant::now();
        let mut row = Row::new("unit");
        let mut cargo = suite::cargo(&self.root);
        cargo.args(["test", "--no-fail-fast"]).args(suite::PACKAGES).env(CASES_ENV, cases.to_string());
        row.harness(&mut cargo);
        self.add(row, start);
    }

    fn fuzz(&mut self, noise: JoinHandle<Result<()>>) {
        let panicked = |_| Err(anyhow!("the thread that fuzzes panicked"));
        self.check("fuzz", |_| noise.join().unwrap_or_else(panicked));
    }

    fn live(&mut self, built: Option<&Binaries>) {
        shell::heading("live suite on this kernel");
        let start = Instant::now();
        let mut row = Row::new("live");
        match built.ok_or_else(|| anyhow!("not run: the build failed")) {
            Ok(binaries) => {
                if let Err(error) = self.live_here(binaries, &mut row) {
                    row.fail(format!("{error:#}"));
                }
            }
            Err(error) => row.fail(error.to_string()),
        }
        self.add(row, start);
    }

    fn live_here(&self, binaries: &Binaries, row: &mut Row) -> Result<()> {
        let mut ask = suite::native(&self.root, binaries)?;
        let answer = ask.arg("--can-run").stdin(Stdio::null()).output().context("cannot start the suite")?;
        let words = [answer.stdout, answer.stderr].concat();
        let reason = String::from_utf8_lossy(&words).trim().to_owned();
        match answer.status.code() {
            Some(0) => {}
            Some(CANNOT_RUN) if !reason.is_empty() => {
                println!("SKIP live: {reason}");
                row.skip(&reason);
                return Ok(());
            }
            _ => bail!("the suite cannot tell whether it can run here ({}): {reason}", answer.status),
        }
        row.harness(&mut suite::native(&self.root, binaries)?);
        Ok(())
    }

    fn telemetry(&mut self) {
        shell::heading("telemetry");
        let start = Instant::now();
        let mut row = Row::new("telemetry");
        match telemetry::check(&self.root) {
            Ok(true) => row.passed = 1,
            Ok(false) => row.skip("this kernel cannot run the programs, see above"),
            Err(error) => row.fail(format!("{error:#}")),
        }
        self.add(row, start);
    }

    fn machines(&mut self, built: Option<&Binaries>, arguments: &Arguments) {
        let kernels: Vec<String> = setup::KERNELS.iter().map(|line| line.name.to_owned()).collect();
        let reason = if arguments.quick {
            Some("left out by --quick")
        } else if cfg!(target_arch = "x86_64") {
            None
        } else {
            Some("the kernels of the matrix are for x86-64")
        };
        if let Some(reason) = reason {
            for name in kernels {
                println!("SKIP vm {name}: {reason}");
                let mut row = Row::new(&format!("vm {name}"));
                row.skip(reason);
                self.rows.push(row);
            }
            return;
        }
        shell::heading("live suite on other kernels");
        let Some(binaries) = built else {
            for name in kernels {
                let mut row = Row::new(&format!("vm {name}"));
                row.fail("not run: the build failed".to_owned());
                self.rows.push(row);
            }
            return;
        };
        let options = vm::Options {
            timeout: Duration::from_secs(arguments.vm_timeout),
            cpus: vm::CPUS,
            append: Vec::new(),
            live: Vec::new(),
        };
        for (name, outcome) in vm::run_all(&self.root, &kernels, binaries, &options) {
            self.rows.push(machine_row(&name, outcome));
        }
    }

    fn add(&mut self, mut row: Row, start: Instant) {
        row.time = start.elapsed();
        println!("{}", shell::dim(&format!("{} took {:.1} s", row.name, row.time.as_secs_f64())));
        self.rows.push(row);
    }

    /// The table, the reasons, and the one closing line.
    fn finish(&self) -> ExitCode {
        shell::heading("summary");
        println!("{:<12} {:>8} {:>8} {:>8} {:>8}", "step", "seconds", "passed", "failed", "skipped");
        for row in &self.rows {
            println!(
                "{:<12} {:>8.1} {:>8} {:>8} {:>8}",
                row.name,
                row.time.as_secs_f64(),
                row.passed,
                row.failed,
                row.skipped
            );
        }
        for row in &self.rows {
            for note in &row.notes {
                println!("{}: {note}", row.name);
            }
        }
        let sum = |count: fn(&Row) -> u64| self.rows.iter().map(count).sum::<u64>();
        let failed = sum(|row| row.failed);
        println!("{} passed, {failed} failed, {} skipped", sum(|row| row.passed), sum(|row| row.skipped));
        if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }
}

fn machine_row(name: &str, outcome: Result<vm::Outcome>) -> Row {
    let mut row = Row::new(&format!("vm {name}"));
    match outcome {
        Ok(outcome) => {
            vm::say(name, &outcome);
            row.time = outcome.report.total;
            let trouble = outcome.trouble();
            row.take(&outcome.tally, trouble);
        }
        Err(error) => row.fail(format!("{error:#}")),
    }
    row
}

impl Row {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            time: Duration::ZERO,
            passed: 0,
            failed: 0,
            skipped: 0,
            notes: Vec::new(),
        }
    }

    fn fail(&mut self, note: String) {
        println!("{}: {note}", self.name);
        self.failed += 1;
        self.notes.push(note);
    }

    fn skip(&mut self, reason: &str) {
        self.skipped += 1;
        self.notes.push(format!("skipped: {reason}"));
    }

    /// Runs a test harness, shows its output as it comes, and adds up what it counted.
    fn harness(&mut self, command: &mut Command) {
        let mut tally = Tally::default();
        let trouble = match stream(command, &mut tally) {
            Ok(status) if status.success() => None,
            Ok(status) => Some(format!("ended with {status}")),
            Err(error) => Some(format!("{error:#}")),
        };
        self.take(&tally, trouble);
    }

    /// Every way in which a run can look green without being so ends up as a failure here.
    fn take(&mut self, tally: &Tally, trouble: Option<String>) {
        self.passed += tally.passed;
        self.failed += tally.failed;
        self.skipped += tally.ignored;
        self.notes.extend(tally.skips.iter().map(|skip| format!("skipped: {skip}")));
        match trouble {
            // Failed tests end a harness with a failure: that is the same one.
            Some(trouble) if tally.failed == 0 => self.fail(trouble),
            Some(trouble) => self.notes.push(trouble),
            None if tally.closed == 0 => self.fail("no harness reached its closing line".to_owned()),
            None => {}
        }
        if let Some(unexplained) = tally.unexplained() {
            self.fail(unexplained);
        }
    }
}

pub(crate) fn stream(command: &mut Command, tally: &mut Tally) -> Result<std::process::ExitStatus> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", Path::new(command.get_program()).display()))?;
    let output = child.stdout.take().context("the test harness has no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("cannot read the test harness")?;
        let line = String::from_utf8_lossy(&line);
        tally.read(&line);
        println!("{line}");
    }
    child.wait().context("cannot wait for the test harness")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str, trouble: Option<&str>) -> Row {
        let mut tally = Tally::default();
        text.lines().for_each(|line| tally.read(line));
        let mut row = Row::new("live");
        row.take(&tally, trouble.map(str::to_owned));
        row
    }

    #[test]
    fn a_green_run_is_green() {
        let row = row("test result: ok. 4 passed; 0 failed; 1 ignored;\nSKIP a: b", None);
        assert_eq!((row.passed, row.failed, row.skipped), (4, 0, 1));
    }

    #[test]
    fn what_only_looks_green_fails() {
        assert_eq!(row("", None).failed, 1, "no closing line");
        assert_eq!(row("test result: ok. 4 passed; 0 failed; 0 ignored;", Some("hung")).failed, 1);
        assert_eq!(row("test result: ok. 4 passed; 0 failed; 1 ignored;", None).failed, 1, "no reason");
        assert_eq!(row("test result: FAILED. 4 passed; 2 failed; 0 ignored;", Some("exit 101")).failed, 2);
    }

    #[test]
    fn the_steps_are_the_checks() {
        let names = lint::CHECKS;
        assert_eq!(names.map(|(name, _)| name), ["fmt", "tidy", "clippy", "clippy-ebpf"]);
    }
}
