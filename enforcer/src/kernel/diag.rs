//! Sockets as the kernel lists them (`NETLINK_SOCK_DIAG`: uapi `linux/sock_diag.h`, `linux/inet_diag.h`), each with
//! its socket storage, and their destruction (`SOCK_DESTROY`).
//!
//! The attributes that carry socket storage are known to no netlink library, so the requests are written here; frames
//! and attributes are `netlink-packet-core`'s.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use enforcer_common::abi::identity::{Role, SocketIdentity};
use enforcer_common::address::Address;
use enforcer_common::limits::CGROUP_DEPTH;
use netlink_packet_core::{
    DefaultNla, Emitable as _, NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NetlinkBuffer, NlasIterator,
};
use netlink_sys::Socket as Netlink;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::cgroups::Chains;
use crate::domain::revoke::{Creator, Endpoint, Socket};

const TCP: u8 = 6;
const UDP: u8 = 17;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const INET_DIAG_CGROUP_ID: u16 = 21;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;

/// Bytes of a frame's header.
const HEADER: usize = 16;
/// `struct inet_diag_sockid`.
const ID: usize = 48;
/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, id.
const REQUEST: usize = 8 + ID;
/// `struct inet_diag_msg`: family, state, timer, retransmissions, id, and five numbers.
const MESSAGE: usize = 4 + ID + 20;
/// The kernel puts at most 32 KiB into one answer, unless one socket alone needs more.
const BUFFER: usize = 256 << 10;
/// Requests for destruction that are sent before their answers are read.
const BATCH: usize = 64;

const ESTABLISHED: u32 = 1;
const CLOSE: u32 = 7;
const LISTEN: u32 = 10;
/// All from `ESTABLISHED` (1) to `CLOSING` (11) but `TIME_WAIT` (6), which is a memory, and `CLOSE`.
const STREAMS: u32 = 0b1111_0011_1110;
/// Connected ones, and those that take what comes.
const DATAGRAMS: u32 = (1 << ESTABLISHED) | (1 << CLOSE);

/// A socket in the list, with what it takes to destroy it.
#[derive(Clone, Copy, Debug)]
struct Listed {
    family: u8,
    protocol: u8,
    /// Both ends and the cookie, as the kernel wrote them.
    id: [u8; ID],
}

/// The sockets of one network namespace.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) sockets: Vec<Socket>,
    handles: Vec<Listed>,
    /// What the kernel could not list, one phrase each.
    pub(super) missing: Vec<String>,
}

/// A connection to the kernel in the namespace in which it was made.
#[derive(Debug)]
pub(super) struct Diag {
    netlink: Netlink,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Diag {
    /// Opens one in the namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut netlink = Netlink::new(NETLINK_SOCK_DIAG)?;
        netlink.bind_auto()?;
        Ok(Self { netlink, buffer: Vec::with_capacity(BUFFER), sequence: 0 })
    }

    /// Lists all TCP and UDP sockets, with their creators as `storage` (the map's descriptor) has them. Of datagram sockets
    /// the kernel does not tell it, of connections that were accepted and of parts of MPTCP connections there is none:
    /// those have their creator's cgroup.
    pub(super) fn list(&mut self, storage: BorrowedFd<'_>, chains: &mut Chains<'_>) -> List {
        let mut list = List::default();
        for family in [libc::AF_INET, libc::AF_INET6].map(|family| u8::try_from(family).unwrap_or(0)) {
            for (name, protocol, states) in [("TCP", TCP, STREAMS), ("UDP", UDP, DATAGRAMS)] {
                let listed = self.dump(family, protocol, states, storage, |message| {
                    list.take(protocol, message, chains);
                });
                if let Err(error) = listed {
                    list.missing.push(format!("{name} sockets of family {family}: {error}"));
                }
            }
        }
        list
    }

