//! Why the agent does not run: one sentence each, with the next command.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::{api, config, engine, kernel, store};

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not root.
    #[error("this has to run as root, and user {user} is not: repeat the command with `sudo`")]
    NotRoot {
        /// The user.
        user: u32,
    },
    /// No cgroup v2 tree.
    #[error(transparent)]
    CgroupRoot(#[from] config::DiscoverError),
    /// The configured root of the tree is something else.
    #[error(
        "{} is not the mount point of a cgroup v2 file system: find it with `findmnt -t cgroup2` and name it with \
         --cgroup-root",
        path.display()
    )]
    NotCgroup2 {
        /// The configured directory.
        path: PathBuf,
    },
    /// The configured directory to attach to is not there.
    #[error("cgroup {} of the setting `attach` does not exist: make it with `mkdir -p {}`", path.display(), path.display())]
    NoAttach {
        /// The directory.
        path: PathBuf,
    },
    /// The state directory.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The saved state.
    #[error(transparent)]
    Saved(#[from] engine::Error),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// Another agent has the pinned maps.
    #[error("another instance uses the pins in {}: stop it, or use another --pins", path.display())]
    PinsInUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory of pins can't be locked.
    #[error("lock the pins in {}: {source}", path.display())]
    Pins {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The API's socket.
    #[error(transparent)]
    Api(#[from] api::Error),
    /// The monitoring port.
    #[error(
        "listen on {address} for metrics: {source}; choose another address with --metrics-listen, or `none`"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A thread can't be started.
    #[error("{0}")]
    Thread(String),
    /// The engine refused to go on.
    #[error("{0}")]
    Refused(String),
    /// Signals can't be received.
    #[error("wait for signals: {0}")]
    Signals(std::io::Error),
    /// The log was started before.
    #[error("start the log: {0}")]
    Log(String),
}
