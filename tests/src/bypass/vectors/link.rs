//! Below IP: frames of the process's own making.

use std::io;
use std::net::IpAddr;

use super::super::sniffer::link_address;
use super::super::sys::{Socket, device};
use super::super::{DEVICE, Family, INSIDE_MAC, MARKER, OUTSIDE_MAC, UDP};
use super::{Vector, packet, vector};

const PACKET_QDISC_BYPASS: i32 = 20;

pub(super) const ALL: &[Vector] = &[
    vector("AF_PACKET frame", |family| frame(family, libc::SOCK_RAW, false)),
    vector("AF_PACKET datagram", |family| frame(family, libc::SOCK_DGRAM, false)),
    vector("AF_PACKET past the queue", |family| frame(family, libc::SOCK_RAW, true)),
    vector("AF_XDP socket", |_| {
        Socket::bare(libc::AF_XDP, libc::SOCK_RAW, 0)?;
        Ok(1)
    }),
];

fn frame(family: Family, kind: i32, bypass: bool) -> io::Result<u64> {
    let protocol: u16 = if family == Family::V4 { 0x0800 } else { 0x86dd };
    let socket = Socket::new(libc::AF_PACKET, kind, 0)?;
    if bypass {
        socket.set(libc::SOL_PACKET, PACKET_QDISC_BYPASS, &1_i32)?;
    }
    let to: IpAddr = family.forbidden();
    let mut bytes = packet::ip(family, family.own(), to, 17, &packet::udp(UDP, MARKER));
    if kind == libc::SOCK_RAW {
        bytes = [&OUTSIDE_MAC[..], &INSIDE_MAC, &protocol.to_be_bytes(), &bytes].concat();
    }
    socket.send_to(&link_address(protocol, device(DEVICE)?, OUTSIDE_MAC), &bytes)?;
    Ok(0)
}
