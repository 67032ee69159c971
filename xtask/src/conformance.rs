//! `cargo xtask conformance`: the cases of public suites.

use std::process::ExitCode;

use anyhow::Result;

use crate::shell;

/// Judge the cases of public policy suites, and print cases, pairs and differences of each set
///
/// Offline: by the table that the agent would load, with the function that the kernel runs. The cases and their sources
/// are in tests/conformance.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_arguments: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    let mut command = shell::cargo(&root);
    command.args(["run", "--quiet", "--package", "enforcer-tests", "--bin", "conformance"]);
    Ok(shell::exit_code(shell::status(&mut command)?))
}
