//! `cargo xtask fuzz`: feeds noise to everything that reads the words of strangers.
//!
//! The targets are programs with libFuzzer in them. They are built by the stable compiler: instrumentation for coverage is
//! a pass of LLVM and needs no nightly. With a named target, build scripts and macros stay without it.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::builder::PossibleValuesParser;

use crate::setup::{self, Scope};
use crate::shell;

/// Feed noise to parsers and decoders, and keep every input that breaks one
///
/// Exit 1 when an input crashed, hung or exhausted a target.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Seconds for each target
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only these; all when none is named
    #[arg(value_name = "TARGET", value_parser = PossibleValuesParser::new(TARGETS.map(|target| target.name)))]
    targets: Vec<String>,
}

/// A program in `fuzz/targets`.
struct Target {
    name: &'static str,
    /// Folders with seeds, besides `fuzz/seeds/NAME`.
    seeds: &'static [&'static str],
}

const TARGETS: [Target; 8] = [
    Target { name: "api", seeds: &[] },
    Target { name: "audit", seeds: &[] },
    Target { name: "cgroup_path", seeds: &[] },
    Target { name: "events", seeds: &[] },
    Target { name: "packet", seeds: &[] },
    Target { name: "policy", seeds: &["policies", "enforcer/src/domain/policy/testdata/broken"] },
    Target { name: "registry", seeds: &[] },
    Target { name: "workloads", seeds: &["enforcer/src/domain/policy/testdata/broken-workloads"] },
];

/// As `cargo fuzz` has them, without a sanitizer: there is no unsafe code in what is fed.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// One input may take so many seconds, and a target so many MiB.
const TIMEOUT: u32 = 10;
const MEMORY: u32 = 2_048;

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    setup::ensure(&root, Scope::Build)?;
    match smoke(&root, arguments.seconds, &arguments.targets) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is::<Broken>() => {
            println!("{error}");
            Ok(ExitCode::from(1))
        }
        Err(error) => Err(error),
    }
}

/// Some targets broke; what they say is printed.
#[derive(Debug)]
struct Broken(Vec<&'static str>);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fuzz: broken: {}", self.0.join(", "))
    }
}

impl std::error::Error for Broken {}

