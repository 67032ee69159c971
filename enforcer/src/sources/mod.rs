//! Where workloads, managed directories and policy files come from. Each source talks to one thing and tells what it
//! knows whenever that changes: the whole set, or what differs where that is little.
//!
//! ```text
//!   inotify ----+
//!   every second +--> look (a thread that may block) --> events, if anything differs --> the agent's task
//!   SIGHUP -----+
//! ```
//!
//! Invariants:
//! * inotify makes it quick, looking makes it true: every look compares with the world itself, so an event that was
//!   lost, merged or never sent (other mounts of the cgroup tree send none) costs at most a second.
//! * What can't be read is a problem with one sentence; the last good snapshot is never replaced by it.
//! * A source numbers nothing and touches no map.

mod containerd;
mod directories;
mod docker;
mod files;
pub mod kubernetes;
mod managed;
mod own_addresses;
mod policy_dir;
mod run;
mod runtime;
mod static_file;
mod systemd;
mod telling;
mod tree;
mod watch;

#[cfg(test)]
mod tests;

pub use containerd::{CONTAINERD, run as run_containerd};
pub use directories::{Directories, Directory, Moved};
pub use docker::{name as docker_name, run as run_docker};
pub use managed::{Managed, ManagedDirectories};
pub use own_addresses::{OwnEvent, run as run_own_addresses};
pub use policy_dir::{PolicyDir, PolicyEvent, PolicyPath};
pub use run::run;
pub use static_file::{STATIC, StaticFile};
pub use systemd::{SYSTEMD, run as run_systemd};
pub use tree::CgroupTree;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// What can end a source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thread that looks panicked or was cancelled.
    #[error("a source stopped while it looked at its files: {0}")]
    Look(#[from] tokio::task::JoinError),
}

/// Why a source looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It starts, or somebody asked for it: everything is read again.
    Demand,
    /// Something changed in these directories.
    Changed(BTreeSet<PathBuf>),
    /// Time has passed.
    Time,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<E> {
    /// What to tell, in this order.
    pub events: Vec<E>,
    /// When to look again at the latest; `None` is the usual pause.
    pub again: Option<Duration>,
}

/// A thing that can be looked at. Looking may block.
pub trait Look: Send + 'static {
    /// What it tells.
    type Event: Send;

    /// Looks, and tells what differs from the last time.
    fn look(&mut self, cause: &Cause) -> Found<Self::Event>;

    /// Directories in which a change is worth another look. They exist, or did a moment ago.
    fn places(&self) -> BTreeSet<PathBuf>;
}
