//! `cargo xtask cluster-test`: all that is about clusters and hosts, without a cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::manifests::{self, Outcome};
use crate::release::{self, Build};
use crate::setup::{self, Scope};
use crate::suite::{self, Binaries, Profile};
use crate::{image, shell, vm};

/// Try manifests, the command line against an API server, pods, containers and units, on this kernel and at the boot of others
///
/// The API server is one in the tests' process that keeps to the protocol; containerd, Docker, Podman and systemd are real. All
/// of it is part of `cargo xtask test` too, but for two parts: the image, which is built here and run by containerd as the manifest
/// says, and emulated machines that systemd boots, with the product in it as the Debian package installs it. Needs root for what is
/// live.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these parts; can be given more than once
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Binary to try in the image and in the machines instead of building one; it has to be static
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Manifests,
    Api,
    Live,
    Machines,
    Capabilities,
}

/// Modules of the live suite that are about it.
const LIVE: [&str; 7] =
    ["across::", "cluster_api::", "confinement::", "kubernetes::", "pages::", "runtimes::", "systemd::"];
/// Tests of the suite's library: the API server itself, and the command line against it.
const UNIT: [&str; 2] = ["apiserver::", "cluster_api::"];

/// Where each capability is taken away, besides the kernel that runs. Not on 6.1: without `CAP_NET_ADMIN` the test has not come to its
/// end there, and why is not known.
const WITHOUT: [&str; 1] = ["6.12"];

/// Its name, and what it does; `Some` is why it could not be done here.
type Check = fn(&Path, Option<&Path>) -> Result<Option<String>>;
const PARTS: [(Part, &str, Check); 5] = [
    (Part::Manifests, "manifests", manifests),
    (Part::Api, "against an API server", unit),
    (Part::Live, "live", live),
    (Part::Machines, "machines that systemd boots", machines),
    (Part::Capabilities, "each capability on another kernel", capabilities),
];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    shell::warm_sudo()?;
    setup::ensure(&root, Scope::Test)?;
    let mut told = Vec::new();
    let mut failed = false;
    for (part, name, check) in PARTS {
        if !arguments.only.is_empty() && !arguments.only.contains(&part) {
            continue;
        }
        shell::heading(name);
        let start = Instant::now();
        let words = match check(&root, arguments.binary.as_deref()) {
            Ok(None) => "passed".to_owned(),
            Ok(Some(reason)) => format!("SKIP: {reason}"),
            Err(error) => {
                failed = true;
                format!("FAILED: {error:#}")
            }
        };
        told.push(format!("{name}: {words} ({} s)", start.elapsed().as_secs()));
    }
    shell::heading("summary");
    for line in told {
        println!("{line}");
    }
    Ok(if failed { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn manifests(root: &Path, _: Option<&Path>) -> Result<Option<String>> {
    Ok(match manifests::check(root)? {
        Outcome::Skipped(reason) => Some(reason),
        Outcome::Valid(_) => None,
    })
}

fn unit(root: &Path, _: Option<&Path>) -> Result<Option<String>> {
    let mut cargo = suite::cargo(root);
    cargo.arg("test").args(suite::PACKAGES).args(["--lib", "--"]).args(UNIT);
    shell::require(&mut cargo, "the tests against an API server", "each failure above names its test")?;
    Ok(None)
}

/// All modules are tried, whatever becomes of one.
fn live(root: &Path, binary: Option<&Path>) -> Result<Option<String>> {
    let image = image::build(root, binary)?;
    let binaries = suite::build(root, Profile::Debug)?;
    let failed: Vec<&str> = LIVE
        .into_iter()
        .filter(|module| suite_says(root, &binaries, module, ("ENFORCER_IMAGE", &image)).is_err())
        .collect();
    if failed.is_empty() {
        Ok(None)
    } else {
        bail!("{}; each failure above names its test", failed.join(", "))
    }
}

/// Runs what a filter names, with one more variable.
fn suite_says(root: &Path, binaries: &Binaries, filter: &str, (name, file): (&str, &Path)) -> Result<()> {
    let mut command: Command = suite::native_with(root, binaries, &[(name, file.as_os_str())])?;
    command.arg(filter);
    shell::require(&mut command, filter, "each failure above names its test")
}

/// The machines tell, and the test that the native one is judged by judges them.
fn machines(root: &Path, binary: Option<&Path>) -> Result<Option<String>> {
    if let Some(reason) = vm::host::missing() {
        return Ok(Some(reason));
    }
    let product =
        binary.map_or_else(|| release::build(root, Build::Debug), |binary| Ok(binary.to_owned()))?;
    let binaries = suite::build(root, Profile::Debug)?;
    let run = |name: &'static str| vm::host::run(root, name, &binaries, &product);
    let told: Vec<Result<PathBuf>> = thread::scope(|scope| {
        let runs = setup::KERNELS.map(|kernel| scope.spawn(move || run(kernel.name)));
        runs.map(|run| run.join().unwrap_or_else(|_| bail!("the thread of a machine panicked"))).into()
    });
    for file in told {
        suite_says(root, &binaries, "systemd::a_machine", ("ENFORCER_TOLD", &file?))?;
    }
    Ok(None)
}

/// Natively it is among the others that are live.
fn capabilities(root: &Path, _: Option<&Path>) -> Result<Option<String>> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Some("the kernels of the matrix are for x86-64".to_owned()));
    }
    let binaries = suite::build(root, Profile::Debug)?;
    let options = vm::Options {
        timeout: Duration::from_mins(12),
        cpus: vm::CPUS,
        append: Vec::new(),
        live: vec!["confinement::each_capability".to_owned()],
    };
    let kernels = WITHOUT.map(str::to_owned);
    let mut failed = Vec::new();
    for (name, outcome) in vm::run_all(root, &kernels, &binaries, &options) {
        if vm::say(&name, &outcome?) != 0 {
            failed.push(name);
        }
    }
    if failed.is_empty() { Ok(None) } else { bail!("on {}; see above", failed.join(", ")) }
}
