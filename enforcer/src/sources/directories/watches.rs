//! The inotify watches of the tree: one for each directory.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};
use tokio::io::unix::AsyncFd;

use super::super::watch::inotify;

/// Bytes for events; each needs 16 and a name.
const BUFFER: usize = 16 << 10;
/// Events of one turn. What is beyond waits in the kernel.
const TURN: usize = 4_096;

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Happened {
    /// Number of a watch, and the name below its directory of which something was said; without a name, the watch has ended.
    pub(super) events: BTreeSet<(i32, Option<OsString>)>,
    /// Whether events were lost.
    pub(super) lost: bool,
}

/// Where inotify reports. Without it (no descriptors left, say) it never does.
#[derive(Debug)]
pub(super) struct Inbox {
    inotify: Result<AsyncFd<Inotify>, String>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { inotify: inotify().map_err(|error| format!("inotify can't be used: {error}")) }
    }

    /// What is wrong.
    pub(super) fn problem(&self) -> Option<&str> {
        self.inotify.as_ref().err().map(String::as_str)
    }

    /// The watches whose events arrive here.
    pub(super) fn watches(&self) -> Watches {
        Watches::new(self.inotify.as_ref().ok().map(|inotify| inotify.get_ref().watches()))
    }

    /// Waits for events. May be cancelled; nothing is lost then.
    pub(super) async fn next(&mut self) -> Happened {
        let Ok(inotify) = &mut self.inotify else { return std::future::pending().await };
        let error = loop {
            let mut ready = match inotify.readable_mut().await {
                Ok(ready) => ready,
                Err(error) => break error,
            };
            match ready.try_io(|inotify| read(inotify.get_mut())) {
                Ok(Ok(happened)) => return happened,
                Ok(Err(error)) => break error,
                Err(_would_block) => {}
            }
        };
        self.inotify = Err(format!("inotify can't be read: {error}"));
        Happened { lost: true, ..Happened::default() }
    }
}

fn read(inotify: &mut Inotify) -> io::Result<Happened> {
    let mut buffer = [0; BUFFER];
    let mut happened = Happened::default();
    while happened.events.len() < TURN {
        match inotify.read_events(&mut buffer) {
            Ok(events) => {
                for event in events {
                    happened.lost |= event.mask.contains(EventMask::Q_OVERFLOW);
                    let name = event.name.filter(|_| event.mask.contains(EventMask::ISDIR));
                    if name.is_some() || event.mask.contains(EventMask::IGNORED) {
                        let number = event.wd.get_watch_descriptor_id();
                        happened.events.insert((number, name.map(OsString::from)));
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if happened.events.is_empty() && !happened.lost {
                    return Err(error);
                }
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(happened)
}

/// Which directory is watched under which number.
#[derive(Debug)]
pub(super) struct Watches {
    kernel: Option<inotify::Watches>,
    by_path: HashMap<Arc<str>, WatchDescriptor>,
    by_number: HashMap<i32, Arc<str>>,
    /// Why there are no more watches, since the last whole look.
    refused: Option<String>,
}

impl Watches {
    /// No watches yet; there will never be any without inotify.
    pub(super) fn new(kernel: Option<inotify::Watches>) -> Self {
        Self { kernel, by_path: HashMap::new(), by_number: HashMap::new(), refused: None }
    }

    /// What is wrong: directories are there without a watch.
    pub(super) fn problem(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Tries again what was refused.
    pub(super) fn retry(&mut self) {
        self.refused = None;
    }

    pub(super) fn path(&self, number: i32) -> Option<Arc<str>> {
        self.by_number.get(&number).cloned()
    }

    pub(super) fn is_watched(&self, path: &str) -> bool {
        self.by_path.contains_key(path)
    }

    /// Watches what is now at `place`, which has the path `path` in the tree; whether it was not watched before.
    pub(super) fn add(&mut self, path: &Arc<str>, place: &Path) -> bool {
        let Some(kernel) = self.kernel.as_mut().filter(|_| self.refused.is_none()) else { return false };
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::ONLYDIR
            | WatchMask::DONT_FOLLOW
            | WatchMask::EXCL_UNLINK;
        match kernel.add(place, mask) {
            Ok(watch) => {
                let number = watch.get_watch_descriptor_id();
                let is_same = self.by_path.get(path) == Some(&watch);
                if !is_same {
                    self.remove(path);
                    self.by_number.insert(number, Arc::clone(path));
                    self.by_path.insert(Arc::clone(path), watch);
                }
                !is_same
            }
            // It went away, or is no directory; who looks next finds out.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                false
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                self.refused = Some(
                    "inotify has no watch left for them; raise the sysctl fs.inotify.max_user_watches"
                        .to_owned(),
                );
                false
            }
            Err(error) => {
                self.refused = Some(format!("inotify: {path}: {error}"));
                false
            }
        }
    }

    /// Forgets the watch of a directory that is gone. The kernel may have removed it already.
    pub(super) fn remove(&mut self, path: &str) {
        let Some(watch) = self.by_path.remove(path) else { return };
        // A directory that was moved keeps its number, which belongs to its new path then.
        if self.ended(watch.get_watch_descriptor_id(), path)
            && let Some(kernel) = &mut self.kernel
        {
            kernel.remove(watch).ok();
        }
    }

    /// Forgets a number that the kernel has ended, or is about to; whether it was that of `path`.
    fn ended(&mut self, number: i32, path: &str) -> bool {
        let is_its = self.by_number.get(&number).is_some_and(|of| **of == *path);
        if is_its {
            self.by_number.remove(&number);
        }
        is_its
    }
}
