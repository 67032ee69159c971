//! Looking at the tree, and what follows for the index. Blocks.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use enforcer_common::id::CgroupId;
use enforcer_common::limits::CGROUP_DEPTH;

use super::index::{ROOT, above, depth};
use super::watches::Watches;
use super::{Directories, Moved, UNREAD};

/// Directories that are looked at in one go, about a millisecond: what inotify says meanwhile waits for no more.
pub(super) const PORTION: usize = 256;

/// What is looked at.
#[derive(Debug)]
pub(super) enum Where {
    /// Everything, from the beginning.
    All,
    /// What is left of everything.
    Rest,
    /// What inotify has named.
    Named(BTreeSet<(i32, Option<OsString>)>),
}

/// The tree, and what is to be told of it.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    limit: usize,
    watches: Watches,
    /// What is still to be looked at of everything, with all below it.
    rest: Vec<Arc<str>>,
    /// What is new in this look; `None` if that is much.
    moved: Option<Vec<Moved>>,
    /// Directories that there was no room for, or whose names are no text, since everything was begun to be looked at.
    left_out: usize,
    /// The same of the last time that everything was looked at.
    left_out_before: usize,
    /// Why the root can't be looked at.
    unreadable: Option<String>,
}

impl Tree {
    pub(super) fn new(root: PathBuf, limit: usize, watches: Watches) -> Self {
        Self {
            root,
            limit,
            watches,
            rest: Vec::new(),
            moved: None,
            left_out: 0,
            left_out_before: 0,
            unreadable: None,
        }
    }

    /// What keeps it from knowing everything at once.
    pub(super) fn problem(&self) -> Option<String> {
        let unwatched = |why: &str| {
            format!(
                "changes of some cgroup directories are noticed by looking for them only, every few seconds: {why}"
            )
        };
        // What is left out is met again on the way; before the end it is not known that it is not.
        let count = self.left_out.max(self.left_out_before);
        let left_out = || {
            (count > 0).then(|| {
                format!(
                    "{count} cgroup directories can't be told, so nobody in them is known by pod or container: there are \
                     more than {}, or their names are no UTF-8",
                    self.limit
                )
            })
        };
        self.unreadable.clone().or_else(left_out).or_else(|| self.watches.problem().map(unwatched))
    }

    /// Whether everything was looked at, as far as it was begun.
    pub(super) fn is_through(&self) -> bool {
        self.rest.is_empty()
    }

    /// Looks, changes the index of `known` and tells its subscribers.
    pub(super) fn look(&mut self, at: Where, known: &Directories) {
        match at {
            Where::All => self.begin(known),
            Where::Rest => self.go_on(known),
            Where::Named(events) => {
                for (number, name) in events {
                    let Some(above) = self.watches.path(number) else { continue };
                    match name.as_deref().map(OsStr::to_str) {
                        Some(Some(name)) => self.refresh(&Arc::from(format!("{above}/{name}")), known),
                        Some(None) => self.left_out += 1,
                        None => {
                            self.watches.remove(&above);
                            self.refresh(&above, known);
                        }
                    }
                }
            }
        }
        match self.moved.replace(Vec::new()) {
            Some(moved) => moved.into_iter().for_each(|moved| known.tell(moved)),
            None => known.tell(Moved::Rescanned),
        }
    }

    /// Begins to look at every directory that is known.
    fn begin(&mut self, known: &Directories) {
        self.watches.retry();
        let root: Arc<str> = Arc::from(ROOT);
        if known.index().id(ROOT).is_none() {
            self.refresh(&root, known);
        }
        (self.left_out_before, self.left_out) = (self.left_out.max(self.left_out_before), 0);
        self.rest = vec![root];
        self.go_on(known);
        let is_there = known.index().id(ROOT).is_some();
        let unreadable = || format!("the cgroup tree at {} can't be read", self.root.display());
        self.unreadable = (!is_there).then(unreadable);
    }

