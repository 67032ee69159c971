//! The few uses of `bpf(2)` that the product has no need for: running programs, reading what the kernel counts of them,
//! and changing maps as fast as possible.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const MAP_DELETE: libc::c_long = 3;
const PROG_LOAD: libc::c_long = 5;
const OBJ_GET: libc::c_long = 7;
const PROG_TEST_RUN: libc::c_long = 10;
const OBJ_GET_INFO: libc::c_long = 15;
const ENABLE_STATS: libc::c_long = 32;
const LINK_DETACH: libc::c_long = 34;
/// `BPF_PROG_TYPE_SCHED_CLS`
const CLASSIFIER: u32 = 3;

/// What one or many runs of a program came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// How often it ran.
    pub count: u64,
    /// Nanoseconds, all runs together.
    pub nanoseconds: u64,
}

/// Calls `bpf(2)` with an attribute of any of its shapes.
fn bpf<T>(command: libc::c_long, attribute: &mut T) -> io::Result<i32> {
    // SAFETY: the attribute is as long as is said and outlives the call; the pointers in it are the callers' business,
    // who are all in this file.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).unwrap_or(0)) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: a new descriptor that nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn address<T>(value: *const T) -> u64 {
    value.addr() as u64
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Has the kernel count the runs of all programs and their time, as long as the descriptor is held (Linux 5.8).
pub fn enable_statistics() -> io::Result<OwnedFd> {
    // The one type there is: run time.
    let mut kind = 0_u32;
    bpf(ENABLE_STATS, &mut kind).map(owned)
}

/// What the kernel has counted of a program.
pub fn runs(program: BorrowedFd<'_>) -> io::Result<Runs> {
    #[repr(C)]
    struct Attribute {
        fd: u32,
        length: u32,
        info: u64,
    }
    // `struct bpf_prog_info` up to `run_cnt`, of linux/bpf.h; the two words in question begin at byte 192.
    const WORDS: usize = 26;
    const RUN_TIME: usize = 24;
    let mut info = [0_u64; WORDS];
    let mut attribute = Attribute {
        fd: raw(program),
        length: u32::try_from(size_of_val(&info)).unwrap_or(0),
        info: address(info.as_mut_ptr()),
    };
    bpf(OBJ_GET_INFO, &mut attribute)?;
    Ok(Runs { nanoseconds: info[RUN_TIME], count: info[RUN_TIME + 1] })
}

/// Runs a program on a packet, which it may change. Gives its return value and the mean time of a run.
pub fn test_run(program: BorrowedFd<'_>, packet: &mut [u8], repeat: u32) -> io::Result<(u32, Duration)> {
    #[repr(C)]
    #[derive(Default)]
    struct Attribute {
        fd: u32,
        result: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        context_sizes: [u32; 2],
        contexts: [u64; 2],
        flags: u32,
        cpu: u32,
        batch: u64,
    }
    let size = u32::try_from(packet.len()).map_err(io::Error::other)?;
    let mut attribute = Attribute {
        fd: raw(program),
        size_in: size,
        size_out: size,
        data_in: address(packet.as_ptr()),
        data_out: address(packet.as_mut_ptr()),
        repeat,
        ..Attribute::default()
    };
    bpf(PROG_TEST_RUN, &mut attribute)?;
    Ok((attribute.result, Duration::from_nanos(attribute.duration.into())))
}

/// A program that does nothing, to be compared with.
pub fn empty_program() -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attribute {
        kind: u32,
        length: u32,
        instructions: u64,
        license: u64,
        log: [u64; 2],
        version: u32,
        flags: u32,
        name: [u8; 16],
    }
    // r0 = 0; exit
    let instructions = [0x0000_00b7_u64, 0x0000_0095];
    let license = c"GPL";
    let mut attribute = Attribute {
        kind: CLASSIFIER,
        length: 2,
        instructions: address(instructions.as_ptr()),
        license: address(license.as_ptr()),
        log: [0; 2],
        version: 0,
        flags: 0,
        name: *b"nothing\0\0\0\0\0\0\0\0\0",
    };
    bpf(PROG_LOAD, &mut attribute).map(owned)
}

/// Detaches a pinned link behind its owner's back: the link stays, and its program is not called any more (Linux 5.9).
pub fn detach(pin: &Path) -> io::Result<()> {
    use std::os::fd::AsFd as _;
    // What is pinned is opened alike.
    let PinnedMap(link) = PinnedMap::open(pin)?;
    let mut attribute = raw(link.as_fd());
    bpf(LINK_DETACH, &mut attribute).map(drop)
}

/// A pinned map.
#[derive(Debug)]
pub struct PinnedMap(OwnedFd);

#[repr(C)]
struct Element {
    fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl PinnedMap {
    /// Opens it.
    pub fn open(pin: &Path) -> io::Result<Self> {
        #[repr(C)]
        struct Attribute {
            path: u64,
            fd: u32,
            flags: u32,
        }
        let path = CString::new(pin.as_os_str().as_bytes())?;
        let mut attribute = Attribute { path: address(path.as_ptr()), fd: 0, flags: 0 };
        bpf(OBJ_GET, &mut attribute).map(|fd| Self(owned(fd)))
    }

    /// Sets the value of a key. Both must have exactly the sizes that the map was made with.
    pub fn set<K: Copy, V: Copy>(&self, key: &K, value: &V) -> io::Result<()> {
        let value = address(std::ptr::from_ref(value));
        bpf(MAP_UPDATE, &mut self.element(key, value)).map(drop)
    }

    /// The value of a key, if it has one. Both must have exactly the sizes that the map was made with.
    pub fn get<K: Copy, V: Copy + Default>(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::default();
        let place = address(std::ptr::from_mut(&mut value).cast_const());
        match bpf(MAP_LOOKUP, &mut self.element(key, place)) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a key; one that is not there is removed already.
    pub fn remove<K: Copy>(&self, key: &K) -> io::Result<()> {
        match bpf(MAP_DELETE, &mut self.element(key, 0)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn element<K>(&self, key: &K, value: u64) -> Element {
        use std::os::fd::AsFd as _;
        Element {
            fd: raw(self.0.as_fd()),
            reserved: 0,
            key: address(std::ptr::from_ref(key)),
            value,
            flags: 0,
        }
    }
}
