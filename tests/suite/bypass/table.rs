//! The catalogue: every way that was thought of, and the hooks that close it.

use super::row::{BOTH, FOUR, Hooks, Row, SIX, has_socket, scene, vector};
use super::scenes::{flows, identity, inbound, others};

/// What judges a call, while it is known who calls.
const CALLS: &[&str] = &["connect4", "connect6", "sendmsg4", "sendmsg6"];
/// The wall, and the hooks before it that refuse with an errno.
const OUT: Hooks = Hooks { last: &["egress"], before: CALLS };
/// Who calls is not who made the socket: packets tell of the latter only.
const CALLER: Hooks = Hooks { last: CALLS, before: &[] };
/// Kinds of sockets that a workload does not need.
const KIND: Hooks =
    Hooks { last: &["egress"], before: &["sock_create", "connect4", "connect6", "sendmsg4", "sendmsg6"] };
/// The same, where a packet does not look as if it were one's own.
const KIND_ALONE: Hooks = Hooks { last: &["sock_create"], before: &[] };
/// Options that lead elsewhere.
const OPTIONS: Hooks =
    Hooks { last: &["egress"], before: &["setsockopt", "connect4", "connect6", "sendmsg4", "sendmsg6"] };
/// Options by which a sender's address can be anybody's.
const SOURCE: Hooks = Hooks { last: &["setsockopt"], before: &[] };
/// Neighbours in the same namespace.
const NEAR: Hooks = Hooks {
    last: &["egress"],
    before: &["ingress", "connect4", "connect6", "sendmsg4", "sendmsg6", "sock_ops"],
};
/// What comes in.
const IN: Hooks = Hooks { last: &["ingress"], before: &["egress", "bind4", "bind6", "sock_ops"] };
/// Families without packets that a cgroup could see.
const FAMILY: Hooks = Hooks { last: &["socket_create"], before: &["sock_create"] };

pub(super) const ROWS: &[&[Row]] = &[ADDRESSES, NEIGHBOURS, PROTOCOLS, CRAFTED, SOCKETS, MACHINERY];

const ADDRESSES: &[Row] = &[
    vector(8, "plain TCP", OUT),
    vector(8, "plain UDP", OUT),
    vector(8, "another port of the allowed peer", OUT),
    vector(8, "sendmmsg, the second elsewhere", OUT),
    vector(1, "mapped TCP", OUT).by(FOUR),
    vector(2, "mapped UDP sendto", OUT).by(FOUR),
    vector(3, "IPv4 address on an IPv6 socket", OUT).by(FOUR),
    vector(4, "mapped UDP connect", OUT).by(FOUR),
    vector(5, "AF_UNSPEC sendto", OUT).by(FOUR),
    vector(9, "connected UDP, sendto elsewhere", OUT),
    vector(10, "corked second address", OUT)
        .never("a corked datagram goes where its first part goes; the second address is not used"),
    vector(11, "dissolved and reconnected UDP", OUT),
    vector(11, "dissolved and reconnected TCP", OUT),
    vector(12, "MSG_FASTOPEN", OUT),
    vector(13, "TCP_FASTOPEN_CONNECT", OUT),
    vector(14, "MPTCP", OUT).needs(mptcp),
    scene(15, "MPTCP extra subflow", flows::extra_subflow, OUT).needs(mptcp),
    vector(25, "io_uring connect", OUT).needs(rings),
    vector(25, "io_uring connect by a worker", OUT).needs(rings),
    vector(25, "io_uring connect by the poller", OUT).needs(rings),
    vector(25, "io_uring sendmsg by a worker", OUT).needs(rings),
    vector(25, "io_uring sendmsg by the poller", OUT).needs(rings),
    vector(25, "io_uring socket and sendmsg", OUT).needs(rings),
    vector(26, "segments by UDP_SEGMENT", OUT),
    vector(26, "a datagram in fragments", OUT),
    vector(27, "broadcast", OUT).by(FOUR),
    vector(27, "multicast", OUT),
    vector(28, "link-local peer", OUT).by(SIX),
    scene(29, "simultaneous open", flows::simultaneous_open, NEAR),
];

const NEIGHBOURS: &[Row] = &[
    vector(6, "zero address, TCP", NEAR),
    vector(6, "zero address, UDP", NEAR),
    vector(6, "zero address, UDP sendto", NEAR),
    vector(6, "mapped zero address", NEAR).by(FOUR),
    vector(7, "mapped loopback", NEAR).by(FOUR),
    vector(7, "127.9.9.9", NEAR).by(FOUR),
    vector(7, "own address, TCP", NEAR),
    vector(7, "own address, UDP", NEAR),
    vector(30, "connected to itself", NEAR),
    vector(61, "loopback, TCP", NEAR),
    vector(61, "loopback, UDP", NEAR),
    scene(62, "abstract Unix socket", others::abstract_socket, FAMILY).by(FOUR),
    scene(63, "vsock loopback", others::vsock, FAMILY)
        .by(FOUR)
        .needs(|_| others::vsock_loopback().map(drop).map_err(|error| format!("no vsock loopback: {error}"))),
];

