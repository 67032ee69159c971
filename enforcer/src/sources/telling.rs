//! What a source of containers or units knows, joined with the index of the cgroup tree, and told as it changes.
//!
//! A thing is told while its directory is there, and no longer. So a container that is made and not started is known before
//! it is told, and has its identity as soon as its directory comes.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use enforcer_common::id::CgroupId;
use tokio::sync::{broadcast, mpsc};

use super::directories::{Directories, Directory, Moved, Place};
use crate::domain::cgroup_path::{PodUid, owner, pod_of};
use crate::domain::container::{Containers, MAX_CONTAINERS, with_containers};
use crate::domain::labels::LabelSet;
use crate::domain::runtime;
use crate::domain::workload::{Changes, Resolved, Workload, WorkloadEvent, WorkloadKey};

/// Things of one source; what is beyond is left out, and said.
pub(super) const THINGS: usize = 32_768;

/// A container, pod or unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Thing {
    /// The name it should have; of a container of a pod that of the pod.
    pub(super) key: WorkloadKey,
    /// The pod whose container it is, and its name there.
    pub(super) of: Option<(PodUid, String)>,
    pub(super) labels: LabelSet,
    /// Labels that it has and that can't be labels.
    pub(super) left_out: usize,
    pub(super) place: Place,
    /// When it was made, in any unit: of two with the same name the later has it.
    pub(super) made: i64,
}

/// Nobody listens any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over;

/// What one source knows and has told.
#[derive(Debug)]
pub(super) struct Telling {
    source: String,
    directories: Directories,
    moved: broadcast::Receiver<Moved>,
    events: mpsc::Sender<WorkloadEvent>,
    things: BTreeMap<String, Thing>,
    by_place: BTreeMap<Place, BTreeSet<String>>,
    by_key: BTreeMap<WorkloadKey, BTreeSet<String>>,
    /// What was told under each name that things wanted.
    told: BTreeMap<WorkloadKey, Vec<Resolved>>,
    has_spoken: bool,
    standing: Option<String>,
    has_problem: bool,
    warned: bool,
}

impl Telling {
    pub(super) fn new(source: &str, directories: Directories, events: mpsc::Sender<WorkloadEvent>) -> Self {
        Self {
            source: source.to_owned(),
            moved: directories.subscribe(),
            directories,
            events,
            things: BTreeMap::new(),
            by_place: BTreeMap::new(),
            by_key: BTreeMap::new(),
            told: BTreeMap::new(),
            has_spoken: false,
            standing: None,
            has_problem: false,
            warned: false,
        }
    }

    /// Waits until all directories are known.
    pub(super) async fn ready(&self) {
        self.directories.scanned().await;
    }

    pub(super) fn directories(&self) -> &Directories {
        &self.directories
    }

    /// Whether a snapshot was told.
    pub(super) fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// How many things are known, whether their directories are there or not.
    pub(super) fn len(&self) -> usize {
        self.things.len()
    }

    /// Labels that can't be labels, of all things.
    pub(super) fn left_out(&self) -> usize {
        self.things.values().map(|thing| thing.left_out).sum()
    }

    /// What is new in the cgroup tree; `None` if something was missed. May be cancelled.
    pub(super) async fn moved(&mut self) -> Result<Option<Moved>, Over> {
        tokio::select! {
            moved = self.moved.recv() => match moved {
                Ok(moved) => Ok(Some(moved)),
                Err(broadcast::error::RecvError::Lagged(_)) => Ok(None),
                // The handle of this source has a sender too.
                Err(broadcast::error::RecvError::Closed) => Err(Over),
            },
            () = self.events.closed() => Err(Over),
        }
    }

    /// Tells what follows from news of the tree.
    pub(super) async fn follow(&mut self, moved: Option<Moved>) -> Result<(), Over> {
        let path = match moved {
            Some(Moved::Came(Directory { path, .. }) | Moved::Went(path)) => path,
            Some(Moved::Rescanned) | None => {
                let all = self.by_key.keys().cloned().collect();
                return self.tell(all).await;
            }
        };
        let owner = owner(&path);
        let places =
            [owner.pod.map(Place::Pod), owner.container.map(Place::Container), Some(Place::Path(path))];
        let ids = places.iter().flatten().filter_map(|place| self.by_place.get(place)).flatten();
        let keys = ids.filter_map(|id| Some(self.things.get(id)?.key.clone())).collect();
        self.tell(keys).await
    }

