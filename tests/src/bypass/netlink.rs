//! The little of rtnetlink and generic netlink that a wire between two namespaces takes.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::sys::{Socket, device};

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const CREATE: u16 = 0x400;
const ERROR: u16 = 2;
const NESTED: u16 = 0x8000;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_NEIGHBOUR: u16 = 28;

/// A request in the making: a message header, a fixed part, attributes.
#[derive(Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// With the fixed part that its type asks for.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | ACK | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        Self(bytes)
    }

    /// Appends an attribute.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let size = u16::try_from(value.len() + 4).expect("attributes are short");
        self.0.extend(size.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends an attribute that consists of what `fill` appends.
    #[must_use]
    pub fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        let mut filled = fill(self);
        let size = u16::try_from(filled.0.len() - start).expect("attributes are short");
        filled.0[start..start + 2].copy_from_slice(&size.to_ne_bytes());
        filled
    }

    /// Appends bytes as they are.
    #[must_use]
    pub fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend(value);
        self
    }

    /// Sends it in this thread's namespace; what came before the acknowledgement.
    pub fn ask(mut self, protocol: i32) -> io::Result<Vec<u8>> {
        let size = u32::try_from(self.0.len()).map_err(io::Error::other)?;
        self.0[..4].copy_from_slice(&size.to_ne_bytes());
        let socket = Socket::bare(libc::AF_NETLINK, libc::SOCK_RAW, protocol)?;
        socket.send(&self.0)?;
        let mut answer = Vec::new();
        loop {
            let message = socket.receive()?;
            let kind = u16::from_ne_bytes([message[4], message[5]]);
            if kind != ERROR {
                answer = message;
                continue;
            }
            let code = i32::from_ne_bytes(message[16..20].try_into().map_err(io::Error::other)?);
            return if code == 0 { Ok(answer) } else { Err(io::Error::from_raw_os_error(-code)) };
        }
    }
}

fn ask(request: Request) -> io::Result<()> {
    request.ask(libc::NETLINK_ROUTE).map(drop)
}

fn link_fixed(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let parts = [0, index, flags, change];
    parts.iter().flat_map(|part| part.to_ne_bytes()).collect()
}

/// Makes a pair of devices: the first here, the second in another namespace.
pub fn wire(here: (&str, [u8; 6]), there: (&str, [u8; 6]), namespace: BorrowedFd<'_>) -> io::Result<()> {
    const IFLA_NET_NS_FD: u16 = 28;
    let name = |name: &str| [name.as_bytes(), &[0]].concat();
    let peer = |request: Request| {
        request
            .bytes(&link_fixed(0, 0, 0))
            .attribute(libc::IFLA_IFNAME, &name(there.0))
            .attribute(libc::IFLA_ADDRESS, &there.1)
            .attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes())
    };
    let request = Request::new(NEW_LINK, CREATE, &link_fixed(0, 0, 0))
        .attribute(libc::IFLA_IFNAME, &name(here.0))
        .attribute(libc::IFLA_ADDRESS, &here.1)
        // IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER.
        .nested(libc::IFLA_LINKINFO, |request| {
            request.attribute(1, b"veth\0").nested(2, |request| request.nested(1, peer))
        });
    ask(request)
}

/// Switches a device on.
pub fn up(name: &str) -> io::Result<()> {
    let up = libc::IFF_UP.cast_unsigned();
    ask(Request::new(NEW_LINK, 0, &link_fixed(device(name)?, up, up)))
}

/// Gives a device an address that counts at once.
pub fn address(name: &str, ip: IpAddr, prefix: u8) -> io::Result<()> {
    const NO_DUPLICATE_DETECTION: u8 = 2;
    let (family, bytes) = parts(ip);
    let mut fixed = vec![family, prefix, NO_DUPLICATE_DETECTION, 0];
    fixed.extend(device(name)?.to_ne_bytes());
    let request = Request::new(NEW_ADDRESS, CREATE, &fixed);
    // IFA_LOCAL, IFA_ADDRESS.
    ask(request.attribute(2, &bytes).attribute(1, &bytes))
}

/// Says for good which hardware address a neighbour has.
pub fn neighbour(name: &str, ip: IpAddr, hardware: [u8; 6]) -> io::Result<()> {
    const PERMANENT: u16 = 0x80;
    let (family, bytes) = parts(ip);
    let mut fixed = vec![family, 0, 0, 0];
    fixed.extend(device(name)?.to_ne_bytes());
    fixed.extend(PERMANENT.to_ne_bytes());
    fixed.extend([0; 2]);
    let request = Request::new(NEW_NEIGHBOUR, CREATE, &fixed);
    // NDA_DST, NDA_LLADDR.
    ask(request.attribute(1, &bytes).attribute(2, &hardware))
}

fn parts(ip: IpAddr) -> (u8, Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => (2, ip.octets().to_vec()),
        IpAddr::V6(ip) => (10, ip.octets().to_vec()),
    }
}

/// The number of a family of generic netlink.
fn generic(name: &str) -> io::Result<u16> {
    const CONTROL: u16 = 16;
    let name = [name.as_bytes(), &[0]].concat();
    // CTRL_CMD_GETFAMILY, version 1; CTRL_ATTR_FAMILY_NAME.
    let answer = Request::new(CONTROL, 0, &[3, 1, 0, 0]).attribute(2, &name).ask(libc::NETLINK_GENERIC)?;
    let mut rest = answer.get(20..).unwrap_or_default();
    while let [a, b, kind, _, ..] = *rest {
        let size = usize::from(u16::from_ne_bytes([a, b]));
        // CTRL_ATTR_FAMILY_ID.
        if kind == 1 {
            return Ok(u16::from_ne_bytes([rest[4], rest[5]]));
        }
        rest = rest.get(size.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    Err(io::Error::from_raw_os_error(libc::ENOENT))
}

/// Has MPTCP of this thread's namespace accept and open this many extra flows for each connection.
pub fn mptcp_limits(count: u32) -> io::Result<()> {
    // MPTCP_PM_CMD_SET_LIMITS; MPTCP_PM_ATTR_RCV_ADD_ADDRS, MPTCP_PM_ATTR_SUBFLOWS.
    let request = Request::new(generic("mptcp_pm")?, 0, &[5, 1, 0, 0]);
    let count = count.to_ne_bytes();
    request.attribute(2, &count).attribute(3, &count).ask(libc::NETLINK_GENERIC).map(drop)
}

/// Has MPTCP of this thread's namespace announce an address to its peers.
pub fn mptcp_announce(ip: IpAddr) -> io::Result<()> {
    const SIGNAL: u32 = 1;
    let (family, bytes) = parts(ip);
    // MPTCP_PM_CMD_ADD_ADDR; inside MPTCP_PM_ATTR_ADDR: family, address of either, flags.
    let request = Request::new(generic("mptcp_pm")?, 0, &[1, 1, 0, 0]).nested(1, |request| {
        request
            .attribute(1, &u16::from(family).to_ne_bytes())
            .attribute(if family == 2 { 3 } else { 4 }, &bytes)
            .attribute(6, &SIGNAL.to_ne_bytes())
            // The number by which it can be removed.
            .attribute(2, &[if family == 2 { 4 } else { 6 }])
    });
    request.ask(libc::NETLINK_GENERIC).map(drop)
}