const PROTOCOLS: &[Row] = &[
    vector(16, "UDP-Lite, connected", KIND)
        .needs(|family| has_socket(family.domain(), libc::SOCK_DGRAM, 136)),
    vector(17, "UDP-Lite, sendto", KIND).needs(|family| has_socket(family.domain(), libc::SOCK_DGRAM, 136)),
    vector(18, "SCTP connect", KIND).needs(|family| has_socket(family.domain(), libc::SOCK_STREAM, 132)),
    vector(19, "SCTP to many", KIND).needs(|family| has_socket(family.domain(), libc::SOCK_STREAM, 132)),
    vector(20, "SCTP connectx", KIND).needs(|family| has_socket(family.domain(), libc::SOCK_STREAM, 132)),
    vector(22, "DCCP connect", KIND).needs(|family| has_socket(family.domain(), 6, 33)),
    vector(23, "L2TP over IP", KIND).needs(|family| has_socket(family.domain(), libc::SOCK_DGRAM, 115)),
    vector(24, "ping socket, sendto", KIND),
    vector(24, "ping socket, connected", KIND),
    vector(64, "other families", FAMILY).by(FOUR).needs(others::families),
];

const CRAFTED: &[Row] = &[
    vector(31, "raw socket, sendto", KIND).root(),
    vector(31, "raw socket, connected", KIND).root(),
    vector(31, "raw TCP segment", KIND).root(),
    vector(31, "io_uring raw socket", KIND).root().needs(rings),
    vector(31, "own IP header", KIND).root(),
    vector(32, "own IP header that says another address", KIND).root(),
    vector(41, "own IP header with a foreign source", KIND_ALONE).root(),
    vector(33, "later fragment", KIND).root(),
    vector(34, "AF_PACKET frame", FAMILY).root(),
    vector(34, "AF_PACKET datagram", FAMILY).root(),
    vector(35, "AF_PACKET past the queue", FAMILY).root(),
    scene(36, "AF_PACKET listening in", others::listening_in, FAMILY).root(),
    vector(37, "AF_XDP socket", FAMILY)
        .root()
        .by(FOUR)
        .needs(|_| has_socket(libc::AF_XDP, libc::SOCK_RAW, 0)),
    vector(38, "segment routing header, TCP", OPTIONS).by(SIX),
    vector(38, "segment routing header, UDP", OPTIONS).by(SIX),
    vector(38, "routing header of type 2", OPTIONS).by(SIX).needs(others::routing_type_2),
    vector(39, "loose source route, TCP", OPTIONS).root().by(FOUR),
    vector(39, "loose source route, UDP", OPTIONS).root().by(FOUR),
    vector(39, "loose source route by ancillary data", OPTIONS).root().by(FOUR),
    vector(40, "destination and hop options", OPTIONS).root().by(SIX),
    vector(40, "destination options before routing, TCP", OPTIONS).root().by(SIX),
    vector(40, "destination options by ancillary data", OPTIONS).root().by(SIX),
    vector(41, "foreign source by FREEBIND, UDP", SOURCE).by(SIX),
    vector(41, "foreign source by FREEBIND, TCP", SOURCE).by(SIX),
    vector(41, "foreign source by FREEBIND through io_uring", SOURCE).by(SIX).needs(others::ring_options),
    vector(41, "foreign source by PKTINFO", SOURCE).by(SIX),
    scene(41, "foreign source from before the start", flows::foreign_before, OUT).by(SIX),
    vector(41, "foreign source by TRANSPARENT", SOURCE).root(),
    vector(44, "new user namespace, raw socket", KIND)
        .never("capabilities of a user namespace say nothing about a network namespace that it does not own"),
    vector(44, "new user and network namespace, raw socket", KIND)
        .never("the new network namespace has no link to this one"),
    scene(46, "SYN-ACK to a forbidden peer", inbound::handshake, IN),
];

const SOCKETS: &[Row] = &[
    scene(50, "connected before the start", flows::connected_before, OUT),
    scene(51, "passed socket", identity::passed, CALLER),
    scene(51, "moved to a friend", identity::moved_away, OUT),
    scene(51, "moved from a friend", identity::moved_here, CALLER),
    scene(52, "listener in another's hands", inbound::passed_listener, IN),
    scene(53, "nested cgroup", identity::nested, OUT),
    scene(54, "removed cgroup", identity::removed, OUT),
    scene(55, "cgroup ids", identity::ids_rise, OUT)
        .by(FOUR)
        .root()
        .never("the kernel never gives the id of a removed cgroup again"),
    scene(56, "before its identity is known", identity::unknown, OUT),
    scene(58, "SO_REUSEPORT theft", inbound::stolen_port, IN).root(),
    scene(59, "more specific bind", inbound::stolen_datagram, IN),
    scene(60, "listen without bind", inbound::listen_unbound, IN),
    scene(60, "datagram socket without bind", inbound::automatic_port, IN),
    vector(65, "no room for socket storage", OUT),
];

const MACHINERY: &[Row] = &[
    scene(80, "overturned in the same cgroup", others::overturned, OUT),
    scene(81, "overturned in the parent cgroup", others::overturned_above, OUT),
    scene(82, "overturned by an earlier program", others::overturned_first, OUT)
        .needs(|_| others::preorder()),
    scene(83, "overridden in a child cgroup", others::overridden, OUT),
    scene(84, "redirected after the check", others::redirected, OUT),
    scene(92, "policy change on a live flow", flows::live_flow, OUT).by(BOTH),
];

fn mptcp(family: enforcer_tests::bypass::Family) -> Result<(), String> {
    has_socket(family.domain(), libc::SOCK_STREAM, libc::IPPROTO_MPTCP)
}

fn rings(_: enforcer_tests::bypass::Family) -> Result<(), String> {
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    if setting.trim().is_empty() || setting.trim() == "0" {
        return Ok(());
    }
    Err("io_uring is switched off here".to_owned())
}
