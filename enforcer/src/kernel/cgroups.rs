//! From the id of a cgroup to its directory and to those above it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use enforcer_common::limits::CGROUP_DEPTH;

/// `FILEID_KERNFS` (linux/exportfs.h): the handle is the id of the node, 64 bits.
const FILEID_KERNFS: libc::c_int = 0xfe;

/// The cgroup v2 tree, asked by id.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    mount: File,
}

impl Tree {
    /// The tree mounted here.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        Ok(Self { root: root.to_owned(), mount: File::open(root)? })
    }

    /// Opens the directory with this id. Needs `CAP_DAC_READ_SEARCH`; a directory that is gone is an error.
    pub(super) fn directory(&self, id: u64) -> io::Result<OwnedFd> {
        #[repr(C)]
        struct Handle {
            bytes: libc::c_uint,
            kind: libc::c_int,
            // Not a `u64`: the kernel's struct has no padding here.
            id: [u8; 8],
        }
        let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: id.to_ne_bytes() };
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: an open descriptor, and a handle as long as it says, which lives until the call returns.
        let fd = unsafe {
            libc::syscall(libc::SYS_open_by_handle_at, self.mount.as_raw_fd(), &raw mut handle, flags)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the system call succeeded, so `fd` is a new descriptor that nothing else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The path of an open directory of this tree.
    pub(super) fn path(directory: impl AsFd) -> io::Result<PathBuf> {
        fs::read_link(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()))
    }

    /// The ids of a directory and those above it, as socket storage has them: from the outermost below the root
    /// inwards, 0 beyond the innermost.
    pub(super) fn chain(&self, id: u64) -> io::Result<[u64; CGROUP_DEPTH]> {
        let path = Self::path(self.directory(id)?)?;
        let inner = path.strip_prefix(&self.root).map_err(io::Error::other)?;
        let mut chain = [0; CGROUP_DEPTH];
        let mut path = self.root.clone();
        for (slot, part) in chain.iter_mut().zip(inner) {
            path.push(part);
            *slot = fs::metadata(&path)?.ino();
        }
        Ok(chain)
    }
}

/// Chains by the id of their innermost directory, as long as one pass lasts.
#[derive(Debug)]
pub(super) struct Chains<'a> {
    tree: &'a Tree,
    known: HashMap<u64, Option<[u64; CGROUP_DEPTH]>>,
}

impl<'a> Chains<'a> {
    pub(super) fn of(tree: &'a Tree) -> Self {
        Self { tree, known: HashMap::new() }
    }

    /// The chain of a directory, `None` if it is gone.
    pub(super) fn chain(&mut self, id: u64) -> Option<[u64; CGROUP_DEPTH]> {
        *self.known.entry(id).or_insert_with(|| self.tree.chain(id).ok())
    }
}