    /// Looks at a portion of the known directories, and lists each if something may be new below it. The number of links of a
    /// directory is that of the directories below and two more: if those that are known are still there, and no link is
    /// new, nothing is. Where the file system counts otherwise, everything is listed.
    fn go_on(&mut self, known: &Directories) {
        for _ in 0..PORTION {
            let Some(path) = self.rest.pop() else { break };
            let Some(id) = known.index().id(&path) else { continue };
            match self.stat(&path) {
                Some((now, links)) if now == id => {
                    let is_new = !self.watches.is_watched(&path) && self.watch(&path);
                    let counted = known.index().below_count(&path) as u64 + 2;
                    if is_new || links != counted {
                        self.list(&path, known);
                    }
                    self.rest.extend(known.index().below(&path));
                }
                _ => {
                    self.refresh(&path, known);
                    // Another one may have come in its place, and then the number of links above is the same.
                    if let Some(above) = above(&path).filter(|_| known.index().id(&path).is_none()) {
                        self.list(above, known);
                    }
                }
            }
        }
        if self.is_through() {
            self.left_out_before = self.left_out;
        }
    }

    /// Looks at one directory that may have come, gone, or be another one.
    fn refresh(&mut self, path: &Arc<str>, known: &Directories) {
        let now = self.stat(path).map(|(id, _)| id);
        let before = known.index().id(path);
        match (before, now) {
            // It may have gone and come while nobody looked, so the watch may be that of another one.
            (Some(before), Some(now)) if before == now => {
                if self.watch(path) {
                    self.list(path, known);
                }
            }
            (before, now) => {
                if before.is_some() {
                    self.remove(path, known);
                }
                if now.is_some() {
                    self.enter(path, known);
                }
            }
        }
    }

    /// Compares the names below a directory with those that are known.
    fn list(&mut self, path: &str, known: &Directories) {
        if depth(path) >= CGROUP_DEPTH {
            return;
        }
        // If it went away meanwhile, the next look finds out.
        let Some(now) = self.names(path) else { return };
        let before: BTreeSet<Arc<str>> = known.index().below(path).into_iter().collect();
        for gone in before.difference(&now) {
            self.remove(gone, known);
        }
        for new in now.difference(&before) {
            self.enter(new, known);
        }
    }

    /// Takes in a directory and all below it, the outer before the inner. Each is watched before it is looked at.
    fn enter(&mut self, path: &Arc<str>, known: &Directories) {
        let mut pending = vec![Arc::clone(path)];
        while let Some(path) = pending.pop() {
            if known.index().len() >= self.limit {
                self.left_out += 1;
                continue;
            }
            self.watch(&path);
            let Some((id, _)) = self.stat(&path) else {
                self.watches.remove(&path);
                continue;
            };
            known.index_mut().insert(&path, id);
            if let Some(directory) = known.index().at(&path).filter(|_| *path != *ROOT) {
                self.note(Moved::Came(directory));
            }
            if depth(&path) < CGROUP_DEPTH {
                pending.extend(self.names(&path).into_iter().flatten());
            }
        }
    }

    /// Forgets a directory and all below it, the inner before the outer.
    fn remove(&mut self, path: &Arc<str>, known: &Directories) {
        let mut all = vec![Arc::clone(path)];
        let mut at = 0;
        while let Some(path) = all.get(at) {
            let below = known.index().below(path);
            all.extend(below);
            at += 1;
        }
        for path in all.into_iter().rev() {
            self.watches.remove(&path);
            known.index_mut().remove(&path);
            if *path != *ROOT {
                self.note(Moved::Went(path.to_string()));
            }
        }
    }

    fn note(&mut self, moved: Moved) {
        match &mut self.moved {
            Some(all) if all.len() < UNREAD / 2 => all.push(moved),
            all => *all = None,
        }
    }

    fn watch(&mut self, path: &Arc<str>) -> bool {
        let place = self.place(path);
        self.watches.add(path, &place)
    }

    /// The id of a directory and the number of its links, if it is one and there.
    fn stat(&self, path: &str) -> Option<(CgroupId, u64)> {
        let found = fs::symlink_metadata(self.place(path)).ok()?;
        found.is_dir().then(|| (CgroupId(found.ino()), found.nlink()))
    }

    /// Paths of the directories directly below.
    fn names(&mut self, path: &str) -> Option<BTreeSet<Arc<str>>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(self.place(path)).ok()? {
            let Ok(entry) = entry else { return None };
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                match entry.file_name().to_str() {
                    Some(name) => _ = names.insert(Arc::from(format!("{path}/{name}"))),
                    None => self.left_out += 1,
                }
            }
        }
        Some(names)
    }

    fn place(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}
