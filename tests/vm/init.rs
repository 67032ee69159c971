//! The first process of a test machine: mounts what the suite needs, runs it, says how it ended. Where the machine has a service
//! manager instead of a suite, it becomes that.
//!
//! The last line on the console is `init: exit CODE`; `cargo xtask` waits for exactly that.
#![allow(clippy::print_stdout, reason = "the console is this program's only way to speak")]

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, chroot};

/// File system type and where it goes, in order: later ones lie inside earlier ones.
const MOUNTS: [(&str, &str); 11] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("debugfs", "/sys/kernel/debug"),
    ("securityfs", "/sys/kernel/security"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/dev/shm"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
];

/// The service manager of a machine that has one.
const MANAGER: &str = "/usr/lib/systemd/systemd";
/// Where the first file system is mounted once more.
const ROOT: &str = "/sysroot";
/// Exit code for a machine that could not be made ready.
const NOT_READY: i32 = 2;
/// `MODULE_INIT_COMPRESSED_FILE`: the kernel unpacks the module itself.
const COMPRESSED: libc::c_int = 4;

fn main() {
    // As an ordinary process this would mount over a running system.
    if std::process::id() != 1 {
        println!("init: this is the first process of a test machine; `cargo xtask vm 6.1` starts one");
        return;
    }
    let manager = Path::new(MANAGER);
    let result = if manager.exists() { become_manager(manager).map(|never| match never {}) } else { run() };
    let code = result.unwrap_or_else(|error| {
        println!("init: {error:#}");
        NOT_READY
    });
    println!("init: exit {code}");
    power_off();
}

fn run() -> Result<i32> {
    for (kind, target) in MOUNTS {
        fs::create_dir_all(target).with_context(|| format!("cannot create {target}"))?;
        mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {kind} on {target}"))?;
    }
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release")?;
    println!("init: {}", release.trim());
    fs::write("/proc/sys/kernel/hostname", "testvm").context("cannot set the host name")?;
    loopback_up().context("cannot bring lo up")?;
    load_modules();
    if let Some(model) = preemption() {
        println!("init: preempt {model}");
    }
    let arguments = fs::read_to_string("/etc/live-args").context("cannot read /etc/live-args")?;
    let child = Command::new("/bin/live")
        .args(arguments.lines())
        .env_clear()
        .envs(variables())
        .env("PATH", "/bin")
        .env("HOME", "/root")
        .env("TMPDIR", "/tmp")
        .env("RUST_BACKTRACE", "1")
        .env("ENFORCER_BIN", "/bin/enforcer")
        .env("ENFORCER_POLICIES", "/policies")
        .env("ENFORCER_CONFORMANCE", "/conformance")
        .spawn()
        .context("cannot start /bin/live")?;
    let suite = i32::try_from(child.id()).context("the suite's process id is out of range")?;
    reap_until(Pid::from_raw(suite))
}

/// Makes the first file system an ordinary root and executes the manager as this process.
///
/// Nobody can change the root of a kernel's first file system for another, which the manager does for its services: so it is
/// mounted once more, over itself.
fn become_manager(manager: &Path) -> Result<Infallible> {
    fs::create_dir_all("/proc").context("cannot create /proc")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)
        .context("cannot mount proc")?;
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot read the kernel's release")?;
    println!("init: {}", release.trim());
    load_modules();
    umount("/proc").context("cannot unmount proc")?;
    fs::create_dir_all(ROOT).with_context(|| format!("cannot create {ROOT}"))?;
    mount(Some("/"), ROOT, None::<&str>, MsFlags::MS_BIND, None::<&str>).context("cannot mount the root")?;
    std::env::set_current_dir(ROOT).with_context(|| format!("cannot enter {ROOT}"))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("cannot move the root")?;
    chroot(".").context("cannot change the root")?;
    std::env::set_current_dir("/").context("cannot enter the root")?;
    // Only what a kernel hands to its first process.
    let error = Command::new(manager).env_clear().env("TERM", "linux").exec();
    Err(error).with_context(|| format!("cannot execute {}", manager.display()))
}

/// What the kernel's command line has for the suite: parameters that a kernel does not know become variables of its first
/// process.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars().filter(|(name, _)| name.starts_with("ENFORCER_"))
}

/// When the kernel lets tasks be preempted, in its own word: the one in brackets.
fn preemption() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/debug/sched/preempt").ok()?;
    let (_, rest) = text.split_once('(')?;
    rest.split_once(')').map(|(model, _)| model.to_owned())
}

/// Orphans become children of the first process: all are reaped, the suite's own status is the answer.
fn reap_until(suite: Pid) -> Result<i32> {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == suite => return Ok(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == suite => {
                println!("init: the suite was ended by {signal}");
                // As a shell would count it.
                return Ok(128 + signal as i32);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot wait for the suite"),
        }
    }
}

fn loopback_up() -> Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("cannot make a socket")?;
    // SAFETY: `ifreq` is plain old data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::try_from(*from)?;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
    // SAFETY: the request outlives the call, and SIOCSIFFLAGS reads exactly one `ifreq`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(result)?;
    Ok(())
}

/// Loads what lies in `/modules`, in the order of the names.
///
/// One module less may cost a test, which then says so itself; the machine goes on.
fn load_modules() {
    let Ok(entries) = fs::read_dir("/modules") else { return };
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    for file in files {
        if let Err(error) = load_module(&file) {
            println!("init: module {}: {error:#}", file.display());
        }
    }
}

fn load_module(path: &Path) -> Result<()> {
    let file = File::open(path).context("cannot open")?;
    let flags = if path.extension().is_some_and(|end| end == "ko") { 0 } else { COMPRESSED };
    let parameters = CString::default();
    // SAFETY: the descriptor and the nul-terminated parameters live until the call returns.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), flags) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => bail!("{error}"),
    }
}

/// Ends the machine; what the suite left running goes first so that nothing writes after the last line.
fn power_off() {
    // Nothing left to kill is as good, and a console that takes no more bytes cannot be told about.
    kill(Pid::from_raw(-1), Signal::SIGKILL).ok();
    io::stdout().flush().ok();
    // SAFETY: no arguments but a descriptor that is always open; it waits until the console has sent all.
    unsafe { libc::tcdrain(1) };
    // SAFETY: plain system calls without pointers; the first process has nothing left to lose.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
}
