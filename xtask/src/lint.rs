//! `cargo xtask lint`: format, tidy and both clippy runs, with every warning an error.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::setup::{self, Scope};
use crate::{ebpf, shell, tidy};

/// Check format, the project's own rules, and clippy for both targets
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

/// A check: it passes or says why not.
pub(crate) type Check = fn(&Path) -> Result<()>;

pub(crate) const CHECKS: [(&str, Check); 4] =
    [("fmt", fmt), ("tidy", tidy::check), ("clippy", clippy_host), ("clippy-ebpf", clippy_ebpf)];

pub(crate) fn run(_: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    setup::ensure(&root, Scope::Lint)?;
    let mut failed = 0;
    for (name, check) in CHECKS {
        shell::heading(name);
        if let Err(error) = check(&root) {
            println!("{name}: {error:#}");
            failed += 1;
        }
    }
    println!("{} of {} checks passed", CHECKS.len() - failed, CHECKS.len());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn fmt(root: &Path) -> Result<()> {
    const APART: [&str; 2] = ["enforcer-ebpf/Cargo.toml", "fuzz/Cargo.toml"];
    let mut formatted = shell::status(shell::cargo(root).args(["fmt", "--all", "--check"]))?.success();
    for manifest in APART {
        let mut cargo = shell::cargo(root);
        formatted &= shell::status(cargo.args(["fmt", "--manifest-path", manifest, "--check"]))?.success();
    }
    if formatted {
        return Ok(());
    }
    let hint = APART.map(|manifest| format!(" && cargo fmt --manifest-path {manifest}")).concat();
    bail!("not formatted; `cargo fmt --all{hint}` formats")
}

fn clippy_host(root: &Path) -> Result<()> {
    let mut cargo = shell::cargo(root);
    cargo.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    shell::require(&mut cargo, "clippy for this machine", "each finding above names its lint")?;
    // The fuzz targets are a workspace of their own, which nothing else here builds.
    let mut fuzz = shell::cargo(root);
    fuzz.args(["check", "--locked", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target"]);
    let remedy =
        "what they are made of has changed, or fuzz/Cargo.lock is behind (`cargo update --workspace` there)";
    shell::require(&mut fuzz, "checking the fuzz targets", remedy)
}

/// The kernel programs, by the linter of their own compiler: the host's has no `core` for that target.
fn clippy_ebpf(root: &Path) -> Result<()> {
    let tools = ebpf::find(root)?;
    let mut command: Command;
    if tools.has_clippy() {
        command = tools.cargo(root, ebpf::this_machine(), "clippy");
    } else {
        println!(
            "no clippy of the same version: the compiler's own warnings only (`cargo xtask setup` gets clippy)"
        );
        command = tools.cargo(root, ebpf::this_machine(), "rustc");
    }
    command.args(["--", "-D", "warnings"]);
    shell::require(&mut command, "clippy for the kernel programs", "each finding above names its lint")
}
