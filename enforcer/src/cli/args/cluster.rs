//! Flags of commands that ask a cluster's API server instead of the agent of this host.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::duration;
use crate::domain::fleet::NAMESPACE;

/// Which cluster, with whose rights.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct ToCluster {
    /// Ask the API server of the Kubernetes cluster, with your own rights, and not the agent of this host
    #[arg(long)]
    pub cluster: bool,
    /// How it is reached
    #[command(flatten)]
    pub way: Way,
}

impl ToCluster {
    /// Whether a cluster is meant.
    pub fn is_meant(&self) -> bool {
        self.cluster || self.way.is_given()
    }
}

/// How an API server is reached, and where the agents are.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct Way {
    /// Context of the kubeconfig; implies --cluster
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig, instead of KUBECONFIG or ~/.kube/config; implies --cluster
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the agents: their pods are there, and there the nodes report, as the setting `report-namespace` says
    #[arg(long, value_name = "NAMESPACE", default_value = NAMESPACE, hide_default_value = false)]
    pub report_namespace: String,
}

impl Way {
    /// Whether one is named.
    pub fn is_given(&self) -> bool {
        self.context.is_some() || self.kubeconfig.is_some()
    }
}

/// Which nodes' agents are asked.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct OfNodes {
    /// Ask the agents of these nodes themselves, which takes the right to exec into their pods; `*` stands for any text; implies
    /// --cluster
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    pub node_name: Vec<String>,
}

/// Whether, and for how long, it is waited for the nodes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Cluster")]
pub struct Waiting {
    /// Wait until every node of the cluster enforces it; exit code 1 if the time is over before
    #[arg(long)]
    pub wait: bool,
    /// How long to wait, like 30s or 5m
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
    pub timeout: Duration,
}

/// Who is asked what would happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// The agent, or the cluster's API server: whoever would make the change.
    Server,
}
