//! Programs of somebody else on the same cgroups, made of bare instructions; and our own links taken away.

use std::ffi::CString;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::Family;

const PROG_LOAD: libc::c_long = 5;
const OBJ_GET: libc::c_long = 7;
const PROG_ATTACH: libc::c_long = 8;
const LINK_CREATE: libc::c_long = 28;
const LINK_DETACH: libc::c_long = 34;

/// What a foreign program does with a connect.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    /// Lets it pass, and forgets that anybody refused it.
    Overturn,
    /// Lets it pass.
    Allow,
    /// Sends it elsewhere.
    Redirect(IpAddr),
}

/// How it is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// By a link.
    Link,
    /// By a link, before the programs of inner directories (kernels from 6.15 on).
    LinkFirst,
    /// By the old call, in the place of an outer program.
    Override,
}

/// An attached program. Detached when dropped, or with its cgroup.
#[derive(Debug)]
pub struct Foreign {
    _held: OwnedFd,
}

impl Foreign {
    /// Attaches a program to the connects of a family.
    pub fn attach(cgroup: &Path, family: Family, deed: Deed, how: Attachment) -> io::Result<Self> {
        let kind = if family == Family::V4 { 10 } else { 11 };
        let program = load(&instructions(deed), kind)?;
        let directory = std::fs::File::open(cgroup)?;
        let (target, fd) = (number(directory.as_raw_fd()), number(program.as_raw_fd()));
        match how {
            Attachment::Link | Attachment::LinkFirst => {
                let flags = if how == Attachment::LinkFirst { 1 << 6 } else { 0 };
                let link = bpf(LINK_CREATE, &mut [fd, target, kind, flags])?;
                Ok(Self { _held: owned(link) })
            }
            Attachment::Override => {
                bpf(PROG_ATTACH, &mut [target, fd, kind, 1])?;
                Ok(Self { _held: program })
            }
        }
    }
}

/// Detaches the program of a pinned link, as if it never had been attached.
pub fn detach(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut attributes = [path.as_ptr().addr() as u64, 0];
    let link = owned(bpf(OBJ_GET, &mut attributes)?);
    bpf(LINK_DETACH, &mut [number(link.as_raw_fd())]).map(drop)
}

/// One instruction: code, registers, offset, constant.
fn instruction(code: u8, target: u8, source: u8, offset: i16, constant: i32) -> [u8; 8] {
    let mut bytes = [code, source << 4 | target, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    bytes[4..8].copy_from_slice(&constant.to_ne_bytes());
    bytes
}

fn instructions(deed: Deed) -> Vec<u8> {
    const MOVE: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const STORE_WORD: u8 = 0x63;
    const EXIT: u8 = 0x95;
    const SET_RETVAL: i32 = 187;
    let mut code = Vec::new();
    match deed {
        Deed::Allow => {}
        Deed::Overturn => {
            code.push(instruction(MOVE, 1, 0, 0, 0));
            code.push(instruction(CALL, 0, 0, 0, SET_RETVAL));
        }
        // In `struct bpf_sock_addr` the addresses follow the family: 4 bytes, then 16.
        Deed::Redirect(ip) => {
            let (mut offset, bytes) = match ip {
                IpAddr::V4(ip) => (4, ip.octets().to_vec()),
                IpAddr::V6(ip) => (8, ip.octets().to_vec()),
            };
            for word in bytes.chunks_exact(4) {
                let word = i32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
                code.push(instruction(MOVE, 2, 0, 0, word));
                code.push(instruction(STORE_WORD, 1, 2, offset, 0));
                offset += 4;
            }
        }
    }
    code.push(instruction(MOVE, 0, 0, 0, 1));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code.concat()
}

fn load(code: &[u8], kind: u32) -> io::Result<OwnedFd> {
    /// The start of the attributes of this command.
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        program: u32,
        count: u32,
        code: u64,
        license: u64,
        log: [u32; 2],
        log_buffer: u64,
        version: u32,
        flags: u32,
        name: [u8; 16],
        device: u32,
        attach: u32,
    }
    const SOCK_ADDR: u32 = 18;
    let mut load = Load {
        program: SOCK_ADDR,
        count: u32::try_from(code.len() / 8).map_err(io::Error::other)?,
        code: code.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
        attach: kind,
        ..Load::default()
    };
    bpf(PROG_LOAD, &mut load).map(owned)
}

fn number(fd: RawFd) -> u32 {
    fd.cast_unsigned()
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: called with new descriptors that nothing else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    let size = size_of::<T>();
    // SAFETY: the attributes live as long as the call and are as large as it is told; what they point to is borrowed by
    // the callers above until it returns.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        RawFd::try_from(result).map_err(io::Error::other)
    }
}
