//! What the canary's process does: it joins its directory, gives up its rights, and tries when it is told to.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, getsockname, sendto, socket,
};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::domain::canary::{CALLS, Reported, report};

/// Sent for each attempt.
pub const TRY: &[u8] = b"?";
/// Who has no rights: the kernel's overflow user.
const NOBODY: u32 = 65_534;
/// Descriptors that it needs: one to the agent, and a few at a time.
const DESCRIPTORS: u64 = 16;

/// Runs until the agent closes its end. Never returns an error that anybody reads: what is wrong is told as an answer.
///
/// # Errors
/// If the agent can't be told.
pub fn run(directory: &Path) -> io::Result<()> {
    let mut agent = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let prepared = close_others(agent.as_raw_fd())
        .and_then(|()| fs::write(directory.join("cgroup.procs"), "0"))
        .map_err(|error| format!("enter {}: {error}", directory.display()))
        .and_then(|()| give_up_rights().map_err(|error| format!("give up its rights: {error}")));
    let mut order = [0; 1];
    while agent.read(&mut order)? > 0 {
        let answer = match &prepared {
            Ok(()) => report(&attempt()),
            Err(problem) => report(&[(CALLS[0], Reported::Problem(problem.replace('\n', " ")))]),
        };
        agent.write_all(format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}

/// Closes whatever somebody left open across `exec`, the standard three and ours excepted.
fn close_others(own: i32) -> io::Result<()> {
    let entries: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2 && *fd != own)
        .collect();
    for fd in entries {
        // That of the listing itself is closed already.
        nix::unistd::close(fd).ok();
    }
    Ok(())
}

/// No privilege stays, none can be had again, and there are no children.
fn give_up_rights() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    nix::sys::prctl::set_no_new_privs()?;
    setgroups(&[])?;
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    nix::sys::prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_NPROC, 0, 0)
}

/// Makes one call at each hook that answers calls.
fn attempt() -> Vec<(&'static str, Reported)> {
    // A port that is taken and on which nobody listens: whatever is let through disturbs nobody.
    let held = reserve();
    let port = held.as_ref().map_or(1, |(_, port)| *port);
    let (four, six) =
        (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    let calls = [
        (four, SockType::Stream),
        (six, SockType::Stream),
        (four, SockType::Datagram),
        (six, SockType::Datagram),
    ];
    CALLS.into_iter().zip(calls).map(|(name, (to, kind))| (name, call(to, kind))).collect()
}

fn reserve() -> Option<(OwnedFd, u16)> {
    let socket = make(AddressFamily::Inet, SockType::Stream).ok()?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).ok()?;
    let name: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
    let port = name.as_sockaddr_in()?.port();
    Some((socket, port))
}

fn make(family: AddressFamily, kind: SockType) -> nix::Result<OwnedFd> {
    socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

fn call(to: SocketAddr, kind: SockType) -> Reported {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = match make(family, kind) {
        Ok(socket) => socket,
        Err(errno) => return Reported::NoSocket(errno as i32),
    };
    let to = SockaddrStorage::from(to);
    let done = match kind {
        SockType::Stream => connect(socket.as_raw_fd(), &to),
        _ => sendto(socket.as_raw_fd(), b"?", &to, MsgFlags::empty()).map(drop),
    };
    match done {
        // The connection is on its way.
        Ok(()) | Err(Errno::EINPROGRESS) => Reported::Called(0),
        Err(errno) => Reported::Called(errno as i32),
    }
}
