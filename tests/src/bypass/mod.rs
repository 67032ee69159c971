//! Ways round the hooks: a wire with a sniffer at its end, and what a hostile workload can try on it.
//!
//! ```text
//!  workloads' namespace            outside namespace
//!  w0 .1 ::1  ───────── veth ───── s0 .10 ::10  the allowed peer
//!                        │            .20 ::20  the forbidden one, same ports
//!                        └── sniffer: everything that arrives at s0
//! ```
//!
//! A [`vectors::Vector`] is what a puppet does by itself when told its name; what takes several processes is a scene
//! of the suite. What counts as a leak is what the sniffer saw, never what an errno said.

pub mod foreign;
pub mod netlink;
pub mod outside;
pub mod ring;
pub mod sniffer;
pub mod sys;
pub mod vectors;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::sockaddr;

/// The allowed TCP port.
pub const TCP: u16 = 7001;
/// The allowed UDP port.
pub const UDP: u16 = 7002;
/// The port on which the workload may be called by the allowed peer, by TCP and UDP.
pub const SERVED: u16 = 7003;
/// The port of the neighbour in the same namespace, whom the workload may not call.
pub const VICTIM: u16 = 7010;
/// The neighbour's ports that a thief would like to have: for connections, for datagrams.
pub const WANTED: (u16, u16) = (7020, 7021);
/// Where the fences of the sniffer go.
pub const FENCE: u16 = 9;
/// What every payload of a vector holds.
pub const MARKER: &[u8] = b"BYPASS-PAYLOAD-0";
/// Hardware address of the workloads' end of the wire.
pub const INSIDE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Hardware address of the other end.
pub const OUTSIDE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The other end by its link-local name, made of its hardware address.
pub const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 2);
/// The workloads' device.
pub const DEVICE: &str = "w0";

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// The namespace's own address.
    pub fn own(self) -> IpAddr {
        self.on_the_wire(1)
    }

    /// The peer that may be called.
    pub fn allowed(self) -> IpAddr {
        self.on_the_wire(0x10)
    }

    /// The peer that may not.
    pub fn forbidden(self) -> IpAddr {
        self.on_the_wire(0x20)
    }

    /// An address that nobody here has.
    pub fn foreign(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(203, 0, 113, 99).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 0x99).into(),
        }
    }

    /// The address of loopback.
    pub fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::LOCALHOST.into(),
            Self::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// The address of nobody.
    pub fn any(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// The number of the socket family.
    pub fn domain(self) -> i32 {
        match self {
            Self::V4 => libc::AF_INET,
            Self::V6 => libc::AF_INET6,
        }
    }

    /// One of the two, as it stands in a table.
    pub fn label(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn on_the_wire(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 51, 100, host).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, host.into()).into(),
        }
    }
}

/// A socket address as bytes.
pub fn at(ip: IpAddr, port: u16) -> Vec<u8> {
    sockaddr::of(SocketAddr::new(ip, port))
}

/// The IPv4 address inside.
///
/// # Panics
/// For one of IPv6.
pub fn v4(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(ip) => panic!("{ip} is no IPv4 address"),
    }
}

/// The IPv6 address inside, mapped if it is none.
pub fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}
