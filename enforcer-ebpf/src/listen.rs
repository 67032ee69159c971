//! Who may have a port: a workload can't take one that belongs to another.
//!
//! `SO_REUSEPORT`, and UDP sockets with `SO_REUSEADDR`, share ports or take them over, address by address; the kernel
//! compares user ids at most. Containers on one network namespace, often all of them root, are told apart here.

use aya_ebpf::helpers::generated::{bpf_set_retval, bpf_sk_release};
use aya_ebpf::programs::SockAddrContext;
use enforcer_common::abi::config::Mode;
use enforcer_common::address::Address;
use enforcer_common::hook::Hook;
use enforcer_common::id::IdentityId;
use enforcer_common::reason::Reason;

use crate::facts::{Facts, Party};
use crate::gate::{self, ALLOW, REFUSE};
use crate::parse::sock_addr::{Destination, destination};
use crate::policy::zero;
use crate::{identity, peer, sockets};

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
