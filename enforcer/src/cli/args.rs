//! The whole command line as types: noun, then verb. Help, man pages and completions come from here.

pub mod cluster;
mod filters;
mod logs;
mod observe;
mod policy;
mod top;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::settings::SettingFlags;
use crate::domain::quarantine::AllowFrom;
use crate::domain::time::parse_duration;
pub use filters::Filters;
pub use logs::{Audit, AuditFormat, AuditRange, FlowHistory, Flows};
pub use observe::{FlowFormat, Observe};
pub use policy::{Explain, Lint, Matrix, Policy, Scenery, Test};
pub use top::{Top, TopOrder};

/// Identity-based network enforcement for Linux workloads
///
/// Results go to stdout, everything else to stderr. Exit code 0 means yes or done, 1 a negative answer (invalid
/// policy, refused, degraded), 2 wrong usage or a failure.
#[derive(Debug, Parser)]
#[command(
    name = "enforcer",
    version,
    max_term_width = 110,
    infer_long_args = false,
    after_help = "Example:\n  enforcer policy apply -f policies/ && enforcer observe -f --verdict DROPPED"
)]
pub struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What applies to every command.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// Unix socket of the agent
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        help = "Unix socket of the agent [env: ENFORCER_SOCKET]",
        help_heading = "Global options"
    )]
    pub socket: Option<PathBuf>,
    /// Configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "Configuration file [env: ENFORCER_CONFIG] [default: /etc/enforcer/enforcer.yaml, if there is one]",
        help_heading = "Global options"
    )]
    pub config: Option<PathBuf>,
    /// When to use colour; `auto` means on a terminal unless `NO_COLOR` is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    pub color: ColorChoice,
    /// Say more on stderr; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent
    ///
    /// Attaches the programs (or adopts those of the last run), enforces what it is told, and goes on until SIGTERM
    /// or SIGINT. The programs stay attached then: `enforcer uninstall` removes them.
    #[command(after_help = "Example:\n  enforcer run --workloads /etc/enforcer/workloads.yaml --mode audit")]
    Run(SettingFlags),
    /// Apply, delete, show and check policies
    #[command(subcommand, after_help = "Example:\n  enforcer policy list")]
    Policy(Policy),
    /// Cut workloads off, whatever the policies say
    #[command(subcommand, after_help = "Example:\n  enforcer quarantine list")]
    Quarantine(Quarantine),
    /// Show identities
    #[command(subcommand, after_help = "Example:\n  enforcer identity list")]
    Identity(Identity),
    /// Show workloads
    #[command(subcommand, after_help = "Example:\n  enforcer endpoint list")]
    Endpoint(Endpoint),
    /// Watch flows and their verdicts
    ///
    /// Without --follow prints the last flows the agent remembers. Values of one filter are alternatives; different
    /// filters must all match. Times are UTC. With --cluster the agents of all nodes are asked, or of those that --node-name
    /// chooses.
    #[command(after_help = "Example:\n  enforcer observe -f --verdict DROPPED --to default/db")]
    Observe(Box<Observe>),
    /// Show who talks with whom right now: flows, refusals and bytes per second, open connections, round trips
    ///
    /// From the kernel's counters, so nothing is missed. TCP adds what a connection carried when it ends.
    #[command(after_help = "Example:\n  enforcer top --batch --sort denied")]
    Top(Top),
    /// Show earlier flows
    #[command(subcommand, after_help = "Example:\n  enforcer flows history --since 1d")]
    Flows(Flows),
    /// Verify and read the audit log
    #[command(subcommand, after_help = "Example:\n  enforcer audit verify")]
    Audit(Audit),
    /// Show how the agent is; exit code 1 unless it enforces and nothing is wrong
    #[command(after_help = "Example:\n  enforcer status --unguarded")]
    Status(Status),
    /// Show which metrics /metrics has
    #[command(subcommand, after_help = "Example:\n  enforcer metrics list")]
    Metrics(Metrics),
    /// Check whether this node is fit for an agent, before one is installed; exit code 1 if it is not
    ///
    /// Looks at rights, kernel, file systems, other programs, ports, space, runtimes and clock with the configuration that an
    /// agent would have here, and says what to do about each. Changes nothing.
    #[command(after_help = "Example:\n  enforcer preflight")]
    Preflight(Output),
    /// Show what this kernel can do; exit code 1 if something required is missing
    #[command(after_help = "Example:\n  enforcer probe")]
    Probe(Probe),
    /// Remove the pinned programs, links and maps: nothing is enforced afterwards
    #[command(after_help = "Example:\n  enforcer uninstall --pins /sys/fs/bpf/enforcer")]
    Uninstall(Uninstall),
    /// Show and check the agent's configuration
    #[command(subcommand, after_help = "Example:\n  enforcer config default > /etc/enforcer/enforcer.yaml")]
    Config(Config),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  enforcer completion bash > /etc/bash_completion.d/enforcer")]
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Be the canary of an agent, which starts it
    #[command(hide = true, after_help = "Example:\n  enforcer canary /sys/fs/cgroup/enforcer-canary")]
    Canary {
        /// Its directory
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Write the man pages
    #[command(hide = true, after_help = "Example:\n  enforcer man --out /usr/local/share/man/man1")]
    Man {
        /// Directory to write to
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Print the version
    #[command(after_help = "Example:\n  enforcer version")]
    Version,
}

/// `enforcer quarantine`
#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// Put a workload into quarantine: it may talk with nobody, in either direction
    ///
    /// Returns when it is in force. It reaches the workload by its cgroup, not by its labels, and holds across restarts
    /// of the agent and of the workload. Doing it again changes the terms.
    #[command(
        after_help = "Example:\n  enforcer quarantine add default/web --for 10m --allow-from forensics/probe"
    )]
    Add {
        /// `[namespace/]name`, as `enforcer endpoint list` shows it
        #[arg(value_name = "WORKLOAD")]
        workload: String,
        /// How long, like 90s, 10m, 2h or 1d; without it until it is released
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        lasts: Option<Duration>,
        /// Who may open flows to it: `namespace/name` of a workload, labels of its own namespace as `key=value[,..]`, an
        /// address or block, or `reserved:host`; may be repeated
        #[arg(long, value_name = "PEER")]
        allow_from: Vec<AllowFrom>,
        /// Output format
        #[command(flatten)]
        output: Output,
    },
    /// List the workloads in quarantine
    #[command(after_help = "Example:\n  enforcer quarantine list -o json")]
    List(Output),
    /// Take a workload out of quarantine
    #[command(after_help = "Example:\n  enforcer quarantine release default/web")]
    Release {
        /// `[namespace/]name`
        #[arg(value_name = "WORKLOAD")]
        workload: String,
        /// Output format
        #[command(flatten)]
        output: Output,
    },
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write a number and a unit, like 90s, 10m, 2h or 1d".to_owned())
}

