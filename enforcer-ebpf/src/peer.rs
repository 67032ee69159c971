//! Who is at the other end: by its socket where that is in the same network namespace, by its address otherwise.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{__sk_buff, bpf_sock, bpf_sock_addr, bpf_sock_tuple};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release,
};
use enforcer_common::abi::config::{Setting, Stat};
use enforcer_common::address::Address;
use enforcer_common::id::IdentityId;

use crate::facts::{AGAIN, Facts, NO_SOURCE, Party, SERVER};
use crate::fault;
use crate::identity;
use crate::maps::{ADDRESSES, OWN_ADDRESSES, setting};
use crate::parse::sock_addr::{TCP, UDP, UDPLITE};
use crate::parse::{skb, word};
use crate::policy::zero;
use crate::sockets;

/// `BPF_F_CURRENT_NETNS`: look up in the network namespace of the context's socket.
const CURRENT_NETNS: u64 = u64::MAX;
/// `TCP_LISTEN`
pub const LISTEN: u32 = 10;

/// The other end of a call.
#[inline(always)]
pub fn of_call(ctx: *mut bpf_sock_addr, facts: &mut Facts) -> Party {
    // SAFETY: the hook's own context, and a live value.
    if facts.address.is_loopback() || unsafe { is_own(ctx, facts.address) } {
        if facts.has(NO_SOURCE) {
            // Own addresses are reached from themselves.
            facts.set_source(facts.address);
        }
        // SAFETY: the hook's own context.
        let found = unsafe { by_socket(ctx.cast(), facts) };
        if found.cgroup != 0 || facts.address.is_loopback() {
            return found;
        }
    }
    by_address(facts.address)
}

/// The other end of a packet.
#[inline(always)]
pub fn of_packet(raw: *mut __sk_buff, facts: &Facts) -> Party {
    if skb::is_local(raw) || facts.address.is_loopback() {
        // SAFETY: the hook's own context.
        let found = unsafe { by_socket(raw.cast(), facts) };
        if found.cgroup != 0 || facts.address.is_loopback() {
            return found;
        }
    }
    by_address(facts.address)
}

/// Whether an address is one of the host's own, in the network namespace of the call. Pods have namespaces and addresses
/// of their own; workloads that share the host's are told apart by their sockets.
///
/// # Safety
/// `ctx` is the hook's own context.
#[inline(always)]
unsafe fn is_own(ctx: *mut bpf_sock_addr, address: Address) -> bool {
    let netns = setting(Setting::OwnNetns);
    // SAFETY: the caller's promise.
    if netns == 0 || unsafe { bpf_get_netns_cookie(ctx.cast()) } != netns {
        return false;
    }
    let key = address.bytes();
    // SAFETY: the value is compared with the key at once.
    unsafe { OWN_ADDRESSES.get(key) }.is_some_and(|value| *value == key)
}

