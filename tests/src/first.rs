//! Processes whose first act in a new cgroup is to open a flow.
//!
//! The stub is the suite's own binary started again with [`ARGUMENT`], with one thread, outside of all workloads. For each
//! line it makes a directory and clones itself into it (`CLONE_INTO_CGROUP`): the child is in that cgroup before its first
//! instruction, and that is to make a socket and connect or send.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::puppet::enter;
use crate::sockaddr;

/// The hidden argument that makes a process a stub.
pub const ARGUMENT: &str = "--first";
/// `CLONE_INTO_CGROUP` (linux/sched.h).
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// One start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// The directory of the child, made if it is not there.
    pub directory: PathBuf,
    /// Where the first act goes.
    pub to: SocketAddr,
    /// Whether it connects; it sends a datagram otherwise.
    pub stream: bool,
}

/// A running stub.
#[derive(Debug)]
pub struct Stub {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Stub {
    /// Starts one in a cgroup directory and network namespace.
    pub fn start(cgroup: &Path, namespace: BorrowedFd<'_>) -> Self {
        let program = std::env::current_exe().expect("the path of this program");
        let mut command = Command::new(program);
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped());
        enter(&mut command, cgroup, namespace);
        let mut child = command.spawn().expect("start a stub");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output }
    }

    /// Has a process started; the errno of its first act, 0 for success.
    pub fn go(&mut self, start: &Start) -> i32 {
        writeln!(self.input, "{}", serde_json::to_string(start).expect("JSON")).expect("the stub listens");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the stub answers");
        line.trim().parse().unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        // Gone already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The whole life of a stub.
pub fn live() {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let start: Start = serde_json::from_str(&line).expect("a start");
        if writeln!(output, "{}", once(&start)).and_then(|()| output.flush()).is_err() {
            break;
        }
    }
}

fn once(start: &Start) -> i32 {
    let to = sockaddr::of(start.to);
    let kind = if start.stream { libc::SOCK_STREAM } else { libc::SOCK_DGRAM };
    let length = libc::socklen_t::try_from(to.len()).expect("addresses are short");
    if !start.directory.is_dir() {
        std::fs::create_dir(&start.directory).expect("a directory for the child");
    }
    let directory = std::fs::File::open(&start.directory).expect("the directory");
    let arguments = libc::clone_args {
        flags: CLONE_INTO_CGROUP,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::try_from(libc::SIGCHLD).expect("a small number"),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: u64::try_from(directory.as_raw_fd()).expect("an open descriptor"),
    };
    // SAFETY: without CLONE_VM this is a fork; the only thread goes on in the child, which makes plain system calls on
    // memory of its own and ends without running anything else.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
    if pid == 0 {
        // SAFETY: pointer and length of one live slice.
        unsafe {
            let socket = libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, 0);
            let result = if socket < 0 {
                -1
            } else if start.stream {
                libc::connect(socket, to.as_ptr().cast(), length)
            } else {
                let sent = libc::sendto(socket, to.as_ptr().cast(), 1, 0, to.as_ptr().cast(), length);
                if sent < 0 { -1 } else { 0 }
            };
            libc::_exit(if result == 0 { 0 } else { *libc::__errno_location() & 0x7f });
        }
    }
    assert!(pid > 0, "clone into {}: {}", start.directory.display(), std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: a child of our own, and one live number.
    let waited = unsafe { libc::waitpid(i32::try_from(pid).expect("small"), &raw mut status, 0) };
    assert!(waited > 0 && libc::WIFEXITED(status), "the child did not end by itself: {status}");
    libc::WEXITSTATUS(status)
}
