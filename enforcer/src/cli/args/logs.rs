//! `enforcer audit`, `enforcer flows`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Filters, Output};
use crate::domain::audit::chain::Head;

/// `enforcer audit`
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Verify the audit log: finds changed, missing, inserted and moved records, and a cut head or tail
    ///
    /// Reads the files; no agent is needed. Exit code 1 if something is found. Prints the newest record and its hash: noted
    /// elsewhere, `--checkpoint` finds a log that was written anew as a whole.
    #[command(after_help = "Example:\n  enforcer audit verify --from 2026-11-22T00:00:00Z")]
    Verify {
        /// Directory of the log [default: `audit` in the state directory]
        #[arg(value_name = "DIR")]
        path: Option<PathBuf>,
        /// What to look at
        #[command(flatten)]
        range: AuditRange,
        /// A newest record that was noted earlier, SEQUENCE:HASH: it has to be in the log
        #[arg(long, value_name = "HEAD")]
        checkpoint: Option<Head>,
        /// Output format
        #[command(flatten)]
        output: Output,
    },
    /// Print records of the audit log, one JSON object a line
    #[command(after_help = "Example:\n  enforcer audit export --from 1d -o ocsf")]
    Export {
        /// Directory of the log [default: `audit` in the state directory]
        #[arg(value_name = "DIR")]
        path: Option<PathBuf>,
        /// What to print
        #[command(flatten)]
        range: AuditRange,
        /// Output format: as it is written (Elastic Common Schema), or OCSF events
        #[arg(short = 'o', long = "output", value_name = "FORMAT", default_value = "ecs")]
        format: AuditFormat,
    },
    /// List records of the audit log, one line each
    #[command(after_help = "Example:\n  enforcer audit list --from 1h")]
    List {
        /// Directory of the log [default: `audit` in the state directory]
        #[arg(value_name = "DIR")]
        path: Option<PathBuf>,
        /// What to list
        #[command(flatten)]
        range: AuditRange,
    },
}

/// A part of the audit log.
#[derive(Args, Clone, Debug)]
pub struct AuditRange {
    /// The first record: its number, a time like 2026-11-22T12:53:39Z, or how long ago, like 30s, 5m or 2h
    #[arg(long, value_name = "WHEN")]
    pub from: Option<String>,
    /// The last record, in the same words
    #[arg(long, value_name = "WHEN")]
    pub to: Option<String>,
}

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuditFormat {
    /// Elastic Common Schema.
    Ecs,
    /// Open Cybersecurity Schema Framework.
    Ocsf,
}

/// `enforcer flows`
#[derive(Debug, Subcommand)]
pub enum Flows {
    /// Show earlier flows: who talked with whom, how often, how much, and what became of it
    ///
    /// Values of one filter are alternatives; different filters must all match. Times are UTC. Counts are exact; first and
    /// last flow are told to within the setting `audit-interval`.
    #[command(after_help = "Example:\n  enforcer flows history --since 1d --verdict DROPPED --to default/db")]
    History(Box<FlowHistory>),
}

/// `enforcer flows history`
#[derive(Args, Debug)]
pub struct FlowHistory {
    /// Flows since then: a time like 2026-11-22T12:53:39Z, or how long ago, like 30s, 5m or 2h
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Flows until then, in the same words
    #[arg(long, value_name = "WHEN")]
    pub until: Option<String>,
    /// So many edges, those with the newest flows
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub last: usize,
    /// One line for each minute of an edge
    #[arg(long)]
    pub per_minute: bool,
    /// Read this database, without an agent
    #[arg(long, value_name = "FILE")]
    pub database: Option<PathBuf>,
    /// Output format
    #[command(flatten)]
    pub output: Output,
    /// Which flows
    #[command(flatten)]
    pub filters: Filters,
}