    fn dump(
        &mut self,
        family: u8,
        protocol: u8,
        states: u32,
        storage: BorrowedFd<'_>,
        mut take: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut body = vec![0; REQUEST];
        body[0] = family;
        body[1] = protocol;
        body[4..8].copy_from_slice(&states.to_ne_bytes());
        let map = attribute(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, storage.as_raw_fd().to_ne_bytes().to_vec());
        body.extend(attribute(INET_DIAG_REQ_SK_BPF_STORAGES, map));
        let request = self.frame(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, &body);
        self.netlink.send(&request, 0)?;
        loop {
            self.receive()?;
            let mut rest = self.buffer.as_slice();
            while let Some((frame, behind)) = split(rest) {
                rest = behind;
                match frame.message_type() {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return Err(error_of(frame.payload())),
                    // Interrupted (`NLM_F_DUMP_INTR`) means that sockets came or went, which they always do.
                    SOCK_DIAG_BY_FAMILY => take(frame.payload()),
                    _ => {}
                }
            }
        }
    }

    /// Destroys sockets of the list, by cookie: one that has gone meanwhile is nobody else. Returns what became of each:
    /// `Ok(true)` for destroyed, `Ok(false)` for gone.
    pub(super) fn destroy(&mut self, list: &List, indexes: &[usize]) -> Vec<io::Result<bool>> {
        let mut results = Vec::with_capacity(indexes.len());
        for batch in indexes.chunks(BATCH) {
            let first = self.sequence.wrapping_add(1);
            let mut bytes = Vec::new();
            for index in batch {
                let body = list.handles.get(*index).map(request_of).unwrap_or_default();
                bytes.extend(self.frame(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, &body));
            }
            let answered = match self.netlink.send(&bytes, 0) {
                Ok(_) => self.answers(first, batch.len()),
                Err(error) => Err(error),
            };
            match answered {
                Ok(answers) => results.extend(answers),
                Err(error) => {
                    let copy = || io::Error::new(error.kind(), error.to_string());
                    results.extend(batch.iter().map(|_| Err(copy())));
                }
            }
        }
        results
    }

