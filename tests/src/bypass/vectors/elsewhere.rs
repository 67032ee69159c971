//! Neighbours in the same namespace, who share its addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::super::sys::Socket;
use super::super::{MARKER, VICTIM, at, v6};
use super::{Vector, datagrams, each, stream, talk, vector};

pub(super) const ALL: &[Vector] = &[
    vector("zero address, TCP", |family| talk(&stream(family)?, &at(family.any(), VICTIM))),
    vector("zero address, UDP", |family| talk(&datagrams(family)?, &at(family.any(), VICTIM))),
    vector("zero address, UDP sendto", |family| {
        datagrams(family)?.send_to(&at(family.any(), VICTIM), MARKER)?;
        Ok(0)
    }),
    vector("mapped zero address", |_| mapped(Ipv4Addr::UNSPECIFIED)),
    vector("mapped loopback", |_| mapped(Ipv4Addr::LOCALHOST)),
    vector("loopback, TCP", |family| talk(&stream(family)?, &at(family.loopback(), VICTIM))),
    vector("loopback, UDP", |family| talk(&datagrams(family)?, &at(family.loopback(), VICTIM))),
    vector("own address, TCP", |family| talk(&stream(family)?, &at(family.own(), VICTIM))),
    vector("own address, UDP", |family| talk(&datagrams(family)?, &at(family.own(), VICTIM))),
    vector("127.9.9.9", |_| {
        let to: IpAddr = Ipv4Addr::new(127, 9, 9, 9).into();
        each([libc::SOCK_STREAM, libc::SOCK_DGRAM], |kind| {
            talk(&Socket::new(libc::AF_INET, kind, 0)?, &at(to, VICTIM)).map(drop)
        })
    }),
    vector("connected to itself", |family| {
        let socket = stream(family)?;
        socket.bind(&at(family.loopback(), 0))?;
        let port = socket.port()?;
        socket.connect(&at(family.loopback(), port))?;
        Ok(1)
    }),
];

fn mapped(ip: Ipv4Addr) -> io::Result<u64> {
    each([libc::SOCK_STREAM, libc::SOCK_DGRAM], |kind| {
        let socket = Socket::new(libc::AF_INET6, kind, 0)?;
        socket.set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &0_i32)?;
        talk(&socket, &at(v6(ip.into()).into(), VICTIM)).map(drop)
    })
}
