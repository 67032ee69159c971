//! What somebody else could do to the kernel's side: a program of their own, and writing to our pins.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

const MAP_UPDATE: libc::c_long = 2;
const MAP_DELETE: libc::c_long = 3;
const PROG_LOAD: libc::c_long = 5;
const OBJ_GET: libc::c_long = 7;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;

/// A hook of a cgroup: type of program and type of attachment, by their numbers in linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u32, u32);

/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`, `BPF_CGROUP_INET4_CONNECT`
const CONNECT4: Place = Place(18, 10);
/// `BPF_PROG_TYPE_CGROUP_SOCK`, `BPF_CGROUP_INET_SOCK_CREATE`
const SOCK_CREATE: Place = Place(9, 2);
/// Where a workload that speaks IPv4 meets the product.
const IPV4: [Place; 8] = [
    // BPF_PROG_TYPE_CGROUP_SKB: INGRESS, EGRESS
    Place(8, 0),
    Place(8, 1),
    SOCK_CREATE,
    // BPF_PROG_TYPE_SOCK_OPS: SOCK_OPS
    Place(13, 3),
    // BPF_PROG_TYPE_CGROUP_SOCK_ADDR: INET4_BIND, INET4_CONNECT, UDP4_SENDMSG
    Place(18, 8),
    CONNECT4,
    Place(18, 14),
    // BPF_PROG_TYPE_CGROUP_SOCKOPT: SETSOCKOPT
    Place(25, 22),
];

/// Programs that do nothing, at every hook that IPv4 traffic meets, for as long as the answer lives.
pub fn idle(directory: &Path) -> Vec<OwnedFd> {
    IPV4.map(|place| Foreign::load_at(place, "nothing", &NOTHING).attach(directory)).into()
}

/// As [`idle`], but each new socket gets storage in the pinned map `sockets`, with nothing in it.
pub fn remembering(directory: &Path, sockets: &Path) -> Vec<OwnedFd> {
    let map = open(sockets);
    let map = u64::try_from(map.as_raw_fd()).expect("descriptors are not negative");
    let store: [u64; 8] = [
        // r2 = r1, the socket; r1 = the map, in two words; r3 = 0, what to begin with; r4 = BPF_SK_STORAGE_GET_F_CREATE
        0x12bf,
        (map << 32) | 0x1118,
        0,
        0x03b7,
        0x0000_0001_0000_04b7,
        // bpf_sk_storage_get
        0x0000_006b_0000_0085,
        NOTHING[0],
        NOTHING[1],
    ];
    let load = |place: Place| {
        let instructions: &[u64] = if place == SOCK_CREATE { &store } else { &NOTHING };
        Foreign::load_at(place, "remembers", instructions).attach(directory)
    };
    IPV4.map(load).into()
}

/// r0 = 1; exit
const NOTHING: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];

/// A program that lets everything pass.
#[derive(Debug)]
pub struct Foreign {
    program: OwnedFd,
    place: Place,
}

impl Foreign {
    /// Loads one for `connect4`, with this name.
    pub fn load(name: &str) -> Self {
        Self::load_at(CONNECT4, name, &NOTHING)
    }

    fn load_at(place: Place, name: &str, instructions: &[u64]) -> Self {
        #[repr(C)]
        struct Attr {
            kind: u32,
            count: u32,
            instructions: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log: u64,
            kernel: u32,
            flags: u32,
            name: [u8; 16],
            device: u32,
            attach_type: u32,
        }
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let mut attr = Attr {
            kind: place.0,
            count: u32::try_from(instructions.len()).expect("a few instructions"),
            instructions: instructions.as_ptr().addr() as u64,
            license: c"GPL".as_ptr().addr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel: 0,
            flags: 0,
            name: bytes,
            device: 0,
            attach_type: place.1,
        };
        Self { program: call(PROG_LOAD, &mut attr).expect("load a program").expect("a program"), place }
    }

    /// Attaches it to a directory, as long as the answer lives.
    pub fn attach(&self, directory: &Path) -> OwnedFd {
        let directory = File::open(directory).expect("the directory");
        let number = |fd: i32| u32::try_from(fd).expect("descriptors are not negative");
        let mut attr = [number(self.program.as_raw_fd()), number(directory.as_raw_fd()), self.place.1, 0];
        call(LINK_CREATE, &mut attr).expect("attach a program").expect("a link")
    }

    /// Puts it into somebody's pinned link.
    pub fn put_into(&self, pin: &Path) {
        let number = |fd: &OwnedFd| u32::try_from(fd.as_raw_fd()).expect("descriptors are not negative");
        let link = open(pin);
        let mut attr = [number(&link), number(&self.program), 0, 0];
        call(LINK_UPDATE, &mut attr).expect("update the link");
    }
}

/// Writes to a pinned array of words.
pub fn write_word(pin: &Path, index: u32, value: u64) {
    element(MAP_UPDATE, pin, index, value).expect("write to the map");
}

/// Removes an element from a pinned map.
pub fn remove(pin: &Path, index: u32) {
    element(MAP_DELETE, pin, index, 0).expect("remove from the map");
}

fn element(command: libc::c_long, pin: &Path, key: u32, value: u64) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        map: u64,
        key: u64,
        value: u64,
        flags: u64,
    }
    let map = open(pin);
    let map = u64::try_from(map.as_raw_fd()).expect("descriptors are not negative");
    let is_removal = command == MAP_DELETE;
    let mut attr = Attr {
        map,
        key: (&raw const key).addr() as u64,
        value: if is_removal { 0 } else { (&raw const value).addr() as u64 },
        flags: 0,
    };
    call(command, &mut attr).map(drop)
}

fn open(pin: &Path) -> OwnedFd {
    let path = CString::new(pin.as_os_str().as_bytes()).expect("a path");
    let mut attr = [path.as_ptr().addr() as u64, 0];
    call(OBJ_GET, &mut attr).expect("open the pin").expect("an object")
}

/// `bpf(2)`; the descriptor that it made, if it made one.
fn call<T>(command: libc::c_long, attr: &mut T) -> io::Result<Option<OwnedFd>> {
    // SAFETY: a live struct of the size that is passed along; what it points to outlives the call in every caller above.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let makes = [PROG_LOAD, OBJ_GET, LINK_CREATE].contains(&command);
    let fd = i32::try_from(result).expect("descriptors are small");
    // SAFETY: these commands return a new descriptor that nothing else owns.
    Ok(makes.then(|| unsafe { OwnedFd::from_raw_fd(fd) }))
}
