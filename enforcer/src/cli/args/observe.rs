//! `enforcer observe`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Filters;
use super::cluster::ToCluster;

/// `enforcer observe`
#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag that people know")]
pub struct Observe {
    /// Go on with flows as they happen
    #[arg(short, long)]
    pub follow: bool,
    /// So many of the remembered flows, the last [default: 20; 0 with --follow; all with --since or --until]
    #[arg(long, value_name = "N", conflicts_with_all = ["first", "all"])]
    pub last: Option<usize>,
    /// So many of the remembered flows, the first
    #[arg(long, value_name = "N", conflicts_with_all = ["all", "follow"])]
    pub first: Option<usize>,
    /// All remembered flows
    #[arg(long)]
    pub all: bool,
    /// Flows since then: a time like 2026-11-22T12:53:39Z, or how long ago, like 30s, 5m or 2h
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Flows until then
    #[arg(long, value_name = "WHEN", conflicts_with = "follow")]
    pub until: Option<String>,
    /// Read flows from a file of JSON lines (`-` for stdin) in place of asking the agent
    #[arg(long, value_name = "FILE", conflicts_with_all = ["follow", "cluster", "context", "kubeconfig"])]
    pub input_file: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "compact")]
    pub output: FlowFormat,
    /// Name the host in each line; with --cluster always done
    #[arg(long)]
    pub print_node_name: bool,
    /// Name the policy that decided: always done, and taken for the sake of habits of `hubble observe`
    #[arg(long)]
    pub print_policy_names: bool,
    /// Flows of all Kubernetes namespaces: always done without -n, and taken because `hubble observe` has it. Flows of all nodes
    /// are another matter: --cluster
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// End when standard input ends, for who runs this at the other end of a connection
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
    /// Which flows
    #[command(flatten)]
    pub filters: Filters,
    /// The cluster, if one is meant: then the agents of its nodes are asked
    #[command(flatten)]
    pub to: ToCluster,
}

/// For flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlowFormat {
    /// One line a flow.
    Compact,
    /// One JSON object a line, in the shape of Hubble's.
    #[value(alias = "jsonpb")]
    Json,
    /// Columns.
    Table,
    /// One line a field.
    Dict,
}
