//! Who is who on this side: the creator of a socket, and the calling process.

use core::ptr::read_volatile;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_ktime_get_boot_ns, bpf_skb_ancestor_cgroup_id,
};
use enforcer_common::abi::config::Stat;
use enforcer_common::abi::identity::{Binding, SocketIdentity};
use enforcer_common::id::IdentityId;
use enforcer_common::limits::CGROUP_DEPTH;

use crate::facts::Party;
use crate::maps::BINDINGS;
use crate::sockets::ancestor;
use crate::{fault, flows};

/// Who created the socket with this storage, which is not null.
#[inline(always)]
pub fn creator(storage: *mut SocketIdentity) -> Party {
    // SAFETY: a map value of this type, alive as long as the socket, which the caller holds.
    unsafe { Party { identity: resolve(storage), cgroup: (*storage).leaf } }
}

/// Who makes this call. Only in process context: never in a packet or socket-operations hook.
#[inline(always)]
pub fn caller() -> Party {
    Party { identity: resolve_current(), cgroup: current() }
}

/// The calling process's cgroup.
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: no arguments; always available in the hooks of processes.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Whether policies are about this party: a workload, or a process in a managed tree that belongs to none.
#[inline(always)]
pub fn is_managed(party: Party) -> bool {
    party.identity != u64::from(IdentityId::HOST.0)
}

/// The identity bound to the innermost of the directories that a socket was created in; the host where none is bound.
/// Looked up once in an epoch: every change of bindings begins another, and so does the kernel time at which one ends.
///
/// Global (see `judge.rs`).
///
/// # Safety
/// `storage` is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn resolve(storage: *mut SocketIdentity) -> u64 {
    // SAFETY: the caller's promise; null is ruled out.
    let Some(socket) = (unsafe { storage.as_mut() }) else { return u64::from(IdentityId::UNMANAGED.0) };
    // Before the bindings are looked at: what is found now must not count for a later epoch.
    let epoch = flows::fresh_epoch() << 32;
    // One word, written at once: a reader on another CPU meets the one before or this one.
    // SAFETY: a live, aligned word; volatile, so that it is not read again after the check.
    let found = unsafe { read_volatile(&raw const socket.found) };
    if epoch != 0 && found >> 32 == epoch >> 32 {
        return found & 0xffff_ffff;
    }
    let mut identity = u64::from(IdentityId::HOST.0);
    for cgroup in socket.cgroups.iter().rev() {
        let bound = bound(*cgroup);
        if bound != 0 {
            identity = bound;
            break;
        }
    }
    if epoch != 0 {
        socket.found = epoch | identity;
    }
    identity
}

/// As [`resolve`], for the calling process.
#[unsafe(no_mangle)]
#[inline(never)]
fn resolve_current() -> u64 {
    let mut identity = u64::from(IdentityId::HOST.0);
    let mut level = 0;
    for _ in 0..CGROUP_DEPTH {
        level += 1;
        let cgroup = ancestor(level);
        if cgroup == 0 {
            break;
        }
        let found = bound(cgroup);
        if found != 0 {
            identity = found;
        }
    }
    identity
}

/// The identity bound to this directory, or 0. A BPF hash that changes in place can return another key's value, so
/// the value carries its key; after two mismatches the answer is an identity that nothing allows.
#[inline(never)]
pub fn bound(cgroup: u64) -> u64 {
    let mut identity = look(cgroup);
    if identity == WRONG_KEY {
        fault::report(Stat::WrongKey);
        identity = look(cgroup);
    }
    if identity == WRONG_KEY { u64::from(IdentityId::UNMANAGED.0) } else { identity }
}

/// Not an identity: the map returned another key's value, or one that changed meanwhile.
const WRONG_KEY: u64 = u64::MAX;

#[inline(never)]
fn look(cgroup: u64) -> u64 {
    if cgroup == 0 {
        return 0;
    }
    // SAFETY: copied at once and checked.
    let Some(place) = (unsafe { BINDINGS.get(cgroup) }) else { return 0 };
    // The element can be given to another key at any moment, also between the check of a word and its use.
    // SAFETY: a live, aligned value; volatile, so that no word is read again after the check.
    let binding = unsafe {
        Binding {
            cgroup: read_volatile(&raw const place.cgroup),
            until: read_volatile(&raw const place.until),
            identity: read_volatile(&raw const place.identity),
            after: read_volatile(&raw const place.after),
            seal: read_volatile(&raw const place.seal),
        }
    };
    if binding.cgroup != cgroup || !binding.is_whole() {
        return WRONG_KEY;
    }
    // SAFETY: no arguments.
    let over = binding.until != u64::MAX && unsafe { bpf_ktime_get_boot_ns() } >= binding.until;
    u64::from(if over { binding.after } else { binding.identity })
}

/// The identity of a packet's socket, where no storage could be made for it.
#[unsafe(no_mangle)]
#[inline(never)]
fn resolve_packet(skb: *mut __sk_buff) -> u64 {
    let mut identity = u64::from(IdentityId::HOST.0);
    let mut level = 0;
    for _ in 0..CGROUP_DEPTH {
        level += 1;
        // SAFETY: the hook's own context.
        let cgroup = unsafe { bpf_skb_ancestor_cgroup_id(skb, level) };
        if cgroup == 0 {
            break;
        }
        let found = bound(cgroup);
        if found != 0 {
            identity = found;
        }
    }
    identity
}

/// Who created the socket of a packet, without storage.
#[inline(always)]
pub fn creator_of_packet(skb: *mut __sk_buff) -> Party {
    Party { identity: resolve_packet(skb), cgroup: crate::sockets::leaf(skb) }
}
