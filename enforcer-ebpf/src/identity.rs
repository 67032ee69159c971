//! Who is who: the creator of a socket, the calling process, and the other end.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_addr, bpf_sock_tuple};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_sk_lookup_tcp, bpf_sk_lookup_udp,
    bpf_sk_release, bpf_sk_storage_get, bpf_skc_to_mptcp_sock,
};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use aya_ebpf::{EbpfContext, Global};
use enforcer_common::abi::config::Stat;
use enforcer_common::abi::identity::SocketIdentity;
use enforcer_common::address::Address;
use enforcer_common::id::IdentityId;
use enforcer_common::limits::CGROUP_DEPTH;

use crate::facts::{Facts, Party};
use crate::fault;
use crate::maps::{ADDRESSES, BINDINGS, SOCKETS};
use crate::parse::sock_addr::{TCP, UDP, UDPLITE, socket};
use crate::policy::zero;

/// `BPF_F_CURRENT_NETNS`: look up in the network namespace of the context's socket.
const CURRENT_NETNS: u64 = u64::MAX;

/// Not 0: the kernel knows MPTCP. What connects and listens is then a socket of the kernel, for which `sock_create` is not
/// called; the application's socket is behind it (Go listens so by default). The loader sets 0 where `/proc/sys/net/mptcp` is not
/// there, because such a kernel refuses programs that name the helper.
#[unsafe(no_mangle)]
static MPTCP: Global<u8> = Global::new(1);

/// Remembers who creates this socket. `false` if that is impossible: the socket must then not come into being, because
/// a workload can make later attempts fail (exhausting the socket's option memory).
#[inline(always)]
pub fn record(ctx: &SockContext) -> bool {
    // SAFETY: `sock` is the context of this hook, which the helper takes as its socket.
    let found = unsafe { storage(ctx.sock.cast(), BPF_SK_STORAGE_GET_F_CREATE.into()) };
    if found.is_null() {
        return false;
    }
    // SAFETY: not null, and the kernel keeps the value alive as long as the socket.
    let socket = unsafe { &mut *found };
    if !ancestors(&mut socket.cgroups) {
        fault::report(Stat::DeepCgroup);
    }
    // SAFETY: no arguments; always available in this hook.
    socket.leaf = unsafe { bpf_get_current_cgroup_id() };
    true
}

/// Writes the calling process's cgroup and its ancestors, outermost first. `false` if the tree is deeper than that.
#[inline(always)]
fn ancestors(cgroups: &mut [u64; CGROUP_DEPTH]) -> bool {
    let mut level = 1;
    for slot in cgroups.iter_mut() {
        *slot = ancestor(level);
        if *slot == 0 {
            return true;
        }
        level += 1;
    }
    ancestor(level) == 0
}

/// The calling process's ancestor cgroup at this level below the root; 0 beyond its own level.
#[inline(always)]
fn ancestor(level: i32) -> u64 {
    // SAFETY: takes a plain number; always available in these hooks.
    unsafe { bpf_get_current_ancestor_cgroup_id(level) }
}

/// The storage of this call's own socket, null if it was created before enforcer.
#[inline(always)]
pub fn own(ctx: &SockAddrContext) -> *mut SocketIdentity {
    let sk = socket(ctx.sock_addr);
    if sk.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: `sk` is a full socket, checked against null.
    unsafe { recorded(sk.cast()) }
}

/// Who created the socket with this storage, which is not null.
#[inline(always)]
fn creator(storage: *mut SocketIdentity) -> Party {
    // SAFETY: a map value of this type, alive as long as the socket, which the caller holds.
    unsafe { Party { identity: resolve(ptr::addr_of!((*storage).cgroups)), cgroup: (*storage).leaf } }
}