/// Who is known to have this address.
#[inline(always)]
pub fn by_address(address: Address) -> Party {
    let key = Key::new(128, address.bytes());
    let identity = match ADDRESSES.get(&key) {
        Some(entry) if covers(entry.high, entry.low, entry.prefix, address) => IdentityId(entry.identity),
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

/// Finds the socket in this network namespace that a packet from this end reaches, and asks it who created it.
///
/// # Safety
/// `ctx` is the hook's own context.
#[inline(always)]
unsafe fn by_socket(ctx: *mut c_void, facts: &Facts) -> Party {
    // SAFETY: the caller's promise.
    let mut sk = unsafe { find(ctx, facts) };
    if sk.is_null() && facts.protocol() == TCP && !facts.has(SERVER | AGAIN) && facts.local_port() != 0 {
        // An earlier connection between the same addresses and ports has ended there and waits for late packets: it hides
        // who listens, and gives way to a new one.
        // SAFETY: the caller's promise.
        sk = unsafe { look_up(ctx, TCP, facts.address, facts.remote_port(), nowhere(), 0) };
    }
    if sk.is_null() {
        return Party::nobody();
    }
    // A client is found by both addresses and ports. Where it is gone, the look-up falls back to whoever listens on its
    // port, which is somebody else.
    let stranger = facts.has(SERVER) && facts.protocol() == TCP && word!(sk, bpf_sock, state) == LISTEN;
    // SAFETY: `sk` is a referenced socket from the look-up, released below.
    let found = unsafe { sockets::recorded(sk.cast()) };
    let party = if found.is_null() || stranger { Party::nobody() } else { identity::creator(found) };
    // SAFETY: releases the reference that the look-up took, exactly once.
    unsafe { bpf_sk_release(sk.cast()) };
    party
}

/// Looks up the other end's socket.
///
/// # Safety
/// `ctx` is the hook's own context.
#[inline(always)]
unsafe fn find(ctx: *mut c_void, facts: &Facts) -> *mut bpf_sock {
    // SAFETY: the caller's promise.
    unsafe {
        look_up(ctx, facts.protocol(), facts.address, facts.remote_port(), facts.source, facts.local_port())
    }
}

/// The socket that a packet from `source` to `address` would reach, referenced. A source port of 0 means that none is
/// chosen yet: then only listeners and unconnected sockets can be meant.
///
/// The tuple (`struct bpf_sock_tuple`: source and destination address, source and destination port) is written in whole
/// words: the verifier forgets what was in a stack slot only when all of it is overwritten at once.
///
/// # Safety
/// `ctx` is the hook's own context.
#[inline(always)]
pub unsafe fn look_up(
    ctx: *mut c_void,
    protocol: u8,
    address: Address,
    port: u16,
    source: Address,
    source_port: u16,
) -> *mut bpf_sock {
    let ports = (u64::from(port.to_be()) << 16) | u64::from(source_port.to_be());
    let mut tuple = [zero(), zero(), zero(), zero(), zero()];
    let size = if address.is_v4() {
        let from = if source_port == 0 { 0 } else { (source.low as u32).to_be() };
        tuple[0] = (u64::from((address.low as u32).to_be()) << 32) | u64::from(from);
        tuple[1] = ports;
        12
    } else {
        if source_port != 0 {
            tuple[0] = source.high.to_be();
            tuple[1] = source.low.to_be();
        }
        tuple[2] = address.high.to_be();
        tuple[3] = address.low.to_be();
        tuple[4] = ports;
        36
    };
    let tuple = tuple.as_mut_ptr().cast::<bpf_sock_tuple>();
    // SAFETY: the caller's promise; 12 bytes of tuple mean IPv4, 36 mean IPv6, and all are initialised.
    unsafe {
        match (protocol, size) {
            (TCP, 12) => bpf_sk_lookup_tcp(ctx, tuple, 12, CURRENT_NETNS, 0),
            (TCP, _) => bpf_sk_lookup_tcp(ctx, tuple, 36, CURRENT_NETNS, 0),
            (UDP | UDPLITE, 12) => bpf_sk_lookup_udp(ctx, tuple, 12, CURRENT_NETNS, 0),
            (UDP | UDPLITE, _) => bpf_sk_lookup_udp(ctx, tuple, 36, CURRENT_NETNS, 0),
            _ => ptr::null_mut(),
        }
    }
}

/// Stands for a client that has no address yet.
#[inline(always)]
fn nowhere() -> Address {
    Address { high: zero(), low: zero() }
}

/// Whether a socket listens where this end of a connection is: then the other end has opened it.
///
/// # Safety
/// `ctx` is the hook's own context.
#[inline(always)]
pub unsafe fn somebody_listens_here(ctx: *mut c_void, facts: &Facts) -> bool {
    // SAFETY: the caller's promise.
    let sk = unsafe { look_up(ctx, TCP, facts.source, facts.local_port(), nowhere(), 0) };
    if sk.is_null() {
        return false;
    }
    let listens = word!(sk, bpf_sock, state) == LISTEN;
    // SAFETY: releases the reference that the look-up took, exactly once.
    unsafe { bpf_sk_release(sk.cast()) };
    listens
}
