//! The ways to name a destination and to get there, as rows: each once allowed and once denied.

use std::net::{Ipv4Addr, Ipv6Addr};

use enforcer_tests::puppet::{Fd, Order};
use enforcer_tests::sockaddr::{inet, inet6};
use enforcer_tests::workload::{Seen, Workload};

const TCP_FASTOPEN_CONNECT: i32 = 30;

/// One way.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) name: &'static str,
    pub(super) protocol: &'static str,
    /// The hook that refuses.
    pub(super) hook: &'static str,
    /// Goes it, to this port of this host; what the application sees first is refused.
    pub(super) go: fn(&Workload, u16) -> Seen,
}

const fn tcp(name: &'static str, hook: &'static str, go: fn(&Workload, u16) -> Seen) -> Form {
    Form { name, protocol: "TCP", hook, go }
}

const fn udp(name: &'static str, hook: &'static str, go: fn(&Workload, u16) -> Seen) -> Form {
    Form { name, protocol: "UDP", hook, go }
}

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ZERO: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

pub(super) const FORMS: &[Form] = &[
    tcp("127.0.0.1", "connect4", |who, port| stream(who, libc::AF_INET, four(LOCAL, port))),
    tcp("127.9.9.9", "connect4", |who, port| stream(who, libc::AF_INET, four([127, 9, 9, 9].into(), port))),
    tcp("0.0.0.0", "connect4", |who, port| stream(who, libc::AF_INET, four(ZERO, port))),
    tcp("::1", "connect6", |who, port| stream(who, libc::AF_INET6, inet6(Ipv6Addr::LOCALHOST, port))),
    tcp("::", "connect6", |who, port| stream(who, libc::AF_INET6, inet6(Ipv6Addr::UNSPECIFIED, port))),
    tcp("::ffff:127.0.0.1", "connect6", |who, port| stream(who, libc::AF_INET6, mapped(LOCAL, port))),
    tcp("::ffff:0.0.0.0", "connect6", |who, port| stream(who, libc::AF_INET6, mapped(ZERO, port))),
    tcp("MSG_FASTOPEN", "connect4", |who, port| fast_open(who, libc::AF_INET, four(LOCAL, port))),
    tcp("MSG_FASTOPEN ::1", "connect6", |who, port| {
        fast_open(who, libc::AF_INET6, inet6(Ipv6Addr::LOCALHOST, port))
    }),
    tcp("TCP_FASTOPEN_CONNECT", "connect4", |who, port| {
        with(who, libc::AF_INET, libc::SOCK_STREAM, |fd| {
            let (level, name) = (libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT);
            who.must(&Order::SetOption { fd, level, name, value: 1 });
            then(who.connect_on(fd, four(LOCAL, port)), || who.send_on(fd, None))
        })
    }),
    udp("127.0.0.1", "sendmsg4", |who, port| datagram(who, libc::AF_INET, four(LOCAL, port))),
    udp("127.9.9.9", "sendmsg4", |who, port| datagram(who, libc::AF_INET, four([127, 9, 9, 9].into(), port))),
    udp("0.0.0.0", "sendmsg4", |who, port| datagram(who, libc::AF_INET, four(ZERO, port))),
    udp("AF_UNSPEC", "sendmsg4", |who, port| {
        datagram(who, libc::AF_INET, inet(libc::AF_UNSPEC, LOCAL, port))
    }),
    udp("::1", "sendmsg6", |who, port| datagram(who, libc::AF_INET6, inet6(Ipv6Addr::LOCALHOST, port))),
    udp("::", "sendmsg6", |who, port| datagram(who, libc::AF_INET6, inet6(Ipv6Addr::UNSPECIFIED, port))),
    udp("::ffff:127.0.0.1", "sendmsg4", |who, port| datagram(who, libc::AF_INET6, mapped(LOCAL, port))),
    udp("::ffff:0.0.0.0", "sendmsg4", |who, port| datagram(who, libc::AF_INET6, mapped(ZERO, port))),
    udp("IPv4 address on an IPv6 socket", "sendmsg4", |who, port| {
        datagram(who, libc::AF_INET6, four(LOCAL, port))
    }),
    udp("source chosen by IP_PKTINFO", "sendmsg4", |who, port| {
        with(who, libc::AF_INET, libc::SOCK_DGRAM, |fd| {
            let (to, control) = (Some(four(LOCAL, port)), source([127, 0, 0, 5].into()));
            let order = Order::Send { fd, to, data: vec![1], flags: 0, control };
            Seen::from(&who.puppet.obey(&order))
        })
    }),
    udp("connected", "connect4", |who, port| connected(who, libc::AF_INET, four(LOCAL, port))),
    udp("connected ::1", "connect6", |who, port| {
        connected(who, libc::AF_INET6, inet6(Ipv6Addr::LOCALHOST, port))
    }),
    // The kernel asks again with each datagram, because to it the socket is not connected: one flow all the same.
    udp("connected ::ffff:127.0.0.1", "connect6", |who, port| {
        connected(who, libc::AF_INET6, mapped(LOCAL, port))
    }),
    udp("connected, IPv4 address on an IPv6 socket", "connect4", |who, port| {
        connected(who, libc::AF_INET6, four(LOCAL, port))
    }),
];

pub(super) fn four(ip: Ipv4Addr, port: u16) -> Vec<u8> {
    inet(libc::AF_INET, ip, port)
}

fn mapped(ip: Ipv4Addr, port: u16) -> Vec<u8> {
    inet6(ip.to_ipv6_mapped(), port)
}

/// Something done with a new socket.
pub(super) fn with(who: &Workload, domain: i32, kind: i32, work: impl FnOnce(Fd) -> Seen) -> Seen {
    let fd = who.socket(domain, kind);
    let seen = work(fd);
    who.close(fd);
    seen
}

/// The second step after a first one that succeeded.
fn then(first: Seen, second: impl FnOnce() -> Seen) -> Seen {
    if first.errno == 0 { second() } else { first }
}

fn stream(who: &Workload, domain: i32, to: Vec<u8>) -> Seen {
    with(who, domain, libc::SOCK_STREAM, |fd| who.connect_on(fd, to))
}

fn datagram(who: &Workload, domain: i32, to: Vec<u8>) -> Seen {
    with(who, domain, libc::SOCK_DGRAM, |fd| who.send_on(fd, Some(to)))
}

fn connected(who: &Workload, domain: i32, to: Vec<u8>) -> Seen {
    with(who, domain, libc::SOCK_DGRAM, |fd| then(who.connect_on(fd, to), || who.send_on(fd, None)))
}

fn fast_open(who: &Workload, domain: i32, to: Vec<u8>) -> Seen {
    with(who, domain, libc::SOCK_STREAM, |fd| {
        let flags = libc::MSG_FASTOPEN;
        let order = Order::Send { fd, to: Some(to), data: vec![1], flags, control: Vec::new() };
        Seen::from(&who.puppet.obey(&order))
    })
}

/// Ancillary data that chooses the source address of a datagram: `cmsghdr` and `in_pktinfo`.
fn source(ip: Ipv4Addr) -> Vec<u8> {
    let mut control = Vec::new();
    control.extend(28_usize.to_ne_bytes());
    control.extend(libc::IPPROTO_IP.to_ne_bytes());
    control.extend(libc::IP_PKTINFO.to_ne_bytes());
    control.extend(0_i32.to_ne_bytes());
    control.extend(ip.octets());
    // The destination's place, unused when sending, and the padding to the next message.
    control.extend([0; 8]);
    control
}
