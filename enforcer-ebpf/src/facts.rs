//! What a call is about, gathered before anything is decided.
//!
//! Every value passes through [`forget`]: the verifier walks each path that leads to a different value it can tell
//! apart, and the paths through parsing and identification (IPv4 or not, socket found or not, ...) would multiply
//! with those through the verdict. A value it knows nothing of lets it join them.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::programs::SockAddrContext;
use enforcer_common::address::Address;
use enforcer_common::hook::Hook;
use enforcer_common::verdict::{Verdict, Word};

use crate::identity;
use crate::parse::sock_addr::destination;

/// Someone: an identity and the cgroup in which the socket was created.
#[derive(Clone, Copy)]
pub struct Party {
    pub identity: u64,
    /// 0 where no socket is known.
    pub cgroup: u64,
}

/// What a call is about.
pub struct Facts {
    /// Who created the socket; the caller where that was not recorded.
    pub creator: Party,
    /// Who makes the call.
    pub caller: Party,
    /// The other end. Its cgroup is known where it was found by its socket.
    pub peer: Party,
    /// Where the call goes.
    pub address: Address,
    /// The address that the other end will see.
    pub source: Address,
    /// Destination port.
    pub port: u64,
    /// IP protocol number.
    pub protocol: u64,
    /// Not 0 where denials are only reported: the daemon's mode is `audit`.
    pub audit: u64,
    /// See [`forget`].
    noise: u64,
}

impl Facts {
    /// The same verdict, of which the verifier knows nothing: see [`forget`].
    #[inline(always)]
    pub fn forget_verdict(&self, verdict: Verdict) -> Verdict {
        Verdict {
            enforced: Word(forget(verdict.enforced.0, self.noise)),
            hypothetical: Word(forget(verdict.hypothetical.0, self.noise)),
        }
    }
}

#[inline(always)]
pub fn gather(hook: Hook, ctx: &SockAddrContext, audit: bool) -> Facts {
    // SAFETY: no arguments. Inlined by the verifier's fix-ups to a plain load; any unknown number would do.
    let noise = unsafe { bpf_jiffies64() };
    let to = destination(hook, ctx);
    let (creator, caller) = identity::near(ctx);
    let peer = forget_party(identity::peer(ctx, &to), noise);
    let source = if to.source.is_unchosen() {
        // Not chosen by the caller: loopback destinations are reached from the loopback address of the family.
        if to.address.is_v4() { Address::LOOPBACK_V4 } else { Address::LOOPBACK_V6 }
    } else {
        to.source
    };
    Facts {
        creator: forget_party(creator, noise),
        caller: forget_party(caller, noise),
        peer,
        address: forget_address(to.address, noise),
        source: forget_address(source, noise),
        port: forget(u64::from(to.port), noise),
        protocol: forget(u64::from(to.protocol), noise),
        audit: forget(u64::from(audit), noise),
        noise,
    }
}

#[inline(always)]
fn forget_party(party: Party, noise: u64) -> Party {
    Party { identity: forget(party.identity, noise), cgroup: forget(party.cgroup, noise) }
}

#[inline(always)]
fn forget_address(address: Address, noise: u64) -> Address {
    Address { high: forget(address.high, noise), low: forget(address.low, noise) }
}

/// The same value, of which the verifier knows nothing.
#[inline(always)]
pub fn forget(value: u64, noise: u64) -> u64 {
    let mut value = value;
    // SAFETY: two register-only instructions that cancel out.
    unsafe {
        asm!("{value} ^= {noise}", "{value} ^= {noise}", value = inout(reg) value, noise = in(reg) noise, options(pure, nomem, nostack));
    }
    value
}
