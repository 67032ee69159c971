//! The command line of `enforcer policy`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::cluster::{DryRun, OfNodes, ToCluster, Waiting, Way};
use super::{DocumentFormat, Output, WideFormat, duration};
use crate::cli::settings::JudgingFlags;
use crate::domain::SocketKind;
use crate::domain::offline::parse_port;
use crate::domain::policy::model::PolicyKind;

/// `enforcer policy`
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Add or replace policies, all or none
    ///
    /// They are checked here first, with the place of every problem; then the agent applies them as one generation.
    #[command(after_help = "Example:\n  enforcer policy apply -f policies/ --dry-run")]
    Apply {
        /// File, directory (searched for *.yaml and *.yml) or `-` for standard input; may be repeated
        #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
        files: Vec<PathBuf>,
        /// Say what would change, change nothing; whoever would make the change is asked
        #[arg(long, value_name = "server", num_args = 0..=1, require_equals = true, default_missing_value = "server")]
        dry_run: Option<DryRun>,
        /// Take it back after so long, like 60s or 10m, unless `enforcer policy confirm` comes first
        ///
        /// The kernel goes back by itself, whatever becomes of the agent or of the way to this host.
        #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with_all = ["dry_run", "cluster", "context", "kubeconfig"])]
        confirm_within: Option<Duration>,
        /// Output format
        #[command(flatten)]
        output: Output,
        /// Take fields that others have set in objects of the cluster
        #[arg(long, help_heading = "Cluster")]
        force_conflicts: bool,
        /// The cluster, if one is meant
        #[command(flatten)]
        to: ToCluster,
        /// Whether to wait for its nodes
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Keep what was applied with --confirm-within
    #[command(after_help = "Example:\n  enforcer policy confirm")]
    Confirm(Output),
    /// Delete policies, all or none
    #[command(after_help = "Example:\n  enforcer policy delete default/db-only-from-api")]
    Delete {
        /// `[namespace/]name`; may be repeated
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Output format
        #[command(flatten)]
        output: Output,
        /// The cluster, if one is meant
        #[command(flatten)]
        to: ToCluster,
    },
    /// Wait until every node of a cluster enforces policies as they are now; exit code 1 if the time is over before
    #[command(after_help = "Example:\n  enforcer policy wait --cluster shop/db-only-from-api --timeout 5m")]
    Wait {
        /// `[namespace/]name`; may be repeated
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// How long to wait, like 30s or 5m
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "60s")]
        timeout: Duration,
        /// Output format
        #[command(flatten)]
        output: Output,
        /// The cluster; it is meant in any case
        #[command(flatten)]
        to: ToCluster,
    },
    /// Print a loaded policy
    #[command(after_help = "Example:\n  enforcer policy get default/db-only-from-api -o yaml")]
    Get {
        /// `[namespace/]name`
        #[arg(value_name = "NAME")]
        name: String,
        /// `yaml` is the document with its status, `json` all that the agent knows of it
        #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
        output: DocumentFormat,
        /// The cluster, if one is meant
        #[command(flatten)]
        to: ToCluster,
    },
    /// List the loaded policies, and where each stands
    ///
    /// STATUS is `Enforcing`, or what keeps a policy from that; `enforcer policy get` has the sentence.
    #[command(after_help = "Example:\n  enforcer policy list -o wide")]
    List {
        /// Output format
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: WideFormat,
    },
    /// Check policy files without an agent; exit code 1 if one is invalid
    #[command(after_help = "Example:\n  enforcer policy validate policies/")]
    Validate {
        /// File, directory (searched for *.yaml and *.yml) or `-` for standard input; may be repeated
        #[arg(value_name = "FILE|DIR|-", required = true)]
        files: Vec<PathBuf>,
    },
    /// Show which workloads of a cluster can reach which, without an agent
    ///
    /// Every ordered pair of different pods is judged by the table that an agent would load, on the ports that the pods
    /// declare and on those that are asked for. `kubectl get namespaces,pods,services,endpointslices -A -o yaml` prints
    /// a cluster.
    #[command(after_help = "Example:\n  enforcer policy matrix --cluster cluster.yaml -f policies/ -o json")]
    Matrix(Matrix),
    /// Say what becomes of a flow, or of a socket, and which rule decides
    ///
    /// Asks the agent, which answers by the tables that the kernel has; with --cluster the agents of the nodes on which both
    /// ends live. With --cluster FILE and -f it is worked out here, without an agent, for a cluster and policies from files.
    #[command(after_help = "Example:\n  enforcer policy explain --from shop/web --to shop/db:5432")]
    Explain(Explain),
    /// Look for rules that do nothing or too much, without an agent; exit code 1 if there are any
    ///
    /// Rules that another rule always comes before, and peers that are broad; with a cluster also selectors that match
    /// nothing and ports that nobody listens on.
    #[command(after_help = "Example:\n  enforcer policy lint policies/ --cluster cluster.yaml")]
    Lint(Lint),
    /// Compare verdicts with what is expected of them, without an agent; exit code 1 if one differs
    ///
    /// `NAME.expect.yaml` says what becomes of which flow under the policies of `NAME.yaml` beside it, or of those that are
    /// named. policies/README.md has the format.
    #[command(after_help = "Example:\n  enforcer policy test policies/")]
    Test(Test),
    /// Print the JSON schema of a kind of policy, for editors
    #[command(after_help = "Example:\n  enforcer policy schema NetworkPolicy > networkpolicy.schema.json")]
    Schema {
        /// The kind; without it all of them in one schema
        #[arg(value_name = "KIND", value_parser = PolicyKind::ALL.map(PolicyKind::label))]
        kind: Option<String>,
    },
    /// Print the custom resource definitions of enforcer's own kinds, for Kubernetes
    #[command(after_help = "Example:\n  enforcer policy crd > crds.yaml")]
    Crd,
}

