//! `cargo xtask demo`: the product at work on this machine, in one command.

use std::process::ExitCode;

use anyhow::Result;

use crate::setup::{self, Scope};
use crate::{shell, suite};

/// Show the kernel allow and deny real connections between labelled workloads
///
/// Builds, starts a daemon and three workloads of its own, tells line by line what happens, and
/// removes everything again.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Leave it running at the end, with a list of commands to try
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    shell::warm_sudo()?;
    setup::ensure(&root, Scope::Build)?;
    let (enforcer, demo) = suite::build_with(&root, "demo")?;
    let policies = root.join("policies");
    let environment = [("ENFORCER_BIN", enforcer.as_os_str()), ("ENFORCER_POLICIES", policies.as_os_str())];
    let mut command = shell::as_root(demo, &environment)?;
    command.current_dir(&root);
    if arguments.keep {
        command.arg("--keep");
    }
    Ok(shell::exit_code(shell::status(&mut command)?))
}
