//! Packets of the process's own making.

use std::io;

use super::super::sys::Socket;
use super::super::{Family, MARKER, TCP, UDP, at};
use super::{Vector, each, packet, talk, vector};

/// A protocol that nothing speaks (RFC 3692).
const EXPERIMENT: u8 = 253;

pub(super) const ALL: &[Vector] = &[
    vector("raw socket, sendto", |family| {
        each([family.forbidden(), family.allowed()], |to| {
            let protocol = if to == family.forbidden() { 17 } else { EXPERIMENT };
            let socket = Socket::new(family.domain(), libc::SOCK_RAW, protocol.into())?;
            socket.send_to(&at(to, 0), &packet::udp(UDP, MARKER))
        })
    }),
    vector("raw socket, connected", |family| {
        let socket = Socket::new(family.domain(), libc::SOCK_RAW, libc::IPPROTO_UDP)?;
        talk(&socket, &at(family.forbidden(), 0))
    }),
    vector("raw TCP segment", |family| {
        let socket = Socket::new(family.domain(), libc::SOCK_RAW, libc::IPPROTO_TCP)?;
        socket.send_to(&at(family.forbidden(), 0), &packet::syn(TCP)).map(|()| 0)
    }),
    vector("own IP header", |family| {
        let whole = crafted(family, family.own(), family.forbidden());
        headed(family, &at(family.forbidden(), 0), &whole)
    }),
    vector("own IP header that says another address", |family| {
        let whole = crafted(family, family.own(), family.forbidden());
        headed(family, &at(family.allowed(), 0), &whole)
    }),
    vector("own IP header with a foreign source", |family| {
        let whole = crafted(family, family.foreign(), family.allowed());
        headed(family, &at(family.allowed(), 0), &whole)
    }),
    vector("later fragment", |family| {
        each([family.forbidden(), family.allowed()], |to| {
            headed(family, &at(to, 0), &late(family, to)).map(drop)
        })
    }),
];

fn crafted(family: Family, from: std::net::IpAddr, to: std::net::IpAddr) -> Vec<u8> {
    packet::ip(family, from, to, 17, &packet::udp(UDP, MARKER))
}

/// Sends a packet with its header through a raw socket.
fn headed(family: Family, to: &[u8], whole: &[u8]) -> io::Result<u64> {
    let socket = Socket::new(family.domain(), libc::SOCK_RAW, libc::IPPROTO_RAW)?;
    socket.send_to(to, whole)?;
    Ok(0)
}

/// A fragment that is not the first: what looks like ports is payload.
fn late(family: Family, to: std::net::IpAddr) -> Vec<u8> {
    let payload = packet::udp(UDP, MARKER);
    match family {
        Family::V4 => {
            let mut whole = packet::ip(family, family.own(), to, 17, &payload);
            // In units of 8 bytes; the kernel sums the header up itself.
            whole[7] = 4;
            whole
        }
        Family::V6 => {
            let head = [17, 0, 0, 32, 0, 0, 0, 7];
            packet::ip(family, family.own(), to, 44, &[&head[..], &payload].concat())
        }
    }
}
