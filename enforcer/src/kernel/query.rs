//! Questions about BPF objects that aya does not ask.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use super::sys::bpf;

const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
/// `BPF_F_QUERY_EFFECTIVE`: what really runs for a directory, that of the directories above included.
const EFFECTIVE: u32 = 1;
/// Programs of one hook that are listed for a directory.
const PROGRAMS: usize = 256;
/// Where `struct bpf_prog_info` has the name.
const NAME: usize = 64;
/// `BPF_OBJ_NAME_LEN`
const NAME_LENGTH: usize = 16;

/// The id of a map, link or program.
pub(super) fn object_id(object: BorrowedFd<'_>) -> io::Result<u32> {
    // Each of the three begins with its type and its id.
    let mut info = [0_u32; 2];
    inspect(object, &mut info)?;
    Ok(info[1])
}

/// Ids of the programs of one attach type at a directory, in the order in which they run.
pub(super) fn programs(directory: BorrowedFd<'_>, attach_type: u32, effective: bool) -> io::Result<Vec<u32>> {
    #[repr(C)]
    struct Attr {
        target_fd: i32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        padding: u32,
    }
    let mut ids = vec![0_u32; PROGRAMS];
    let mut attr = Attr {
        target_fd: directory.as_raw_fd(),
        attach_type,
        query_flags: if effective { EFFECTIVE } else { 0 },
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr().addr() as u64,
        prog_cnt: u32::try_from(PROGRAMS).unwrap_or(0),
        padding: 0,
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    ids.truncate(usize::try_from(attr.prog_cnt).unwrap_or(0));
    Ok(ids)
}

/// The name of a loaded program.
pub(super) fn program_name(id: u32) -> io::Result<String> {
    #[repr(C)]
    struct Attr {
        prog_id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut Attr { prog_id: id, next_id: 0, open_flags: 0 })?;
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nothing else owns.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = [0_u64; (NAME + NAME_LENGTH) / size_of::<u64>()];
    inspect(std::os::fd::AsFd::as_fd(&program), &mut info)?;
    let bytes: Vec<u8> = info[NAME / size_of::<u64>()..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Fills the beginning of an object's description.
fn inspect<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        bpf_fd: i32,
        info_len: u32,
        info: u64,
    }
    let mut attr = Attr {
        bpf_fd: object.as_raw_fd(),
        info_len: u32::try_from(size_of::<T>()).unwrap_or(0),
        info: std::ptr::from_mut(info).addr() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}
