//! containerd: containers of all of its namespaces, from its own API.
//!
//! ```text
//!   Events/Subscribe ---- one stream for all namespaces, opened first
//!   Namespaces/List, Containers/ListStream ---- everything, at the start, every two minutes and on SIGHUP
//!   Containers/Get ------ what an event names
//! ```
//!
//! # Trust
//! * In the namespace `k8s.io`, which belongs to the kubelet's plugin, a sandbox is a pod: name, namespace and UID are labels
//!   that the kubelet writes after the pod's own, so a pod can't choose them. It has the name and the directory that Kubernetes
//!   would tell; what only Kubernetes knows (service account, labels of the namespace, ports) it has not. A container there is one
//!   of its pod, by labels of the same kind, which containerd writes over those of the image; it counts where its directory is in
//!   that of the pod.
//! * In every other namespace a container is a workload of a namespace of that name, whatever its labels say. Who may make
//!   containers there is root on this host.
//! * `moby` is Docker's, which tells its containers itself, with their names.

mod grpc;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use self::grpc::{Connection, Messages};
use self::wire::{Container, Envelope, Filters, Id, Namespaces, OneContainer};
use super::Error;
use super::directories::{Directories, Place};
use super::runtime::{self, Failure, RESYNC, Runtime, connected, within};
use super::telling::{THINGS, Telling, Thing};
use crate::domain::cgroup_path::{ContainerId, PodUid};
use crate::domain::runtime as words;
use crate::domain::syntax::Name;
use crate::domain::workload::{WorkloadEvent, WorkloadKey};

/// Name of this source.
pub const CONTAINERD: &str = "containerd";
/// The namespace of the kubelet's plugin.
const CRI: &str = "k8s.io";
/// The label with which the kubelet's plugin says what something is.
const KIND: &str = "io.cri-containerd.kind";
/// A pod.
const SANDBOX: &str = "sandbox";
/// A container of a pod.
const CONTAINER: &str = "container";
/// The namespace of Docker.
const MOBY: &str = "moby";
/// Namespaces; what is beyond is left out.
const NAMESPACES: usize = 256;

/// Pause between the first list and the second.
const AGAIN: Duration = Duration::from_secs(1);

/// Tells the containers of the containerd on this socket until nobody listens.
///
/// # Errors
/// None that ends it.
pub async fn run(
    socket: PathBuf,
    directories: Directories,
    events: mpsc::Sender<WorkloadEvent>,
    demand: watch::Receiver<u64>,
) -> Result<(), Error> {
    let telling = Telling::new(CONTAINERD, directories, events);
    runtime::run(Containerd { socket, refused: BTreeMap::new() }, telling, demand).await
}

struct Containerd {
    socket: PathBuf,
    /// What can't be told, by id, and why.
    refused: BTreeMap<String, String>,
}

impl Runtime for Containerd {
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

impl Containerd {
    async fn follow(
        &mut self,
        telling: &mut Telling,
        demand: &mut watch::Receiver<u64>,
    ) -> Result<std::convert::Infallible, Failure> {
        const SUBSCRIBE: &str = "containerd.services.events.v1.Events/Subscribe";
        let mut connection = Connection::open(&self.socket).await?;
        let filters = vec!["topic~=\"^/containers/\"".to_owned()];
        // Its headers may come with the first event only, so nobody waits for them.
        let mut listener = connection.clone();
        let (sender, mut happened) = mpsc::channel(64);
        let listening = tokio::spawn(async move {
            let failure = listen(&mut listener, SUBSCRIBE, &Filters { filters }, &sender).await;
            sender.send(Err(failure)).await.ok();
        });
        let _listening = Abort(listening);
        let mut due = Instant::now();
        // The server does not say since when it listens for us, so the first list is made twice.
        let mut next = AGAIN;
        loop {
            tokio::select! {
                moved = telling.moved() => telling.follow(moved?).await?,
                changed = demand.changed() => {
                    due = Instant::now();
                    changed.map_err(|_closed| Failure::Over)?;
                }
                () = sleep_until(due) => {
                    self.list(&mut connection, telling).await?;
                    telling.settled().await?;
                    self.stand(telling).await?;
                    due = Instant::now() + std::mem::replace(&mut next, RESYNC);
                }
                event = happened.recv() => match event {
                    Some(Ok(event)) => {
                        self.take(event, &mut connection, telling).await?;
                        self.stand(telling).await?;
                    }
                    Some(Err(failure)) => return Err(failure),
                    None => return Err(Failure::Broken("its events have ended".to_owned())),
                },
            }
        }
    }