/// Builds the named targets (all if none is) and runs each for so many seconds. An error when one broke.
pub(crate) fn smoke(root: &Path, seconds: u64, names: &[String]) -> Result<()> {
    let wanted = |target: &&Target| names.is_empty() || names.iter().any(|name| name == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    let programs = build(root, &targets)?;
    let mut broken = Vec::new();
    println!("{:<12} {:>12} {:>9} {:>9} {:>9}", "target", "executions", "a second", "coverage", "features");
    for target in targets {
        let outcome = feed(root, target, &programs.join(target.name), seconds)?;
        let Numbers { executions, rate, coverage, features } = outcome.numbers;
        println!("{:<12} {executions:>12} {rate:>9} {coverage:>9} {features:>9}", target.name);
        if let Some(words) = outcome.broken {
            println!("{words}");
            broken.push(target.name);
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(Broken(broken).into()) }
}

/// Builds the targets and returns the folder they are in.
fn build(root: &Path, targets: &[&Target]) -> Result<PathBuf> {
    let host = host()?;
    let mut cargo = shell::cargo(root);
    cargo.args(["build", "--quiet", "--locked", "--profile", "fuzz", "--package", "enforcer-fuzz"]);
    cargo.args(["--target", &host, "--target-dir", "target/fuzz"]);
    for target in targets {
        cargo.args(["--bin", target.name]);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    shell::require(&mut cargo, "building the fuzz targets", "libFuzzer needs a C++ compiler (package g++)")?;
    Ok(root.join("target/fuzz").join(host).join("fuzz"))
}

/// The compiler's own machine.
fn host() -> Result<String> {
    let text = shell::capture(Command::new("rustc").arg("-vV"), "`rustc -vV`")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

struct Outcome {
    numbers: Numbers,
    /// What happened and how to make it happen again.
    broken: Option<String>,
}

fn feed(root: &Path, target: &Target, program: &Path, seconds: u64) -> Result<Outcome> {
    let work = root.join("target/fuzz");
    let (corpus, crashes) = (work.join("corpus").join(target.name), work.join("crashes").join(target.name));
    for folder in [&corpus, &crashes] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let log = work.join(format!("{}.log", target.name));
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(program);
    // The first folder takes what is found, the others are only read.
    command.arg(&corpus).arg(root.join("fuzz/seeds").join(target.name));
    command.args(target.seeds.iter().map(|folder| root.join(folder)));
    let dictionary = root.join("fuzz/dictionaries").join(target.name);
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    command.args([
        format!("-max_total_time={seconds}"),
        format!("-timeout={TIMEOUT}"),
        format!("-rss_limit_mb={MEMORY}"),
        format!("-artifact_prefix={}/", crashes.display()),
        "-print_final_stats=1".to_owned(),
    ]);
    command.env("RUST_BACKTRACE", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let numbers = Numbers::read(&text);
    if status.success() && numbers.executions == 0 {
        bail!("{} ran nothing; its words are in {}", target.name, log.display());
    }
    let broken = (!status.success()).then(|| {
        let words: Vec<&str> = text.lines().filter(|line| !line.starts_with(['#', '\t'])).collect();
        let last = words[words.len().saturating_sub(60)..].join("\n");
        let input =
            text.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, path)| path);
        let again = match input {
            Some(input) => format!("once more: {} {input}", program.display()),
            None => format!("no input was kept; everything is in {}", log.display()),
        };
        format!("{last}\n{} broke ({status}); {again}", target.name)
    });
    Ok(Outcome { numbers, broken })
}

/// What libFuzzer counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Numbers {
    executions: u64,
    /// Executions in a second.
    rate: u64,
    /// Edges of the code that were reached.
    coverage: u64,
    /// Edges together with how often and with which comparisons.
    features: u64,
}

impl Numbers {
    fn read(log: &str) -> Self {
        let last = |name: &str| {
            log.lines().rev().find_map(|line| {
                let (_, rest) = line.split_once(name)?;
                rest.split_whitespace().next()?.parse().ok()
            })
        };
        Self {
            // A crash ends the run before the statistics; the progress lines begin with the count.
            executions: last("stat::number_of_executed_units:").or_else(|| last("#")).unwrap_or(0),
            rate: last("stat::average_exec_per_sec:").or_else(|| last("exec/s:")).unwrap_or(0),
            coverage: last(" cov: ").unwrap_or(0),
            features: last(" ft: ").unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: Seed: 7\n#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 40Mb\n\
        #1024\tpulse  cov: 812 ft: 2113 corp: 41/2kb lim: 11 exec/s: 512 rss: 41Mb\n";

    #[test]
    fn numbers_are_the_last_ones() {
        let running = Numbers { executions: 1_024, rate: 512, coverage: 812, features: 2_113 };
        assert_eq!(Numbers::read(LOG), running);
        let done =
            format!("{LOG}stat::number_of_executed_units: 4096\nstat::average_exec_per_sec:     1365\n");
        assert_eq!(Numbers::read(&done), Numbers { executions: 4_096, rate: 1_365, ..running });
        assert_eq!(Numbers::read("cannot start"), Numbers::default());
    }

    #[test]
    fn every_target_is_there_with_seeds() {
        let root = shell::root().unwrap();
        let mut there: Vec<String> = fs::read_dir(root.join("fuzz/targets"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        there.sort();
        assert_eq!(there, TARGETS.map(|target| target.name));
        for target in &TARGETS {
            let own = format!("fuzz/seeds/{}", target.name);
            for folder in target.seeds.iter().copied().chain([own.as_str()]) {
                assert!(fs::read_dir(root.join(folder)).unwrap().count() > 0, "{folder} is empty");
            }
        }
    }
}
