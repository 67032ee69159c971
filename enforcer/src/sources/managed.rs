//! Managed directories: those in which every process has to belong to a known workload.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use enforcer_common::id::CgroupId;

use super::{Cause, CgroupTree, Found, Look};

/// Ids of all managed directories, by their configured name.
pub type ManagedDirectories = BTreeMap<String, Option<CgroupId>>;

/// The source of managed directories.
#[derive(Debug)]
pub struct Managed {
    tree: CgroupTree,
    directories: BTreeSet<String>,
    told: Option<ManagedDirectories>,
}

impl Managed {
    /// The configured directories of a tree.
    pub fn new(tree: CgroupTree, directories: impl IntoIterator<Item = String>) -> Self {
        Self { tree, directories: directories.into_iter().collect(), told: None }
    }
}

impl Look for Managed {
    type Event = ManagedDirectories;

    fn look(&mut self, _cause: &Cause) -> Found<ManagedDirectories> {
        let now: ManagedDirectories =
            self.directories.iter().map(|name| (name.clone(), self.tree.resolve(name))).collect();
        let changed = self.told.as_ref() != Some(&now);
        self.told = Some(now.clone());
        Found { events: if changed { vec![now] } else { Vec::new() }, again: None }
    }

    fn places(&self) -> BTreeSet<PathBuf> {
        self.tree.places(self.directories.iter().map(String::as_str))
    }
}
