//! The index of the cgroup tree, and the sources that go by it.

use std::path::PathBuf;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::parts::{EVENTS, Shared};
use super::supervise::{closed, supervise};
use crate::config::Config;
use crate::domain::workload::WorkloadEvent;
use crate::engine::Event;
use crate::sources::{self, Directories};

/// The index of the cgroup tree, for the sources that need it.
pub(super) fn spawn_directories(parts: &mut JoinSet<()>, directories: &Directories, shared: &Shared) {
    const LATE: &str = "the watch over the cgroup tree";
    let (events, closing, directories) = (shared.events.clone(), shared.closing.clone(), directories.clone());
    let start = move || {
        let (sender, mut problems) = mpsc::channel(1);
        let running = directories.clone().run(sender);
        let (events, closing) = (events.clone(), closing.clone());
        tokio::spawn(async move {
            let forward = async {
                while let Some(problem) = problems.recv().await {
                    if events.send(Event::Part { name: LATE, problem }).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                ended = running => ended.map_err(|error| error.to_string()),
                () = forward => Ok(()),
                () = closed(closing) => Ok(()),
            }
        })
    };
    let name = "the index of the cgroup tree";
    parts.spawn(supervise(name, shared.events.clone(), shared.closing.clone(), start));
}

/// Everything that tells containers and units.
pub(super) fn spawn(parts: &mut JoinSet<()>, config: &Config, directories: &Directories, shared: &Shared) {
    if let Some(socket) = config.containerd_socket.clone() {
        let run = |with: With<PathBuf>| {
            sources::run_containerd(with.of, with.directories, with.events, with.demand)
        };
        spawn_source(parts, "the source of containerd", (socket, directories), shared, run);
    }
    for socket in config.docker_sockets.clone() {
        let run =
            |with: With<PathBuf>| sources::run_docker(with.of, with.directories, with.events, with.demand);
        spawn_source(parts, "the source of Docker", (socket, directories), shared, run);
    }
    if !config.systemd.is_empty() {
        let run = |with: With<Vec<String>>| {
            sources::run_systemd(with.of, with.directories, with.events, with.demand)
        };
        spawn_source(parts, "the source of systemd", (config.systemd.clone(), directories), shared, run);
    }
}

/// What a source runs with.
struct With<T> {
    of: T,
    directories: Directories,
    events: mpsc::Sender<WorkloadEvent>,
    demand: watch::Receiver<u64>,
}

fn spawn_source<T, R>(
    parts: &mut JoinSet<()>,
    name: &'static str,
    (of, directories): (T, &Directories),
    shared: &Shared,
    run: fn(With<T>) -> R,
) where
    T: Clone + Send + 'static,
    R: Future<Output = Result<(), sources::Error>> + Send + 'static,
{
    let (events, demand, closing) = (shared.events.clone(), shared.demand.clone(), shared.closing.clone());
    let directories = directories.clone();
    let start = move || {
        let (sender, mut told) = mpsc::channel(EVENTS);
        let (of, directories, demand) = (of.clone(), directories.clone(), demand.clone());
        let running = run(With { of, directories, events: sender, demand });
        let (events, closing) = (events.clone(), closing.clone());
        tokio::spawn(async move {
            let forward = async {
                while let Some(event) = told.recv().await {
                    if events.send(Event::Workloads(event)).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                ended = running => ended.map_err(|error| error.to_string()),
                () = forward => Ok(()),
                () = closed(closing) => Ok(()),
            }
        })
    };
    parts.spawn(supervise(name, shared.events.clone(), shared.closing.clone(), start));
}
