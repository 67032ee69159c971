//! One `connect(2)` by way of `io_uring`: the smallest ring there is.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::order::Fd;

const SETUP: libc::c_long = 425;
const ENTER: libc::c_long = 426;
const OP_CONNECT: u8 = 16;
const GET_EVENTS: u32 = 1;
const SQES: libc::off_t = 0x1000_0000;
/// Both rings in one mapping; every kernel since 5.4 does so.
const RING_BYTES: usize = 4096;

#[repr(C)]
#[derive(Default)]
struct Offsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    /// Submission: flags, dropped, array. Completion: overflow, entries' offset, flags.
    rest: [u32; 3],
    reserved: u32,
    user: u64,
}

#[repr(C)]
#[derive(Default)]
struct Parameters {
    entries: [u32; 2],
    flags: u32,
    thread: [u32; 2],
    features: u32,
    queue: u32,
    reserved: [u32; 3],
    submission: Offsets,
    completion: Offsets,
}

/// Submits the call and waits for its completion.
pub(super) fn connect(fd: Fd, to: &[u8]) -> io::Result<i64> {
    let mut parameters = Parameters::default();
    // SAFETY: the kernel fills in a struct of the size it expects (120 bytes, asserted below).
    let ring = unsafe { libc::syscall(SETUP, 1_u32, &raw mut parameters) };
    if ring < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    let ring = unsafe { OwnedFd::from_raw_fd(Fd::try_from(ring).unwrap()) };
    let queues = map(&ring, 0)?;
    let entries = map(&ring, SQES)?;
    let mut entry = [0_u8; 64];
    entry[0] = OP_CONNECT;
    entry[4..8].copy_from_slice(&fd.to_ne_bytes());
    // For this operation: the length in the offset's place, the pointer in the address's.
    entry[8..16].copy_from_slice(&(to.len() as u64).to_ne_bytes());
    entry[16..24].copy_from_slice(&(to.as_ptr().addr() as u64).to_ne_bytes());
    let word = |offset: u32| queues.0.wrapping_byte_add(offset as usize).cast::<AtomicU32>();
    // SAFETY: both mappings are a page long and the offsets come from the kernel that made them; the entry is complete
    // before the tail moves, and `to` outlives the call because it waits for the completion.
    unsafe {
        ptr::copy_nonoverlapping(entry.as_ptr(), entries.0.cast(), entry.len());
        (*word(parameters.submission.rest[2])).store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        (*word(parameters.submission.tail)).store(1, Ordering::Release);
        let done =
            libc::syscall(ENTER, ring.as_raw_fd(), 1_u32, 1_u32, GET_EVENTS, ptr::null::<u8>(), 0_usize);
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        fence(Ordering::SeqCst);
        let completions = queues.0.wrapping_byte_add(parameters.completion.rest[1] as usize);
        // user_data is 8 bytes, the result follows.
        let result = completions.wrapping_byte_add(8).cast::<i32>().read();
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result.into()) }
    }
}

/// A page of the ring, unmapped with its owner.
struct Page(*mut libc::c_void);

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping made below, unmapped once.
        unsafe { libc::munmap(self.0, RING_BYTES) };
    }
}

fn map(ring: &OwnedFd, offset: libc::off_t) -> io::Result<Page> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the kernel chooses the place; the descriptor is a ring.
    let page = unsafe {
        libc::mmap(ptr::null_mut(), RING_BYTES, protection, libc::MAP_SHARED, ring.as_raw_fd(), offset)
    };
    if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Page(page)) }
}

const _: () = assert!(size_of::<Parameters>() == 120);
