//! What can go wrong at the socket, on either side: what failed, on what, the likely cause, the next command.

use std::io;
use std::path::PathBuf;

use crate::domain::command::Refused;

/// A failure of the API, on the client's or the server's side.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("no agent listens on {}: start it with `enforcer run`, or name its socket with --socket", socket.display())]
    NoAgent {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket's file or folder can't be opened by this user.
    #[error(
        "permission denied on {}: run the command as root, or join the group that the agent's setting \
         `socket-group` names",
        socket.display()
    )]
    Permission {
        /// The socket.
        socket: PathBuf,
    },
    /// The agent knows the caller and does not let it do this.
    #[error("the agent on {} refused: {message}", socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
        /// Its own sentence.
        message: String,
    },
    /// The agent says no, and why. A negative answer, not a failure.
    #[error("{}", .0.message)]
    Refused(Box<Refused>),
    /// The agent could not answer.
    #[error("the agent on {} could not answer ({status}): {message}", socket.display())]
    Unavailable {
        /// The socket.
        socket: PathBuf,
        /// HTTP status.
        status: u16,
        /// Its own sentence.
        message: String,
    },
    /// No answer in time.
    #[error("the agent on {} did not answer within {seconds} s: see its log, or `enforcer status`", socket.display())]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// The connection broke.
    #[error("{operation} on {}: {source}; if the agent was just stopped, start it with `enforcer run`", socket.display())]
    Broken {
        /// What was done.
        operation: &'static str,
        /// The socket.
        socket: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer makes no sense.
    #[error("{} answered what this version does not understand ({what}): is it an enforcer agent of version {}?", socket.display(), env!("CARGO_PKG_VERSION"))]
    Strange {
        /// The socket.
        socket: PathBuf,
        /// What was not understood.
        what: String,
    },
    /// Another agent has the socket.
    #[error("socket in use: another enforcer answers on {}; stop it or choose --socket", socket.display())]
    InUse {
        /// The socket.
        socket: PathBuf,
    },
    /// Something else has the socket's name.
    #[error("{} exists and is no socket: remove it or choose --socket", socket.display())]
    NotASocket {
        /// The path.
        socket: PathBuf,
    },
    /// The socket can't be made.
    #[error("{operation} {}: {source}; choose another place with --socket", path.display())]
    Bind {
        /// What was done.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The configured group does not exist.
    #[error(
        "group `{group}` of the setting `socket-group` does not exist: create it with `groupadd --system {group}`"
    )]
    NoGroup {
        /// Its name.
        group: String,
    },
}
