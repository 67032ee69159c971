//! Other families of sockets, and other people's programs.

use std::path::Path;

use enforcer_tests::bypass::foreign::{Attachment, Deed, Foreign};
use enforcer_tests::bypass::ring::{self, By};
use enforcer_tests::bypass::sniffer::link_address;
use enforcer_tests::bypass::sys::{Socket, device};
use enforcer_tests::bypass::{DEVICE, Family, TCP, UDP, VICTIM, at};
use enforcer_tests::puppet::{Order, Puppet};

use super::super::row::Privilege;
use super::super::stage::{Stage, must};
use super::{abort, close, fd, hasten, socket, soon, talk};

/// A Unix socket without a file, whose name all of the namespace knows.
pub(crate) fn abstract_socket(stage: &mut Stage, who: Privilege, _: Family) -> u64 {
    let name = [&1_u16.to_ne_bytes()[..], b"\0enforcer-bypass"].concat();
    let server = socket(&stage.victim.puppet, libc::AF_UNIX, libc::SOCK_STREAM);
    must(&stage.victim.puppet, &Order::Bind { fd: server, to: name.clone() });
    must(&stage.victim.puppet, &Order::Listen { fd: server });
    let puppet = &stage.who(who).puppet;
    let client = socket(puppet, libc::AF_UNIX, libc::SOCK_STREAM);
    let connected = puppet.obey(&Order::Connect { fd: client, to: name });
    close(puppet, client);
    close(&stage.victim.puppet, server);
    u64::from(connected.errno == 0)
}

/// A server of the harness, in the namespace it is called in.
pub(crate) fn vsock_loopback() -> std::io::Result<(Socket, u32)> {
    const ANY: u32 = u32::MAX;
    let server = Socket::new(libc::AF_VSOCK, libc::SOCK_STREAM, 0)?;
    // Any port, of the one address that leads to oneself.
    server.bind(&vsock_address(1, ANY))?;
    server.listen()?;
    let port = server.vsock_port()?;
    let client = Socket::new(libc::AF_VSOCK, libc::SOCK_STREAM, 0)?;
    client.connect(&vsock_address(1, port))?;
    Ok((server, port))
}