/// Who created this call's socket, and who makes the call. Only in process context: never in a packet or
/// socket-operations hook. A socket from before enforcer counts as the caller's.
#[inline(always)]
pub fn near(ctx: &SockAddrContext) -> (Party, Party) {
    // SAFETY: no arguments; always available in these hooks.
    let leaf = unsafe { bpf_get_current_cgroup_id() };
    let own = own(ctx);
    if own.is_null() {
        let caller = Party { identity: resolve_current(), cgroup: leaf };
        return (caller, caller);
    }
    let creator = creator(own);
    let caller =
        if creator.cgroup == leaf { creator } else { Party { identity: resolve_current(), cgroup: leaf } };
    (creator, caller)
}

/// Fills in who is at both ends of the call.
#[inline(always)]
pub fn identify(ctx: &SockAddrContext, facts: &mut Facts) {
    // SAFETY: the hook's own context, and a live value.
    unsafe { identify_ends(ctx.sock_addr, facts) };
}

/// Global (see `judge.rs`).
///
/// # Safety
/// `raw` is the context; `facts` is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn identify_ends(raw: *mut bpf_sock_addr, facts: *mut Facts) -> u64 {
    let ctx = SockAddrContext::new(raw);
    // SAFETY: the caller's promise; null is ruled out.
    let Some(facts) = (unsafe { facts.as_mut() }) else { return 0 };
    (facts.creator, facts.caller) = near(&ctx);
    if !facts.address.is_loopback() {
        facts.peer = remote(facts);
        return 0;
    }
    let (peer, reply) = local(&ctx, facts);
    facts.peer = peer;
    if reply {
        facts.turn_round();
    }
    0
}

#[inline(always)]
fn remote(facts: &Facts) -> Party {
    let key = Key::new(128, facts.address.bytes());
    let identity = match ADDRESSES.get(&key) {
        Some(entry) if covers(entry.high, entry.low, entry.prefix, facts.address) => {
            IdentityId(entry.identity)
        }
        Some(_) => {
            // Another key's value: never lend an identity that may not be this address's.
            fault::report(Stat::WrongKey);
            IdentityId::UNKNOWN
        }
        None => IdentityId::WORLD,
    };
    Party { identity: u64::from(identity.0), cgroup: 0 }
}

#[inline(always)]
fn covers(high: u64, low: u64, prefix: u32, address: Address) -> bool {
    let (a, b) = ((high ^ address.high), (low ^ address.low));
    match prefix {
        0 => true,
        1..=63 => a >> (64 - prefix) == 0,
        64 => a == 0,
        65..=127 => a == 0 && b >> (128 - prefix) == 0,
        _ => a == 0 && b == 0,
    }
}

/// Finds the socket on this host that will take the flow, and asks it who created it, and whether it waits for an answer
/// from here.
#[inline(always)]
fn local(ctx: &SockAddrContext, facts: &Facts) -> (Party, bool) {
    let sk = find(ctx, facts);
    if sk.is_null() {
        return (Party::nobody(), false);
    }
    // SAFETY: `sk` is a referenced socket from the look-up, released below.
    let found = unsafe { recorded(sk.cast()) };
    let (party, reply) = if found.is_null() {
        (Party::nobody(), false)
    } else {
        (creator(found), false)
    };
    // SAFETY: releases the reference that the look-up took, exactly once.
    unsafe { bpf_sk_release(sk.cast()) };
    (party, reply)
}

#[inline(always)]
fn is_udp(facts: &Facts) -> bool {
    matches!(facts.protocol(), UDP | UDPLITE)
}

/// Looks up the server's socket. The tuple (`struct bpf_sock_tuple`: source and destination address, source and
/// destination port) is written in whole words: the verifier forgets what was in a stack slot only when all of it is
/// overwritten at once.
#[inline(always)]
fn find(ctx: &SockAddrContext, facts: &Facts) -> *mut bpf_sock {
    // A connected datagram socket is found only by the address and port it is connected to.
    let from = if is_udp(facts) { facts.source_port() } else { 0 };
    let ports = (u64::from(facts.port().to_be()) << 16) | u64::from(from.to_be());
    if facts.address.is_v4() {
        let source = if from == 0 { 0 } else { (facts.source.low as u32).to_be() };
        let mut tuple = [(u64::from((facts.address.low as u32).to_be()) << 32) | u64::from(source), ports];
        // SAFETY: 12 bytes of initialised tuple, the size that means IPv4.
        unsafe { look_up(ctx, facts.protocol(), tuple.as_mut_ptr(), 12) }
    } else {
        let source = if from == 0 { Address { high: zero(), low: zero() } } else { facts.source };
        let mut tuple = [
            source.high.to_be(),
            source.low.to_be(),
            facts.address.high.to_be(),
            facts.address.low.to_be(),
            ports,
        ];
        // SAFETY: 36 bytes of initialised tuple, the size that means IPv6.
        unsafe { look_up(ctx, facts.protocol(), tuple.as_mut_ptr(), 36) }
    }
}

