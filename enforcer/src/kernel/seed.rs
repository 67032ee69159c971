//! Sockets from before enforcer: `sock_create` never saw them, so their creators are recorded afterwards.
//!
//! Runs once, after the hooks were attached for the first time. Every socket that a process holds gets the cgroup of
//! that process, unless the hook has recorded its creator meanwhile. A socket that was passed on before counts for a
//! process that holds it: the creator is not known any more.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aya::Ebpf;
use aya::maps::{MapData, MapError, SkStorage};
use enforcer_common::abi::identity::{DecidedFlow, Role, SocketIdentity};
use enforcer_common::limits::{CGROUP_DEPTH, FLOWS_PER_SOCKET};

use super::error::Error;
use super::sys;

/// `BPF_NOEXIST`: what the hook recorded is better than what is found here.
const NO_EXIST: u64 = 1;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    /// Sockets whose holder was recorded as their creator.
    pub recorded: u64,
    /// Descriptors that could not be looked at; who made sockets among them is not recorded until they are opened anew.
    pub failed: u64,
    /// Processes that hold them.
    pub processes: u64,
    /// The first of these, with what the kernel said.
    pub first: Option<String>,
}

impl Seeded {
    /// What could not be looked at, and what to do; `None` if nothing.
    pub fn complaint(&self) -> Option<String> {
        let first = self.first.as_deref().filter(|_| self.failed > 0)?;
        Some(format!(
            "{} descriptors of {} processes from before could not be looked at (the first: {first}): who made sockets \
             among them is not recorded until they are opened anew. With CAP_SYS_PTRACE only a security module or another user \
             namespace keeps a process from being looked at; restart those that talk with workloads",
            self.failed, self.processes
        ))
    }
}

/// Records the holders of all sockets that are open now.
pub(super) fn seed(ebpf: &mut Ebpf, cgroup_root: &Path) -> Result<Seeded, Error> {
    let map = ebpf.map_mut("SOCKETS").ok_or(Error::MissingMap("SOCKETS"))?;
    let mut sockets = SkStorage::<_, SocketIdentity>::try_from(map).map_err(Error::map("open", "SOCKETS"))?;
    let path = Path::new("/proc");
    let processes =
        fs::read_dir(path).map_err(|source| Error::Io { operation: "list", path: path.into(), source })?;
    let mut seeded = Seeded::default();
    let mut chains = HashMap::new();
    for process in processes.filter_map(Result::ok) {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process may end at any moment; then its sockets are gone, or somebody else's.
        let Some(cgroup) = cgroup_of(&process.path()) else { continue };
        let identity = *chains.entry(cgroup).or_insert_with_key(|cgroup| chain(cgroup_root, cgroup));
        seed_process(&mut sockets, &process.path(), pid, &identity, &mut seeded);
    }
    Ok(seeded)
}

fn seed_process(
    sockets: &mut SkStorage<&mut MapData, SocketIdentity>,
    process: &Path,
    pid: i32,
    identity: &SocketIdentity,
    seeded: &mut Seeded,
) {
    let mut failures = Vec::new();
    let numbers = sockets_of(process, &mut failures);
    // Without one the process has ended, and its sockets with it.
    let handle = if numbers.is_empty() { None } else { sys::open_process(pid).ok() };
    for (number, handle) in numbers.into_iter().filter_map(|number| Some((number, handle.as_ref()?))) {
        let result = sys::duplicate_from(handle.as_fd(), number)
            .map(|socket| sockets.insert(&socket, identity, NO_EXIST));
        match result {
            Ok(Ok(())) => seeded.recorded += 1,
            Ok(Err(error)) if is_no_failure(&error) => {}
            // Closed meanwhile.
            Err(error)
                if error.raw_os_error() == Some(libc::EBADF) || error.raw_os_error() == Some(libc::ESRCH) => {
            }
            Ok(Err(error)) => failures.push(error.to_string()),
            Err(error) => failures.push(error.to_string()),
        }
    }
    let Some(first) = failures.first() else { return };
    seeded.failed += failures.len() as u64;
    seeded.processes += 1;
    seeded.first.get_or_insert_with(|| {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        format!("process {pid}, {}: {first}", name.trim())
    });
}

