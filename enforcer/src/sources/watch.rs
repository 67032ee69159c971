//! Directories under inotify.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::io::unix::AsyncFd;

/// Watches of one source. Beyond it a source learns of changes by looking every second.
const WATCHES: usize = 8_192;
/// Bytes for events; each needs 16 and a name.
const BUFFER: usize = 16 << 10;

/// A set of watched directories. Without inotify (no descriptors left, say) it never reports anything, and looking
/// every second has to do; that is said once in the log.
#[derive(Debug)]
pub(super) struct Watcher {
    inotify: Option<AsyncFd<Inotify>>,
    watches: BTreeMap<PathBuf, WatchDescriptor>,
    told: bool,
}

impl Watcher {
    pub(super) fn new() -> Self {
        let mut watcher = Self { inotify: None, watches: BTreeMap::new(), told: false };
        match inotify() {
            Ok(inotify) => watcher.inotify = Some(inotify),
            Err(error) => watcher.tell(&error.to_string()),
        }
        watcher
    }

    /// Watches these directories and no others; whether one of them was not watched before.
    ///
    /// Directories that are watched are asked for again: if another one has taken the place of the watched one, it
    /// gets its own watch, and if not, nothing changes.
    pub(super) fn watch(&mut self, places: &BTreeSet<PathBuf>) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let mut watches = inotify.get_ref().watches();
        let mut problem = None;
        let mut kept: BTreeMap<PathBuf, WatchDescriptor> = BTreeMap::new();
        for place in places.iter().take(WATCHES) {
            match watches.add(place, mask()) {
                Ok(watch) => drop(kept.insert(place.clone(), watch)),
                // It went away since; the next look finds what is there instead.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => problem = Some(format!("{}: {error}", place.display())),
            }
        }
        if places.len() > WATCHES {
            problem = Some(format!("{} directories are more than {WATCHES}", places.len()));
        }
        let is_new = kept.iter().any(|(place, watch)| self.watches.get(place) != Some(watch));
        let descriptors: BTreeSet<i32> =
            kept.values().map(WatchDescriptor::get_watch_descriptor_id).collect();
        for watch in std::mem::replace(&mut self.watches, kept).into_values() {
            if !descriptors.contains(&watch.get_watch_descriptor_id()) {
                // The kernel has removed it already if the directory is gone.
                watches.remove(watch).ok();
            }
        }
        if let Some(problem) = problem {
            self.tell(&problem);
        }
        is_new
    }

    /// Waits for a change and gives the directories. May be cancelled; nothing is lost then but time.
    pub(super) async fn changed(&mut self) -> BTreeSet<PathBuf> {
        let Some(inotify) = &mut self.inotify else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = inotify.readable_mut().await else { return std::future::pending().await };
            let read = ready.try_io(|inotify| read(inotify.get_mut()));
            match read {
                Ok(Ok((changed, overflow))) => {
                    let is_changed = |watch: &WatchDescriptor| {
                        overflow || changed.contains(&watch.get_watch_descriptor_id())
                    };
                    let places = self.watches.iter().filter(|(_, watch)| is_changed(watch));
                    return places.map(|(place, _)| place.clone()).collect();
                }
                // A read that fails would fail again at once; looking every second goes on.
                Ok(Err(_)) => return std::future::pending().await,
                Err(_would_block) => {}
            }
        }
    }

    fn tell(&mut self, problem: &str) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                "changes of files are noticed within a second instead of at once: inotify: {problem}"
            );
        }
    }
}

/// An inotify descriptor that tokio watches.
#[expect(
    deprecated,
    reason = "sound here, because `Inotify` owns its descriptor and never changes it; what replaces it is unsafe, \
              which only the kernel room may be"
)]
pub(super) fn inotify() -> io::Result<AsyncFd<Inotify>> {
    AsyncFd::new(Inotify::init()?)
}

/// Everything that can change which files there are, or what is in them.
fn mask() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVE
        | WatchMask::CLOSE_WRITE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

/// Reads everything that is pending: numbers of the watches, and whether events were lost.
fn read(inotify: &mut Inotify) -> io::Result<(BTreeSet<i32>, bool)> {
    let mut buffer = [0; BUFFER];
    let mut changed = BTreeSet::new();
    let mut overflow = false;
    loop {
        match inotify.read_events(&mut buffer) {
            Ok(events) => {
                for event in events {
                    overflow |= event.mask.contains(EventMask::Q_OVERFLOW);
                    changed.insert(event.wd.get_watch_descriptor_id());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !changed.is_empty() => {
                return Ok((changed, overflow));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The nearest directory above `path` that exists: where something has to happen before `path` can come or go.
pub(super) fn nearest_above(path: &Path) -> Option<PathBuf> {
    path.ancestors().skip(1).find(|above| above.is_dir()).map(Path::to_owned)
}
