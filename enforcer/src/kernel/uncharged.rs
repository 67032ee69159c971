//! Socket storage that nobody's memory limit counts.
//!
//! The kernel charges what a map grows by to the memory cgroup of whoever made the map (`bpf_map_save_memcg`). Socket
//! storage grows with every socket of every workload: charged to the daemon, workloads could use up its limit, and then no
//! socket could be recorded, so none could be created. So the map is made by a child of the daemon that has moved to the root of the memory
//! controller first, which has no limit. The storage of a socket stays bounded by the option memory that the kernel
//! grants each socket, and the number of sockets by the limits of their owners.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use enforcer_common::abi::identity::SocketIdentity;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::sys;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_TYPE_SK_STORAGE: u32 = 24;
const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_CLONE: u32 = 1 << 9;

/// Makes and pins the socket storage. Where that fails, whoever loads the programs makes it, charged as any other map.
pub(super) fn make(cgroup_root: &Path, pin: &Path) -> io::Result<()> {
    if pin.exists() {
        return Ok(());
    }
    let types = sys::load_btf(&btf())?;
    let root = limitless(cgroup_root)?.join("cgroup.procs");
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from);
    let (root, pin) = (text(&root)?, text(pin)?);
    // SAFETY: the child makes system calls only, with what is prepared above, and ends without running anything else: it
    // may be the copy of a process with several threads.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let code = move_and_make(&root, &types, &pin);
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(_, errno) => Err(io::Error::from_raw_os_error(errno)),
            other => Err(io::Error::other(format!("the child that makes the map ended: {other:?}"))),
        },
    }
}

/// The child's part: 0, or an errno.
fn move_and_make(root: &CString, types: &OwnedFd, pin: &CString) -> i32 {
    match join(root).and_then(|()| create(types)).and_then(|map| sys::pin_at(map, pin)) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
    }
}

/// Moves the calling process.
fn join(procs: &CString) -> io::Result<()> {
    // SAFETY: a path, and a buffer of the length that is told; the descriptor ends with the process.
    let written = unsafe {
        let fd = libc::open(procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        libc::write(fd, c"0".as_ptr().cast(), 1)
    };
    if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The map, as the object declares it. Its descriptor ends with the process.
fn create(types: &OwnedFd) -> io::Result<i32> {
    /// The start of `union bpf_attr` for this command.
    #[repr(C)]
    struct Attr {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
        inner_map_fd: u32,
        numa_node: u32,
        name: [u8; 16],
        ifindex: u32,
        btf_fd: i32,
        btf_key_type_id: u32,
        btf_value_type_id: u32,
    }
    let mut attr = Attr {
        map_type: BPF_MAP_TYPE_SK_STORAGE,
        key_size: 4,
        value_size: VALUE_BYTES,
        max_entries: 0,
        map_flags: BPF_F_NO_PREALLOC | BPF_F_CLONE,
        inner_map_fd: 0,
        numa_node: 0,
        name: *b"SOCKETS\0\0\0\0\0\0\0\0\0",
        ifindex: 0,
        btf_fd: types.as_raw_fd(),
        btf_key_type_id: KEY_TYPE,
        btf_value_type_id: VALUE_TYPE,
    };
    sys::bpf(BPF_MAP_CREATE, &mut attr)
}

#[expect(clippy::cast_possible_truncation, reason = "less than 200")]
const VALUE_BYTES: u32 = size_of::<SocketIdentity>() as u32;

/// Whether this socket storage was made here: its type information is not that of the embedded object.
pub(super) fn is_ours(map: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sys::map_types(map)? == (KEY_TYPE, VALUE_TYPE))
}

/// Numbers of the types in [`btf`].
const KEY_TYPE: u32 = 1;
const VALUE_TYPE: u32 = 3;

/// The types of key and value, which this kind of map must have: `int`, `long`, and an array of `long`s
/// (Documentation/bpf/btf.rst).
fn btf() -> Vec<u8> {
    const INT: u32 = 1 << 24;
    const ARRAY: u32 = 3 << 24;
    const NAMES: &[u8; 10] = b"\0int\0long\0";
    const WORDS: u32 = 14;
    let types: [u32; WORDS as usize] = [
        // Name, kind, bytes, bits; twice.
        1,
        INT,
        4,
        32,
        5,
        INT,
        8,
        64, // No name, kind, no size; of what, numbered by what, how many.
        0,
        ARRAY,
        0,
        2,
        1,
        VALUE_BYTES / 8,
    ];
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&0xeb9f_u16.to_ne_bytes());
    // Version and flags.
    bytes.extend_from_slice(&[1, 0]);
    // Bytes of this header; place and bytes of the types; place and bytes of the names.
    let header = [24, 0, WORDS * 4, WORDS * 4, 10];
    for word in header.iter().chain(&types) {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.extend_from_slice(NAMES);
    bytes
}

/// The root of the memory controller: of cgroup v2, or of its own hierarchy on hosts where v1 still has it.
fn limitless(cgroup_root: &Path) -> io::Result<PathBuf> {
    let controllers = fs::read_to_string(cgroup_root.join("cgroup.controllers"))?;
    if controllers.split_whitespace().any(|controller| controller == "memory") {
        return Ok(cgroup_root.to_path_buf());
    }
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let memory = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup" && options.split(',').any(|option| option == "memory")).then(|| PathBuf::from(path))
    });
    memory.ok_or_else(|| io::Error::other("no memory controller is mounted"))
}
