//! What can go wrong with the state directory.

use std::io;
use std::path::PathBuf;

/// What can go wrong with the state directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has it.
    #[error(
        "another instance is running{} with the state directory {}: stop it, or use another --state-dir",
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
        directory.display()
    )]
    Running {
        /// Its process id, if it wrote one.
        pid: Option<u32>,
        /// The state directory.
        directory: PathBuf,
    },
    /// The operating system refused.
    #[error("{operation} {}: {source}{}", path.display(), hint(source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A directory of another user.
    #[error(
        "{} belongs to user {owner} and the agent runs as user {own}, so others could change what it reads: run \
         `chown -R {own} {}` if that is not so on purpose",
        path.display(), path.display()
    )]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user of this process.
        own: u32,
    },
    /// A file that was not written by this program, or was damaged.
    #[error(
        "{} is damaged ({problem}): restore it from a backup, or move it away with `mv {} {}.bad` and start again \
         without it",
        path.display(), path.display(), path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file of another version.
    #[error(
        "{} has version {found} and this agent reads version {known}: start the version of enforcer that wrote it",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version of this program.
        known: u32,
    },
    /// Something has no saved form.
    #[error("encode {}: {source}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// A name that can't be a file's.
    #[error("policy `{key}` has a name that can't be the name of a file")]
    Name {
        /// The policy.
        key: String,
    },
}

/// The next command for the usual causes.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run the agent as root, or choose another --state-dir",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room, `df` shows what is full",
        io::ErrorKind::ReadOnlyFilesystem => "; choose a --state-dir that can be written",
        _ => "",
    }
}
