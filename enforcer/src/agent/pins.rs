//! The lock on the directory of pins: one agent per set of kernel maps, whatever state directory it has.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::Error;

/// Held by the agent that writes to the pinned maps. The kernel lets go of it when the process ends.
#[derive(Debug)]
pub(super) struct PinsLock {
    /// Held, not read.
    _directory: Option<Flock<File>>,
}

impl PinsLock {
    /// Takes the lock, or says that somebody has it. A directory that does not exist has no lock to take.
    pub(super) fn take(pins: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Pins { path: pins.to_owned(), source };
        if !pins.exists() {
            return Ok(Self { _directory: None });
        }
        let directory = File::open(pins).map_err(failed)?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(directory) => Ok(Self { _directory: Some(directory) }),
            Err((_, Errno::EWOULDBLOCK)) => Err(Error::PinsInUse { path: pins.to_owned() }),
            Err((_, errno)) => Err(failed(errno.into())),
        }
    }
}
