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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seeded {
    /// Sockets whose holder was recorded as their creator.
    pub recorded: u64,
    /// Descriptors that could not be looked at; sockets among them count as nobody's until they are opened anew.
    pub failed: u64,
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
    let descriptors = match fs::read_dir(process.join("fd")) {
        Ok(descriptors) => descriptors,
        Err(error) => {
            seeded.failed += u64::from(error.kind() == io::ErrorKind::PermissionDenied);
            return;
        }
    };
    let mut numbers: Vec<i32> = Vec::new();
    for entry in descriptors.filter_map(Result::ok) {
        match fs::read_link(entry.path()) {
            Ok(to) if to.as_os_str().as_encoded_bytes().starts_with(b"socket:") => {
                numbers.extend(entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
            }
            // It may be a socket.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => seeded.failed += 1,
            _ => {}
        }
    }
    if numbers.is_empty() {
        return;
    }
    let Ok(handle) = sys::open_process(pid) else { return };
    for number in numbers {
        let result = sys::duplicate_from(handle.as_fd(), number)
            .map(|socket| sockets.insert(&socket, identity, NO_EXIST));
        match result {
            Ok(Ok(())) => seeded.recorded += 1,
            Ok(Err(error)) if is_no_failure(&error) => {}
            // Closed meanwhile.
            Err(error)
                if error.raw_os_error() == Some(libc::EBADF) || error.raw_os_error() == Some(libc::ESRCH) => {
            }
            Ok(Err(_)) | Err(_) => seeded.failed += 1,
        }
    }
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
