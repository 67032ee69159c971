//! What one process can try by itself. Each vector sends marked payloads where, or how, the policy forbids.
//!
//! A vector returns what it has got in other ways than by the wire, 0 for nothing. An error means that the kernel or a
//! hook refused a step; whether that is so is not asked, only whether anything arrived.

mod destinations;
mod elsewhere;
mod headers;
mod link;
mod namespaces;
pub mod packet;
mod protocols;
mod raw;
mod rings;
mod sources;
mod streams;

use std::io;

use super::sys::Socket;
use super::{Family, MARKER, TCP, UDP, at};

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Vector {
    /// By which a puppet is told.
    pub name: &'static str,
    run: fn(Family) -> io::Result<u64>,
}

const fn vector(name: &'static str, run: fn(Family) -> io::Result<u64>) -> Vector {
    Vector { name, run }
}

/// The one that is none.
const ORDINARY: &[Vector] = &[vector("ordinary traffic", ordinary)];

/// All of them.
fn all() -> impl Iterator<Item = &'static Vector> {
    let groups = [
        destinations::ALL,
        elsewhere::ALL,
        headers::ALL,
        link::ALL,
        namespaces::ALL,
        protocols::ALL,
        raw::ALL,
        rings::ALL,
        sources::ALL,
        streams::ALL,
        ORDINARY,
    ];
    groups.into_iter().flatten()
}

/// How many kinds of sockets there are of families that no other vector is about.
pub fn other_families() -> u64 {
    protocols::others()
}

/// Whether there is one of this name.
pub fn exists(name: &str) -> bool {
    all().any(|vector| vector.name == name)
}

/// Runs one by its name.
pub fn run(name: &str, family: Family) -> io::Result<u64> {
    let found = all().find(|vector| vector.name == name);
    (found.ok_or_else(|| io::Error::other(format!("no vector {name}")))?.run)(family)
}

fn stream(family: Family) -> io::Result<Socket> {
    Socket::new(family.domain(), libc::SOCK_STREAM, 0)
}

fn datagrams(family: Family) -> io::Result<Socket> {
    Socket::new(family.domain(), libc::SOCK_DGRAM, 0)
}

/// What every other vector must leave untouched: a connection and a datagram to the allowed peer, both answered.
fn ordinary(family: Family) -> io::Result<u64> {
    let (stream, datagrams) = (stream(family)?, datagrams(family)?);
    for (socket, port) in [(&stream, TCP), (&datagrams, UDP)] {
        socket.patience(crate::patience::seconds(2))?;
        socket.connect(&at(family.allowed(), port))?;
        socket.send(b"ordinary")?;
        if socket.receive()? != b"ordinary" {
            return Err(io::Error::other("the answer is not what was sent"));
        }
    }
    Ok(0)
}

/// Attempts that do not depend on each other; the first error counts when none succeeded.
fn each<T>(attempts: impl IntoIterator<Item = T>, attempt: impl Fn(T) -> io::Result<()>) -> io::Result<u64> {
    let results: Vec<_> = attempts.into_iter().map(attempt).collect();
    if results.iter().any(Result::is_ok) {
        return Ok(0);
    }
    results.into_iter().next().map_or(Ok(0), |first| first.map(|()| 0))
}

/// Connects and sends.
fn talk(socket: &Socket, to: &[u8]) -> io::Result<u64> {
    socket.connect(to)?;
    socket.send(MARKER)?;
    Ok(0)
}