fn vsock_address(context: u32, port: u32) -> Vec<u8> {
    let family = u16::try_from(libc::AF_VSOCK).expect("families are small numbers");
    let mut bytes = [family.to_ne_bytes(), [0; 2]].concat();
    bytes.extend(port.to_ne_bytes());
    bytes.extend(context.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// From one network namespace to another, by neither's devices.
pub(crate) fn vsock(stage: &mut Stage, who: Privilege, _: Family) -> u64 {
    let (_server, port) = stage.outside.inside(vsock_loopback).expect("it is there");
    let puppet = &stage.who(who).puppet;
    let made = puppet.obey(&Order::Socket { domain: libc::AF_VSOCK, kind: libc::SOCK_STREAM, protocol: 0 });
    if made.errno != 0 {
        return 0;
    }
    let connected = puppet.obey(&Order::Connect { fd: fd(&made), to: vsock_address(1, port) });
    close(puppet, fd(&made));
    u64::from(connected.errno == 0)
}

/// Reads what comes in for the neighbour.
pub(crate) fn listening_in(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let protocol: u16 = if family == Family::V4 { 0x0800 } else { 0x86dd };
    let puppet = stage.fresh(&stage.web.cgroup, who);
    let made = puppet.obey(&Order::Socket {
        domain: libc::AF_PACKET,
        kind: libc::SOCK_DGRAM,
        protocol: protocol.to_be().into(),
    });
    if made.errno != 0 {
        return 0;
    }
    let index = stage.world.inside(|| device(DEVICE)).expect("the wire's end");
    must(&puppet, &Order::Bind { fd: fd(&made), to: link_address(protocol, index, [0; 6]) });
    must(&puppet, &Order::Serve { fd: fd(&made), stream: false });
    stage.outside.sends(family.allowed(), (family.own(), VICTIM));
    soon(stage, |_| u64::try_from(must(&puppet, &Order::Served { fd: fd(&made) }).value).expect("a count"))
}

/// Whether the kernel has any family that no other row is about.
pub(crate) fn families(_: Family) -> Result<(), String> {
    if enforcer_tests::bypass::vectors::other_families() > 0 {
        return Ok(());
    }
    Err("the kernel makes sockets of no other family".to_owned())
}

/// Whether a ring can set options of sockets.
pub(crate) fn ring_options(family: Family) -> Result<(), String> {
    let socket = Socket::new(family.domain(), libc::SOCK_DGRAM, 0);
    let set = socket
        .and_then(|socket| ring::set_option(By::Caller, &socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1));
    set.map_err(|error| format!("io_uring sets no options: {error}"))
}

/// Whether the kernel has routing headers of mobile nodes.
pub(crate) fn routing_type_2(_: Family) -> Result<(), String> {
    const IPV6_RTHDR: i32 = 57;
    let header = [&[0, 2, 2, 1, 0, 0, 0, 0][..], &[0x20, 1, 0xd, 0xb8], &[0; 12]].concat();
    let set = Socket::new(libc::AF_INET6, libc::SOCK_DGRAM, 0)
        .and_then(|socket| socket.set_bytes(libc::IPPROTO_IPV6, IPV6_RTHDR, &header));
    set.map_err(|error| format!("the kernel knows no routing header of type 2: {error}"))
}

/// Whether a program can ask to come before those of inner directories.
pub(crate) fn preorder() -> Result<(), String> {
    let root = enforcer_tests_root()?;
    let probe = root.join(format!("enforcer-test-{}-preorder", std::process::id()));
    std::fs::create_dir(&probe).map_err(|error| error.to_string())?;
    let tried = Foreign::attach(&probe, Family::V4, Deed::Allow, Attachment::LinkFirst).map(drop);
    std::fs::remove_dir(&probe).map_err(|error| error.to_string())?;
    tried.map_err(|error| format!("the kernel has no BPF_F_PREORDER: {error}"))
}

fn enforcer_tests_root() -> Result<std::path::PathBuf, String> {
    enforcer::config::cgroup_root(None).map_err(|error| error.to_string())
}

fn with_foreign(stage: &Stage, cgroup: &Path, deed: Deed, how: Attachment, run: (Privilege, Family)) -> u64 {
    let (who, family) = run;
    let foreign = Foreign::attach(cgroup, family, deed, how).expect("attach a program");
    // A redirected call is to whom it may be.
    let to = if let Deed::Redirect(_) = deed { family.allowed() } else { family.forbidden() };
    let puppet = &stage.who(who).puppet;
    for (kind, port) in [(libc::SOCK_STREAM, TCP), (libc::SOCK_DGRAM, UDP)] {
        let socket = socket(puppet, family.domain(), kind);
        hasten(puppet, socket);
        talk(puppet, socket, at(to, port));
        abort(puppet, socket);
    }
    drop(foreign);
    0
}

/// Somebody's later program in the same directory takes the refusal back.
pub(crate) fn overturned(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    with_foreign(stage, &stage.world.guarded(), Deed::Overturn, Attachment::Link, (who, family))
}

/// The same from the directory above, whose programs come last.
pub(crate) fn overturned_above(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let above = stage.world.guarded().join("..");
    with_foreign(stage, &above, Deed::Overturn, Attachment::Link, (who, family))
}

/// The same by a program that comes first.
pub(crate) fn overturned_first(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    with_foreign(stage, &stage.world.guarded(), Deed::Overturn, Attachment::LinkFirst, (who, family))
}

/// A program of the old kind in the workload's own directory, which would replace those above.
pub(crate) fn overridden(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let inner = stage.web.cgroup.join("override");
    std::fs::create_dir(&inner).expect("a nested cgroup");
    let foreign = Foreign::attach(&inner, family, Deed::Allow, Attachment::Override);
    let puppet: Puppet = stage.fresh(&inner, who);
    for (kind, port) in [(libc::SOCK_STREAM, TCP), (libc::SOCK_DGRAM, UDP)] {
        let socket = socket(&puppet, family.domain(), kind);
        hasten(&puppet, socket);
        talk(&puppet, socket, at(family.forbidden(), port));
    }
    drop((foreign, puppet));
    enforcer_tests::patience::until_true("a cgroup is empty", enforcer_tests::patience::seconds(5), || {
        std::fs::remove_dir(&inner).is_ok()
    });
    0
}

/// Somebody's later program sends an allowed call elsewhere.
pub(crate) fn redirected(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let deed = Deed::Redirect(family.forbidden());
    with_foreign(stage, &stage.world.guarded(), deed, Attachment::Link, (who, family))
}