    async fn stand(&self, telling: &mut Telling) -> Result<(), Failure> {
        let standing = connected(telling, &self.socket, self.refused.len());
        Ok(telling.stand(standing).await?)
    }

    async fn list(&mut self, connection: &mut Connection, telling: &mut Telling) -> Result<(), Failure> {
        const NAMESPACES_LIST: &str = "containerd.services.namespaces.v1.Namespaces/List";
        const LIST: &str = "containerd.services.containers.v1.Containers/ListStream";
        let found: Option<Namespaces> =
            connection.one(NAMESPACES_LIST, "", &Filters { filters: Vec::new() }).await?;
        let names = found.unwrap_or_default().namespaces.into_iter().map(|namespace| namespace.name);
        let mut things = BTreeMap::new();
        self.refused.clear();
        for namespace in names.filter(|name| name != MOBY).take(NAMESPACES) {
            let filters = if namespace == CRI {
                [SANDBOX, CONTAINER].map(|kind| format!("labels.\"{KIND}\"=={kind}")).to_vec()
            } else {
                Vec::new()
            };
            let mut answer: Messages<OneContainer> =
                connection.call(LIST, &namespace, &Filters { filters }).await?;
            let all = async {
                while let Some(one) = answer.next().await? {
                    let Some(container) = one.container else { continue };
                    if things.len() >= THINGS {
                        return Err(Failure::Broken(format!("it has more than {THINGS} containers")));
                    }
                    let id = format!("{namespace}/{}", container.id);
                    if let Some(thing) = self.read(&namespace, &id, container) {
                        things.insert(id, thing);
                    }
                }
                Ok(())
            };
            within("to list all containers", all).await??;
        }
        Ok(telling.replace(things).await?)
    }

    async fn take(
        &mut self,
        event: Envelope,
        connection: &mut Connection,
        telling: &mut Telling,
    ) -> Result<(), Failure> {
        const GET: &str = "containerd.services.containers.v1.Containers/Get";
        let Envelope { namespace, topic, event } = event;
        let id = event.and_then(|event| <Id as prost::Message>::decode(event.value.as_slice()).ok());
        let Some(Id { id }) = id.filter(|Id { id }| !id.is_empty() && namespace != MOBY) else {
            return Ok(());
        };
        let name = format!("{namespace}/{id}");
        let found = if topic == "/containers/delete" {
            None
        } else {
            connection.one::<OneContainer>(GET, &namespace, &Id { id }).await?
        };
        self.refused.remove(&name);
        match found.and_then(|found| self.read(&namespace, &name, found.container?)) {
            Some(thing) => telling.upsert(&name, thing).await?,
            None => telling.remove(&name).await?,
        }
        Ok(())
    }

