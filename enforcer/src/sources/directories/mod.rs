//! The whole cgroup v2 tree, known at any moment: which directories there are, with which ids, and which of them belong to
//! pods and containers. One task keeps it for all sources that are told of workloads by other names than paths.
//!
//! ```text
//!   inotify: made, removed --> that one is looked at ----+
//!   every second ------------> all are looked at (stat) -+--> index --> `pod`, `container`, `at`
//!   inotify lost something --> all are looked at --------+        `--> Moved
//!                              (in portions, so that what inotify says need not wait for all)
//! ```
//!
//! # What must stay true
//! * Looking is the truth; what inotify says is only a reason to look. What is made while a directory is about to be watched
//!   is not missed: it is watched first and listed then.
//! * The id is the inode number of the directory. One that is removed and made again under the same name went, and another
//!   one came.
//! * The index is changed before anybody is told.
//! * Everything is looked at every second, or so often that it costs a fiftieth of a core; every ten seconds in any case.
//! * Bounded: 131,072 directories, as deep as the hooks look. What is left out is a problem with one sentence.

mod index;
mod tree;
mod watches;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use enforcer_common::id::CgroupId;
use tokio::sync::{broadcast, mpsc, watch};

use self::index::Index;
use self::tree::{Tree, Where};
use self::watches::{Happened, Inbox};
use super::Error;
use crate::domain::cgroup_path::{ContainerId, PodUid};

/// Directories that are known at the most; ten for each pod of a large node, and some for the rest of the host.
const LIMIT: usize = 131_072;
/// News that a subscriber may leave unread before it is told that it has missed some.
const UNREAD: usize = 4_096;
/// The pause between looks at everything.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Looking at everything takes one of so many parts of a core.
const SHARE: u32 = 50;
/// The same after inotify has lost something, which somebody can bring about who makes directories without end.
const SHARE_LOST: u32 = 10;
/// After so many events at once there is a short rest, so that who makes and removes directories all the time has many of
/// them looked at once.
const FLOOD: usize = 64;
/// That rest.
const REST: Duration = Duration::from_millis(2);

/// A directory of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Its path, relative to the root of the tree and starting with `/`.
    pub path: String,
    /// Its id.
    pub id: CgroupId,
    /// The ids of the directories above it, innermost first, without the root.
    pub above: Vec<CgroupId>,
}

/// Where something is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Pod(PodUid),
    Container(ContainerId),
    /// With a leading `/`.
    Path(String),
}

/// What is new in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// A directory is there.
    Came(Directory),
    /// The directory of this path is gone. What lay below it went before it.
    Went(String),
    /// Much is new at once, or all of it: what matters has to be looked up again. The same holds for a subscriber that has
    /// missed something (`RecvError::Lagged`).
    Rescanned,
}

/// The index. A handle: copies share what they know.
#[derive(Clone, Debug)]
pub struct Directories {
    root: PathBuf,
    index: Arc<RwLock<Index>>,
    moved: broadcast::Sender<Moved>,
    wanted: watch::Sender<bool>,
    scanned: watch::Sender<bool>,
}

impl Directories {
    /// Nothing is known of the tree mounted at `root` before [`Directories::run`] runs.
    pub fn new(root: PathBuf) -> Self {
        let (moved, _) = broadcast::channel(UNREAD);
        let (wanted, scanned) = (watch::Sender::new(false), watch::Sender::new(false));
        Self { root, index: Arc::default(), moved, wanted, scanned }
    }

    /// The directory of a pod, by its UID (or the configuration hash of a static pod) in any of the forms of
    /// [`PodUid::parse`].
    pub fn pod(&self, uid: &str) -> Option<Directory> {
        self.index().pod(PodUid::parse(uid)?)
    }

    /// The directory of a container, by the 64 hex digits of its id.
    pub fn container(&self, id: &str) -> Option<Directory> {
        self.index().container(ContainerId::parse(id)?)
    }

    /// The directory of a path, relative to the root of the tree, with or without a leading `/`.
    pub fn at(&self, path: &str) -> Option<Directory> {
        self.index().at(&format!("/{}", path.trim_matches('/')))
    }

    /// The directory of a place.
    pub(super) fn find(&self, place: &Place) -> Option<Directory> {
        match place {
            Place::Pod(uid) => self.index().pod(*uid),
            Place::Container(id) => self.index().container(*id),
            Place::Path(path) => self.index().at(path),
        }
    }