/// # Safety
/// `tuple` points at `size` initialised bytes.
#[inline(always)]
unsafe fn look_up(ctx: &SockAddrContext, protocol: u8, tuple: *mut u64, size: u32) -> *mut bpf_sock {
    let tuple = tuple.cast::<bpf_sock_tuple>();
    // SAFETY: the hook's own context, and the caller's promise.
    unsafe {
        match protocol {
            TCP => bpf_sk_lookup_tcp(ctx.as_ptr(), tuple, size, CURRENT_NETNS, 0),
            UDP | UDPLITE => bpf_sk_lookup_udp(ctx.as_ptr(), tuple, size, CURRENT_NETNS, 0),
            _ => ptr::null_mut(),
        }
    }
}

/// What was recorded of this socket, or of the MPTCP socket that it is a part of; null if nothing was.
///
/// # Safety
/// `sk` is a full socket.
#[inline(always)]
unsafe fn recorded(sk: *mut c_void) -> *mut SocketIdentity {
    // SAFETY: the caller's promise.
    let found = unsafe { storage(sk, 0) };
    if !found.is_null() || MPTCP.load() == 0 {
        return found;
    }
    // SAFETY: as above.
    let whole = unsafe { bpf_skc_to_mptcp_sock(sk) };
    if whole.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: a socket, checked against null, that lives as long as its part.
    unsafe { storage(whole.cast(), 0) }
}

/// # Safety
/// `sk` is a socket, or the context of a socket hook, that the helper takes in this program type.
#[inline(always)]
unsafe fn storage(sk: *mut c_void, flags: u64) -> *mut SocketIdentity {
    // SAFETY: the map is a socket storage whose value is `SocketIdentity`; a null value means "zeroed" on creation.
    unsafe { bpf_sk_storage_get(ptr::addr_of!(SOCKETS).cast_mut().cast(), sk, ptr::null_mut(), flags) }.cast()
}

/// The identity bound to the innermost of these directories; the host where none is bound.
///
/// Global (see `judge.rs`).
///
/// # Safety
/// `cgroups` is null or points at that many words.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn resolve(cgroups: *const [u64; CGROUP_DEPTH]) -> u64 {
    if cgroups.is_null() {
        return u64::from(IdentityId::UNMANAGED.0);
    }
    // SAFETY: the caller's promise; null was ruled out.
    for cgroup in unsafe { &*cgroups }.iter().rev() {
        let identity = bound(*cgroup);
        if identity != 0 {
            return identity;
        }
    }
    u64::from(IdentityId::HOST.0)
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
fn bound(cgroup: u64) -> u64 {
    let mut identity = look(cgroup);
    if identity == WRONG_KEY {
        fault::report(Stat::WrongKey);
        identity = look(cgroup);
    }
    if identity == WRONG_KEY { u64::from(IdentityId::UNMANAGED.0) } else { identity }
}

/// Not an identity: the map returned another key's value.
const WRONG_KEY: u64 = u64::MAX;

#[inline(never)]
fn look(cgroup: u64) -> u64 {
    if cgroup == 0 {
        return 0;
    }
    // SAFETY: the value is read at once and its key is compared, so a reused slot is noticed.
    match unsafe { BINDINGS.get(cgroup) } {
        None => 0,
        Some(binding) if binding.cgroup == cgroup => u64::from(binding.identity),
        Some(_) => WRONG_KEY,
    }
}