/// `enforcer identity`
#[derive(Debug, Subcommand)]
pub enum Identity {
    /// List the identities the agent knows
    #[command(after_help = "Example:\n  enforcer identity list -o json")]
    List(Output),
}

/// `enforcer endpoint`
#[derive(Debug, Subcommand)]
pub enum Endpoint {
    /// List the workloads the agent knows, and which policies isolate them
    #[command(after_help = "Example:\n  enforcer endpoint list -o json")]
    List(Output),
}

/// `enforcer metrics`
#[derive(Debug, Subcommand)]
pub enum Metrics {
    /// List every metric with its kind, unit, labels and meaning; asks no agent
    #[command(after_help = "Example:\n  enforcer metrics list -o json")]
    List(Output),
}

/// `enforcer status`
#[derive(Args, Debug)]
pub struct Status {
    /// Show the ways past enforcer that are open on this host, and why
    #[arg(long)]
    pub unguarded: bool,
    /// Output format
    #[command(flatten)]
    pub output: Output,
    /// The cluster, if one is meant: then how each of its nodes is; exit code 1 unless all enforce
    #[command(flatten)]
    pub to: cluster::ToCluster,
    /// Of which all is told
    #[command(flatten)]
    pub of: cluster::OfNodes,
}

/// `enforcer probe`
#[derive(Args, Debug)]
pub struct Probe {
    /// Load every program and tell its cost
    #[arg(long, hide = true)]
    pub programs: bool,
    /// Output format
    #[command(flatten)]
    pub output: Output,
}

/// `enforcer uninstall`
#[derive(Args, Debug)]
pub struct Uninstall {
    /// Directory of the pins
    #[arg(long, value_name = "DIR", help = "Directory of the pins [env: ENFORCER_PINS]")]
    pub pins: Option<PathBuf>,
    /// Stay until SIGTERM or SIGINT when it is done, for a pod that should not be started again
    #[arg(long)]
    pub stay: bool,
}

/// `enforcer config`
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Print a configuration file with every setting, its documentation and its default
    #[command(after_help = "Example:\n  enforcer config default > /etc/enforcer/enforcer.yaml")]
    Default,
    /// Print the configuration an agent would start with here, and where each value comes from
    #[command(after_help = "Example:\n  enforcer config show --mode audit")]
    Show {
        /// Flags of `run`.
        #[command(flatten)]
        flags: SettingFlags,
        /// Output format
        #[command(flatten)]
        output: Output,
    },
    /// Check the configuration; exit code 1 if it is invalid
    #[command(after_help = "Example:\n  enforcer config check --config /etc/enforcer/enforcer.yaml")]
    Check,
}

/// How a result is printed.
#[derive(Args, Clone, Copy, Debug)]
pub struct Output {
    /// Output format
    #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "table")]
    pub format: ObjectFormat,
}

/// For results that are a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ObjectFormat {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// For results that are a table with more columns than fit at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WideFormat {
    /// For people.
    Table,
    /// All columns.
    Wide,
    /// For programs.
    Json,
}

/// For documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DocumentFormat {
    /// The document as it was given, with its status.
    Yaml,
    /// What the agent knows of it.
    Json,
}
