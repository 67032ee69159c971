//! Where the cgroup v2 tree is.

use std::path::PathBuf;

use super::error::Error;

/// The mount point of the cgroup v2 tree, also as the unified part of a hybrid layout. The first one that shows the
/// whole tree counts.
///
/// # Errors
/// If none is mounted, or the mount table cannot be read.
pub fn find_root() -> Result<PathBuf, Error> {
    let path = PathBuf::from("/proc/self/mountinfo");
    let table = std::fs::read_to_string(&path).map_err(|source| Error::Io { operation: "read", path, source })?;
    root_in(&table).ok_or(Error::NoCgroup2)
}

/// Finds the mount in a table as described in proc_pid_mountinfo(5).
fn root_in(table: &str) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (kind.split(' ').next()? == "cgroup2" && root == "/").then(|| PathBuf::from(unescape(point)))
    })
}

/// Spaces and a few others are written as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_pure_hybrid_and_no_tree() {
        let pure = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(root_in(pure), Some("/sys/fs/cgroup".into()));
        let hybrid = "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(root_in(hybrid), Some("/sys/fs/cgroup/unified".into()));
        let part = "30 25 0:26 /kubepods /mnt rw - cgroup2 cgroup2 rw\n40 25 0:26 / /a\\040b rw - cgroup2 cgroup2 rw\n";
        assert_eq!(root_in(part), Some("/a b".into()));
        assert_eq!(root_in("31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"), None);
    }
}
