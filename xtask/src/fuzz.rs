//! `cargo xtask fuzz`: feeds noise to everything that reads the words of strangers.
//!
//! The targets are programs with libFuzzer in them. They are built by the stable compiler: instrumentation for coverage is
//! a pass of LLVM and needs no nightly.

use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::builder::PossibleValuesParser;

use crate::setup::{self, Scope};
use crate::shell;
use crate::suite;

/// Feed noise to parsers and decoders, and keep every input that breaks one
///
/// Exit 1 when an input crashed, hung or exhausted a target.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Seconds for each target
    #[arg(long, default_value_t = MINUTE, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Targets that run at the same time
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    at_once: u64,
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

/// Puts libFuzzer's marks into the project's own code, so that it sees which inputs lead to something new.
const WRAPPER: &str = "fuzz/instrument";

/// Where the programs are.
const GUIDED: &str = "target/fuzz/bin";
/// The same without libFuzzer, as the suite is built.
const PLAIN: &str = "target/debug";

const MINUTE: u64 = 60;
/// One input may take so many seconds, and a target so many MiB.
const TIMEOUT: u32 = 10;
const MEMORY: u32 = 2_048;

/// How the targets run.
struct Pace {
    /// By the clock, for each.
    seconds: u64,
    at_once: usize,
    /// By libFuzzer, which learns from what it sees; else with noise made of the seeds, with what others leave of the processors.
    is_guided: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    setup::ensure(&root, Scope::Build)?;
    let at_once = usize::try_from(arguments.at_once).unwrap_or(TARGETS.len());
    let pace = Pace { seconds: arguments.seconds, at_once, is_guided: true };
    let wanted = |target: &&Target| {
        arguments.targets.is_empty() || arguments.targets.iter().any(|name| name == target.name)
    };
    let targets: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    build(&root, &targets)?;
    match feed_all(&root, &targets, &pace) {
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

/// Runs all targets at once for a minute by the clock, as they were built with the suite: there is no time to compile everything
/// twice. What breaks is kept and repeated as after a guided run.
pub(crate) fn minute(root: &Path) -> Result<()> {
    let pace = Pace { seconds: MINUTE, at_once: TARGETS.len(), is_guided: false };
    feed_all(root, &TARGETS.iter().collect::<Vec<_>>(), &pace)
}

/// Runs the targets, which are built, and prints what they did. An error when one broke.
fn feed_all(root: &Path, targets: &[&'static Target], pace: &Pace) -> Result<()> {
    let mut broken = Vec::new();
    let mut rows = vec![format!(
        "{:<12} {:>12} {:>9} {:>9} {:>9}",
        "target", "executions", "a second", "coverage", "features"
    )];
    for together in targets.chunks(pace.at_once) {
        let outcomes: Vec<Result<Outcome>> = thread::scope(|scope| {
            let start = |target: &&'static Target| {
                let target = *target;
                scope.spawn(move || feed(root, target, pace))
            };
            let running: Vec<_> = together.iter().map(start).collect();
            let panicked = |_| Err(anyhow!("the thread that waits for it panicked"));
            running.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        });
        for (target, outcome) in together.iter().zip(outcomes) {
            let outcome = outcome?;
            let Numbers { executions, rate, coverage, features } = outcome.numbers;
            rows.push(format!("{:<12} {executions:>12} {rate:>9} {coverage:>9} {features:>9}", target.name));
            if let Some(words) = outcome.broken {
                rows.push(words);
                broken.push(target.name);
            }
        }
    }
    // At once, because others print meanwhile.
    println!("{}", rows.join("\n"));
    if broken.is_empty() { Ok(()) } else { Err(Broken(broken).into()) }
}

/// Builds the targets with libFuzzer. The packages of others are the same ones that the suite was built with, because the wrapper is
/// asked for the project's own only.
fn build(root: &Path, targets: &[&Target]) -> Result<()> {
    let mut cargo = shell::cargo(root);
    cargo.args(["build", "--quiet", "--locked"]).args(suite::PACKAGES);
    cargo.args(["--features", "enforcer-fuzz/libfuzzer"]);
    for target in targets {
        cargo.args(["--bin", target.name]);
    }
    cargo.env("RUSTC_WORKSPACE_WRAPPER", root.join(WRAPPER));
    shell::require(&mut cargo, "building the fuzz targets", "libFuzzer needs a C++ compiler (package g++)")?;
    // Under names of their own: the suite has these programs too, without libFuzzer.
    let built = root.join(GUIDED);
    fs::create_dir_all(&built).with_context(|| format!("cannot make {}", built.display()))?;
    for target in targets {
        let (from, to) = (root.join(PLAIN).join(target.name), built.join(target.name));
        // Not into one that still runs.
        if let Err(error) = fs::remove_file(&to)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("cannot remove {}", to.display()));
        }
        fs::copy(&from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

struct Outcome {
    numbers: Numbers,
    /// What happened and how to make it happen again.
    broken: Option<String>,
}

fn feed(root: &Path, target: &Target, pace: &Pace) -> Result<Outcome> {
    let program = root.join(if pace.is_guided { GUIDED } else { PLAIN }).join(target.name);
    let work = root.join("target/fuzz");
    let (corpus, crashes) = (work.join("corpus").join(target.name), work.join("crashes").join(target.name));
    for folder in [&corpus, &crashes] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let log = work.join(format!("{}.log", target.name));
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let own = root.join("fuzz/seeds").join(target.name);
    let seeds = [own].into_iter().chain(target.seeds.iter().map(|folder| root.join(folder)));
    let dictionary = root.join("fuzz/dictionaries").join(target.name);
    let mut command;
    if pace.is_guided {
        command = Command::new(&program);
        // The first folder takes what is found, the others are only read.
        command.arg(&corpus).args(seeds);
        if dictionary.is_file() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        command.args([
            format!("-max_total_time={}", pace.seconds),
            format!("-timeout={TIMEOUT}"),
            format!("-rss_limit_mb={MEMORY}"),
            format!("-artifact_prefix={}/", crashes.display()),
            "-print_final_stats=1".to_owned(),
        ]);
    } else {
        command = Command::new("nice");
        command.args(["-n", "19"]).arg(&program).args(["--noise", &pace.seconds.to_string()]);
        command.arg(seed().to_string()).arg(dictionary).arg(&crashes).args(seeds);
    }
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

/// Another one each time.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
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
