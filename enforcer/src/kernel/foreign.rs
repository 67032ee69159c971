//! Programs of other owners at our hooks: above the directory that is attached to, at it, and below it.
//!
//! Others may have good reasons (service managers count and filter by such programs), so they are told and not touched.
//! The tree is looked through in portions, because a host can have thousands of directories.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use enforcer_common::hook::Hook;

use super::query;

/// Directories per look, of which there is one a second, at least. A node full of pods has some five hundred.
const PORTION: usize = 128;
/// And at most, because a look takes processor time: about 40 us for each.
const MOST: usize = 1_024;
/// Looks in which the whole tree is gone through, if it does not grow meanwhile: all are to be told within five seconds, and what a
/// look finds is told a second or two after it began.
const LOOKS: usize = 3;

/// One of our hooks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) hook: Hook,
    /// A `bpf_attach_type` number.
    pub(super) attach_type: u32,
    /// The id of our program.
    pub(super) program: u32,
}

/// Foreign programs by hook and id, each with the outermost directory where it was found.
type Foreign = BTreeMap<(Hook, u32), PathBuf>;

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) foreign: Foreign,
    /// Hooks of ours that do not run for a directory.
    pub(super) missing: BTreeSet<(Hook, PathBuf)>,
    /// Why a directory could not be asked.
    pub(super) problem: Option<io::Error>,
}

/// Has the tree gone through beside everything else. Each question takes the lock of the whole cgroup tree, which others hold
/// for milliseconds (whoever moves a process waits there for all processors), and nobody who makes a workload known may wait for
/// that.
#[derive(Debug, Default)]
pub(super) struct Others {
    found: Found,
    sweep: Sweep,
    running: Option<JoinHandle<(Sweep, Found)>>,
}

impl Others {
    /// Forgets what was found, also by the look that is on its way: some of it may have been put right.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What the last look found; begins the next one, if none is on its way.
    pub(super) fn look(&mut self, top: &Path, places: Vec<Place>) -> &Found {
        if let Some(running) = self.running.take_if(|running| running.is_finished()) {
            (self.sweep, self.found) = running.join().unwrap_or_else(|_| {
                let problem = Some(io::Error::other("the look for them panicked"));
                (Sweep::default(), Found { problem, ..Found::default() })
            });
        }
        if self.running.is_none() {
            let (mut sweep, top) = (std::mem::take(&mut self.sweep), top.to_owned());
            let look = move || {
                let found = sweep.look(&top, &places);
                (sweep, found)
            };
            match thread::Builder::new().name("foreign".to_owned()).spawn(look) {
                Ok(running) => self.running = Some(running),
                Err(error) => self.found.problem = Some(error),
            }
        }
        &self.found
    }
}

/// Goes through the tree, again and again.
#[derive(Debug, Default)]
struct Sweep {
    /// Directories that are still to be looked at.
    rest: Vec<PathBuf>,
    /// What was found since the tree was begun.
    now: (Foreign, BTreeSet<(Hook, PathBuf)>),
    /// Directories gone through since then, and the last time.
    count: (usize, usize),
    /// What was found when it was last gone through.
    last: (Foreign, BTreeSet<(Hook, PathBuf)>),
}

impl Sweep {
    /// Looks at the next portion. What was found in the others counts until they are looked at again.
    fn look(&mut self, top: &Path, places: &[Place]) -> Found {
        let mut found = Found::default();
        let mut portion = (self.count.1 / LOOKS + 1).clamp(PORTION, MOST);
        if self.rest.is_empty() {
            self.rest.push(top.to_owned());
        }
        while portion > 0
            && let Some(directory) = self.rest.pop()
        {
            portion -= 1;
            self.count.0 += 1;
            let at_top = directory == top;
            if let Err(error) = self.ask(&directory, at_top, places) {
                // Directories come and go.
                if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) {
                    found.problem = Some(error);
                }
                continue;
            }
            self.rest.extend(children(&directory));
        }
        if self.rest.is_empty() {
            self.last = std::mem::take(&mut self.now);
            self.count = (0, self.count.0);
        }
        for (foreign, missing) in [&self.last, &self.now] {
            found.foreign.extend(foreign.iter().map(|(key, path)| (*key, path.clone())));
            found.missing.extend(missing.iter().cloned());
        }
        found
    }

    /// At the top all that runs there is asked for, below it what is attached to each directory itself.
    fn ask(&mut self, directory: &Path, at_top: bool, places: &[Place]) -> io::Result<()> {
        let open = File::open(directory)?;
        for place in places {
            let attached = query::programs(open.as_fd(), place.attach_type, at_top)?;
            let others = attached.iter().filter(|id| **id != place.program);
            let others: Vec<u32> = others.copied().collect();
            if others.is_empty() && !at_top {
                continue;
            }
            let running = query::programs(open.as_fd(), place.attach_type, true)?;
            if !running.contains(&place.program) {
                self.now.1.insert((place.hook, directory.to_owned()));
            }
            for id in others {
                self.now.0.entry((place.hook, id)).or_insert_with(|| directory.to_owned());
            }
        }
        Ok(())
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|it| it.path()).collect()
}
