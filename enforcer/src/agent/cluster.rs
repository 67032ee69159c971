//! The cluster as a source: its connection, what is kept of it on disk, and what it tells.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::parts::EVENTS;
use super::supervise::{closed, supervise};
use crate::cluster::client;
use crate::config::{Config, Switch};
use crate::engine::Event;
use crate::sources::Directories;
use crate::sources::kubernetes::{self, Connecting, Link, Settings, Told};
use crate::store::Kept;

/// Starts it, if there is to be one.
pub(super) fn spawn(
    parts: &mut JoinSet<()>,
    config: &Config,
    host: &str,
    kept: &Kept,
    directories: &Directories,
    (events, closing): (&mpsc::Sender<Event>, &watch::Receiver<bool>),
) {
    if config.kubernetes == Switch::Off {
        return;
    }
    let (kubeconfig, node) = (config.kubeconfig.clone(), node(config, host));
    let (events, closing) = (events.clone(), closing.clone());
    let (sender, stopping, kept, directories) =
        (events.clone(), closing.clone(), kept.clone(), directories.clone());
    let start = move || {
        let (told, mut news) = mpsc::channel(EVENTS);
        let running =
            kubernetes::run(settings(node.clone(), kubeconfig.clone(), &kept), directories.clone(), told);
        let (events, closing) = (sender.clone(), stopping.clone());
        tokio::spawn(async move {
            let forward = async move {
                let pass_on = async {
                    while let Some(told) = news.recv().await {
                        if events.send(event(told)).await.is_err() {
                            break;
                        }
                    }
                };
                tokio::select! {
                    () = pass_on => {}
                    () = closed(closing) => {}
                }
                // Nobody takes its words any more: it saves what it knows, and ends.
                drop(news);
            };
            let (ended, ()) = tokio::join!(running, forward);
            ended
        })
    };
    parts.spawn(supervise("the source of the cluster", events, closing, start));
}

fn event(told: Told) -> Event {
    match told {
        Told::Workloads(event) => Event::Workloads(event),
        Told::Policies(objects) => Event::PolicyObjects(objects),
        Told::State(info) => Event::Source(info),
    }
}

/// The name of this node.
pub(super) fn node(config: &Config, host: &str) -> String {
    config.node_name.clone().unwrap_or_else(|| host.to_lowercase())
}

fn settings(node: String, kubeconfig: Option<PathBuf>, kept: &Kept) -> Settings {
    let saved = kept.read().unwrap_or_else(|error| {
        tracing::warn!("what was saved of the cluster is not used: {error}");
        None
    });
    let connect = move || -> Connecting {
        let kubeconfig = kubeconfig.clone();
        Box::pin(async move {
            let connection = client::connect(kubeconfig.as_deref(), None).await;
            let connection = connection.map_err(|error| error.to_string())?;
            tracing::info!("the API server is {}, by {}", connection.server, connection.origin);
            Ok(Link { client: connection.client, server: connection.server, explain: client::explain })
        })
    };
    let kept = kept.clone();
    Settings {
        node,
        connect: Arc::new(connect),
        saved,
        keep: Arc::new(move |content| kept.save(content).map_err(|error| error.to_string())),
    }
}
