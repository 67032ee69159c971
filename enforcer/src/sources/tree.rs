//! The cgroup tree: from directories to ids.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use enforcer_common::id::CgroupId;

use super::watch::nearest_above;

/// The mounted cgroup v2 tree. The id of a cgroup is the inode number of its directory.
#[derive(Clone, Debug)]
pub struct CgroupTree {
    root: PathBuf,
}

impl CgroupTree {
    /// The tree mounted at `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The id of a directory, relative to the root with or without a leading `/`, if it exists now.
    pub fn resolve(&self, directory: &str) -> Option<CgroupId> {
        let found = fs::symlink_metadata(self.path(directory)).ok()?;
        found.is_dir().then(|| CgroupId(found.ino()))
    }

    /// The ids of the directories above this one that exist, innermost first, without the root. `known` keeps what was
    /// looked at.
    pub(super) fn above(
        &self,
        directory: &str,
        known: &mut BTreeMap<String, Option<CgroupId>>,
    ) -> Vec<CgroupId> {
        let directory = directory.trim_matches('/');
        let above = directory.rmatch_indices('/').map(|(at, _)| &directory[..at]);
        let mut id = |path: &str| match known.get(path) {
            Some(id) => *id,
            None => *known.entry(path.to_owned()).or_insert_with(|| self.resolve(path)),
        };
        above.filter_map(&mut id).collect()
    }

    /// Where something has to happen before one of these directories can come or go. A directory that is removed and
    /// made again has another id, so those that exist are looked after too.
    pub(super) fn places<'a>(&self, directories: impl IntoIterator<Item = &'a str>) -> BTreeSet<PathBuf> {
        directories.into_iter().filter_map(|directory| nearest_above(&self.path(directory))).collect()
    }

    fn path(&self, directory: &str) -> PathBuf {
        self.root.join(directory.trim_matches('/'))
    }
}
