//! The agent's doors: HTTP and JSON over a Unix socket ([`server`], [`client`]), and over TCP what monitoring reads
//! ([`http`]).
//!
//! ```text
//!   enforcer CLI --- client ---[ Unix socket ]--- server --- Call ---> engine's task
//!                                                   ^--- flows, by their numbers <-- telemetry
//!   Prometheus, kubelet -------[ TCP, loopback ]--- http --- metrics, readiness
//! ```
//!
//! Invariants: this room holds no state of its own; whoever calls is known by the kernel's word (peer credentials)
//! before a byte of the request is believed; every body, wait and queue is bounded; a reader that is too slow loses
//! flows and is told how many, it never slows the agent; who may only read can't take the places of those who may write.

pub mod access;
pub mod client;
mod connection;
mod error;
pub mod http;
pub mod server;
mod socket;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

pub use access::Access;
pub use error::Error;
pub use socket::bind;

use crate::domain::command::{PolicyFile, Reply, Request};
use crate::domain::edges::Edges;
use crate::domain::flow::FlowPage;
use crate::domain::history::{History, HistoryQuery};
use crate::domain::quarantine::AllowFrom;

/// A request on its way to the task that owns the state.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Who asks.
    pub from: Option<access::Peer>,
    /// Where the answer goes. The asker may be gone.
    pub reply: oneshot::Sender<Reply>,
}

/// Answers questions about earlier flows, or says in a sentence why it can't. Reads from a disk.
pub type HistoryReader = Arc<dyn Fn(&HistoryQuery) -> Result<History, String> + Send + Sync>;

/// What the servers need of the agent.
#[derive(Clone)]
pub struct Backend {
    /// The engine's task.
    pub requests: mpsc::Sender<Call>,
    /// Flows, those that were and those that happen.
    pub flows: FlowLog,
    /// Earlier flows.
    pub history: HistoryReader,
    /// Who talks with whom, by the kernel's counters; or one sentence.
    pub edges: Arc<dyn Fn() -> Result<Edges, String> + Send + Sync>,
    /// The metrics in the text exposition format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether the agent enforces what it was told to.
    pub readiness: watch::Receiver<Readiness>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("readiness", &*self.readiness.borrow()).finish_non_exhaustive()
    }
}

/// The flows that are remembered, each with a number. What a reader has not read is kept nowhere else.
#[derive(Clone)]
pub struct FlowLog {
    /// The number that the next flow gets; it changes when there are more.
    pub next: watch::Receiver<u64>,
    /// The flows from this number on, oldest first, at most so many.
    pub read: Arc<dyn Fn(u64, usize) -> FlowPage + Send + Sync>,
    /// Is told how many flows a reader was too slow for.
    pub missed: Arc<dyn Fn(u64) + Send + Sync>,
}

impl std::fmt::Debug for FlowLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowLog").field("next", &*self.next.borrow()).finish_non_exhaustive()
    }
}

/// Whether the agent enforces what it was told to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// The answer.
    pub ready: bool,
    /// One sentence: what is missing, or that nothing is.
    pub reason: String,
}

/// Body of `POST /v1/policies`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyBody {
    /// The files.
    pub files: Vec<PolicyFile>,
}

/// Body of `POST /v1/quarantines`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineBody {
    /// `namespace/name` of the workload.
    pub workload: String,
    /// How long, in seconds; missing for without an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Who may open flows to it all the same.
    #[serde(default)]
    pub allow_from: Vec<AllowFrom>,
}

/// The only record in a stream of flows that is no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostEvents {
    /// So many flows did not reach this reader because it read too slowly.
    pub lost_events: u64,
}

/// Largest body of a request, in bytes.
pub const BODY_LIMIT: usize = 8 << 20;
