//! Flows that were there before, or that others open.

use enforcer_tests::bypass::sys::Socket;
use enforcer_tests::bypass::vectors::packet;
use enforcer_tests::bypass::{Family, TCP, UDP, at, netlink};
use enforcer_tests::puppet::Order;

use super::super::row::Privilege;
use super::super::stage::{NOTHING, POLICIES, Stage, attempt, must};
use super::{abort, close, fd, pause, shout, socket, soon, talk};

/// The allowed peer announces a forbidden address of its own, to which the kernel opens another flow.
pub(crate) fn extra_subflow(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    // Once for all connections to come.
    if !stage.announced.contains(&family) {
        let announced = stage.outside.inside(|| netlink::mptcp_announce(family.forbidden()));
        announced.unwrap_or_else(|error| panic!("announce an address: {error}"));
        stage.announced.push(family);
    }
    let puppet = &stage.who(who).puppet;
    let order =
        Order::Socket { domain: family.domain(), kind: libc::SOCK_STREAM, protocol: libc::IPPROTO_MPTCP };
    let socket = fd(&must(puppet, &order));
    must(puppet, &Order::Connect { fd: socket, to: at(family.allowed(), TCP) });
    shout(puppet, socket, None);
    pause();
    shout(puppet, socket, None);
    // The kernel opens it when it has time.
    let leaked = soon(stage, |stage| stage.leaks().len() as u64);
    close(&stage.who(who).puppet, socket);
    leaked
}

/// Both ends open at once: the answer to a SYN is a SYN-ACK of a socket that never listened.
pub(crate) fn simultaneous_open(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    // Nobody has this address, so nobody answers the first SYN.
    let silent = match family {
        Family::V4 => std::net::IpAddr::from([198, 51, 100, 48]),
        Family::V6 => std::net::IpAddr::from([0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x30]),
    };
    let device = enforcer_tests::bypass::DEVICE;
    let hardware = enforcer_tests::bypass::OUTSIDE_MAC;
    match stage.world.inside(|| netlink::neighbour(device, silent, hardware)) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => panic!("a neighbour: {error}"),
        _ => {}
    }
    let puppet = &stage.who(who).puppet;
    let socket = socket(puppet, family.domain(), libc::SOCK_STREAM | libc::SOCK_NONBLOCK);
    must(puppet, &Order::Bind { fd: socket, to: at(family.own(), 0) });
    let port = enforcer_tests::sockaddr::port(&must(puppet, &Order::Name { fd: socket }).data);
    puppet.obey(&Order::Connect { fd: socket, to: at(silent, TCP) });
    let opening = packet::opening(family, (silent, TCP), (family.own(), port));
    stage.outside.inside(|| {
        let raw = Socket::new(family.domain(), libc::SOCK_RAW, libc::IPPROTO_RAW).expect("a raw socket");
        raw.send_to(&at(family.own(), 0), &opening).expect("the other side's SYN");
    });
    let leaked = soon(stage, |stage| stage.leaks().len() as u64);
    abort(&stage.who(who).puppet, socket);
    leaked
}

/// A connection and a connected datagram socket to the forbidden peer, from before anything was attached.
pub(crate) fn connected_before(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let sockets = stage.before_the_start(|stage| {
        let puppet = &stage.who(who).puppet;
        let kinds = [(libc::SOCK_STREAM, TCP), (libc::SOCK_DGRAM, UDP)];
        kinds.map(|(kind, port)| {
            let socket = socket(puppet, family.domain(), kind);
            must(puppet, &Order::Connect { fd: socket, to: at(family.forbidden(), port) });
            socket
        })
    });
    stage.quiet();
    let puppet = &stage.who(who).puppet;
    for socket in sockets {
        shout(puppet, socket, None);
    }
    let leaks = stage.leaks().len() as u64;
    for socket in sockets {
        abort(&stage.who(who).puppet, socket);
    }
    leaks
}

/// A datagram socket with somebody else's address, bound before anything was attached.
pub(crate) fn foreign_before(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    const IPV6_FREEBIND: i32 = 78;
    let made = stage.before_the_start(|stage| {
        let puppet = &stage.who(who).puppet;
        let made = socket(puppet, family.domain(), libc::SOCK_DGRAM);
        let (level, name) = (libc::IPPROTO_IPV6, IPV6_FREEBIND);
        must(puppet, &Order::SetOption { fd: made, level, name, value: 1 });
        must(puppet, &Order::Bind { fd: made, to: at(family.foreign(), 0) });
        made
    });
    let puppet = &stage.who(who).puppet;
    shout(puppet, made, Some(at(family.allowed(), UDP)));
    close(puppet, made);
    0
}

/// What was allowed when the flow began is not allowed any more.
pub(crate) fn live_flow(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let puppet = &stage.who(who).puppet;
    let sockets = [(libc::SOCK_STREAM, TCP), (libc::SOCK_DGRAM, UDP)].map(|(kind, port)| {
        let socket = socket(puppet, family.domain(), kind);
        talk(puppet, socket, at(family.allowed(), port));
        socket
    });
    stage.quiet();
    stage.direct.policies(NOTHING);
    let puppet = &stage.who(who).puppet;
    for socket in sockets {
        shout(puppet, socket, None);
    }
    // To the allowed peer, so that the sniffer alone would not know.
    let marked =
        soon(stage, |stage| stage.sniffer.collect().iter().filter(|packet| packet.is_marked).count() as u64);
    let refused = attempt(&stage.who(who).puppet, "ordinary traffic", family);
    assert!(refused.errno != 0 || stage.is_mutated(), "a new flow under a policy that allows nothing");
    stage.direct.policies(POLICIES);
    for socket in sockets {
        abort(&stage.who(who).puppet, socket);
    }
    marked
}