/// Cluster and policies that are judged without an agent.
#[derive(Args, Debug)]
pub struct Scenery {
    /// File of namespaces, pods, services, endpoint slices and nodes as kubectl prints them; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    pub cluster: Vec<PathBuf>,
    /// Policies: file, directory (searched for *.yaml and *.yml) or `-` for standard input; may be repeated
    #[arg(short, long = "file", value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
    /// What policies mean there
    #[command(flatten)]
    pub judging: JudgingFlags,
}

/// `enforcer policy matrix`
#[derive(Args, Debug)]
pub struct Matrix {
    /// Cluster and policies
    #[command(flatten)]
    pub scenery: Scenery,
    /// Also this port, like TCP/8080; may be repeated
    #[arg(long = "port", value_name = "PROTO/N", value_parser = port)]
    pub ports: Vec<(u8, u16)>,
    /// Output format
    #[command(flatten)]
    pub output: Output,
}

/// `enforcer policy explain`
#[derive(Args, Debug)]
pub struct Explain {
    /// Who would open the flow: `[namespace/]name` of a workload, `host`, or an address
    #[arg(long, value_name = "END")]
    pub from: String,
    /// The server, `[namespace/]name:PORT[/PROTOCOL]`; a workload, a service, `host`, or an address (IPv6 in brackets)
    #[arg(long, value_name = "END:PORT[/PROTO]", required_unless_present = "socket_kind")]
    pub to: Option<String>,
    /// Instead of --to: whether a socket of this kind may be created, like ping or raw
    #[arg(long, value_name = "KIND", value_parser = socket_kind, conflicts_with = "to")]
    pub socket_kind: Option<SocketKind>,
    /// Without a value: ask agents of the Kubernetes cluster, with your own rights. With one, ask none: file of namespaces, pods,
    /// services, endpoint slices and nodes as kubectl prints them; may be repeated
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub cluster: Option<Vec<PathBuf>>,
    /// Ask no agent: policies, as file, directory (searched for *.yaml and *.yml) or `-` for standard input; may be
    /// repeated
    #[arg(short, long = "file", value_name = "FILE|DIR|-", requires = "cluster")]
    pub files: Vec<PathBuf>,
    /// What policies mean there
    #[command(flatten)]
    pub judging: JudgingFlags,
    /// Output format
    #[command(flatten)]
    pub output: Output,
    /// How its API server is reached
    #[command(flatten)]
    pub way: Way,
    /// Which of its nodes are asked, whoever lives there
    #[command(flatten)]
    pub of: OfNodes,
}

/// `enforcer policy lint`
#[derive(Args, Debug)]
pub struct Lint {
    /// Policies: file, directory (searched for *.yaml and *.yml) or `-` for standard input; may be repeated
    #[arg(value_name = "FILE|DIR|-", required_unless_present = "more")]
    pub files: Vec<PathBuf>,
    /// The same
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", id = "more")]
    pub more: Vec<PathBuf>,
    /// File of namespaces, pods, services, endpoint slices and nodes as kubectl prints them; may be repeated
    #[arg(long, value_name = "FILE")]
    pub cluster: Vec<PathBuf>,
    /// Output format
    #[command(flatten)]
    pub output: Output,
}

/// `enforcer policy test`
#[derive(Args, Debug)]
pub struct Test {
    /// Expectation file, or directory (searched for *.expect.yaml); may be repeated
    #[arg(value_name = "FILE|DIR", required = true)]
    pub expectations: Vec<PathBuf>,
    /// Policies, instead of those beside the expectation file; may be repeated
    #[arg(short, long = "file", value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
    /// File of a cluster whose workloads can be named besides those of the expectation file; may be repeated
    #[arg(long, value_name = "FILE")]
    pub cluster: Vec<PathBuf>,
    /// What policies mean there
    #[command(flatten)]
    pub judging: JudgingFlags,
}

fn socket_kind(text: &str) -> Result<SocketKind, String> {
    SocketKind::from_name(text).ok_or_else(|| {
        let names: Vec<_> = SocketKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("known kinds are {}", names.join(", "))
    })
}

fn port(text: &str) -> Result<(u8, u16), String> {
    parse_port(text)
        .ok_or_else(|| "write a protocol and a port, like TCP/8080 or ICMP/echo-request; known are TCP, UDP, SCTP, ICMP and ICMPv6".into())
}
