//! Allowed at first sight: the destination is the allowed peer, and options lead elsewhere or hide what follows.

use std::io;
use std::net::IpAddr;

use super::super::sys::{Socket, control};
use super::super::{Family, MARKER, TCP, UDP, at, v4, v6};
use super::{Vector, datagrams, each, stream, talk, vector};

const IPV6_HOPOPTS: i32 = 54;
const IPV6_RTHDR: i32 = 57;
const IPV6_DSTOPTS: i32 = 59;
const IPV6_RTHDRDSTOPTS: i32 = 55;

pub(super) const ALL: &[Vector] = &[
    vector("segment routing header, TCP", |family| {
        let socket = stream(family)?;
        socket.set_bytes(libc::IPPROTO_IPV6, IPV6_RTHDR, &segments(family))?;
        talk(&socket, &at(family.allowed(), TCP))
    }),
    vector("segment routing header, UDP", |family| {
        let socket = datagrams(family)?;
        socket.set_bytes(libc::IPPROTO_IPV6, IPV6_RTHDR, &segments(family))?;
        socket.send_to(&at(family.allowed(), UDP), MARKER)?;
        Ok(0)
    }),
    vector("routing header of type 2", |family| {
        let header = home_address(family);
        each([true, false], |option| {
            let socket = datagrams(family)?;
            let to = at(family.allowed(), UDP);
            if option {
                socket.set_bytes(libc::IPPROTO_IPV6, IPV6_RTHDR, &header)?;
                return socket.send_to(&to, MARKER);
            }
            socket.message(Some(&to), MARKER, &control(libc::IPPROTO_IPV6, IPV6_RTHDR, &header), 0)
        })
    }),
    vector("loose source route, TCP", |family| {
        let socket = stream(family)?;
        socket.set_bytes(libc::IPPROTO_IP, libc::IP_OPTIONS, &route(family))?;
        talk(&socket, &at(family.allowed(), TCP))
    }),
    vector("loose source route, UDP", |family| {
        let socket = datagrams(family)?;
        socket.set_bytes(libc::IPPROTO_IP, libc::IP_OPTIONS, &route(family))?;
        socket.send_to(&at(family.allowed(), UDP), MARKER)?;
        Ok(0)
    }),
    vector("loose source route by ancillary data", |family| {
        let control = control(libc::IPPROTO_IP, libc::IP_RETOPTS, &route(family));
        datagrams(family)?.message(Some(&at(family.allowed(), UDP)), MARKER, &control, 0)?;
        Ok(0)
    }),
    vector("destination and hop options", |family| {
        each([IPV6_DSTOPTS, IPV6_HOPOPTS], |name| {
            let socket = datagrams(family)?;
            option(&socket, name)?;
            socket.send_to(&at(family.allowed(), UDP), MARKER)
        })
    }),
    vector("destination options before routing, TCP", |family| {
        let socket = stream(family)?;
        option(&socket, IPV6_DSTOPTS)?;
        option(&socket, IPV6_RTHDRDSTOPTS)?;
        talk(&socket, &at(family.allowed(), TCP))
    }),
    vector("destination options by ancillary data", |family| {
        let control = control(libc::IPPROTO_IPV6, IPV6_DSTOPTS, &PADDING);
        datagrams(family)?.message(Some(&at(family.allowed(), UDP)), MARKER, &control, 0)?;
        Ok(0)
    }),
];

/// Next header, no further 8 bytes, an option of 4 bytes of padding.
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

fn option(socket: &Socket, name: i32) -> io::Result<()> {
    socket.set_bytes(libc::IPPROTO_IPV6, name, &PADDING)
}

/// First to the forbidden peer, from there to where the socket says.
fn segments(family: Family) -> Vec<u8> {
    // Next header, length in 8 bytes, type 4, one segment left, last entry, flags, tag.
    let mut header = vec![0, 4, 4, 1, 1, 0, 0, 0];
    header.extend([0; 16]);
    header.extend(v6(family.forbidden()).octets());
    header
}

/// The forbidden peer as the only hop of a mobile node's header.
fn home_address(family: Family) -> Vec<u8> {
    let mut header = vec![0, 2, 2, 1, 0, 0, 0, 0];
    header.extend(v6(family.forbidden()).octets());
    header
}

/// No operation, then a loose route of one hop.
fn route(family: Family) -> Vec<u8> {
    let hop: IpAddr = family.forbidden();
    let mut options = vec![1, 131, 7, 4];
    options.extend(v4(hop).octets());
    options
}
