//! Sockets and processes that are not where they come from.

use std::fs;
use std::path::Path;

use enforcer_tests::bypass::{Family, TCP, UDP, at};
use enforcer_tests::puppet::{Fd, Order, Puppet};
use enforcer_tests::workload::cgroup_id;

use super::super::row::Privilege;
use super::super::stage::{Stage, attempt, must};
use super::{abort, fd, hasten, shout, socket, talk};

const KINDS: [(i32, u16); 2] = [(libc::SOCK_STREAM, TCP), (libc::SOCK_DGRAM, UDP)];

fn sockets(puppet: &Puppet, family: Family) -> [(Fd, u16); 2] {
    KINDS.map(|(kind, port)| (socket(puppet, family.domain(), kind), port))
}

fn forbidden(puppet: &Puppet, sockets: [(Fd, u16); 2], family: Family) {
    for (socket, port) in sockets {
        hasten(puppet, socket);
        // An unconnected datagram first, where the socket can.
        shout(puppet, socket, Some(at(family.forbidden(), port)));
        talk(puppet, socket, at(family.forbidden(), port));
        abort(puppet, socket);
    }
}

fn move_to(puppet: &Puppet, directory: &Path) {
    fs::write(directory.join("cgroup.procs"), puppet.pid().to_string()).expect("move a process");
}

/// A friend, who may, makes sockets and passes them on to one who may not.
pub(crate) fn passed(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let path = stage.world.folder().join(format!("mailbox-{who:?}-{family:?}"));
    // Bound by root, and kept when it becomes nobody.
    let puppet = stage.fresh(&stage.web.cgroup, Privilege::Root);
    let mailbox = fd(&must(&puppet, &Order::Mailbox { path: path.clone() }));
    if who == Privilege::Nobody {
        must(&puppet, &Order::Demote);
    }
    let taken = KINDS.map(|(kind, port)| {
        let made = stage.friend.socket(family.domain(), kind);
        stage.friend.must(&Order::Give { path: path.clone(), fd: made });
        stage.friend.close(made);
        (fd(&must(&puppet, &Order::Take { fd: mailbox })), port)
    });
    fs::remove_file(&path).expect("remove the mailbox");
    forbidden(&puppet, taken, family);
    0
}

/// Makes sockets, then is moved to where they would be allowed.
pub(crate) fn moved_away(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let puppet = stage.fresh(&stage.web.cgroup, who);
    let sockets = sockets(&puppet, family);
    move_to(&puppet, &stage.friend.cgroup);
    forbidden(&puppet, sockets, family);
    0
}

/// Makes sockets where they would be allowed, then is moved to where they are not.
pub(crate) fn moved_here(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let puppet = stage.fresh(&stage.friend.cgroup, who);
    let sockets = sockets(&puppet, family);
    move_to(&puppet, &stage.web.cgroup);
    forbidden(&puppet, sockets, family);
    0
}

/// A directory of its own below the workload's.
pub(crate) fn nested(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let inner = stage.web.cgroup.join("inner");
    let leaf = inner.join("leaf");
    fs::create_dir_all(&leaf).expect("a nested cgroup");
    let puppet = stage.fresh(&leaf, who);
    forbidden(&puppet, sockets(&puppet, family), family);
    if !stage.is_mutated() {
        let answer = attempt(&puppet, "ordinary traffic", family);
        assert_eq!(answer.errno, 0, "ordinary traffic from a nested cgroup");
    }
    drop(puppet);
    remove(&leaf);
    remove(&inner);
    0
}

/// A directory that is gone while its sockets live on elsewhere.
pub(crate) fn removed(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let leaf = stage.web.cgroup.join("removed");
    fs::create_dir(&leaf).expect("a nested cgroup");
    let puppet = stage.fresh(&leaf, who);
    let sockets = sockets(&puppet, family);
    move_to(&puppet, &stage.friend.cgroup);
    remove(&leaf);
    forbidden(&puppet, sockets, family);
    0
}

/// The first instruction of a process in a managed tree, whose workload nobody has told of yet.
pub(crate) fn unknown(stage: &mut Stage, who: Privilege, family: Family) -> u64 {
    let directory = stage.world.directory("unknown/new");
    let puppet = stage.fresh(&directory, who);
    forbidden(&puppet, sockets(&puppet, family), family);
    drop(puppet);
    remove(&directory);
    0
}

/// How many ids come again, of directories made and removed.
pub(crate) fn ids_rise(stage: &mut Stage, _: Privilege, _: Family) -> u64 {
    let directory = stage.web.cgroup.join("again");
    let mut last = 0;
    let mut repeated = 0;
    for _ in 0..500 {
        fs::create_dir(&directory).expect("a cgroup");
        let id = cgroup_id(&directory).0;
        repeated += u64::from(id <= last);
        last = id;
        fs::remove_dir(&directory).expect("an empty cgroup");
    }
    repeated
}

/// Removes a directory whose last process has just ended.
fn remove(directory: &Path) {
    enforcer_tests::patience::until_true("a cgroup is empty", enforcer_tests::patience::seconds(5), || {
        fs::remove_dir(directory).is_ok()
    });
}
