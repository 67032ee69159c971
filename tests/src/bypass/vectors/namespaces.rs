//! Namespaces of the process's own.

use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::super::sys::Socket;
use super::super::{Family, MARKER, UDP, at};
use super::{Vector, vector};

pub(super) const ALL: &[Vector] = &[
    vector("new user namespace, raw socket", |family| apart(CloneFlags::CLONE_NEWUSER, family)),
    vector("new user and network namespace, raw socket", |family| {
        apart(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET, family)
    }),
];

/// Has a child enter namespaces and use what it may do there. Its errno is the result.
fn apart(flags: CloneFlags, family: Family) -> io::Result<u64> {
    // SAFETY: the child makes system calls only, and leaves without unwinding.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let errno = raw(flags, family).map_or_else(|error| error.raw_os_error().unwrap_or(-1), |()| 0);
            // SAFETY: ends the child at once, which owns nothing.
            unsafe { libc::_exit(errno) }
        }
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, 0) => Ok(0),
            WaitStatus::Exited(_, errno) => Err(io::Error::from_raw_os_error(errno)),
            other => Err(io::Error::other(format!("{other:?}"))),
        },
    }
}

fn raw(flags: CloneFlags, family: Family) -> io::Result<()> {
    unshare(flags)?;
    let socket = Socket::new(family.domain(), libc::SOCK_RAW, libc::IPPROTO_UDP)?;
    socket.send_to(&at(family.forbidden(), 0), &super::packet::udp(UDP, MARKER))
}
