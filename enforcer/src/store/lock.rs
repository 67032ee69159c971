//! The lock of the state directory.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::Error;

/// Held by the one instance. The kernel lets go of it when the process ends, so a crash leaves no stale lock.
#[derive(Debug)]
pub(super) struct Lock {
    /// Held, not read.
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock of a directory, or says who has it.
    pub(super) fn take(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("lock");
        let failed = |operation: &'static str| {
            let path = path.clone();
            move |source| Error::Io { operation, path, source }
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(failed("open"))?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, Errno::EWOULDBLOCK)) => {
                return Err(Error::Running { pid: read_pid(file), directory: directory.to_owned() });
            }
            Err((_, errno)) => return Err(failed("lock")(errno.into())),
        };
        let pid = format!("{}\n", std::process::id());
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(pid.as_bytes()));
        written.map_err(failed("write"))?;
        Ok(Self { _file: file })
    }
}

fn read_pid(file: File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
