//! The watch: whether the kernel still has what it was given, whoever took it away or changed it.
//!
//! The daemon holds a descriptor of each link and map, so that removing a pin, or unmounting the file system of the
//! pins, takes nothing away while it lives. What is missing is put back at the next look; what can't be put back is a
//! problem.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use enforcer_common::abi::config::Setting;
use enforcer_common::hook::Hook;
use enforcer_common::id::Generation;

use super::error::Error;
use super::foreign::{Others, Place};
use super::{Kernel, Settings, maps, query, sys};

/// What was put back. The order is that of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repair {
    /// A pin that was missing, or stood for something else.
    Pin,
    /// A hook that was detached.
    Link,
    /// Our program, in a link that ran another one.
    Program,
    /// The policy table.
    Table,
    /// A setting.
    Setting,
}

impl Repair {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Pin, Self::Link, Self::Program, Self::Table, Self::Setting];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Link => "link",
            Self::Program => "program",
            Self::Table => "table",
            Self::Setting => "setting",
        }
    }
}

/// What a look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// What is wrong and could not be put right, one sentence each.
    pub problems: Vec<String>,
    /// What is no fault and worth knowing, one sentence each.
    pub notices: Vec<String>,
    /// What was wrong and is right again, one sentence each.
    pub repairs: Vec<(Repair, String)>,
    /// Hooks that are attached with our program.
    pub hooks: Vec<Hook>,
    /// Programs of others, by the hook at which they run.
    pub foreign: BTreeMap<Hook, u64>,
    /// The directory of the pins was made anew: who has locked it holds a lock on another one.
    pub pins_made: bool,
}

/// What the kernel should have.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Handles on all pinned maps.
    pub(super) maps: BTreeMap<&'static str, OwnedFd>,
    /// The table that was published last; `None` before the first.
    pub(super) published: Option<Published>,
    /// Settings that only the daemon writes.
    pub(super) settings: BTreeMap<u32, u64>,
    others: Others,
}

/// Published tables, held so that the first can be published again and all can learn of identities.
pub(super) struct Published {
    pub(super) generation: Generation,
    /// The table in force and those that follow it.
    pub(super) tables: Vec<maps::Table>,
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Watch {
    /// Takes hold of the pinned maps.
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let open = |name: &&'static str| Ok((*name, sys::open_pin(&settings.pins.join(name))?));
        Ok(Self { maps: maps::NAMES.iter().map(open).collect::<Result<_, Error>>()?, ..Self::default() })
    }

    /// This setting should have this value from now on.
    pub(super) fn keep(&mut self, setting: Setting, value: u64) {
        self.settings.insert(setting as u32, value);
    }
}

impl Kernel {
    /// Looks at everything, and puts back what is missing. To be called when the hooks were attached.
    pub fn watch(&mut self) -> Seen {
        let mut seen = Seen::default();
        let pins = self.repair_place(&mut seen);
        self.repair_links(pins, &mut seen);
        if pins {
            self.repair_maps(&mut seen);
            seen.notices.extend(unseen_by_the_host(&self.settings.pins));
        }
        self.repair_content(&mut seen);
        seen.notices.extend(self.storage_is_charged());
        seen.hooks = self.attached_hooks();
        self.look_for_others(&mut seen);
        seen
    }

    fn look_for_others(&mut self, seen: &mut Seen) {
        let places: Vec<Place> = Hook::ALL.iter().filter_map(|hook| self.place(*hook)).collect();
        if !seen.repairs.is_empty() {
            self.watch.others.forget();
        }
        let found = self.watch.others.look(&self.settings.attach, places);
        for (hook, path) in &found.missing {
            seen.problems.push(format!(
                "hook {} does not run for cgroup {}: another program has taken its place; find it with `bpftool \
                 cgroup tree`",
                hook.program(),
                path.display(),
            ));
        }
        let mut told = BTreeSet::new();
        for ((hook, id), path) in &found.foreign {
            *seen.foreign.entry(*hook).or_default() += 1;
            if told.insert((*hook, *id)) {
                // One that was unloaded meanwhile is gone at the next look.
                let Ok(name) = query::program_name(*id) else { continue };
                seen.notices.push(format!(
                    "program {name} (id {id}) of another owner runs at hook {} for {}: it may change what an \
                     application is told, and refuse more; it can't let through what the packet hooks refuse",
                    hook.program(),
                    path.display(),
                ));
            }
        }
        if let Some(problem) = &found.problem {
            seen.problems.push(format!("programs of others can't be looked for: {problem}"));
        }
    }

    /// Where a hook is attached and by which program; `None` for one that has no directory.
    fn place(&self, hook: Hook) -> Option<Place> {
        let link = self.links.get(&hook)?;
        let info = sys::link_info(link.as_fd(), Path::new("")).ok()?;
        let is_cgroup = info.kind == sys::CGROUP_LINK && info.cgroup != 0;
        is_cgroup.then_some(Place { hook, attach_type: info.attach_type, program: info.program })
    }
}

/// A sentence if the host's first process does not see the pins: a mount of this daemon's own goes with it.
fn unseen_by_the_host(pins: &Path) -> Option<String> {
    let own = fs::metadata(pins).ok()?;
    let host: PathBuf = Path::new("/proc/1/root").join(pins.strip_prefix("/").ok()?);
    let is_same = match fs::metadata(host) {
        Ok(host) => (host.dev(), host.ino()) == (own.dev(), own.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        // Not to be told by who may not look there.
        Err(_) => true,
    };
    (!is_same).then(|| {
        format!(
            "the pins in {} are in a mount that the host does not see, so what is attached ends with this daemon's mount \
             namespace: mount a BPF file system on the host and share it with the daemon",
            pins.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_sees_is_no_news() {
        assert_eq!(unseen_by_the_host(Path::new("/")), None);
        assert_eq!(unseen_by_the_host(Path::new("/no/such/directory")), None, "nothing is pinned there");
    }
}
