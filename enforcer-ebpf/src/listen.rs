//! Who may have a port: policies say on which ones a workload may listen, and none can take one that belongs to another.
//!
//! `SO_REUSEPORT`, and UDP sockets with `SO_REUSEADDR`, share ports or take them over, address by address; the kernel
//! compares user ids at most. Containers on one network namespace, often all of them root, are told apart here.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_set_retval, bpf_sk_release};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use enforcer_common::abi::config::Mode;
use enforcer_common::abi::flow::Outcome;
use enforcer_common::address::Address;
use enforcer_common::hook::Hook;
use enforcer_common::id::IdentityId;
use enforcer_common::reason::Reason;

use crate::facts::{Facts, Party, SERVER};
use crate::gate::{self, ALLOW, REFUSE};
use crate::judge::Judgement;
use crate::parse::sock_addr::{Destination, destination, transport};
use crate::parse::word;
use crate::policy::{self, zero};
use crate::{emit, identity, peer, sockets};

/// `EADDRINUSE`, as the kernel itself would say.
const IN_USE: i32 = -98;

/// `bind`: does the port belong to somebody else?
#[inline(always)]
pub fn bound(hook: Hook, ctx: &SockAddrContext) -> i32 {
    let mode = gate::mode();
    let to = destination(hook as u64, ctx);
    if to.port == 0 || matches!(mode, Mode::Off) {
        return ALLOW;
    }
    let own = sockets::of_call(ctx);
    let mut facts = Facts::nothing();
    facts.creator = if own.is_null() { identity::caller() } else { identity::creator(own) };
    facts.caller = facts.creator;
    if !identity::is_managed(facts.creator) {
        return ALLOW;
    }
    facts.peer = owner(ctx, &to, to.address);
    if facts.peer.cgroup == 0 && to.address.high == 0 && to.address.low == 0 {
        // A socket on `::` takes IPv4 too.
        facts.peer = owner(ctx, &to, Address::v4(0));
    }
    if facts.peer.cgroup == 0 || facts.peer.identity == facts.creator.identity {
        return ALLOW;
    }
    facts.address = to.address;
    facts.set(to.port, 0, to.protocol, gate::audit(mode));
    let result = gate::refuse(hook, &facts, Reason::PortTaken);
    if result == REFUSE {
        // SAFETY: a negative errno, as the helper wants it.
        unsafe { bpf_set_retval(IN_USE) };
    }
    result
}

/// `post_bind`, when the port is chosen: may this workload listen on it?
#[inline(always)]
pub fn may(hook: Hook, ctx: &SockContext) -> i32 {
    let mode = gate::mode();
    if matches!(mode, Mode::Off) {
        return ALLOW;
    }
    // SAFETY: `sock` is the context of this hook, which the helper takes as its socket.
    let own = unsafe { sockets::storage(ctx.sock.cast(), 0) };
    let mut facts = Facts::nothing();
    facts.creator = if own.is_null() { identity::caller() } else { identity::creator(own) };
    facts.caller = facts.creator;
    if !identity::is_managed(facts.creator) {
        return ALLOW;
    }
    let (protocol, port) = (word!(ctx.sock, bpf_sock, protocol), word!(ctx.sock, bpf_sock, src_port));
    facts.set(0, port as u16, transport(protocol), gate::audit(mode) | SERVER);
    let verdict =
        policy::listen(IdentityId(facts.creator.identity as u32), facts.protocol(), facts.local_port());
    let judgement = Judgement::of_listening(&facts, verdict);
    if judgement.decisive().outcome == Outcome::Forwarded as u64 {
        return ALLOW;
    }
    emit::socket(ctx, hook, &facts, &judgement);
    if judgement.lets_through() {
        return ALLOW;
    }
    // SAFETY: a negative errno, as the helper wants it.
    unsafe { bpf_set_retval(-judgement.decisive().word.errno().number()) };
    REFUSE
}

/// Who has the port at this address; nobody if it is free.
#[inline(always)]
fn owner(ctx: &SockAddrContext, to: &Destination, address: Address) -> Party {
    let nowhere = Address { high: zero(), low: zero() };
    // SAFETY: the hook's own context.
    let sk = unsafe { peer::look_up(ctx.sock_addr.cast(), to.protocol, address, to.port, nowhere, 0) };
    if sk.is_null() {
        return Party::nobody();
    }
    // SAFETY: a referenced socket from the look-up, released below.
    let found = unsafe { sockets::recorded(sk.cast()) };
    let party = if found.is_null() {
        // From before enforcer, or the kernel's.
        Party { identity: IdentityId::HOST.0.into(), cgroup: 1 }
    } else {
        identity::creator(found)
    };
    // SAFETY: releases the reference that the look-up took, exactly once.
    unsafe { bpf_sk_release(sk.cast()) };
    party
}
