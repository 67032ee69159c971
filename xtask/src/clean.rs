//! `cargo xtask clean`: removes what an interrupted suite or demo left behind.

use std::process::ExitCode;

use anyhow::Result;

use crate::setup::{self, Scope};
use crate::shell;
use crate::suite::{self, Profile};

/// Find and remove what an interrupted test or demo left behind (pins, cgroups, processes)
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    shell::warm_sudo()?;
    setup::ensure(&root, Scope::Build)?;
    let binaries = suite::build(&root, Profile::Debug)?;
    // The suite made it, the suite knows its marks.
    let status = shell::status(suite::native(&root, &binaries)?.arg("--clean"))?;
    Ok(shell::exit_code(status))
}
