//! What is known: directories by path, by pod, by container.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use enforcer_common::id::CgroupId;

use super::Directory;
use crate::domain::cgroup_path::{ContainerId, PodUid, owner};

/// The root of the tree, which is known and never told.
pub(super) const ROOT: &str = "";

/// One directory.
#[derive(Debug, Default)]
struct Entry {
    id: CgroupId,
    /// Paths of those directly below.
    below: BTreeSet<Arc<str>>,
}

/// Which of several directories that say they are the same pod or container is meant: the one that lies below no container,
/// the one further out, the first by name.
type Rank = (bool, usize, Arc<str>);

/// The index.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: BTreeMap<Arc<str>, Entry>,
    pods: BTreeSet<(PodUid, Rank)>,
    containers: BTreeSet<(ContainerId, Rank)>,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn id(&self, path: &str) -> Option<CgroupId> {
        self.entries.get(path).map(|entry| entry.id)
    }

    /// Paths of the directories directly below.
    pub(super) fn below(&self, path: &str) -> Vec<Arc<str>> {
        self.entries.get(path).map_or_else(Vec::new, |entry| entry.below.iter().cloned().collect())
    }

    pub(super) fn below_count(&self, path: &str) -> usize {
        self.entries.get(path).map_or(0, |entry| entry.below.len())
    }

    /// Takes a directory in. The one above it is there.
    pub(super) fn insert(&mut self, path: &Arc<str>, id: CgroupId) {
        if let Some(above) = above(path).and_then(|above| self.entries.get_mut(above)) {
            above.below.insert(Arc::clone(path));
        }
        self.entries.insert(Arc::clone(path), Entry { id, below: BTreeSet::new() });
        let (owner, rank) = ranked(path);
        self.pods.extend(owner.pod.map(|pod| (pod, rank.clone())));
        self.containers.extend(owner.container.map(|container| (container, rank)));
    }

    /// Forgets a directory. Nothing is below it any more.
    pub(super) fn remove(&mut self, path: &Arc<str>) {
        self.entries.remove(path);
        if let Some(above) = above(path).and_then(|above| self.entries.get_mut(above)) {
            above.below.remove(path);
        }
        let (owner, rank) = ranked(path);
        if let Some(pod) = owner.pod {
            self.pods.remove(&(pod, rank.clone()));
        }
        if let Some(container) = owner.container {
            self.containers.remove(&(container, rank));
        }
    }

    pub(super) fn at(&self, path: &str) -> Option<Directory> {
        let id = self.id(path)?;
        let above = std::iter::successors(above(path), |path| above(path));
        let above = above.take_while(|path| *path != ROOT).filter_map(|path| self.id(path)).collect();
        Some(Directory { path: path.to_owned(), id, above })
    }

    pub(super) fn pod(&self, uid: PodUid) -> Option<Directory> {
        let (found, (_, _, path)) = self.pods.range((uid, least())..).next()?;
        self.at(path).filter(|_| *found == uid)
    }

    pub(super) fn container(&self, id: ContainerId) -> Option<Directory> {
        let (found, (_, _, path)) = self.containers.range((id, least())..).next()?;
        self.at(path).filter(|_| *found == id)
    }

    pub(super) fn all(&self, wanted: impl Fn(&str) -> bool) -> Vec<Directory> {
        let paths = self.entries.keys().filter(|path| &***path != ROOT && wanted(path));
        paths.filter_map(|path| self.at(path)).collect()
    }
}

/// Comes before every other.
fn least() -> Rank {
    (false, 0, Arc::from(""))
}

fn ranked(path: &Arc<str>) -> (crate::domain::cgroup_path::Owner, Rank) {
    let owner = owner(path);
    (owner, (owner.nested, depth(path), Arc::clone(path)))
}

/// Levels below the root.
pub(super) fn depth(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count()
}

/// The path of the directory above; `None` for the root.
pub(super) fn above(path: &str) -> Option<&str> {
    path.rfind('/').map(|at| &path[..at])
}
