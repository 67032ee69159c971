//! The live suite from outside: building it, finding its binaries, reading what it counted.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::shell;

/// The programs that a live run consists of.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    pub(crate) enforcer: PathBuf,
    pub(crate) live: PathBuf,
    pub(crate) init: PathBuf,
}

/// How they are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Soon: for what is right or wrong.
    Debug,
    /// As they are released: for times and sizes.
    Release,
}

/// Every package of the workspace. Cargo unifies the features of what is built in one call: calls that name different
/// packages compile their common dependencies, and `enforcer`, once more each.
pub(crate) const PACKAGES: &[&str] = &["--workspace"];

/// Cargo with clippy's driver as the compiler of the project's own packages, which is what `cargo clippy` is, but for the
/// code: what is checked is also what is tested, and everything, the dependencies too, is compiled once instead of twice.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut cargo = shell::cargo(root);
    cargo.env("RUSTC_WORKSPACE_WRAPPER", "clippy-driver");
    cargo
}

/// Builds them in one call, with the same packages as the tests.
pub(crate) fn build(root: &Path, profile: Profile) -> Result<Binaries> {
    let mut cargo = match profile {
        Profile::Debug => cargo(root),
        Profile::Release => shell::cargo(root),
    };
    cargo.arg("build").args(PACKAGES).args(["--bins", "--test", "live"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    let built = executables(&mut cargo, "building the live suite")?;
    Ok(Binaries {
        enforcer: pick(&built, "enforcer")?,
        live: pick(&built, "live")?,
        init: pick(&built, "vm-init")?,
    })
}

/// Builds only the `enforcer` binary and returns its path.
pub(crate) fn build_enforcer(root: &Path) -> Result<PathBuf> {
    let mut cargo = shell::cargo(root);
    cargo.args(["build", "--package", "enforcer", "--bin", "enforcer"]);
    pick(&executables(&mut cargo, "building enforcer")?, "enforcer")
}

/// Builds one binary target of the suite's crate together with `enforcer`.
pub(crate) fn build_with(root: &Path, bin: &str) -> Result<(PathBuf, PathBuf)> {
    let mut cargo = cargo(root);
    // The suite with it, although nobody asks for it: without a test, what tests need is left out, and that is another selection.
    cargo.arg("build").args(PACKAGES).args(["--bin", "enforcer", "--bin", bin, "--test", "live"]);
    let built = executables(&mut cargo, &format!("building {bin}"))?;
    Ok((pick(&built, "enforcer")?, pick(&built, bin)?))
}

/// Builds the benchmark as it is released: the load must cost little beside what it measures.
pub(crate) fn build_bench(root: &Path) -> Result<PathBuf> {
    let mut cargo = shell::cargo(root);
    cargo.args(["build", "--release", "--package", "enforcer-tests", "--bin", "bench"]);
    pick(&executables(&mut cargo, "building the benchmark")?, "bench")
}

/// Builds the benchmark together with the daemon that it starts.
pub(crate) fn build_bench_with(root: &Path) -> Result<(PathBuf, PathBuf)> {
    let mut cargo = shell::cargo(root);
    cargo.args(["build", "--release", "--package", "enforcer", "--package", "enforcer-tests"]);
    let built = executables(cargo.args(["--bin", "enforcer", "--bin", "bench"]), "building the benchmark")?;
    Ok((pick(&built, "enforcer")?, pick(&built, "bench")?))
}

/// The suite's binary, ready to run as root on this machine.
pub(crate) fn native(root: &Path, binaries: &Binaries) -> Result<Command> {
    native_with(root, binaries, &[])
}

/// The same, with more variables.
pub(crate) fn native_with(root: &Path, binaries: &Binaries, more: &[(&str, &OsStr)]) -> Result<Command> {
    let policies = root.join("policies");
    let own = [("ENFORCER_BIN", binaries.enforcer.as_os_str()), ("ENFORCER_POLICIES", policies.as_os_str())];
    shell::as_root(&binaries.live, &[&own, more].concat())
}

fn pick(built: &[(String, PathBuf)], name: &str) -> Result<PathBuf> {
    built
        .iter()
        .find(|(target, _)| target == name)
        .map(|(_, path)| path.clone())
        .with_context(|| format!("cargo built no target `{name}`; is it still declared in its Cargo.toml?"))
}

/// Runs cargo and returns name and path of every executable it says it made.
fn executables(cargo: &mut Command, what: &str) -> Result<Vec<(String, PathBuf)>> {
    let text = shell::capture(cargo.arg("--message-format=json-render-diagnostics"), what)?;
    Ok(text.lines().filter_map(executable).collect())
}

/// Builds everything that is tested, and returns what clippy and the compiler have against the project's own packages.
pub(crate) fn findings(root: &Path) -> Result<BTreeSet<String>> {
    // The live suite by name: "all targets" leaves out what `cargo test` does not run.
    const SELECTIONS: [&[&str]; 2] = [&["--all-targets"], &["--bins", "--test", "live"]];
    // A library and its tests have the same ones.
    let mut findings = BTreeSet::new();
    for selection in SELECTIONS {
        let mut cargo = cargo(root);
        cargo.arg("build").args(PACKAGES).args(selection).args(["--keep-going", "--message-format=json"]);
        let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.context("cannot start cargo")?;
        findings.extend(String::from_utf8_lossy(&output.stdout).lines().filter_map(finding));
        // Such as no clippy at all: cargo has said why.
        if findings.is_empty() && !output.status.success() {
            bail!("building with clippy failed ({})", output.status);
        }
    }
    Ok(findings)
}

/// A warning or an error, as it would stand in a terminal.
fn finding(message: &str) -> Option<String> {
    let message: Value = serde_json::from_str(message).ok()?;
    Some(message.get("message")?.get("rendered")?.as_str()?.to_owned())
}

fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message.get("executable")?.as_str()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    Some((name.to_owned(), PathBuf::from(path)))
}

/// What test harnesses said: their closing lines added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    /// Closing lines seen: a harness that died has none.
    pub(crate) closed: u64,
    /// `name: reason` of every test that was skipped.
    pub(crate) skips: Vec<String>,
    /// `name: figures verdict` of every fault that was judged.
    pub(crate) figures: Vec<String>,
}

