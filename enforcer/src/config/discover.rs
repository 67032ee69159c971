//! Finding the cgroup v2 tree of this host.

use std::path::{Path, PathBuf};

/// Why the tree was not found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list of mounts can't be read.
    #[error("read {path}: {source}; is /proc mounted?")]
    Mounts {
        /// The list.
        path: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no such mount.
    #[error(
        "no cgroup v2 file system is mounted: boot with a unified or hybrid cgroup tree, run \
         `mount -t cgroup2 none /sys/fs/cgroup`, or name the mount point with --cgroup-root"
    )]
    Missing,
}

const MOUNTS: &str = "/proc/self/mountinfo";

/// The mount point of the cgroup v2 tree: the configured one, or the first whose root is the tree's root.
pub fn cgroup_root(configured: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(path) = configured {
        return Ok(path.to_owned());
    }
    let mounts = std::fs::read_to_string(MOUNTS).map_err(|source| Error::Mounts { path: MOUNTS, source })?;
    in_mounts(&mounts).ok_or(Error::Missing)
}

/// `proc_pid_mountinfo(5)`: `ID PARENT DEVICE ROOT MOUNTPOINT OPTIONS [TAG...] - TYPE SOURCE OPTIONS`.
///
/// A bind mount of a part of the tree is only taken when there is nothing better: attaching there would leave the
/// rest of the tree unguarded.
fn in_mounts(mounts: &str) -> Option<PathBuf> {
    let found = mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (kind.split(' ').next() == Some("cgroup2")).then(|| (root != "/", unescape(point)))
    });
    found.min_by_key(|(part, _)| *part).map(|(_, point)| PathBuf::from(point))
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_unified_hybrid_and_nothing() {
        let unified = "24 30 0:22 / /proc rw shared:5 - proc proc rw\n\
                       29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(in_mounts(unified), Some("/sys/fs/cgroup".into()));
        let hybrid = "33 32 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      34 32 0:30 /part /mnt/part rw - cgroup2 cgroup2 rw\n\
                      35 32 0:30 / /sys/fs/cgroup/my\\040tree rw - cgroup2 cgroup2 rw\n";
        assert_eq!(in_mounts(hybrid), Some("/sys/fs/cgroup/my tree".into()));
        assert_eq!(in_mounts("24 30 0:22 / /proc rw - proc proc rw\nbroken\n"), None);
        assert_eq!(cgroup_root(Some(Path::new("/x"))).unwrap(), PathBuf::from("/x"));
    }
}
