//! Docker and Podman: containers by the Docker API on their Unix sockets.
//!
//! ```text
//!   GET /events --------------------- opened first
//!   GET /containers/json?all=true --- everything, at the start, every two minutes and on SIGHUP
//!   the same with an id ------------- what an event names: made, started, renamed, ended, removed
//! ```
//!
//! A container is a workload with its own name, in the namespace that is called as its socket is (`docker` of docker.sock,
//! `podman` of podman.sock), and has its labels, also those of Compose (project and service).
//!
//! # Trust
//! Labels are chosen by whoever may start containers, and Docker adds those of the image; nothing tells them apart. They can't
//! choose a namespace or an account: that of all containers of a socket is the same, and labels that Kubernetes or systemd would
//! give are left out. A container that lies in the directory of a pod is the pod's.

mod client;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use self::client::{Container, Event, Events};
use super::Error;
use super::directories::{Directories, Place};
use super::runtime::{self, Failure, RESYNC, Runtime, connected};
use super::telling::{THINGS, Telling, Thing};
use crate::domain::cgroup_path::ContainerId;
use crate::domain::runtime as words;
use crate::domain::syntax::Name;
use crate::domain::workload::{WorkloadEvent, WorkloadKey};

/// Pause between the first list and the second.
const AGAIN: Duration = Duration::from_secs(1);
/// Beginnings of actions that change neither name nor labels nor directory.
const IDLE: [&str; 6] = ["exec_", "health_status", "attach", "resize", "top", "archive-path"];

/// The namespace of the containers behind a socket, which is also the name of their source: what the socket is called.
pub fn name(socket: &Path) -> String {
    let stem = socket.file_stem().and_then(|stem| stem.to_str());
    stem.filter(|stem| Name::Label.accepts(stem)).unwrap_or("docker").to_owned()
}

/// Tells the containers behind this socket until nobody listens.
///
/// # Errors
/// None that ends it.
pub async fn run(
    socket: PathBuf,
    directories: Directories,
    events: mpsc::Sender<WorkloadEvent>,
    demand: watch::Receiver<u64>,
) -> Result<(), Error> {
    let name = name(&socket);
    let telling = Telling::new(&name, directories, events);
    runtime::run(Docker { socket, namespace: name, refused: 0 }, telling, demand).await
}

struct Docker {
    socket: PathBuf,
    namespace: String,
    /// Containers that can't be told.
    refused: usize,
}

impl Runtime for Docker {
    fn socket(&self) -> &Path {
        &self.socket
    }

    async fn session(&mut self, telling: &mut Telling, demand: &mut watch::Receiver<u64>) -> Failure {
        match self.follow(telling, demand).await {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }
}

impl Docker {
    async fn follow(
        &mut self,
        telling: &mut Telling,
        demand: &mut watch::Receiver<u64>,
    ) -> Result<Infallible, Failure> {
        let mut events: Option<Events> = None;
        let socket = self.socket.clone();
        let opening = client::events(&socket);
        tokio::pin!(opening);
        let mut due = Instant::now();
        // Some answer the request for events with the first event only, so nobody knows since when they listen.
        let mut next = AGAIN;
        loop {
            tokio::select! {
                moved = telling.moved() => telling.follow(moved?).await?,
                changed = demand.changed() => {
                    due = Instant::now();
                    changed.map_err(|_closed| Failure::Over)?;
                }
                () = sleep_until(due) => {
                    let things = self.read(client::list(&socket, None).await?)?;
                    telling.replace(things).await?;
                    telling.settled().await?;
                    self.stand(telling).await?;
                    due = Instant::now() + std::mem::replace(&mut next, RESYNC);
                }
                opened = &mut opening, if events.is_none() => events = Some(opened?),
                event = happened(&mut events) => {
                    self.take(event?, telling).await?;
                    self.stand(telling).await?;
                }
            }
        }
    }

    async fn stand(&self, telling: &mut Telling) -> Result<(), Failure> {
        let standing = connected(telling, &self.socket, self.refused);
        Ok(telling.stand(standing).await?)
    }

    async fn take(&mut self, event: Event, telling: &mut Telling) -> Result<(), Failure> {
        let Event { action, actor } = event;
        if ContainerId::parse(&actor.id).is_none() || IDLE.iter().any(|idle| action.starts_with(idle)) {
            return Ok(());
        }
        let found = client::list(&self.socket, Some(&actor.id)).await?;
        let found = found.into_iter().find(|container| container.id == actor.id);
        match found.and_then(|found| thing(&self.namespace, found)) {
            Some((id, thing)) => telling.upsert(&id, thing).await?,
            None => telling.remove(&actor.id).await?,
        }
        Ok(())
    }

    fn read(&mut self, containers: Vec<Container>) -> Result<BTreeMap<String, Thing>, Failure> {
        let count = containers.len();
        if count > THINGS {
            return Err(Failure::Broken(format!("it has more than {THINGS} containers")));
        }
        let things: BTreeMap<String, Thing> =
            containers.into_iter().filter_map(|container| thing(&self.namespace, container)).collect();
        self.refused = count - things.len();
        Ok(things)
    }
}

async fn happened(events: &mut Option<Events>) -> Result<Event, Failure> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

/// The workload that a container is, and its id. `None` if its id is none.
fn thing(namespace: &str, container: Container) -> Option<(String, Thing)> {
    let Container { id, names, labels, created } = container;
    let place = Place::Container(ContainerId::parse(&id)?);
    let (labels, left_out) = words::labels(&labels.unwrap_or_default());
    // A link to a container is a name of it as well: `/other/alias`.
    let names = names.unwrap_or_default();
    let mut names = names.iter().map(|name| name.trim_start_matches('/')).filter(|name| !name.contains('/'));
    let name = names.next().filter(|name| !name.is_empty()).unwrap_or(&id[..12]);
    let key = WorkloadKey { namespace: namespace.to_owned(), name: words::name(name) };
    let made = created.and_then(|created| created.as_i64()).unwrap_or_default();
    Some((id, Thing { key, of: None, labels, left_out, place, made }))
}