    /// Takes everything there is in the place of what was known; the first time even nothing is told.
    pub(super) async fn replace(&mut self, things: BTreeMap<String, Thing>) -> Result<(), Over> {
        let gone: Vec<String> = self.things.keys().filter(|id| !things.contains_key(*id)).cloned().collect();
        let mut keys = BTreeSet::new();
        for id in gone {
            keys.extend(self.forget(&id));
        }
        for (id, thing) in things {
            keys.extend(self.note(&id, thing));
        }
        if self.has_spoken {
            return self.tell(keys).await;
        }
        let keys: Vec<WorkloadKey> = self.by_key.keys().cloned().collect();
        self.told = keys.into_iter().map(|key| (key.clone(), self.resolved(&key))).collect();
        let workloads = self.told.values().flatten().cloned().collect();
        self.has_spoken = true;
        let source = self.source.clone();
        self.send(WorkloadEvent::Snapshot { source, workloads, namespaces: Vec::new(), services: Vec::new() })
            .await
    }

    /// Takes one thing.
    pub(super) async fn upsert(&mut self, id: &str, thing: Thing) -> Result<(), Over> {
        let keys = self.note(id, thing);
        self.tell(keys).await
    }

    /// Forgets one thing.
    pub(super) async fn remove(&mut self, id: &str) -> Result<(), Over> {
        let keys = self.forget(id);
        self.tell(keys.into_iter().collect()).await
    }

    /// Says how the source stands, if it does not stand so already.
    pub(super) async fn stand(&mut self, standing: String) -> Result<(), Over> {
        if self.standing.as_ref() == Some(&standing) {
            return Ok(());
        }
        self.standing = Some(standing.clone());
        let source = self.source.clone();
        self.send(WorkloadEvent::Standing { source, standing }).await
    }

    /// Says what is wrong.
    pub(super) async fn problem(&mut self, message: String) -> Result<(), Over> {
        self.has_problem = true;
        let source = self.source.clone();
        self.send(WorkloadEvent::Problem { source, message }).await
    }

    /// Says that nothing is wrong any more.
    pub(super) async fn settled(&mut self) -> Result<(), Over> {
        if !std::mem::take(&mut self.has_problem) {
            return Ok(());
        }
        let source = self.source.clone();
        self.send(WorkloadEvent::Changes { source, changes: Box::default() }).await
    }

    /// Names whose workloads may not be what they were.
    fn note(&mut self, id: &str, thing: Thing) -> BTreeSet<WorkloadKey> {
        if self.things.get(id) == Some(&thing) {
            return BTreeSet::new();
        }
        let mut keys: BTreeSet<WorkloadKey> = self.forget(id).into_iter().collect();
        if self.things.len() >= THINGS {
            if !std::mem::replace(&mut self.warned, true) {
                tracing::warn!(
                    "{} knows more than {THINGS} workloads, of which the rest is left out",
                    self.source
                );
            }
            return keys;
        }
        self.by_place.entry(thing.place.clone()).or_default().insert(id.to_owned());
        self.by_key.entry(thing.key.clone()).or_default().insert(id.to_owned());
        keys.insert(thing.key.clone());
        self.things.insert(id.to_owned(), thing);
        keys
    }

    fn forget(&mut self, id: &str) -> Option<WorkloadKey> {
        let Thing { key, place, .. } = self.things.remove(id)?;
        leave(&mut self.by_place, &place, id);
        leave(&mut self.by_key, &key, id);
        Some(key)
    }

