//! `cargo xtask vm`: the live suite on another kernel, in an emulated machine.

mod cpio;
pub(crate) mod host;
mod image;
mod qemu;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

pub(crate) use qemu::{End, Report};

use crate::bypass;
use crate::setup::{self, Scope};
use crate::shell;
use crate::suite::{self, Binaries, Profile, Tally};

/// Run the live suite on other kernels in QEMU
///
/// Example: `cargo xtask vm 6.1 -- socket`
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kernel lines of the matrix: 6.1, 6.12
    #[arg(required = true)]
    kernels: Vec<String>,
    /// Seconds until a machine counts as hung
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// Processors of each machine
    #[arg(long, default_value_t = CPUS)]
    cpus: u32,
    /// Another parameter on the kernel's command line, such as `preempt=full`; `NAME=VALUE` in capitals becomes a
    /// variable of the suite
    #[arg(long, value_name = "PARAMETER")]
    append: Vec<String>,
    /// Handed to the suite: a filter, --exact, --list, ...
    #[arg(last = true)]
    live: Vec<String>,
}

/// Two, because races between processors are what a second kernel is for.
pub(crate) const CPUS: u32 = 2;

/// How the machines are run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) timeout: Duration,
    pub(crate) cpus: u32,
    /// Parameters of the kernel.
    pub(crate) append: Vec<String>,
    pub(crate) live: Vec<String>,
}

/// One machine's run: how it ended, and what its suite counted.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) report: Report,
    pub(crate) tally: Tally,
    /// Lines that are cells of the bypass matrix.
    pub(crate) cells: Vec<String>,
}

impl Outcome {
    /// Why the run is no good although the suite may have said nothing, if so.
    pub(crate) fn trouble(&self) -> Option<String> {
        match &self.report.end {
            End::Exit(0) => None,
            End::Exit(code) => Some(format!("the suite ended with exit code {code}")),
            End::Panic(words) => Some(words.clone()),
            End::Timeout => {
                Some(format!("hung: no end after {} s, the machine was stopped", self.report.total.as_secs()))
            }
            End::Silent => Some("the machine ended before the suite did".to_owned()),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    setup::ensure(&root, Scope::Test)?;
    let binaries = suite::build(&root, Profile::Debug)?;
    let options = Options {
        timeout: Duration::from_secs(arguments.timeout),
        cpus: arguments.cpus,
        append: arguments.append.clone(),
        live: arguments.live.clone(),
    };
    let mut worst = 0_u8;
    for (name, outcome) in run_all(&root, &arguments.kernels, &binaries, &options) {
        worst = worst.max(match outcome {
            Ok(outcome) => say(&name, &outcome),
            Err(error) => {
                println!("[{name}] {error:#}");
                2
            }
        });
    }
    Ok(ExitCode::from(worst))
}

/// Prints how a machine ended and returns the exit code it stands for.
pub(crate) fn say(name: &str, outcome: &Outcome) -> u8 {
    let report = &outcome.report;
    let boot = report.boot.map_or_else(|| "never".to_owned(), |boot| format!("{:.1} s", boot.as_secs_f64()));
    println!("[{name}] booted in {boot}, ended after {:.1} s", report.total.as_secs_f64());
    let Some(trouble) = outcome.trouble() else { return 0 };
    println!("[{name}] {trouble}");
    if let End::Exit(code) = report.end {
        return u8::try_from(code).unwrap_or(2);
    }
    println!("[{name}] the last lines of its console:");
    for line in &report.tail {
        println!("[{name}] | {line}");
    }
    2
}

/// Runs the suite on all `kernels` at the same time; the answers keep their order.
pub(crate) fn run_all(
    root: &Path,
    kernels: &[String],
    binaries: &Binaries,
    options: &Options,
) -> Vec<(String, Result<Outcome>)> {
    thread::scope(|scope| {
        let runs: Vec<_> = kernels
            .iter()
            .map(|name| (name, scope.spawn(move || run_one(root, name, binaries, options))))
            .collect();
        runs.into_iter()
            .map(|(name, run)| {
                let outcome =
                    run.join().unwrap_or_else(|_| Err(anyhow!("the thread of this machine panicked")));
                (name.clone(), outcome)
            })
            .collect()
    })
}

fn run_one(root: &Path, name: &str, binaries: &Binaries, options: &Options) -> Result<Outcome> {
    let kernel = setup::find_kernel(root, name).map_err(|missing| {
        let known: Vec<_> = setup::KERNELS.iter().map(|line| line.name).collect();
        anyhow!(
            "kernel {name}: {missing}; the matrix has {}; `cargo xtask setup` fetches them",
            known.join(", ")
        )
    })?;
    if !cfg!(target_arch = "x86_64") {
        bail!("the kernels of the matrix are Debian's for x86-64; on this machine run the suite natively");
    }
    let folder = root.join("target/vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Two runs of the same line at once must not write one file.
    let first_files = folder.join(format!("{name}-{}.cpio", std::process::id()));
    image::write(root, &first_files, &kernel, binaries, &options.live)?;
    let machine = qemu::Machine {
        image: &kernel.image,
        first_files: &first_files,
        cpus: options.cpus,
        append: &options.append,
        timeout: options.timeout,
    };
    println!("[{name}] starting {}", kernel.release);
    let (mut tally, mut cells) = (Tally::default(), Vec::new());
    let mut preemption = None;
    let report = machine.run(|line| {
        tally.read(line);
        if let Some(model) = line.strip_prefix("init: preempt ") {
            preemption = Some(model.to_owned());
        }
        if bypass::is_cell(line) {
            cells.push(line.to_owned());
        } else {
            println!("[{name}] {line}");
        }
    });
    fs::remove_file(&first_files).with_context(|| format!("cannot remove {}", first_files.display()))?;
    let report = report?;
    // A kernel passes over what it does not know.
    if let Some(wanted) = options.append.iter().find_map(|one| one.strip_prefix("preempt="))
        && preemption.as_deref() != Some(wanted)
    {
        bail!(
            "the kernel was told preempt={wanted}, but says {}",
            preemption.as_deref().unwrap_or("nothing")
        );
    }
    Ok(Outcome { report, tally, cells })
}
