//! Files that people edit: read when they are finished, and only when they changed.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::domain::command::PolicyFile;

/// Files of this size are no documents; keeps a mistaken path from filling the memory.
pub(super) const FILE_LIMIT: u64 = 16 << 20;
/// A file is read when it has not changed for so long: one that is just being written may look whole and be half.
pub(super) const QUIET: Duration = Duration::from_millis(100);
/// A file that never rests is read nevertheless.
const PATIENCE: Duration = Duration::from_secs(2);

/// What tells one version of a file from another: device, inode, size, and the times of content and inode.
pub(super) type Version = [u64; 7];

/// The version of the file at `path`, following links; `None` if it does not exist.
pub(super) fn version(path: &Path) -> Result<Option<Version>, String> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {
            let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
            let [mtime, mtime_nsec, ctime, ctime_nsec] = times.map(i64::cast_unsigned);
            Ok(Some([found.dev(), found.ino(), found.size(), mtime, mtime_nsec, ctime, ctime_nsec]))
        }
        Ok(_) => Err(format!("{} is no file; name a YAML file", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("read {}: {error}", path.display())),
    }
}

/// The text of a file, named by its path.
pub(super) fn read(path: &Path) -> Result<PolicyFile, String> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_LIMIT + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("read {name}: {error}"))?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(format!("{name} has more than {} MiB, split it", FILE_LIMIT >> 20));
    }
    let text = String::from_utf8(bytes).map_err(|error| format!("{name} is no UTF-8 text: {error}"))?;
    Ok(PolicyFile { name, text })
}

/// Decides when something that changes is worth reading.
#[derive(Debug)]
pub(super) struct Settling<V> {
    /// What was read last.
    accepted: Option<V>,
    /// What was seen last and is not read yet, since when it has not changed, and since when it differs.
    pending: Option<(V, Instant, Instant)>,
}

impl<V: PartialEq> Settling<V> {
    pub(super) fn new() -> Self {
        Self { accepted: None, pending: None }
    }

    /// Nothing counts as read: what comes next is read when it rests.
    pub(super) fn forget(&mut self) {
        *self = Self::new();
    }

    /// Whether to read now, and if not, when to look again. `touched` says that the content may have changed even if
    /// the version is the same; on demand nothing is waited for.
    pub(super) fn see(
        &mut self,
        seen: V,
        touched: bool,
        demand: bool,
        now: Instant,
    ) -> (bool, Option<Duration>) {
        if demand {
            self.accepted = Some(seen);
            self.pending = None;
            return (true, None);
        }
        let (since, first) = match &self.pending {
            Some((version, since, first)) if *version == seen && !touched => (*since, *first),
            Some((_, _, first)) => (now, *first),
            None if self.accepted.as_ref() == Some(&seen) && !touched => return (false, None),
            None => (now, now),
        };
        if now.duration_since(since) >= QUIET || now.duration_since(first) >= PATIENCE {
            self.accepted = Some(seen);
            self.pending = None;
            return (true, None);
        }
        self.pending = Some((seen, since, first));
        (false, Some(QUIET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_read_when_it_rests() {
        let start = Instant::now();
        let mut settling = Settling::new();
        // Milliseconds, version, touched, demand -> read, look again.
        for (at, version, touched, demand, expected) in [
            (0, 1, false, true, (true, None)),
            (1_000, 1, false, false, (false, None)),
            (1_010, 2, false, false, (false, Some(QUIET))),
            (1_080, 3, true, false, (false, Some(QUIET))),
            (1_130, 3, false, false, (false, Some(QUIET))),
            (1_180, 3, false, false, (true, None)),
            (1_190, 3, true, false, (false, Some(QUIET))),
            (1_290, 3, false, false, (true, None)),
            (1_300, 3, false, false, (false, None)),
        ] {
            let now = start + Duration::from_millis(at);
            assert_eq!(settling.see(version, touched, demand, now), expected, "at {at} ms");
        }
        let reads = (0..100).filter(|step| {
            let now = start + Duration::from_secs(10) + Duration::from_millis(50 * step);
            settling.see(1_000 + step, true, false, now).0
        });
        assert_eq!(reads.count(), 2, "in five seconds without rest");
    }
}
