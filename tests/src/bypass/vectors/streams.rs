//! Ways to open a TCP connection, and a socket whose memory is full.

use std::io;

use super::super::{Family, MARKER, TCP, at};
use super::{Vector, stream, talk, vector};
use crate::bypass::sys::Socket;

pub(super) const ALL: &[Vector] = &[
    vector("MSG_FASTOPEN", |family| {
        let to = at(family.forbidden(), TCP);
        stream(family)?.message(Some(&to), MARKER, &[], libc::MSG_FASTOPEN)?;
        Ok(0)
    }),
    vector("TCP_FASTOPEN_CONNECT", |family| {
        const TCP_FASTOPEN_CONNECT: i32 = 30;
        let socket = stream(family)?;
        socket.set(libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &1_i32)?;
        talk(&socket, &at(family.forbidden(), TCP))
    }),
    vector("MPTCP", |family| {
        let socket = Socket::new(family.domain(), libc::SOCK_STREAM, libc::IPPROTO_MPTCP)?;
        talk(&socket, &at(family.forbidden(), TCP))
    }),
    vector("no room for socket storage", exhausted),
];

/// Fills the memory for options of one socket with keys, then connects.
fn exhausted(family: Family) -> io::Result<u64> {
    let socket = stream(family)?;
    let mut keys = 0_u64;
    for number in 0..4000_u16 {
        if add_key(&socket, family, number).is_err() {
            break;
        }
        keys += 1;
    }
    if keys == 0 {
        return Err(io::Error::other("the kernel has no TCP_MD5SIG"));
    }
    talk(&socket, &at(family.forbidden(), TCP))
}

/// One key of `TCP_MD5SIG`, for a peer of the documentation's.
fn add_key(socket: &Socket, family: Family, number: u16) -> io::Result<()> {
    const TCP_MD5SIG: i32 = 14;
    let [high, low] = number.to_be_bytes();
    let peer: std::net::IpAddr = match family {
        Family::V4 => std::net::Ipv4Addr::new(203, 0, 113 + high, low).into(),
        Family::V6 => std::net::Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, number).into(),
    };
    // struct tcp_md5sig: an address in the place of any, flags and prefix, length of the key, device, key.
    let mut value = at(peer, 0);
    value.resize(128, 0);
    value.extend([0, 0]);
    value.extend(4_u16.to_ne_bytes());
    value.extend([0; 4]);
    value.extend(b"key.");
    value.resize(128 + 8 + 80, 0);
    socket.set_bytes(libc::IPPROTO_TCP, TCP_MD5SIG, &value)
}
