//! One operation by way of `io_uring`: at once, by a worker thread, or by the kernel's polling thread.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

use super::sys::{Socket, header, limit};

const SETUP: libc::c_long = 425;
const ENTER: libc::c_long = 426;
const WAKE_UP: u32 = 2;
const SQES: libc::off_t = 0x1000_0000;
/// Both rings in one mapping; every kernel since 5.4 does so.
const RING_BYTES: usize = 4096;

/// Who performs the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The caller.
    Caller,
    /// A worker thread.
    Worker,
    /// The thread that looks for submissions itself.
    Poller,
}

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
    /// Processor and milliseconds of idleness of the polling thread.
    thread: [u32; 2],
    features: u32,
    queue: u32,
    reserved: [u32; 3],
    submission: Offsets,
    completion: Offsets,
}

/// The fields of a submission that differ between operations.
struct Entry {
    operation: u8,
    fd: i32,
    offset: u64,
    address: u64,
    length: u32,
    /// Length and place of an option's value.
    value: (u32, u64),
}

/// `connect(2)`
pub fn connect(by: By, fd: RawFd, to: &[u8]) -> io::Result<()> {
    let (offset, address) = (to.len() as u64, to.as_ptr().addr() as u64);
    perform(by, &Entry { operation: 16, fd, offset, address, length: 0, value: (0, 0) }).map(drop)
}

/// `sendmsg(2)`
pub fn send(by: By, socket: &Socket, to: &[u8], data: &[u8]) -> io::Result<()> {
    let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let header = header(Some(to), &mut part, &[]);
    let address = (&raw const header).addr() as u64;
    perform(by, &Entry { operation: 9, fd: socket.fd(), offset: 0, address, length: 1, value: (0, 0) })
        .map(drop)
}

/// `socket(2)`
pub fn socket(by: By, domain: i32, kind: i32, protocol: i32) -> io::Result<Socket> {
    let offset = u64::try_from(kind).map_err(io::Error::other)?;
    let length = u32::try_from(protocol).map_err(io::Error::other)?;
    let fd = perform(by, &Entry { operation: 45, fd: domain, offset, address: 0, length, value: (0, 0) })?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(Socket::from_owned(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// `setsockopt(2)` with a number (kernels from 6.7 on).
pub fn set_option(by: By, socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    const SET_OPTION: u64 = 3;
    // The option's level and name share the place of an address.
    let address = u64::from(level.cast_unsigned()) | u64::from(name.cast_unsigned()) << 32;
    let value = (4, (&raw const value).addr() as u64);
    perform(by, &Entry { operation: 46, fd: socket.fd(), offset: SET_OPTION, address, length: 0, value })
        .map(drop)
}

fn perform(by: By, entry: &Entry) -> io::Result<i32> {
    const POLLED: u32 = 2;
    let mut parameters = Parameters::default();
    if by == By::Poller {
        parameters.flags = POLLED;
        parameters.thread = [0, 50];
    }
    // SAFETY: the kernel fills in a struct of the size it expects (120 bytes, asserted below).
    let ring = unsafe { libc::syscall(SETUP, 1_u32, &raw mut parameters) };
    if ring < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nothing else owns.
    let ring = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(ring).map_err(io::Error::other)?) };
    let (queues, entries) = (Page::map(&ring, 0)?, Page::map(&ring, SQES)?);
    let bytes = encoded(by, entry);
    let word = |offset: u32| queues.0.wrapping_byte_add(offset as usize).cast::<AtomicU32>();
    // SAFETY: both mappings are a page long and the offsets come from the kernel that made them; the entry is complete
    // before the tail moves, and what it points to outlives the call because it waits for the completion.
    unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr(), entries.0.cast(), bytes.len());
        (*word(parameters.submission.rest[2])).store(0, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        (*word(parameters.submission.tail)).store(1, Ordering::SeqCst);
        let flags = if by == By::Poller { WAKE_UP } else { 0 };
        let done = libc::syscall(ENTER, ring.as_raw_fd(), 1_u32, 0_u32, flags, ptr::null::<u8>(), 0_usize);
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        // An attempt that nobody answers is given up; closing the ring cancels it.
        let deadline = Instant::now() + limit();
        while (*word(parameters.completion.tail)).load(Ordering::SeqCst) == 0 {
            if Instant::now() > deadline {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        fence(Ordering::SeqCst);
        let completions = queues.0.wrapping_byte_add(parameters.completion.rest[1] as usize);
        // user_data is 8 bytes, the result follows.
        let result = completions.wrapping_byte_add(8).cast::<i32>().read();
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
    }
}

fn encoded(by: By, entry: &Entry) -> [u8; 64] {
    const ASYNC: u8 = 1 << 4;
    let mut bytes = [0_u8; 64];
    bytes[0] = entry.operation;
    bytes[1] = if by == By::Worker { ASYNC } else { 0 };
    bytes[4..8].copy_from_slice(&entry.fd.to_ne_bytes());
    bytes[8..16].copy_from_slice(&entry.offset.to_ne_bytes());
    bytes[16..24].copy_from_slice(&entry.address.to_ne_bytes());
    bytes[24..28].copy_from_slice(&entry.length.to_ne_bytes());
    bytes[44..48].copy_from_slice(&entry.value.0.to_ne_bytes());
    bytes[48..56].copy_from_slice(&entry.value.1.to_ne_bytes());
    bytes
}

/// A page of the ring, unmapped with its owner.
struct Page(*mut libc::c_void);

impl Page {
    fn map(ring: &OwnedFd, offset: libc::off_t) -> io::Result<Self> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: the kernel chooses the place; the descriptor is a ring.
        let page =
            unsafe { libc::mmap(ptr::null_mut(), RING_BYTES, protection, flags, ring.as_raw_fd(), offset) };
        if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(page)) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping made above, unmapped once.
        unsafe { libc::munmap(self.0, RING_BYTES) };
    }
}

const _: () = assert!(size_of::<Parameters>() == 120);
