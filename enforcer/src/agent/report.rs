//! What this node tells the cluster: asked of the owner once a second, and given to who tells it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::cluster::node;
use super::supervise::{closed, supervise};
use crate::api::Call;
use crate::cluster::client;
use crate::cluster::report::{self, Connecting, Counts, Facts, Pace, Settings};
use crate::config::{Config, Switch};
use crate::domain::command::{Reply, Request};
use crate::domain::fleet::{self, NodeReport};
use crate::engine::Event;
use crate::telemetry::metrics::Gauges;

/// Between looks at what is so.
const LOOK: Duration = Duration::from_secs(1);

/// Starts it, if there is a cluster to tell.
pub(super) fn spawn(
    parts: &mut JoinSet<()>,
    config: &Config,
    host: &str,
    calls: &mpsc::Sender<Call>,
    gauges: &watch::Sender<Gauges>,
    (events, closing): (&mpsc::Sender<Event>, &watch::Receiver<bool>),
) {
    let Some(namespace) = config.report_namespace.clone().filter(|_| config.kubernetes == Switch::On) else {
        return;
    };
    let counts = Arc::new(Counts::default());
    let (facts, seen) = watch::channel(None);
    parts.spawn(look(calls.clone(), facts, Arc::clone(&counts), gauges.clone(), closing.clone()));
    let (host, kubeconfig) = (node(config, host), config.kubeconfig.clone());
    let stopping = closing.clone();
    let start = move || {
        let settings = settings(host.clone(), namespace.clone(), kubeconfig.clone());
        let (seen, counts, closing) = (seen.clone(), Arc::clone(&counts), stopping.clone());
        tokio::spawn(async move {
            tokio::select! {
                ended = first(settings, seen, counts) => ended,
                () = closed(closing) => Ok(()),
            }
        })
    };
    parts.spawn(supervise("the report to the cluster", events.clone(), closing.clone(), start));
}

/// Nothing is told before there is something to tell.
async fn first(
    settings: Settings,
    mut seen: watch::Receiver<Option<Facts>>,
    counts: Arc<Counts>,
) -> Result<(), String> {
    let gone = |_| "nobody says what is so".to_owned();
    let facts = seen.wait_for(Option::is_some).await.map_err(gone)?.clone().unwrap_or_default();
    let (sender, facts) = watch::channel(facts);
    let forward = async {
        loop {
            seen.changed().await.map_err(gone)?;
            let facts = seen.borrow_and_update().clone().unwrap_or_default();
            sender.send_if_modified(|known| {
                let is_new = *known != facts;
                *known = facts;
                is_new
            });
        }
    };
    tokio::select! {
        ended = report::run(settings, facts, counts) => ended,
        ended = forward => ended,
    }
}

fn settings(node: String, namespace: String, kubeconfig: Option<PathBuf>) -> Settings {
    let connect = move || -> Connecting {
        let kubeconfig = kubeconfig.clone();
        Box::pin(async move {
            let connection = client::connect(kubeconfig.as_deref(), None).await;
            Ok(connection.map_err(|error| error.to_string())?.client)
        })
    };
    let pace = Pace::default();
    Settings { node, namespace, connect: Arc::new(connect), explain: client::explain, pace }
}

/// Asks again and again, and keeps the numbers of what was told.
async fn look(
    calls: mpsc::Sender<Call>,
    facts: watch::Sender<Option<Facts>>,
    counts: Arc<Counts>,
    gauges: watch::Sender<Gauges>,
    closing: watch::Receiver<bool>,
) {
    let asking = async {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Some(new) = ask(&calls).await {
                facts.send_if_modified(|known| {
                    let is_new = known.as_ref() != Some(&new);
                    *known = Some(new);
                    is_new
                });
            }
            let all: BTreeMap<_, _> = counts.all();
            gauges.send_if_modified(|gauges| {
                let is_new = gauges.reports != all;
                gauges.reports = all;
                is_new
            });
        }
    };
    tokio::select! {
        () = asking => {}
        () = closed(closing) => {}
    }
}

async fn ask(calls: &mpsc::Sender<Call>) -> Option<Facts> {
    let one = async |request| {
        let (reply, answer) = oneshot::channel();
        calls.send(Call { request, from: None, reply }).await.ok()?;
        answer.await.ok()
    };
    let Reply::Status(status) = one(Request::Status).await? else { return None };
    let Reply::PolicyObjects(objects) = one(Request::PolicyObjects).await? else { return None };
    let standings = objects.iter().map(|info| (fleet::mark(&info.object), fleet::standing(info))).collect();
    let report = NodeReport {
        version: status.version,
        phase: status.state,
        generation: status.generation,
        problems: status.problems,
        standings,
    };
    Some(Facts { report, objects })
}