impl Tally {
    /// Takes one line of a harness's output.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(skip) = line.strip_prefix("SKIP ") {
            let reason = skip.split_once(':').map_or("", |(_, reason)| reason.trim());
            if !reason.is_empty() {
                self.skips.push(skip.to_owned());
            }
        }
        if let Some(figures) = line.strip_prefix("soak: ")
            && (figures.ends_with(" ok") || figures.ends_with(" FAILED"))
        {
            self.figures.push(figures.to_owned());
        }
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        self.closed += 1;
        for count in counts.split(';') {
            let mut words = count.split_whitespace();
            let Some(number) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.ignored += number,
                _ => {}
            }
        }
    }

    /// Skipped tests that gave no reason, or reasons without a skipped test.
    pub(crate) fn unexplained(&self) -> Option<String> {
        let reasons = self.skips.len();
        (u64::try_from(reasons).ok() != Some(self.ignored))
            .then(|| format!("{} skipped tests but {reasons} lines `SKIP name: reason`", self.ignored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(text: &str) -> Tally {
        let mut tally = Tally::default();
        text.lines().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn closing_lines_add_up() {
        let read = tally(
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.1s\n\
             noise 7 passed\n\
             test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out\n\
             SKIP lsm: this kernel refuses LSM programs\n",
        );
        assert_eq!((read.passed, read.failed, read.ignored, read.closed), (4, 2, 1, 2));
        assert_eq!(read.unexplained(), None);
    }

    #[test]
    fn figures_are_lines_with_a_verdict() {
        let read = tally(
            "soak: kills: seed 7\nsoak: kills: leaks=0 gate=0 ok\nsoak: swaps: leaks=1 gate=0 FAILED\n",
        );
        assert_eq!(read.figures, ["kills: leaks=0 gate=0 ok", "swaps: leaks=1 gate=0 FAILED"]);
    }

    #[test]
    fn a_skip_needs_a_reason() {
        assert!(tally("test result: ok. 0 passed; 0 failed; 1 ignored;\n").unexplained().is_some());
        assert!(
            tally("SKIP lsm:\ntest result: ok. 0 passed; 0 failed; 1 ignored;\n").unexplained().is_some()
        );
    }

    #[test]
    fn findings_are_read_from_cargos_messages() {
        let line =
            r#"{"reason":"compiler-message","message":{"level":"warning","rendered":"warning: unneeded"}}"#;
        assert_eq!(finding(line).as_deref(), Some("warning: unneeded"));
        assert_eq!(finding(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(finding("   Compiling"), None);
    }

    #[test]
    fn executables_are_read_from_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"live"},"executable":"/t/live-1"}"#;
        assert_eq!(executable(line), Some(("live".to_owned(), PathBuf::from("/t/live-1"))));
        assert_eq!(executable(r#"{"reason":"x","target":{"name":"y"},"executable":null}"#), None);
    }
}
