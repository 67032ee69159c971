//! The network namespaces of this host, and going into them.
//!
//! A namespace has no list to be read from: it is found by the threads that are in it, and by the mounts that keep it.
//! One that only an open descriptor keeps, with no thread inside, is not found; nobody can open sockets in it without
//! a thread that is.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

/// Most namespaces that are visited in one go.
const MOST: usize = 4_096;

/// The namespaces that were found.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// One open file each; an open file keeps its namespace.
    pub(super) files: Vec<File>,
    /// Those that could not be opened, or were too many.
    pub(super) unvisited: u64,
    /// Processes whose namespaces can't be told: the right to trace them is missing.
    pub(super) hidden: u64,
    seen: HashSet<u64>,
}

impl Namespaces {
    /// All that can be found now, that of the caller first.
    pub(super) fn find() -> io::Result<Self> {
        let mut found = Self::default();
        found.take(Path::new("/proc/thread-self/ns/net"));
        for process in fs::read_dir("/proc")?.filter_map(Result::ok) {
            if process.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
                found.take_threads(&process.path().join("task"));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        mounts.lines().filter_map(kept_by_mount).for_each(|path| found.take(&path));
        Ok(found)
    }

    /// Every thread has a namespace of its own choice.
    fn take_threads(&mut self, tasks: &Path) {
        let mut hidden = false;
        // A process may end at any moment; its threads are gone then.
        for thread in fs::read_dir(tasks).into_iter().flatten().filter_map(Result::ok) {
            let path = thread.path().join("ns/net");
            match named_inode(&path) {
                Ok(Some(inode)) if self.seen.contains(&inode) => {}
                Ok(_) => self.take(&path),
                Err(error) => hidden |= error.kind() == io::ErrorKind::PermissionDenied,
            }
        }
        self.hidden += u64::from(hidden);
    }

    fn take(&mut self, path: &Path) {
        match self.open(path) {
            Ok(None) => {}
            Ok(Some(file)) if self.files.len() < MOST => self.files.push(file),
            Err(error) if is_gone(&error) => {}
            Ok(Some(_)) | Err(_) => self.unvisited += 1,
        }
    }

    /// The namespace behind this path, if it is a new one.
    fn open(&mut self, path: &Path) -> io::Result<Option<File>> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        Ok(self.seen.insert(inode).then_some(file))
    }
}

/// The inode that the name of a link into a namespace tells (`net:[4026531840]`): quicker than opening it.
fn named_inode(path: &Path) -> io::Result<Option<u64>> {
    let target = fs::read_link(path)?;
    let inode = || target.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok();
    Ok(inode())
}

/// The place of a mount that keeps a network namespace (`ip netns add`, container runtimes).
fn kept_by_mount(line: &str) -> Option<PathBuf> {
    let mut fields = line.split(' ');
    let root = fields.nth(3)?;
    let place = fields.next()?;
    root.starts_with("net:[").then(|| PathBuf::from(unescape(place)))
}

/// Blanks and the like are written as three octal digits in the table of mounts.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        text.push(char::from(code.unwrap_or(b'\\')));
        text.push_str(if code.is_some() { &part[3..] } else { part });
    }
    text
}

/// The process ended while it was looked at.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Moves the calling thread into a namespace. To be called from a thread that ends afterwards.
pub(super) fn enter(namespace: &File) -> io::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_namespace_is_found_once() {
        let found = Namespaces::find().unwrap();
        let own = named_inode(Path::new("/proc/self/ns/net")).unwrap().unwrap();
        assert!(found.seen.contains(&own));
        assert_eq!(found.files.len(), found.seen.len());
    }

    #[test]
    fn mounts_keep_namespaces() {
        let line = r"620 24 0:4 net:[4026532281] /run/netns/a\040b rw shared:5 - nsfs nsfs rw";
        assert_eq!(kept_by_mount(line), Some(PathBuf::from("/run/netns/a b")));
        assert_eq!(kept_by_mount("24 1 8:1 / / rw - ext4 /dev/sda1 rw"), None);
    }
}
