//! Forms of a destination, and ways to give one.

use std::io;
use std::net::Ipv4Addr;

use super::super::sys::{Socket, device};
use super::super::{DEVICE, Family, LINK_LOCAL, MARKER, TCP, UDP, at, v4};
use super::{Vector, datagrams, each, stream, talk, vector};
use crate::sockaddr::{inet, inet6, unspecified};

pub(super) const ALL: &[Vector] = &[
    vector("plain TCP", |family| talk(&stream(family)?, &at(family.forbidden(), TCP))),
    vector("plain UDP", |family| talk(&datagrams(family)?, &at(family.forbidden(), UDP))),
    vector("another port of the allowed peer", |family| {
        each([UDP + 1, 53, TCP], |port| datagrams(family)?.send_to(&at(family.allowed(), port), MARKER))
    }),
    vector("mapped TCP", |_| talk(&both(libc::SOCK_STREAM)?, &mapped(TCP))),
    vector("mapped UDP sendto", |_| sent(both(libc::SOCK_DGRAM)?.send_to(&mapped(UDP), MARKER))),
    vector("IPv4 address on an IPv6 socket", |family| {
        let to = at(family.forbidden(), UDP);
        each([true, false], |first| {
            let socket = both(libc::SOCK_DGRAM)?;
            if first { talk(&socket, &to).map(drop) } else { socket.send_to(&to, MARKER) }
        })
    }),
    vector("mapped UDP connect", |_| talk(&both(libc::SOCK_DGRAM)?, &mapped(UDP))),
    vector("AF_UNSPEC sendto", |family| {
        sent(datagrams(family)?.send_to(&inet(libc::AF_UNSPEC, v4(family.forbidden()), UDP), MARKER))
    }),
    vector("sendmmsg, the second elsewhere", |family| {
        let to = [family.allowed(), family.forbidden()].map(|ip| at(ip, UDP));
        sent(datagrams(family)?.messages(&to, MARKER))
    }),
    vector("connected UDP, sendto elsewhere", |family| {
        let socket = datagrams(family)?;
        socket.connect(&at(family.allowed(), UDP))?;
        sent(socket.send_to(&at(family.forbidden(), UDP), MARKER))
    }),
    vector("corked second address", |family| {
        let socket = datagrams(family)?;
        socket.message(Some(&at(family.allowed(), UDP)), b"corked", &[], libc::MSG_MORE)?;
        sent(socket.send_to(&at(family.forbidden(), UDP), MARKER))
    }),
    vector("dissolved and reconnected UDP", |family| {
        let socket = datagrams(family)?;
        talk(&socket, &at(family.allowed(), UDP))?;
        socket.connect(&unspecified())?;
        talk(&socket, &at(family.forbidden(), UDP))
    }),
    vector("dissolved and reconnected TCP", |family| {
        let socket = stream(family)?;
        socket.connect(&at(family.allowed(), TCP))?;
        socket.connect(&unspecified())?;
        talk(&socket, &at(family.forbidden(), TCP))
    }),
    vector("segments by UDP_SEGMENT", |family| {
        const UDP_SEGMENT: i32 = 103;
        let socket = datagrams(family)?;
        socket.set(libc::IPPROTO_UDP, UDP_SEGMENT, &1000_i32)?;
        sent(socket.send_to(&at(family.forbidden(), UDP), &long()))
    }),
    vector("a datagram in fragments", |family| {
        sent(datagrams(family)?.send_to(&at(family.forbidden(), UDP), &long()))
    }),
    vector("broadcast", |family| {
        each([Ipv4Addr::BROADCAST, Ipv4Addr::new(198, 51, 100, 255)], |to| {
            let socket = datagrams(family)?;
            socket.set(libc::SOL_SOCKET, libc::SO_BROADCAST, &1_i32)?;
            let name = DEVICE.as_bytes();
            // Where there is no route for it; a kernel may want a privilege for that.
            socket.set_bytes(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name).ok();
            socket.send_to(&at(to.into(), UDP), MARKER)
        })
    }),
    vector("multicast", multicast),
    vector("link-local peer", |family| {
        let socket = datagrams(family)?;
        sent(socket.send_to(&scoped(&inet6(LINK_LOCAL, UDP))?, MARKER))
    }),
];

fn sent(result: io::Result<()>) -> io::Result<u64> {
    result.map(|()| 0)
}

/// An IPv6 socket that speaks IPv4 too.
fn both(kind: i32) -> io::Result<Socket> {
    let socket = Socket::new(libc::AF_INET6, kind, 0)?;
    socket.set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &0_i32)?;
    Ok(socket)
}

fn mapped(port: u16) -> Vec<u8> {
    inet6(v4(Family::V4.forbidden()).to_ipv6_mapped(), port)
}

/// 20 kB, marked at every thousand.
fn long() -> Vec<u8> {
    let mut part = MARKER.to_vec();
    part.resize(1000, b'.');
    part.repeat(20)
}

fn multicast(family: Family) -> io::Result<u64> {
    let socket = datagrams(family)?;
    match family {
        Family::V4 => {
            let source = v4(family.own()).octets();
            socket.set_bytes(libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &source)?;
            each([[224, 0, 0, 1], [239, 1, 2, 3]], |to| {
                socket.send_to(&at(Ipv4Addr::from(to).into(), UDP), MARKER)
            })
        }
        Family::V6 => {
            let all_nodes = [0xff02, 0, 0, 0, 0, 0, 0, 1].into();
            sent(socket.send_to(&scoped(&inet6(all_nodes, UDP))?, MARKER))
        }
    }
}

/// The address with the wire as its scope.
fn scoped(address: &[u8]) -> io::Result<Vec<u8>> {
    let mut address = address.to_vec();
    address[24..28].copy_from_slice(&device(DEVICE)?.to_ne_bytes());
    Ok(address)
}