/// Numbers of the descriptors that are sockets; each that is kept secret is a failure, because it may be one.
fn sockets_of(process: &Path, failures: &mut Vec<String>) -> Vec<i32> {
    let mut refused = |error: io::Error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            failures.push(error.to_string());
        }
    };
    let descriptors = match fs::read_dir(process.join("fd")) {
        Ok(descriptors) => descriptors,
        Err(error) => {
            refused(error);
            return Vec::new();
        }
    };
    let mut numbers = Vec::new();
    for entry in descriptors.filter_map(Result::ok) {
        match fs::read_link(entry.path()) {
            Ok(to) if to.as_os_str().as_encoded_bytes().starts_with(b"socket:") => {
                numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
            }
            Ok(_) => {}
            Err(error) => refused(error),
        }
    }
    numbers
}

/// Recorded already, or a kind of socket without storage.
fn is_no_failure(error: &MapError) -> bool {
    let MapError::SyscallError(error) = error else { return false };
    matches!(io::Error::raw_os_error(&error.io_error), Some(libc::EEXIST | libc::EOPNOTSUPP | 524))
}

/// The path of a process in the cgroup v2 tree, `/`-led.
fn cgroup_of(process: &Path) -> Option<String> {
    let table = fs::read_to_string(process.join("cgroup")).ok()?;
    table.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// The chain of directory ids that `sock_create` would have recorded.
fn chain(root: &Path, cgroup: &str) -> SocketIdentity {
    let mut identity = SocketIdentity {
        cgroups: [0; CGROUP_DEPTH],
        leaf: id(root).unwrap_or(0),
        found: 0,
        role: Role::Unknown as u64,
        flows: [DecidedFlow { flow: 0, seal: 0, parties: 0 }; FLOWS_PER_SOCKET],
        flow_count: 0,
        began: 0,
    };
    let mut path = root.to_path_buf();
    for (level, part) in cgroup.split('/').filter(|part| !part.is_empty()).enumerate() {
        path.push(part);
        let Some(id) = id(&path) else { break };
        identity.leaf = id;
        if let Some(slot) = identity.cgroups.get_mut(level) {
            *slot = id;
        }
    }
    identity
}

fn id(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_names_who_and_why() {
        assert_eq!(Seeded { recorded: 3, ..Seeded::default() }.complaint(), None);
        let first = Some("process 1, systemd: Permission denied (os error 13)".to_owned());
        let told = Seeded { recorded: 3, failed: 264, processes: 1, first }.complaint().unwrap();
        assert!(told.starts_with("264 descriptors of 1 processes from before"), "{told}");
        assert!(told.contains("(the first: process 1, systemd: Permission denied"), "{told}");
    }

    #[test]
    fn descriptors_that_are_sockets_are_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut failures = Vec::new();
        let numbers = sockets_of(Path::new("/proc/self"), &mut failures);
        assert!(numbers.contains(&std::os::fd::AsRawFd::as_raw_fd(&socket)), "{numbers:?}");
        assert_eq!(failures, Vec::<String>::new());
    }

    #[test]
    fn chains_run_from_the_outermost_level_inwards() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        let found = chain(root.path(), "/a/b");
        assert_eq!(found.cgroups[0], id(&root.path().join("a")).unwrap());
        assert_eq!(found.cgroups[1], id(&root.path().join("a/b")).unwrap());
        assert_eq!(found.cgroups[2], 0);
        assert_eq!(found.leaf, found.cgroups[1]);
        assert_eq!(chain(root.path(), "/").leaf, id(root.path()).unwrap());
    }
}
