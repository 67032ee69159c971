//! The canary: a child of the agent in a cgroup of its own, which tries what the table denies it.
//!
//! One process for many attempts: to move a process into a cgroup stops others for a moment, which should not happen every
//! second. It is our own binary with nothing but one socket to the agent, and ends when that is closed, so it can't
//! outlive the agent. Its rights go before its first attempt.

pub mod child;

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use enforcer_common::id::CgroupId;

use crate::domain::canary::{Outcome, judge};

/// Hidden command of our binary.
pub const COMMAND: &str = "canary";
/// Directory of the agent with the default pins; others have the path of theirs behind it.
const NAME: &str = "enforcer-canary";
/// Where the default pins are.
const DEFAULT_PINS: &str = "/sys/fs/bpf/enforcer";
/// The owner's right to write in a mode.
const OWNER_WRITES: u32 = 0o200;
/// Every attempt ends at once; what takes longer is a process that does not run.
const PATIENCE: Duration = Duration::from_secs(2);
/// The first answer comes after a start and after moving into the directory, which takes seconds where processors are short.
const STARTING: Duration = Duration::from_secs(10);
/// How long an ended process may keep its directory.
const GONE: Duration = Duration::from_millis(20);
/// How often that is looked at.
const LOOKS: u32 = 100;

/// The canary of one agent.
#[derive(Debug)]
pub struct Canary {
    directory: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    socket: BufReader<UnixStream>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It ends when nobody asks it any more, even where the right to end it is missing.
        self.socket.get_ref().shutdown(Shutdown::Both).ok();
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The directory of an agent's canary: below the one that the programs are attached to.
pub fn directory(attach: &Path, pins: &Path) -> PathBuf {
    let pins = pins.to_string_lossy();
    let own = if pins == DEFAULT_PINS { String::new() } else { pins.replace('/', "-") };
    attach.join(format!("{NAME}{own}"))
}

/// Removes the directory, if it is there, once its last process has ended. Says whether it was there.
///
/// # Errors
/// If it can't be removed, or somebody else's process stays in it.
pub fn remove(directory: &Path) -> io::Result<bool> {
    for _ in 0..LOOKS {
        match beside(directory, || fs::remove_dir(directory)) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(GONE),
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Makes or removes a directory. The root of the tree is writable for nobody (0555), which an agent that may not pass over modes
/// can't ignore; but it may change them, as root, for that moment.
fn beside(directory: &Path, change: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let result = change();
    let Some(folder) = directory.parent() else { return result };
    match result {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let closed = fs::metadata(folder)?.permissions();
            let mut open = closed.clone();
            open.set_mode(open.mode() | OWNER_WRITES);
            // Whoever does not own it hears why the change is not possible, not why this is not.
            if open == closed || fs::set_permissions(folder, open).is_err() {
                return Err(error);
            }
            let again = change();
            fs::set_permissions(folder, closed)?;
            again
        }
        result => result,
    }
}

impl Canary {
    /// One that does not run yet.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, running: None }
    }

    /// Makes its directory, if it is not there. Its id.
    ///
    /// # Errors
    /// One sentence: a tree that is read-only, for example.
    pub fn prepare(&self) -> Result<CgroupId, String> {
        let made = match beside(&self.directory, || fs::create_dir(&self.directory)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::symlink_metadata(&self.directory),
        };
        let place = self.directory.display();
        made.map(|found| CgroupId(found.ino()))
            .map_err(|error| format!("no cgroup {place} can be made: {error}"))
    }

    /// Has it try. A failure is believed the second time only, of a process that was started anew: somebody may have moved the
    /// first one. Blocks for some milliseconds, and for [`PATIENCE`] or [`STARTING`] if it does not answer.
    pub fn attempt(&mut self) -> Outcome {
        let first = self.once();
        if !matches!(first, Outcome::Refused) {
            self.running = None;
        }
        if matches!(first, Outcome::Failed(_)) { self.once() } else { first }
    }

    fn once(&mut self) -> Outcome {
        match self.ask() {
            Ok(answer) => judge(answer.trim_end()),
            Err(error) => {
                self.running = None;
                Outcome::Unproven(format!("its process does not answer: {error}"))
            }
        }
    }

    fn ask(&mut self) -> io::Result<String> {
        let mut running = match self.running.take() {
            Some(running) => running,
            None => start(&self.directory)?,
        };
        running.socket.get_mut().write_all(child::TRY)?;
        let mut answer = String::new();
        if running.socket.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        running.socket.get_ref().set_read_timeout(Some(PATIENCE))?;
        self.running = Some(running);
        Ok(answer)
    }
}

/// Starts the process: our own binary, even if its file was replaced meanwhile. All other descriptors close with `exec`.
fn start(directory: &Path) -> io::Result<Running> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(STARTING))?;
    ours.set_write_timeout(Some(PATIENCE))?;
    let child = Command::new("/proc/self/exe")
        .arg(COMMAND)
        .arg(directory)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Running { child, socket: BufReader::new(ours) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agent_has_a_directory_of_its_own() {
        let of = |pins: &str| directory(Path::new("/sys/fs/cgroup"), Path::new(pins));
        assert_eq!(of("/sys/fs/bpf/enforcer"), Path::new("/sys/fs/cgroup/enforcer-canary"));
        assert_eq!(of("/run/b/c"), Path::new("/sys/fs/cgroup/enforcer-canary-run-b-c"));
    }

    #[test]
    fn a_directory_that_is_not_there_is_removed_already() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("x");
        assert!(!remove(&directory).unwrap());
        fs::create_dir(&directory).unwrap();
        assert!(remove(&directory).unwrap());
        let nowhere = Canary::new(folder.path().join("a/b"));
        assert!(nowhere.prepare().unwrap_err().contains("No such file"));
    }
}
