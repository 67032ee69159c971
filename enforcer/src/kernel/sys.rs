//! The few system calls that aya does not offer, and what it takes to make them.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::statfs::statfs;

use super::error::Error;

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_BTF_LOAD: libc::c_long = 18;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
/// `BPF_FS_MAGIC` (linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Raises the limit of locked memory where that is allowed. A refusal is harmless: kernels since 5.11 charge BPF memory
/// to the memory cgroup instead.
pub(super) fn ignore_memlock_limit() {
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        tracing::debug!(%error, "the limit of locked memory stays as it is");
    }
}

/// Whether pins can live below this directory.
pub(super) fn require_bpffs(directory: &Path) -> Result<(), Error> {
    match statfs(directory) {
        Ok(stat) if stat.filesystem_type().0 == BPF_FS_MAGIC => Ok(()),
        Ok(_) | Err(nix::errno::Errno::ENOENT) => Err(Error::NoBpffs { path: directory.to_path_buf() }),
        Err(errno) => {
            Err(Error::Io { operation: "inspect", path: directory.to_path_buf(), source: errno.into() })
        }
    }
}

/// `BPF_LINK_TYPE_CGROUP`
pub(super) const CGROUP_LINK: u32 = 3;

/// What the kernel says of a cgroup link.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkInfo {
    /// Kind of link, a `BPF_LINK_TYPE_` number; only [`CGROUP_LINK`] has a directory and an attach type here.
    pub(super) kind: u32,
    /// Where in the kernel it is attached, a `bpf_attach_type` number.
    pub(super) attach_type: u32,
    /// Id of the attached program.
    pub(super) program: u32,
    /// Id of the directory; 0 when the link is detached because the directory is gone.
    pub(super) cgroup: u64,
}

