//! `cargo xtask cluster-test`: all that is about clusters and hosts, without a cluster.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;

use crate::image;
use crate::manifests::{self, Outcome};
use crate::setup::{self, Scope};
use crate::shell;
use crate::suite::{self, Profile};

/// Try manifests, the command line against an API server, pods, containers and units, on this kernel
///
/// The API server is one in the tests' process that keeps to the protocol; containerd, Docker, Podman and systemd are real. All
/// of it is part of `cargo xtask test` too, but for the image, which is built here and run by containerd as the manifest says.
/// Needs root for what is live.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// Modules of the live suite that are about it.
const LIVE: [&str; 7] =
    ["across::", "cluster_api::", "confinement::", "kubernetes::", "pages::", "runtimes::", "systemd::"];
/// Tests of the suite's library: the API server itself, and the command line against it.
const UNIT: [&str; 2] = ["apiserver::", "cluster_api::"];

pub(crate) fn run(_: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    shell::warm_sudo()?;
    setup::ensure(&root, Scope::Quick)?;
    let mut failed = 0;
    for (name, check) in [("manifests", manifests as Check), ("against an API server", unit), ("live", live)]
    {
        shell::heading(name);
        if let Err(error) = check(&root) {
            println!("{name}: {error:#}");
            failed += 1;
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

type Check = fn(&Path) -> Result<()>;

fn manifests(root: &Path) -> Result<()> {
    if let Outcome::Skipped(reason) = manifests::check(root)? {
        println!("SKIP manifests: {reason}");
    }
    Ok(())
}

fn unit(root: &Path) -> Result<()> {
    let mut cargo = suite::cargo(root);
    cargo.arg("test").args(suite::PACKAGES).args(["--lib", "--"]).args(UNIT);
    shell::require(&mut cargo, "the tests against an API server", "each failure above names its test")
}

fn live(root: &Path) -> Result<()> {
    let image = image::build(root)?;
    let binaries = suite::build(root, Profile::Debug)?;
    for module in LIVE {
        let mut command: Command =
            suite::native_with(root, &binaries, &[("ENFORCER_IMAGE", image.as_os_str())])?;
        command.arg(module).stdin(Stdio::null());
        shell::require(&mut command, module, "each failure above names its test")?;
    }
    Ok(())
}
