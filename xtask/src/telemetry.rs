//! `cargo xtask telemetry`: metrics, rules and dashboards against a real Prometheus.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow, bail};

use crate::setup::{self, Scope};
use crate::{shell, suite};

/// Have Debian's Prometheus scrape a real daemon under load, and ask it everything that dashboards and rules ask
///
/// Needs root. What it starts it ends, and nothing is left.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    shell::warm_sudo()?;
    setup::ensure(&root, Scope::Telemetry)?;
    Ok(shell::exit_code(shell::status(&mut command(&root)?)?))
}

/// The exit code of a kernel that can't run the programs.
const CANNOT: i32 = 3;

/// The same as a step of `cargo xtask test`: whether it could be run here.
pub(crate) fn check(root: &Path) -> Result<bool> {
    let status = shell::status(&mut command(root)?)?;
    match status.code() {
        Some(0) => Ok(true),
        Some(CANNOT) => Ok(false),
        _ => bail!("{status}; each line with a cross says what was not as it should be"),
    }
}

fn command(root: &Path) -> Result<Command> {
    let prometheus =
        setup::find_prometheus(root).map_err(|missing| anyhow!("{missing}; `cargo xtask setup` gets it"))?;
    let (enforcer, telemetry) = suite::build_with(root, "telemetry")?;
    let environment = [
        ("ENFORCER_BIN", enforcer.as_os_str()),
        ("ENFORCER_DEPLOY", root.as_os_str()),
        ("ENFORCER_PROMETHEUS", prometheus.server.as_os_str()),
        ("ENFORCER_PROMTOOL", prometheus.tool.as_os_str()),
    ];
    let mut command = shell::as_root(telemetry, &environment)?;
    command.current_dir(root);
    Ok(command)
}