    /// The answers to requests with these sequence numbers, in their order.
    fn answers(&mut self, first: u32, count: usize) -> io::Result<Vec<io::Result<bool>>> {
        let mut answers: Vec<Option<io::Result<bool>>> = (0..count).map(|_| None).collect();
        while answers.iter().any(Option::is_none) {
            self.receive()?;
            let mut rest = self.buffer.as_slice();
            while let Some((frame, behind)) = split(rest) {
                rest = behind;
                if frame.message_type() != NLMSG_ERROR {
                    continue;
                }
                let at = usize::try_from(frame.sequence_number().wrapping_sub(first)).unwrap_or(usize::MAX);
                if let Some(answer) = answers.get_mut(at) {
                    *answer = Some(outcome(frame.payload()));
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    fn frame(&mut self, kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = HEADER + body.len();
        let mut bytes = vec![0; length.next_multiple_of(4)];
        let mut frame = NetlinkBuffer::new(&mut bytes);
        frame.set_length(u32::try_from(length).unwrap_or(u32::MAX));
        frame.set_message_type(kind);
        frame.set_flags(flags);
        frame.set_sequence_number(self.sequence);
        bytes[HEADER..length].copy_from_slice(body);
        bytes
    }

    fn receive(&mut self) -> io::Result<()> {
        self.buffer.clear();
        loop {
            match self.netlink.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                received => return received.map(drop),
            }
        }
    }
}

impl List {
    /// Takes one `struct inet_diag_msg` and its attributes. What is not of that form is none of the kernel's.
    fn take(&mut self, protocol: u8, message: &[u8], chains: &mut Chains<'_>) {
        let (Some(head), Some(attributes)) = (message.get(..MESSAGE), message.get(MESSAGE..)) else { return };
        let mut id = [0; ID];
        id.copy_from_slice(&head[4..4 + ID]);
        let [family, state] = [head[0], head[1]];
        let port = |at: usize| u16::from_be_bytes([id[at], id[at + 1]]);
        let connected = !matches!((protocol, u32::from(state)), (TCP, LISTEN) | (UDP, CLOSE));
        self.sockets.push(Socket {
            protocol,
            local: Endpoint { address: address(family, &id[4..20]), port: port(0) },
            remote: Endpoint { address: address(family, &id[20..36]), port: port(2) },
            connected,
            creator: storage(attributes).and_then(recorded).or_else(|| in_cgroup(attributes, chains)),
        });
        self.handles.push(Listed { family, protocol, id });
    }
}

fn request_of(socket: &Listed) -> Vec<u8> {
    let mut body = vec![0; REQUEST];
    body[0] = socket.family;
    body[1] = socket.protocol;
    body[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    body[8..].copy_from_slice(&socket.id);
    body
}

/// An attribute with its padding.
fn attribute(kind: u16, value: Vec<u8>) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value);
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

/// The first frame, and what is behind it.
fn split(bytes: &[u8]) -> Option<(NetlinkBuffer<&[u8]>, &[u8])> {
    let frame = NetlinkBuffer::new_checked(bytes).ok()?;
    let length = usize::try_from(frame.length()).ok()?.next_multiple_of(4).min(bytes.len());
    Some((frame, &bytes[length..]))
}

/// The number in a `struct nlmsgerr`: 0, or a negative errno.
fn code(payload: &[u8]) -> i32 {
    payload.first_chunk().map_or(-libc::EIO, |code| i32::from_ne_bytes(*code))
}

fn error_of(payload: &[u8]) -> io::Error {
    io::Error::from_raw_os_error(-code(payload))
}

fn outcome(payload: &[u8]) -> io::Result<bool> {
    match -code(payload) {
        0 => Ok(true),
        // Gone, or on its way out already.
        libc::ENOENT | libc::ESTALE => Ok(false),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// The bytes that the storage map has of a socket.
fn storage(attributes: &[u8]) -> Option<&[u8]> {
    let storages = find(attributes, INET_DIAG_SK_BPF_STORAGES)?;
    find(find(storages, SK_DIAG_BPF_STORAGE)?, SK_DIAG_BPF_STORAGE_MAP_VALUE)
}

fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = NlasIterator::new(attributes).map_while(Result::ok);
    let found = rest.find(|attribute| attribute.kind() == kind)?;
    let length = found.value_length();
    let value = found.into_inner();
    value.get(NLA_HEADER_SIZE..NLA_HEADER_SIZE + length)
}

/// Reads the fields of a [`SocketIdentity`] that count here.
fn recorded(bytes: &[u8]) -> Option<Creator> {
    if bytes.len() < size_of::<SocketIdentity>() {
        return None;
    }
    let word = |at: usize| bytes.get(at..)?.first_chunk().map(|word| u64::from_ne_bytes(*word));
    let mut cgroups = [0; CGROUP_DEPTH];
    for (level, cgroup) in cgroups.iter_mut().enumerate() {
        *cgroup = word(std::mem::offset_of!(SocketIdentity, cgroups) + level * size_of::<u64>())?;
    }
    let role = Role::from_code(word(std::mem::offset_of!(SocketIdentity, role))?);
    Some(Creator { cgroups, role })
}

/// The creator by the cgroup that the kernel keeps for each socket, without a role.
fn in_cgroup(attributes: &[u8], chains: &mut Chains<'_>) -> Option<Creator> {
    let id = u64::from_ne_bytes(*find(attributes, INET_DIAG_CGROUP_ID)?.first_chunk()?);
    Some(Creator { cgroups: chains.chain(id)?, role: Role::Unknown })
}

fn address(family: u8, bytes: &[u8]) -> Address {
    match bytes.first_chunk() {
        Some(v6) if i32::from(family) == libc::AF_INET6 => Address::v6(*v6),
        _ => Address::v4(bytes.first_chunk().map_or(0, |v4| u32::from_be_bytes(*v4))),
    }
}
