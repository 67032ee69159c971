//! An address of somebody else as the sender's.

use std::io;
use std::net::IpAddr;

use super::super::ring::{self, By};
use super::super::sys::control;
use super::super::{Family, MARKER, TCP, UDP, at, v4, v6};
use super::{Vector, datagrams, each, stream, talk, vector};
use crate::bypass::sys::Socket;

const IPV6_FREEBIND: i32 = 78;
const IPV6_TRANSPARENT: i32 = 75;

pub(super) const ALL: &[Vector] = &[
    vector("foreign source by FREEBIND, UDP", |family| {
        let socket = free(datagrams(family)?, family)?;
        socket.send_to(&at(family.allowed(), UDP), MARKER)?;
        Ok(0)
    }),
    vector("foreign source by FREEBIND, TCP", |family| {
        talk(&free(stream(family)?, family)?, &at(family.allowed(), TCP))
    }),
    vector("foreign source by FREEBIND through io_uring", |family| {
        let socket = datagrams(family)?;
        let (level, name) = freebind(family);
        ring::set_option(By::Worker, &socket, level, name, 1)?;
        socket.bind(&at(family.foreign(), 0))?;
        socket.send_to(&at(family.allowed(), UDP), MARKER)?;
        Ok(0)
    }),
    vector("foreign source by PKTINFO", |family| {
        // By ancillary data, for each datagram from now on, and both where any source may be bound to.
        each([(false, false), (false, true), (true, false), (true, true)], |(free, sticky)| {
            let socket = datagrams(family)?;
            let control = source(family, family.foreign());
            if sticky {
                socket.set_bytes(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &control[16..36])?;
            }
            if free {
                let (level, name) = freebind(family);
                socket.set(level, name, &1_i32)?;
            }
            let control = if sticky { Vec::new() } else { control };
            socket.message(Some(&at(family.allowed(), UDP)), MARKER, &control, 0)
        })
    }),
    vector("foreign source by TRANSPARENT", |family| {
        each([libc::SOCK_STREAM, libc::SOCK_DGRAM], |kind| {
            let socket = Socket::new(family.domain(), kind, 0)?;
            let (level, name) = match family {
                Family::V4 => (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
                Family::V6 => (libc::IPPROTO_IPV6, IPV6_TRANSPARENT),
            };
            socket.set(level, name, &1_i32)?;
            socket.bind(&at(family.foreign(), 0))?;
            let port = if kind == libc::SOCK_STREAM { TCP } else { UDP };
            talk(&socket, &at(family.allowed(), port)).map(drop)
        })
    }),
];

fn freebind(family: Family) -> (i32, i32) {
    match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_FREEBIND),
        Family::V6 => (libc::IPPROTO_IPV6, IPV6_FREEBIND),
    }
}

fn free(socket: Socket, family: Family) -> io::Result<Socket> {
    let (level, name) = freebind(family);
    socket.set(level, name, &1_i32)?;
    socket.bind(&at(family.foreign(), 0))?;
    Ok(socket)
}

/// Ancillary data that chooses the source.
fn source(family: Family, ip: IpAddr) -> Vec<u8> {
    match family {
        // struct in_pktinfo: device, source, and a place that is unused here.
        Family::V4 => {
            let data = [&[0; 4][..], &v4(ip).octets(), &[0; 4]].concat();
            control(libc::IPPROTO_IP, libc::IP_PKTINFO, &data)
        }
        // struct in6_pktinfo: source, device.
        Family::V6 => {
            control(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[&v6(ip).octets()[..], &[0; 4]].concat())
        }
    }
}
