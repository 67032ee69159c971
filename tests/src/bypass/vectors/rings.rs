//! System calls that nobody makes: `io_uring`.

use std::io;

use super::super::ring::{self, By};
use super::super::{Family, MARKER, TCP, UDP, at};
use super::{Vector, datagrams, stream, vector};

pub(super) const ALL: &[Vector] = &[
    vector("io_uring connect", |family| connect(By::Caller, family)),
    vector("io_uring connect by a worker", |family| connect(By::Worker, family)),
    vector("io_uring connect by the poller", |family| connect(By::Poller, family)),
    vector("io_uring sendmsg by a worker", |family| send(By::Worker, family)),
    vector("io_uring sendmsg by the poller", |family| send(By::Poller, family)),
    vector("io_uring socket and sendmsg", |family| {
        let socket = ring::socket(By::Worker, family.domain(), libc::SOCK_DGRAM, 0)?;
        ring::send(By::Caller, &socket, &at(family.forbidden(), UDP), MARKER)?;
        Ok(0)
    }),
    vector("io_uring raw socket", |family| {
        let socket = ring::socket(By::Worker, family.domain(), libc::SOCK_RAW, libc::IPPROTO_UDP)?;
        ring::send(By::Caller, &socket, &at(family.forbidden(), 0), MARKER)?;
        Ok(0)
    }),
];

fn connect(by: By, family: Family) -> io::Result<u64> {
    let socket = stream(family)?;
    ring::connect(by, socket.fd(), &at(family.forbidden(), TCP))?;
    socket.send(MARKER)?;
    Ok(0)
}

fn send(by: By, family: Family) -> io::Result<u64> {
    ring::send(by, &datagrams(family)?, &at(family.forbidden(), UDP), MARKER)?;
    Ok(0)
}
