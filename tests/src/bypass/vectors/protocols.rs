//! Protocols beside TCP and UDP, and families beside IP.

use std::io;
use std::net::IpAddr;

use super::super::sys::Socket;
use super::super::{Family, MARKER, TCP, UDP, at};
use super::{Vector, each, talk, vector};

const SCTP: i32 = 132;
const DCCP: i32 = 33;
const L2TP: i32 = 115;
/// Echo requests of both families.
const ECHO: [u8; 2] = [8, 128];

pub(super) const ALL: &[Vector] = &[
    vector("UDP-Lite, connected", |family| {
        each(peers(family), |to| talk(&lite(family)?, &at(to, UDP)).map(drop))
    }),
    vector("UDP-Lite, sendto", |family| {
        each(peers(family), |to| lite(family)?.send_to(&at(to, UDP), MARKER))
    }),
    vector("ping socket, sendto", |family| {
        each(peers(family), |to| ping(family)?.send_to(&at(to, 0), &echo(family)))
    }),
    vector("ping socket, connected", |family| {
        let socket = ping(family)?;
        socket.connect(&at(family.forbidden(), 0))?;
        socket.send(&echo(family))?;
        Ok(0)
    }),
    vector("SCTP connect", |family| {
        let socket = Socket::new(family.domain(), libc::SOCK_STREAM, SCTP)?;
        talk(&socket, &at(family.forbidden(), TCP))
    }),
    vector("SCTP to many", |family| {
        let socket = Socket::new(family.domain(), libc::SOCK_SEQPACKET, SCTP)?;
        socket.send_to(&at(family.forbidden(), TCP), MARKER)?;
        Ok(0)
    }),
    vector("SCTP connectx", |family| {
        // SCTP_SOCKOPT_CONNECTX: addresses one behind the other.
        const CONNECTX: i32 = 110;
        let socket = Socket::new(family.domain(), libc::SOCK_STREAM, SCTP)?;
        socket.set_bytes(SCTP, CONNECTX, &at(family.forbidden(), TCP))?;
        Ok(0)
    }),
    vector("DCCP connect", |family| {
        const SOCK_DCCP: i32 = 6;
        const SOL_DCCP: i32 = 269;
        const SERVICE: i32 = 2;
        let socket = Socket::new(family.domain(), SOCK_DCCP, DCCP)?;
        socket.set(SOL_DCCP, SERVICE, &1_u32.to_be())?;
        talk(&socket, &at(family.forbidden(), TCP))
    }),
    vector("L2TP over IP", |family| {
        let socket = Socket::new(family.domain(), libc::SOCK_DGRAM, L2TP)?;
        let mut to = at(family.forbidden(), 0);
        // The number of the tunnel lies behind the address; the one of IPv6 is longer for it.
        match family {
            Family::V4 => to[8..12].copy_from_slice(&1_u32.to_ne_bytes()),
            Family::V6 => to.extend(1_u32.to_ne_bytes()),
        }
        socket.send_to(&to, MARKER)?;
        Ok(0)
    }),
    vector("other families", |_| Ok(others())),
];

fn peers(family: Family) -> [IpAddr; 2] {
    [family.forbidden(), family.allowed()]
}

fn lite(family: Family) -> io::Result<Socket> {
    Socket::new(family.domain(), libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)
}

fn ping(family: Family) -> io::Result<Socket> {
    let protocol = if family == Family::V4 { libc::IPPROTO_ICMP } else { libc::IPPROTO_ICMPV6 };
    Socket::new(family.domain(), libc::SOCK_DGRAM, protocol)
}

fn echo(family: Family) -> Vec<u8> {
    let [four, six] = ECHO;
    let mut bytes = vec![if family == Family::V4 { four } else { six }, 0, 0, 0, 0, 1, 0, 1];
    bytes.extend(MARKER);
    bytes
}

/// How many kinds of sockets can be made of families that no row of the table is about.
pub(in crate::bypass) fn others() -> u64 {
    const KNOWN: [i32; 7] = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
        libc::AF_PACKET,
        libc::AF_VSOCK,
        libc::AF_XDP,
    ];
    let families = (1..46).filter(|family| !KNOWN.contains(family));
    let kinds = families.flat_map(|family| (1..=5).map(move |kind| (family, kind)));
    kinds.filter(|(family, kind)| Socket::bare(*family, *kind, 0).is_ok()).count() as u64
}
