//! What comes in: who may call whom, and who gets what was meant for another.

use std::net::IpAddr;

use enforcer_tests::bypass::{Family, SERVED, UDP, WANTED, at};
use enforcer_tests::patience;
use enforcer_tests::puppet::{Fd, Order, Puppet};
use enforcer_tests::sockaddr;

use super::super::row::Privilege;
use super::super::stage::{Stage, must};
use super::{fd, shout, socket, soon};

/// Connections until half of them must have gone to a thief.
const CALLS: usize = 6;

fn listener(puppet: &Puppet, at: Vec<u8>, family: Family) -> Fd {
    let listener = socket(puppet, family.domain(), libc::SOCK_STREAM);
    must(puppet, &Order::Bind { fd: listener, to: at });
    must(puppet, &Order::Listen { fd: listener });
    listener
}

fn port(puppet: &Puppet, fd: Fd) -> u16 {
    sockaddr::port(&must(puppet, &Order::Name { fd }).data)
}

/// Whether a peer gets through who must not, unless that is what is waited for.
fn reaches(stage: &Stage, peer: IpAddr, to: (IpAddr, u16)) -> bool {
    if stage.wanted { stage.outside.must_reach(peer, to) } else { stage.outside.reaches(peer, to) }
}

/// Whether the forbidden peer gets through; the allowed one has to.
fn forbidden_reaches(stage: &Stage, family: Family, port: u16) -> u64 {
    let to = (family.own(), port);
    assert!(stage.outside.must_reach(family.allowed(), to), "the allowed peer calls the server");
    u64::from(reaches(stage, family.forbidden(), to))
}

/// A server, which the forbidden peer calls.
pub(crate) fn handshake(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let puppet = &stage.who(who).puppet;
    let server = listener(puppet, at(family.any(), SERVED), family);
    let reached = forbidden_reaches(stage, family, SERVED);
    must(puppet, &Order::Close { fd: server });
    reached
}

/// The same server in the hands of a friend, whom the forbidden peer may call.
pub(crate) fn passed_listener(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let path = stage.world.folder().join(format!("listener-{who:?}-{family:?}"));
    let mailbox = fd(&stage.friend.must(&Order::Mailbox { path: path.clone() }));
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("for all");
    let puppet = &stage.who(who).puppet;
    let server = listener(puppet, at(family.any(), SERVED), family);
    must(puppet, &Order::Give { path: path.clone(), fd: server });
    must(puppet, &Order::Close { fd: server });
    let taken = fd(&stage.friend.must(&Order::Take { fd: mailbox }));
    std::fs::remove_file(&path).expect("remove the mailbox");
    let reached = forbidden_reaches(stage, family, SERVED);
    stage.friend.close(taken);
    stage.friend.close(mailbox);
    reached
}

/// A second listener at the neighbour's port, by `SO_REUSEPORT`.
pub(crate) fn stolen_port(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let share = |puppet: &Puppet| {
        let listener = socket(puppet, family.domain(), libc::SOCK_STREAM);
        let (level, name) = (libc::SOL_SOCKET, libc::SO_REUSEPORT);
        must(puppet, &Order::SetOption { fd: listener, level, name, value: 1 });
        let bound = puppet.obey(&Order::Bind { fd: listener, to: at(family.any(), WANTED.0) });
        if bound.errno == 0 && puppet.obey(&Order::Listen { fd: listener }).errno == 0 {
            must(puppet, &Order::Serve { fd: listener, stream: true });
        }
        listener
    };
    let owner = stage.fresh(&stage.victim.cgroup, Privilege::Root);
    share(&owner);
    let thief = stage.fresh(&stage.web.cgroup, who);
    let stolen = share(&thief);
    let to: (IpAddr, u16) = (family.own(), WANTED.0);
    let served = || u64::try_from(must(&thief, &Order::Served { fd: stolen }).value).expect("a count");
    for _ in 0..if stage.is_mutated() { 10 * CALLS } else { CALLS } {
        stage.outside.reaches(family.allowed(), to);
        if served() > 0 {
            break;
        }
    }
    soon(stage, |_| served())
}

/// A datagram socket at one address, where the neighbour has all.
pub(crate) fn stolen_datagram(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let take = |puppet: &Puppet, ip: IpAddr| {
        let taker = socket(puppet, family.domain(), libc::SOCK_DGRAM);
        let bound = puppet.obey(&Order::Bind { fd: taker, to: at(ip, WANTED.1) });
        if bound.errno == 0 {
            must(puppet, &Order::Serve { fd: taker, stream: false });
        }
        taker
    };
    let owner = stage.fresh(&stage.victim.cgroup, Privilege::Root);
    take(&owner, family.any());
    let thief = stage.fresh(&stage.web.cgroup, who);
    let stolen = take(&thief, family.own());
    stage.outside.sends(family.allowed(), (family.own(), WANTED.1));
    soon(stage, |_| u64::try_from(must(&thief, &Order::Served { fd: stolen }).value).expect("a count"))
}

/// `listen(2)` gives a port of its own, past the hooks of `bind(2)`.
pub(crate) fn listen_unbound(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let puppet = &stage.who(who).puppet;
    let server = socket(puppet, family.domain(), libc::SOCK_STREAM);
    must(puppet, &Order::Listen { fd: server });
    let to = (family.own(), port(puppet, server));
    // Neither peer may call this port.
    let peers = [family.forbidden(), family.allowed()];
    let reached = peers.map(|peer| u64::from(reaches(stage, peer, to)));
    must(puppet, &Order::Close { fd: server });
    reached.iter().sum()
}

/// A datagram socket that was given a port when it sent something.
pub(crate) fn automatic_port(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let puppet = stage.fresh(&stage.web.cgroup, who);
    let server = socket(&puppet, family.domain(), libc::SOCK_DGRAM);
    shout(&puppet, server, Some(at(family.allowed(), UDP)));
    must(&puppet, &Order::Serve { fd: server, stream: false });
    let served = || must(&puppet, &Order::Served { fd: server }).value;
    // The answer of the allowed peer is none of it.
    patience::until_true("the allowed peer answers", patience::seconds(2), || served() > 0);
    let before = served();
    stage.outside.sends(family.forbidden(), (family.own(), port(&puppet, server)));
    soon(stage, |_| u64::try_from(served() - before).expect("a count"))
}
