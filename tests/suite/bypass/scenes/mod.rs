//! Ways that take several processes, or the harness as an accomplice.

pub(super) mod flows;
pub(super) mod identity;
pub(super) mod inbound;
pub(super) mod others;

use std::time::{Duration, Instant};

use enforcer_tests::bypass::MARKER;
use enforcer_tests::patience;
use enforcer_tests::puppet::{Answer, Fd, Order, Puppet};
use enforcer_tests::sockaddr::unspecified;

use super::stage::{Stage, must};

/// A new socket that must come into being.
fn socket(puppet: &Puppet, domain: i32, kind: i32) -> Fd {
    fd(&must(puppet, &Order::Socket { domain, kind, protocol: 0 }))
}

/// The descriptor in an answer.
fn fd(answer: &Answer) -> Fd {
    Fd::try_from(answer.value).expect("descriptors are small")
}

/// A marked message on a socket; nobody asks whether it went.
fn shout(puppet: &Puppet, fd: Fd, to: Option<Vec<u8>>) {
    puppet.obey(&Order::Send {
        fd,
        to,
        data: MARKER.to_vec(),
        flags: libc::MSG_NOSIGNAL,
        control: Vec::new(),
    });
}

/// Tries to connect, then to send.
fn talk(puppet: &Puppet, fd: Fd, to: Vec<u8>) {
    if puppet.obey(&Order::Connect { fd, to }).errno == 0 {
        shout(puppet, fd, None);
    }
}

/// Calls on a puppet's socket end soon from now on.
fn hasten(puppet: &Puppet, fd: Fd) {
    // TCP_SYNCNT and TCP_USER_TIMEOUT: an attempt that nobody answers ends after half a second.
    for (name, value) in [(7, 1), (18, 500)] {
        puppet.obey(&Order::SetOption { fd, level: libc::IPPROTO_TCP, name, value });
    }
}

fn close(puppet: &Puppet, fd: Fd) {
    must(puppet, &Order::Close { fd });
}

/// Closes a socket that has something left to say, which is not said any more.
fn abort(puppet: &Puppet, fd: Fd) {
    puppet.obey(&Order::Connect { fd, to: unspecified() });
    close(puppet, fd);
}

/// What leaks in its time: at once, or soon if it is waited for.
fn soon(stage: &mut Stage, mut leaked: impl FnMut(&mut Stage) -> u64) -> u64 {
    let deadline = Instant::now() + patience::seconds(8);
    pause();
    loop {
        let count = leaked(stage);
        if count > 0 || !stage.wanted || Instant::now() > deadline {
            return count;
        }
    }
}

/// What takes its time without anybody to ask.
fn pause() {
    std::thread::sleep(Duration::from_millis(20) * patience::slowness());
}
