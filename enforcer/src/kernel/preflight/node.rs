//! The facts of a node.

use std::fs;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use enforcer_common::hook::Hook;

use super::super::{confine, links, query};

/// Where to look: what an agent would be configured with.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Mount point of the cgroup v2 tree, if there is one.
    pub cgroup_root: Option<PathBuf>,
    /// Directory for pins.
    pub pins: PathBuf,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Directory of the state.
    pub state: PathBuf,
    /// Where monitoring would listen.
    pub listen: Option<SocketAddr>,
    /// Bytes that the logs may grow to.
    pub wanted: u64,
}

/// What was found. Texts are as the kernel gives them, without the line's end.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name of the host.
    pub name: String,
    /// Whether this process is root.
    pub root: bool,
    /// Capabilities that an agent keeps and this process has not.
    pub missing_capabilities: Vec<String>,
    /// `net.core.bpf_jit_enable`
    pub jit: Option<String>,
    /// The kernel's own restriction, the one in force in brackets.
    pub lockdown: Option<String>,
    /// `kernel.unprivileged_bpf_disabled`
    pub unprivileged: Option<String>,
    /// Programs at our hooks at the root of the tree, by name and number; those of an agent that runs are left out.
    pub others: Result<Vec<String>, String>,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Whether somebody answers there.
    pub agent_answers: bool,
    /// Directory for pins.
    pub pins: PathBuf,
    /// Whether monitoring could listen.
    pub port: Option<(SocketAddr, Result<(), String>)>,
    /// Directory of the state.
    pub state: PathBuf,
    /// Bytes that are free there.
    pub free: Result<u64, String>,
    /// Bytes that the logs may grow to.
    pub wanted: u64,
    /// Bytes of memory that are available.
    pub memory: Option<u64>,
    /// Sources of workloads whose sockets are there.
    pub runtimes: Vec<String>,
    /// Whether the clock is kept right by somebody; `None` if the kernel does not say.
    pub synchronized: Option<bool>,
}

/// Sockets of runtimes, with the places where they are by default.
const RUNTIMES: [(&str, &str); 5] = [
    ("containerd", "/run/containerd/containerd.sock"),
    ("Docker", "/run/docker.sock"),
    ("CRI-O", "/run/crio/crio.sock"),
    ("Podman", "/run/podman/podman.sock"),
    ("systemd", "/run/systemd/private"),
];

impl Node {
    /// Looks. What is bound or opened for that is closed again.
    pub fn look(asked: Asked) -> Self {
        let Asked { cgroup_root, pins, socket, state, listen, wanted } = asked;
        let others = match &cgroup_root {
            Some(root) => others(root, &pins).map_err(|error| error.to_string()),
            None => Ok(Vec::new()),
        };
        Self {
            name: line("/proc/sys/kernel/hostname").unwrap_or_default(),
            root: nix::unistd::geteuid().is_root(),
            missing_capabilities: confine::missing(),
            jit: line("/proc/sys/net/core/bpf_jit_enable"),
            lockdown: line("/sys/kernel/security/lockdown"),
            unprivileged: line("/proc/sys/kernel/unprivileged_bpf_disabled"),
            others,
            agent_answers: UnixStream::connect(&socket).is_ok(),
            socket,
            pins,
            port: listen.map(|address| {
                let bound = TcpListener::bind(address).map(drop);
                (address, bound.map_err(|error| error.to_string()))
            }),
            free: free(&state).map_err(|error| error.to_string()),
            state,
            wanted,
            memory: memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            runtimes: RUNTIMES
                .iter()
                .filter(|(_, socket)| Path::new(socket).exists())
                .map(|(name, socket)| format!("{name} ({socket})"))
                .collect(),
            synchronized: synchronized(),
        }
    }
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Programs that run at the root of the tree, less those of the agent whose pins are there.
fn others(root: &Path, pins: &Path) -> std::io::Result<Vec<String>> {
    let directory = fs::File::open(root)?;
    let mut found = Vec::new();
    for hook in Hook::ALL.iter().copied().filter(|hook| links::is_cgroup(*hook)) {
        for id in query::programs(directory.as_fd(), links::attach_type(hook), false)? {
            let name = query::program_name(id).unwrap_or_else(|_| "without a name".to_owned());
            // The kernel keeps 15 letters of a name.
            let ours = pins.exists() && hook.program().starts_with(&name);
            if !ours {
                found.push(format!("{name} ({id}) at {}", hook.program()));
            }
        }
    }
    Ok(found)
}

/// Bytes that are free in the nearest folder above that exists.
fn free(path: &Path) -> std::io::Result<u64> {
    let folder = path.ancestors().find(|folder| folder.exists()).unwrap_or(path);
    let found = nix::sys::statvfs::statvfs(folder)?;
    Ok(found.blocks_available().saturating_mul(found.fragment_size()))
}

/// Bytes of `MemAvailable`.
fn memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Whether the kernel knows of somebody who keeps the clock (`adjtimex(2)`).
fn synchronized() -> Option<bool> {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: zeroed `modes` only asks, and the kernel fills the struct, which is made of integers.
    let result = unsafe { libc::adjtimex(state.as_mut_ptr()) };
    // `TIME_ERROR`
    (result >= 0).then_some(result != 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kibibytes() {
        assert_eq!(memory("MemTotal: 9 kB\nMemAvailable:      12 kB\n"), Some(12 << 10));
        assert_eq!(memory("MemTotal: 9 kB\n"), None);
    }
}