    /// All directories for whose paths `wanted` says so, the outer before the inner.
    pub fn all(&self, wanted: impl Fn(&str) -> bool) -> Vec<Directory> {
        self.index().all(wanted)
    }

    /// Everything that is new from now on. Before the first subscription nothing is looked at.
    pub fn subscribe(&self) -> broadcast::Receiver<Moved> {
        self.wanted.send_replace(true);
        self.moved.subscribe()
    }

    /// Waits until all directories were looked at for the first time, which somebody has to have subscribed for.
    pub async fn scanned(&self) {
        // The sender is part of the handle.
        self.scanned.subscribe().wait_for(|scanned| *scanned).await.ok();
    }

    /// Keeps the index until nobody listens to `problems`, where it says what keeps it from knowing all at once, or that
    /// nothing does any more. To be run once at a time.
    ///
    /// # Errors
    /// That looking panicked.
    pub async fn run(self, problems: mpsc::Sender<Option<String>>) -> Result<(), Error> {
        self.run_with(problems, PAUSE).await
    }

    async fn run_with(self, problems: mpsc::Sender<Option<String>>, pause: Duration) -> Result<(), Error> {
        tokio::select! {
            // The sender is part of the handle.
            _ = async { self.wanted.subscribe().wait_for(|wanted| *wanted).await.is_ok() } => {}
            () = problems.closed() => return Ok(()),
        }
        let mut inbox = Inbox::new();
        let mut tree = Tree::new(self.root.clone(), LIMIT, inbox.watches());
        let mut told = None;
        let mut whole = Whole::due_now();
        loop {
            let at = tokio::select! {
                Happened { events, lost } = inbox.next() => {
                    whole.lost |= lost;
                    Where::Named(events)
                }
                () = problems.closed() => return Ok(()),
                () = std::future::ready(()), if !tree.is_through() => Where::Rest,
                () = tokio::time::sleep_until(whole.due(pause).into()), if tree.is_through() => Where::All,
            };
            if matches!(at, Where::All) {
                whole.begin();
            }
            let (is_whole, is_flood) = match &at {
                Where::All | Where::Rest => (true, false),
                Where::Named(events) => (false, events.len() > FLOOD),
            };
            let handle = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let began = computed();
                tree.look(at, &handle);
                (tree, computed().saturating_sub(began))
            });
            let (back, took) = looked.await?;
            tree = back;
            if is_whole {
                whole.add(took, tree.is_through());
            }
            if is_whole && tree.is_through() {
                self.scanned.send_replace(true);
                let (directories, took) = (self.index().len(), whole.took);
                tracing::trace!("{directories} cgroup directories were looked at in {took:?}");
            }
            let problem = inbox.problem().map(str::to_owned).or_else(|| tree.problem());
            if told != problem {
                told.clone_from(&problem);
                if problems.send(problem).await.is_err() {
                    return Ok(());
                }
            }
            if is_flood {
                tokio::time::sleep(REST).await;
            }
        }
    }

    fn tell(&self, moved: Moved) {
        // Nobody needs to listen.
        self.moved.send(moved).ok();
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        // Each change is one call that can't panic half-way; what is not as it should be is found by looking.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The looks at everything.
struct Whole {
    ended: Instant,
    /// What the last one took of a processor.
    took: Duration,
    /// What this one took so far.
    taking: Duration,
    /// Inotify has lost something since it began.
    lost: bool,
}

impl Whole {
    fn due_now() -> Self {
        Self { ended: Instant::now(), took: Duration::ZERO, taking: Duration::ZERO, lost: true }
    }

    fn due(&self, pause: Duration) -> Instant {
        let regular = pause.max((self.took * SHARE).min(LONGEST_PAUSE));
        self.ended + if self.lost { regular.min(self.took * SHARE_LOST) } else { regular }
    }

    fn begin(&mut self) {
        (self.taking, self.lost) = (Duration::ZERO, false);
    }

    fn add(&mut self, took: Duration, is_through: bool) {
        self.taking += took;
        if is_through {
            (self.ended, self.took) = (Instant::now(), self.taking);
        }
    }
}

/// The time that this thread has computed.
fn computed() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    // Without it, looking counts as free.
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
