//! Sockets as hostile programs use them: every call with raw bytes, and the one `unsafe` block that it needs.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::time::Duration;

use crate::patience;

/// A socket; closed when dropped.
#[derive(Debug)]
pub struct Socket(OwnedFd);

/// How long a call of a vector may block.
pub(super) fn limit() -> Duration {
    Duration::from_millis(if patience::is_emulated() { 800 } else { 200 })
}

impl Socket {
    /// `socket(2)`; calls on it block briefly.
    pub fn new(domain: i32, kind: i32, protocol: i32) -> io::Result<Self> {
        let socket = Self::bare(domain, kind, protocol)?;
        socket.patience(limit())?;
        Ok(socket)
    }

    /// `socket(2)` and nothing else.
    pub fn bare(domain: i32, kind: i32, protocol: i32) -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) })?;
        // SAFETY: a new descriptor that nothing else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes over a descriptor.
    pub fn from_owned(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Hands the descriptor over.
    pub fn into_owned(self) -> OwnedFd {
        self.0
    }

    /// Its number.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// How long calls may block.
    pub fn patience(&self, limit: Duration) -> io::Result<()> {
        let value = libc::timeval {
            tv_sec: libc::time_t::try_from(limit.as_secs()).map_err(io::Error::other)?,
            tv_usec: limit.subsec_micros().into(),
        };
        self.set(libc::SOL_SOCKET, libc::SO_SNDTIMEO, &value)?;
        self.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &value)
    }

    /// `bind(2)`
    pub fn bind(&self, to: &[u8]) -> io::Result<()> {
        // SAFETY: pointer and length of one live slice.
        check(unsafe { libc::bind(self.fd(), to.as_ptr().cast(), length(to)) }).map(drop)
    }

    /// `listen(2)`
    pub fn listen(&self) -> io::Result<()> {
        // SAFETY: no pointers.
        check(unsafe { libc::listen(self.fd(), 64) }).map(drop)
    }

    /// `accept(2)`
    pub fn accept(&self) -> io::Result<Self> {
        let (none, size) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: null addresses mean that none is wanted.
        let fd = check(unsafe { libc::accept4(self.fd(), none, size, libc::SOCK_CLOEXEC) })?;
        // SAFETY: a new descriptor that nothing else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// `connect(2)`
    pub fn connect(&self, to: &[u8]) -> io::Result<()> {
        // SAFETY: pointer and length of one live slice.
        check(unsafe { libc::connect(self.fd(), to.as_ptr().cast(), length(to)) }).map(drop)
    }

    /// `send(2)`
    pub fn send(&self, data: &[u8]) -> io::Result<()> {
        self.message(None, data, &[], 0)
    }

    /// `sendto(2)`
    pub fn send_to(&self, to: &[u8], data: &[u8]) -> io::Result<()> {
        self.message(Some(to), data, &[], 0)
    }

    /// `sendmsg(2)` with ancillary data and flags.
    pub fn message(&self, to: Option<&[u8]>, data: &[u8], control: &[u8], flags: i32) -> io::Result<()> {
        let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        let header = header(to, &mut part, control);
        // SAFETY: the header points into slices that outlive the call, which only reads.
        let sent = unsafe { libc::sendmsg(self.fd(), &raw const header, flags | libc::MSG_NOSIGNAL) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// `sendmmsg(2)`: the same data to each.
    pub fn messages(&self, to: &[Vec<u8>], data: &[u8]) -> io::Result<()> {
        let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        let header = |to: &Vec<u8>| libc::mmsghdr { msg_hdr: header(Some(to), &mut part, &[]), msg_len: 0 };
        let mut headers: Vec<_> = to.iter().map(header).collect();
        let count = u32::try_from(headers.len()).map_err(io::Error::other)?;
        // SAFETY: as many headers as `count` says; what they point to outlives the call.
        check(unsafe { libc::sendmmsg(self.fd(), headers.as_mut_ptr(), count, 0) }).map(drop)
    }

    /// `recv(2)`: what came.
    pub fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0_u8; 2048];
        // SAFETY: pointer and length of one live buffer.
        let taken = unsafe { libc::recv(self.fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let taken = usize::try_from(taken).map_err(|_| io::Error::last_os_error())?;
        buffer.truncate(taken);
        Ok(buffer)
    }

    /// `setsockopt(2)` with a value of the kernel's layout.
    pub fn set<T>(&self, level: i32, name: i32, value: &T) -> io::Result<()> {
        let size = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
        let pointer = std::ptr::from_ref(value).cast();
        // SAFETY: pointer and size of one live value.
        check(unsafe { libc::setsockopt(self.fd(), level, name, pointer, size) }).map(drop)
    }

    /// `setsockopt(2)` with bytes.
    pub fn set_bytes(&self, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
        // SAFETY: pointer and length of one live slice.
        let result =
            unsafe { libc::setsockopt(self.fd(), level, name, value.as_ptr().cast(), length(value)) };
        check(result).map(drop)
    }

    /// The port of its own end.
    pub fn port(&self) -> io::Result<u16> {
        Ok(crate::sockaddr::port(&self.name()?))
    }

    /// The port of its own end, of the family for virtual machines.
    pub fn vsock_port(&self) -> io::Result<u32> {
        let [_, _, _, _, a, b, c, d, ..] = self.name()?;
        Ok(u32::from_ne_bytes([a, b, c, d]))
    }

    fn name(&self) -> io::Result<[u8; 128]> {
        let mut data = [0_u8; 128];
        let mut size = length(&data);
        // SAFETY: the buffer is as large as `size` says, and both live until the call returns.
        check(unsafe { libc::getsockname(self.fd(), data.as_mut_ptr().cast(), &raw mut size) })?;
        Ok(data)
    }
}

/// A message header over borrowed parts.
pub(super) fn header(to: Option<&[u8]>, part: &mut libc::iovec, control: &[u8]) -> libc::msghdr {
    // SAFETY: all zeros is a valid, empty header.
    let mut header: libc::msghdr = unsafe { zeroed() };
    if let Some(to) = to {
        header.msg_name = to.as_ptr().cast_mut().cast();
        header.msg_namelen = length(to);
    }
    if !control.is_empty() {
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len() as _;
    }
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header
}

/// One ancillary message.
pub fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let head = size_of::<libc::cmsghdr>();
    let mut bytes = (head + data.len()).to_ne_bytes().to_vec();
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// The number of a device of this thread's namespace.
pub fn device(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: a nul-terminated name that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn length(bytes: &[u8]) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes.len()).unwrap_or(0)
}
