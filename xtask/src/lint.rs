//! `cargo xtask lint`: format, tidy and both clippy runs, with every warning an error.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::setup::{self, Scope};
use crate::{ebpf, shell, suite, tidy};

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
    const APART: &str = "enforcer-ebpf/Cargo.toml";
    let mut formatted = shell::status(shell::cargo(root).args(["fmt", "--all", "--check"]))?.success();
    let mut cargo = shell::cargo(root);
    formatted &= shell::status(cargo.args(["fmt", "--manifest-path", APART, "--check"]))?.success();
    if formatted {
        return Ok(());
    }
    bail!("not formatted; `cargo fmt --all && cargo fmt --manifest-path {APART}` formats")
}

fn clippy_host(root: &Path) -> Result<()> {
    let findings = suite::findings(root)?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        return Ok(());
    }
    bail!("clippy has {} findings; each above names its lint", findings.len())
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
