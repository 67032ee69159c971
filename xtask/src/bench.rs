//! `cargo xtask bench`: what enforcement costs, on this machine.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use crate::setup::{self, Scope};
use crate::{shell, suite};

/// Measure what enforcement and its policies cost
///
/// How, and what came out last, is told in docs/benchmarks.md.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Connections, requests and throughput, against nothing and against nftables
    Datapath {
        /// Fewer rounds: less than a minute instead of a quarter of an hour
        #[arg(long)]
        short: bool,
        /// Fail when a ratio with its interval lies below what the project promises
        #[arg(long)]
        gate: bool,
        /// Output for people or for machines
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// A daemon in a cluster of 5,000 pods, 500 services and 500 policies, and 50 changes of pods in a second
    Cluster {
        /// Fail when it takes more memory or time than the project promises
        #[arg(long)]
        gate: bool,
        /// Output for people or for machines
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Compiling 10 to 10,000 policies over 10,000 workloads, and one more workload
    Policy {
        /// Fail when it takes more time or memory than the project promises
        #[arg(long)]
        gate: bool,
        /// Output for people or for machines
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// The daemon's processor time at 10,000 connections a second, with telemetry and without
    Telemetry {
        /// Fewer and shorter rounds: a minute instead of six
        #[arg(long)]
        short: bool,
        /// Fail when telemetry takes more of a processor than the project promises
        #[arg(long)]
        gate: bool,
        /// Output for people or for machines
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let root = shell::root()?;
    let (mut command, short, gate, output) = match arguments.what {
        What::Datapath { short, gate, output } => {
            shell::warm_sudo()?;
            setup::ensure(&root, Scope::Build)?;
            let mut command = shell::as_root(suite::build_bench(&root)?, &[])?;
            command.arg("datapath");
            (command, short, gate, output)
        }
        What::Cluster { gate, output } => {
            shell::warm_sudo()?;
            setup::ensure(&root, Scope::Build)?;
            let (enforcer, bench) = suite::build_bench_with(&root)?;
            let mut command = shell::as_root(bench, &[("ENFORCER_BIN", enforcer.as_os_str())])?;
            command.arg("cluster");
            (command, false, gate, output)
        }
        What::Policy { gate, output } => {
            shell::warm_sudo()?;
            setup::ensure(&root, Scope::Build)?;
            let mut command = shell::as_root(suite::build_bench(&root)?, &[])?;
            command.arg("policy");
            (command, false, gate, output)
        }
        What::Telemetry { short, gate, output } => {
            shell::warm_sudo()?;
            setup::ensure(&root, Scope::Build)?;
            let (enforcer, bench) = suite::build_bench_with(&root)?;
            let mut command = shell::as_root(bench, &[("ENFORCER_BIN", enforcer.as_os_str())])?;
            command.arg("telemetry");
            (command, short, gate, output)
        }
    };
    command.current_dir(&root);
    let flags = [(short, "--short"), (gate, "--gate"), (output == Output::Json, "--json")];
    command.args(flags.iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| flag));
    Ok(shell::exit_code(shell::status(&mut command)?))
}