    /// What a container is; notes why it can't be told.
    fn read(&mut self, namespace: &str, name: &str, container: Container) -> Option<Thing> {
        match thing(namespace, container) {
            Ok(thing) => thing,
            Err(why) => {
                if self.refused.is_empty() {
                    tracing::warn!("containerd's {name} is no workload, and others may not be either: {why}");
                }
                if self.refused.len() < THINGS {
                    self.refused.insert(name.to_owned(), why);
                }
                None
            }
        }
    }
}

/// Listens until that fails.
async fn listen(
    connection: &mut Connection,
    method: &'static str,
    filters: &Filters,
    happened: &mpsc::Sender<Result<Envelope, Failure>>,
) -> Failure {
    let mut events: Messages<Envelope> = match connection.stream(method, filters).await {
        Ok(events) => events,
        Err(failure) => return failure,
    };
    loop {
        match events.next().await {
            Ok(Some(event)) => {
                if happened.send(Ok(event)).await.is_err() {
                    return Failure::Over;
                }
            }
            Ok(None) => return Failure::Broken("its events have ended".to_owned()),
            Err(failure) => return failure,
        }
    }
}

/// A task that ends with its owner.
struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The workload that a container is. `None` for what the kubelet's plugin knows besides pods and their containers.
fn thing(namespace: &str, container: Container) -> Result<Option<Thing>, String> {
    let Container { id, labels, spec, created_at } = container;
    let (told, left_out) = words::labels(&labels);
    let made =
        created_at.map_or(0, |at| at.seconds.saturating_mul(1_000_000_000).saturating_add(at.nanos.into()));
    let mut of = None;
    let (key, place) = if namespace == CRI {
        let (key, uid) = match labels.get(KIND).map(String::as_str) {
            Some(SANDBOX | CONTAINER) => pod(&labels)?,
            _ => return Ok(None),
        };
        if labels.get(KIND).is_some_and(|kind| kind == SANDBOX) {
            (key, Place::Pod(uid))
        } else {
            let id = ContainerId::parse(&id).ok_or("a container of a pod without an id of 64 hex digits")?;
            of = Some((uid, container_name(&labels)?));
            (key, Place::Container(id))
        }
    } else {
        let path = spec.and_then(|spec| serde_json::from_slice::<Spec>(&spec.value).ok());
        let path = path.and_then(|spec| words::cgroups_path(&spec.linux?.cgroups_path?));
        let place = path.map(Place::Path).or_else(|| ContainerId::parse(&id).map(Place::Container));
        let place = place.ok_or("its specification names no cgroup directory that could be followed")?;
        if !Name::Label.accepts(namespace) {
            return Err(format!("its namespace {namespace:?} can't be one of workloads"));
        }
        let name = labels.get("nerdctl/name").filter(|name| !name.is_empty()).unwrap_or(&id);
        (WorkloadKey { namespace: namespace.to_owned(), name: words::name(name) }, place)
    };
    Ok(Some(Thing { key, of, labels: told, left_out, place, made }))
}

/// Name and UID of the pod that something is or belongs to.
fn pod(labels: &BTreeMap<String, String>) -> Result<(WorkloadKey, PodUid), String> {
    let namespace = label(labels, "io.kubernetes.pod.namespace")?;
    let name = label(labels, "io.kubernetes.pod.name")?;
    let uid = label(labels, "io.kubernetes.pod.uid")?;
    if !Name::Label.accepts(namespace) || !Name::Subdomain.accepts(name) {
        return Err(format!("{namespace:?} and {name:?} are no namespace and name of a pod"));
    }
    let uid = PodUid::parse(uid).ok_or_else(|| format!("{uid:?} is no UID of a pod"))?;
    Ok((WorkloadKey { namespace: namespace.clone(), name: name.clone() }, uid))
}

/// The name of a container in its pod.
fn container_name(labels: &BTreeMap<String, String>) -> Result<String, String> {
    let name = label(labels, "io.kubernetes.container.name")?;
    if !Name::Label.accepts(name) {
        return Err(format!("{name:?} is no name of a container"));
    }
    Ok(name.clone())
}

fn label<'a>(labels: &'a BTreeMap<String, String>, key: &str) -> Result<&'a String, String> {
    labels.get(key).ok_or_else(|| format!("something of the kubelet's without the label {key}"))
}

/// What matters of an OCI specification.
#[derive(Deserialize)]
struct Spec {
    linux: Option<Linux>,
}

#[derive(Deserialize)]
struct Linux {
    #[serde(rename = "cgroupsPath")]
    cgroups_path: Option<String>,
}
