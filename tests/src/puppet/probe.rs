//! Many flows at once: a puppet opens them side by side, and another tells which datagrams have come.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, getsockopt, recv, sockopt};
use serde::{Deserialize, Serialize};

use super::act::{bind, check, connect, errno, family, send, set_option};
use super::order::{Answer, Fd};
use crate::sockaddr;

/// What a probe that nobody has refused, and that nobody has answered, comes to.
pub const SILENCE: i32 = libc::ETIMEDOUT;

/// One flow to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// How.
    pub means: Means,
    /// From which address; else the kernel chooses one, after the call was judged.
    pub own: Option<IpAddr>,
    /// Where.
    pub to: SocketAddr,
    /// What a datagram says, so that its receiver can tell it from others.
    pub token: u32,
    /// How long it may take.
    pub millis: u64,
}

/// How a flow is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Means {
    /// A TCP connection.
    Connection,
    /// A datagram from a socket that has no peer.
    Datagram,
    /// A datagram from a connected socket.
    ConnectedDatagram,
}

/// Tries all of them, each for its time at most: an errno for each in their order, 0 where the connection is there or the
/// datagram is on its way, [`SILENCE`] where nothing came back.
pub(super) fn probe(probes: &[Probe]) -> Answer {
    let begun = Instant::now();
    let deadline = |probe: &Probe| begun + Duration::from_millis(probe.millis);
    let mut results: Vec<i32> = Vec::with_capacity(probes.len());
    let mut open = Vec::new();
    for (index, probe) in probes.iter().enumerate() {
        match start(probe) {
            Ok(None) => results.push(0),
            Ok(Some(waiting)) => {
                results.push(SILENCE);
                open.push((index, waiting));
            }
            Err(error) => results.push(errno(&error)),
        }
    }
    while !open.is_empty() {
        let now = Instant::now();
        let soonest = open.iter().map(|(index, _)| deadline(&probes[*index])).min().unwrap_or(now);
        let ready = wait_for(&open, soonest.saturating_duration_since(now));
        let mut ready = ready.into_iter();
        open.retain(|(index, socket)| {
            let is_done = ready.next() == Some(true);
            if is_done {
                results[*index] = getsockopt(socket, sockopt::SocketError).expect("an open socket");
            }
            !is_done && deadline(&probes[*index]) > now
        });
    }
    Answer { data: results.iter().flat_map(|errno| errno.to_le_bytes()).collect(), ..Answer::default() }
}

/// Which of them came to an end.
fn wait_for(open: &[(usize, OwnedFd)], limit: Duration) -> Vec<bool> {
    let mut list: Vec<_> = open
        .iter()
        .map(|(_, socket)| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 })
        .collect();
    let count = libc::nfds_t::try_from(list.len()).expect("sockets are few");
    // Rounded up: half a millisecond is no reason to turn round and round.
    let millis = libc::c_int::try_from(limit.as_micros().div_ceil(1_000)).expect("limits are short");
    // SAFETY: as many entries as `count` says, which outlive the call.
    check(unsafe { libc::poll(list.as_mut_ptr(), count, millis) }).expect("open sockets can be waited for");
    list.iter().map(|found| found.revents != 0).collect()
}

/// The socket, where the result is not there at once.
fn start(probe: &Probe) -> io::Result<Option<OwnedFd>> {
    let to = sockaddr::of(probe.to);
    let kind = if probe.means == Means::Connection { libc::SOCK_STREAM } else { libc::SOCK_DGRAM };
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(family(&to), kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) })?;
    // SAFETY: a new descriptor that nothing else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(Fd::try_from(fd).expect("descriptors are small")) };
    if let Some(own) = probe.own {
        bind(socket.as_raw_fd(), &sockaddr::of(SocketAddr::new(own, 0)))?;
    }
    let token = probe.token.to_le_bytes().to_vec();
    match probe.means {
        Means::Connection => {
            // Closed by a reset, so that no port waits.
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger)?;
            match connect(socket.as_raw_fd(), &to) {
                Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(Some(socket)),
                result => result.map(|_| None),
            }
        }
        Means::Datagram => send(socket.as_raw_fd(), Some(to), token).map(|_| None),
        Means::ConnectedDatagram => {
            connect(socket.as_raw_fd(), &to)?;
            send(socket.as_raw_fd(), None, token).map(|_| None)
        }
    }
}

/// The tokens of all datagrams that wait in these sockets.
pub(super) fn drain(sockets: &[Fd]) -> Answer {
    let mut data = Vec::new();
    for fd in sockets {
        loop {
            let mut token = [0_u8; 4];
            match recv(*fd, &mut token, MsgFlags::MSG_DONTWAIT) {
                Ok(4) => data.extend(token),
                Ok(size) => panic!("a datagram of {size} bytes is none of a probe"),
                Err(nix::errno::Errno::EAGAIN) => break,
                Err(error) => return Answer { errno: error as i32, ..Answer::default() },
            }
        }
    }
    Answer { data, ..Answer::default() }
}

impl Answer {
    /// What came of each probe, in their order.
    pub fn errnos(&self) -> Vec<i32> {
        self.words().map(i32::from_le_bytes).collect()
    }

    /// The tokens that have come.
    pub fn tokens(&self) -> Vec<u32> {
        self.words().map(u32::from_le_bytes).collect()
    }

    fn words(&self) -> impl Iterator<Item = [u8; 4]> {
        let (words, rest) = self.data.as_chunks();
        assert!(rest.is_empty(), "words of four bytes");
        words.iter().copied()
    }
}
