//! A process that makes the system calls it is told to make, one order a line, and says what the kernel answered.
//!
//! It is the suite's own binary started again with [`ARGUMENT`], because a test machine has no other. It enters its
//! cgroup and network namespace before its first instruction, so every socket it makes is the workload's.

mod act;
mod background;
mod order;
mod probe;

use std::ffi::CString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

pub(crate) use act::open_once;
pub use order::{Answer, Fd, Order, Tally};
pub use probe::{Means, Probe, SILENCE};

/// The hidden argument that makes a process a puppet.
pub const ARGUMENT: &str = "--puppet";

/// The whole life of a puppet: a name of its own, then orders on standard input, answers on standard output, the end with either.
pub fn live() {
    if let Some(name) = std::env::args().nth(2).and_then(|name| CString::new(name).ok()) {
        // SAFETY: a nul-terminated name that outlives the call; the kernel takes 15 bytes of it.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
    let mut state = act::State::default();
    let input = std::io::stdin().lock();
    let mut output = std::io::stdout().lock();
    for line in input.lines() {
        let Ok(line) = line else { break };
        let order: Order = serde_json::from_str(&line).expect("an order");
        let answer = state.obey(order);
        let text = serde_json::to_string(&answer).expect("an answer is JSON");
        if writeln!(output, "{text}").and_then(|()| output.flush()).is_err() {
            break;
        }
    }
    std::thread::sleep(state.stay);
}

/// The strings: a running puppet.
#[derive(Debug)]
pub struct Puppet {
    child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Puppet {
    /// Starts one with this name, in this cgroup directory and network namespace.
    pub fn start(name: &str, cgroup: &Path, namespace: BorrowedFd<'_>) -> Self {
        let program = std::env::current_exe().expect("the path of this program");
        let mut command = Command::new(program);
        command.args([ARGUMENT, name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        enter(&mut command, cgroup, namespace);
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("start a puppet in {}: {error}", cgroup.display()));
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, pipes: Mutex::new((input, BufReader::new(output))) }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has an order obeyed.
    pub fn obey(&self, order: &Order) -> Answer {
        let mut pipes = self.pipes.lock().expect("no other caller panicked");
        let text = serde_json::to_string(order).expect("an order is JSON");
        writeln!(pipes.0, "{text}").expect("the puppet listens");
        let mut line = String::new();
        pipes.1.read_line(&mut line).expect("the puppet answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("after {order:?}: {error} in {line:?}"))
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        // Gone already is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Makes a command's process enter a cgroup and a network namespace before it becomes the program.
pub fn enter(command: &mut Command, cgroup: &Path, namespace: BorrowedFd<'_>) {
    let procs = std::fs::OpenOptions::new()
        .write(true)
        .open(cgroup.join("cgroup.procs"))
        .unwrap_or_else(|error| panic!("open the processes of {}: {error}", cgroup.display()));
    let namespace = namespace.try_clone_to_owned().expect("a copy of the namespace's descriptor");
    // SAFETY: between fork and exec only two system calls on descriptors that the closure owns.
    unsafe {
        command.pre_exec(move || {
            (&procs).write_all(b"0")?;
            if libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// Makes a command's process give up a capability before it becomes the program, so that the program never has it.
pub fn lose(command: &mut Command, capability: u32) {
    // SAFETY: between fork and exec only one system call on numbers.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}