    /// Tells what is different under these names.
    async fn tell(&mut self, keys: BTreeSet<WorkloadKey>) -> Result<(), Over> {
        if !self.has_spoken {
            return Ok(());
        }
        let mut changes = Changes::default();
        for key in keys {
            let now = self.resolved(&key);
            let before = self.told.get(&key).map(Vec::as_slice).unwrap_or_default();
            let names: BTreeSet<&WorkloadKey> = now.iter().map(|resolved| &resolved.workload.key).collect();
            let gone =
                before.iter().map(|resolved| &resolved.workload.key).filter(|key| !names.contains(key));
            changes.gone.extend(gone.cloned());
            changes.workloads.extend(now.iter().filter(|resolved| !before.contains(resolved)).cloned());
            if now.is_empty() {
                self.told.remove(&key);
            } else {
                self.told.insert(key, now);
            }
        }
        if changes.gone.is_empty() && changes.workloads.is_empty() {
            return Ok(());
        }
        self.has_problem = false;
        let source = self.source.clone();
        self.send(WorkloadEvent::Changes { source, changes: Box::new(changes) }).await
    }

    /// The workloads of the things that want this name: those whose directories are there. The latest has the name; others with
    /// directories of their own (a pod that ends while the next one begins) have it with a part of their ids. Behind each pod
    /// come its containers.
    fn resolved(&self, key: &WorkloadKey) -> Vec<Resolved> {
        let ids = self.by_key.get(key).into_iter().flatten();
        let mut things: Vec<(&String, &Thing)> = ids.filter_map(|id| self.things.get_key_value(id)).collect();
        things.sort_by_key(|(id, thing)| (std::cmp::Reverse(thing.made), *id));
        let (containers, things): (Vec<_>, Vec<_>) =
            things.into_iter().partition(|(_, thing)| thing.of.is_some());
        let mut seen = BTreeSet::new();
        let mut resolved = Vec::new();
        let mut is_first = true;
        for (id, thing) in things {
            let Some(Directory { path, id: cgroup, above }) = self.directories.find(&thing.place) else {
                continue;
            };
            // What lies in the directory of a pod is the pod's, whoever has started it.
            let is_pods = !matches!(thing.place, Place::Pod(_)) && pod_of(&path).is_some();
            if is_pods || !seen.insert(cgroup) {
                continue;
            }
            let mut key = thing.key.clone();
            if !std::mem::take(&mut is_first) {
                key.name = runtime::name(&format!("{}_{id}", key.name));
            }
            let workload = Workload {
                key,
                labels: Arc::new(thing.labels.clone()),
                cgroup: Some(path),
                addresses: Vec::new(),
                ports: BTreeMap::new(),
                account: None,
                containers: Containers::Unknown,
            };
            let Place::Pod(uid) = thing.place else {
                resolved.push(Resolved { workload: Arc::new(workload), cgroup: Some(cgroup), above });
                continue;
            };
            // A runtime does not know which containers a pod is going to have.
            let pod = Workload { containers: Containers::Told(None), ..workload };
            let own = self.containers(uid, cgroup, &containers);
            let named = own.iter().map(|(name, directory)| ((*name).to_owned(), directory.path.clone()));
            let mut all = with_containers(pod, named).into_iter();
            let mut push = |workload: Option<Workload>, cgroup: CgroupId, above: Vec<CgroupId>| {
                let told =
                    workload.map(|it| Resolved { workload: Arc::new(it), cgroup: Some(cgroup), above });
                resolved.extend(told);
            };
            push(all.next(), cgroup, above);
            for (_, directory) in own {
                push(all.next(), directory.id, directory.above);
            }
        }
        resolved
    }

    /// The containers of a pod whose directories are in its own, by name: the latest of each, which comes first.
    fn containers<'t>(
        &self,
        pod: PodUid,
        cgroup: CgroupId,
        things: &[(&String, &'t Thing)],
    ) -> BTreeMap<&'t str, Directory> {
        let mut found = BTreeMap::new();
        for (_, thing) in things {
            let Some((_, name)) = thing.of.as_ref().filter(|(of, _)| *of == pod) else { continue };
            let directory = self.directories.find(&thing.place);
            let Some(directory) = directory.filter(|it| it.above.contains(&cgroup)) else { continue };
            if found.len() < MAX_CONTAINERS {
                found.entry(name.as_str()).or_insert(directory);
            }
        }
        found
    }

    async fn send(&self, event: WorkloadEvent) -> Result<(), Over> {
        self.events.send(event).await.ok().ok_or(Over)
    }
}

fn leave<K: Ord>(index: &mut BTreeMap<K, BTreeSet<String>>, key: &K, id: &str) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
