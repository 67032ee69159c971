//! What a node tells the cluster of itself.
//!
//! A node's own word is its Lease: heartbeat, and where each policy stands ([`lease`]). The status of policy objects, and
//! events, are written by one node for all, the one that holds the Lease `enforcer-reporter` ([`reporter`]). Nothing that
//! is enforced depends on either: what can't be told is counted and tried again, at first after a second, at last after a
//! minute.

pub mod election;
pub mod events;
pub mod lease;
pub mod reporter;
pub mod status;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;

use crate::domain::cluster_policy::ClusterPolicyInfo;
use crate::domain::fleet::NodeReport;

/// What the agent knows, as far as it is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the node says of itself.
    pub report: NodeReport,
    /// Policy objects, and where they stand here.
    pub objects: Vec<ClusterPolicyInfo>,
}

/// Longest time for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What can be told: labels of the metric.
pub const WHATS: [&str; 4] = ["lease", "election", "status", "event"];
/// What can come of it.
pub const OUTCOMES: [&str; 3] = ["done", "failed", "dropped"];

/// How often something was told, or could not be.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<(&'static str, &'static str), u64>>);

impl Counts {
    /// One more.
    pub fn count(&self, what: &'static str, outcome: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry((what, outcome)).or_default() += 1;
    }

    /// All of them; what never happened is 0.
    pub fn all(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut all: BTreeMap<_, _> =
            WHATS.into_iter().flat_map(|what| OUTCOMES.map(|outcome| ((what, outcome), 0))).collect();
        all.extend(self.0.lock().unwrap_or_else(PoisonError::into_inner).iter());
        all
    }
}

/// A way to the API server, once there is one.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Client, String>> + Send>>;

/// How a node reports.
#[derive(Clone)]
pub struct Settings {
    /// Its name.
    pub node: String,
    /// The namespace of Leases.
    pub namespace: String,
    /// Makes a client.
    pub connect: Arc<dyn Fn() -> Connecting + Send + Sync>,
    /// What an error means.
    pub explain: fn(&kube::Error) -> String,
    /// How long a heartbeat counts, and the reporter's office.
    pub pace: Pace,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("node", &self.node)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// How often something is told.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between heartbeats without news.
    pub beat: Duration,
    /// Between heartbeats with news.
    pub news: Duration,
    /// For how long a heartbeat counts.
    pub lasts: Duration,
    /// Between looks at who reports.
    pub election: Duration,
    /// For how long a reporter need not be heard of.
    pub office: Duration,
    /// Between looks at what the status of policies should be.
    pub status: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            beat: seconds(30),
            news: seconds(1),
            lasts: seconds(120),
            election: seconds(10),
            office: seconds(30),
            status: seconds(2),
        }
    }
}

/// Pauses that grow while something fails.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_mins(1);

    pub(super) fn new() -> Self {
        Self(Self::FIRST)
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Self::LONGEST);
        pause
    }

    pub(super) fn reset(&mut self) {
        self.0 = Self::FIRST;
    }
}

/// An answer, or the end of patience: a server that takes connections and says nothing must not stop what is told next.
pub(super) async fn within<T>(
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(kube::Error::Service("timed out: no answer within 10 seconds".into())),
    }
}

/// Tells until the end of the agent.
///
/// # Errors
/// Never by what the API server does; only if the agent no longer says what is so.
pub async fn run(
    settings: Settings,
    facts: watch::Receiver<Facts>,
    counts: Arc<Counts>,
) -> Result<(), String> {
    let mut backoff = Backoff::new();
    let client = loop {
        match (settings.connect)().await {
            Ok(client) => break client,
            Err(problem) => {
                counts.count("lease", "failed");
                tracing::warn!("nothing can be told to the cluster: {problem}");
                tokio::time::sleep(backoff.next()).await;
            }
        }
    };
    let beat = lease::run(&settings, client.clone(), facts.clone(), &counts);
    let report = reporter::run(&settings, client, facts, &counts);
    tokio::select! {
        ended = beat => ended,
        ended = report => ended,
    }
}