/// Opens a pinned object (`BPF_OBJ_GET`).
pub(super) fn open_pin(pin: &Path) -> Result<OwnedFd, Error> {
    #[repr(C)]
    struct Attr {
        pathname: u64,
        bpf_fd: u32,
        file_flags: u32,
    }
    let failed = |source: io::Error| Error::Io { operation: "open the pin", path: pin.to_path_buf(), source };
    let path = CString::new(pin.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    let mut attr = Attr { pathname: path.as_ptr().addr() as u64, bpf_fd: 0, file_flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &mut attr).map_err(failed)?;
    owned(fd.into()).map_err(failed)
}

/// Pins an object (`BPF_OBJ_PIN`).
pub(super) fn pin(object: BorrowedFd<'_>, pin: &Path) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Io { operation: "pin at", path: pin.to_path_buf(), source };
    let path = CString::new(pin.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    pin_at(object.as_raw_fd(), &path).map_err(failed)
}

/// As [`pin`], without making anything but the system call.
pub(super) fn pin_at(object: i32, path: &CStr) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        pathname: u64,
        bpf_fd: i32,
        file_flags: u32,
    }
    let mut attr = Attr { pathname: path.as_ptr().addr() as u64, bpf_fd: object, file_flags: 0 };
    bpf(BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Loads type information (`BPF_BTF_LOAD`).
pub(super) fn load_btf(types: &[u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        btf: u64,
        btf_log_buf: u64,
        btf_size: u32,
        btf_log_size: u32,
        btf_log_level: u32,
    }
    let mut attr = Attr {
        btf: types.as_ptr().addr() as u64,
        btf_log_buf: 0,
        btf_size: u32::try_from(types.len()).unwrap_or(0),
        btf_log_size: 0,
        btf_log_level: 0,
    };
    owned(bpf(BPF_BTF_LOAD, &mut attr)?.into())
}

/// Attaches a program to a directory of the cgroup tree by a link (`BPF_LINK_CREATE`). Links leave room for other
/// programs by nature.
pub(super) fn attach(
    program: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    attach_type: u32,
    path: &Path,
) -> Result<OwnedFd, Error> {
    #[repr(C)]
    struct Attr {
        prog_fd: i32,
        target_fd: i32,
        attach_type: u32,
        flags: u32,
    }
    let failed = |source| Error::Io { operation: "attach to", path: path.to_path_buf(), source };
    let mut attr =
        Attr { prog_fd: program.as_raw_fd(), target_fd: directory.as_raw_fd(), attach_type, flags: 0 };
    let fd = bpf(BPF_LINK_CREATE, &mut attr).map_err(failed)?;
    owned(fd.into()).map_err(failed)
}

/// Puts another program into a link, atomically (`BPF_LINK_UPDATE`).
pub(super) fn replace_program(
    link: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    pin: &Path,
) -> Result<(), Error> {
    #[repr(C)]
    struct Attr {
        link_fd: i32,
        new_prog_fd: i32,
        flags: u32,
        old_prog_fd: u32,
    }
    let mut attr =
        Attr { link_fd: link.as_raw_fd(), new_prog_fd: program.as_raw_fd(), flags: 0, old_prog_fd: 0 };
    bpf(BPF_LINK_UPDATE, &mut attr).map(drop).map_err(|source| Error::Io {
        operation: "replace the program of",
        path: pin.to_path_buf(),
        source,
    })
}

/// Asks the kernel about a cgroup link (`BPF_OBJ_GET_INFO_BY_FD`).
pub(super) fn link_info(link: BorrowedFd<'_>, pin: &Path) -> Result<LinkInfo, Error> {
    /// The start of `struct bpf_link_info`, cgroup variant.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        prog_id: u32,
        padding: u32,
        cgroup_id: u64,
        attach_type: u32,
        padding2: u32,
    }
    let info: Info = object_info(link).map_err(|source| Error::Io {
        operation: "inspect the link",
        path: pin.to_path_buf(),
        source,
    })?;
    let Info { kind, prog_id: program, cgroup_id: cgroup, attach_type, .. } = info;
    Ok(LinkInfo { kind, attach_type, program, cgroup })
}

/// The numbers of the types of a map's keys and values, in its own type information; 0 for none.
pub(super) fn map_types(map: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    /// The start of `struct bpf_map_info`.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        /// Kind, id, sizes, flags, name, device.
        head: [u32; 12],
        namespace: [u64; 2],
        btf: u32,
        key: u32,
        value: u32,
        padding: u32,
    }
    let info: Info = object_info(map)?;
    Ok((info.key, info.value))
}

/// What the kernel tells of a link, map or program. `T` is the start of its `struct bpf_..._info`, of integers only: the
/// kernel writes no more than its size.
fn object_info<T: Default>(object: BorrowedFd<'_>) -> io::Result<T> {
    #[repr(C)]
    struct Attr {
        bpf_fd: i32,
        info_len: u32,
        info: u64,
    }
    let mut info = T::default();
    let mut attr = Attr {
        bpf_fd: object.as_raw_fd(),
        info_len: u32::try_from(size_of::<T>()).unwrap_or(0),
        info: (&raw mut info).addr() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

/// A handle on a process that can't come to mean another one (`pidfd_open(2)`).
pub(super) fn open_process(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(fd)
}

/// A duplicate of another process's descriptor (`pidfd_getfd(2)`).
pub(super) fn duplicate_from(process: BorrowedFd<'_>, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes an open descriptor and plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    owned(fd)
}

/// Eight random bytes (`getrandom(2)`).
pub(super) fn random() -> io::Result<u64> {
    let mut bytes = [0_u8; 8];
    // SAFETY: as many writable bytes as are asked for.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // Up to 256 bytes are never delivered in part.
    if count == 8 { Ok(u64::from_ne_bytes(bytes)) } else { Err(io::Error::last_os_error()) }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the system call succeeded, so `fd` is a new descriptor that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The `bpf(2)` system call.
pub(super) fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is a live, exclusively borrowed struct whose size is passed along; pointers inside it outlive the
    // call because their owners do in every caller above.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}
