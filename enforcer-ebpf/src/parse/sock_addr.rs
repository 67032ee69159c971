//! What `connect` and `sendmsg` hooks are asked about.

use core::arch::asm;
use core::mem::offset_of;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::programs::SockAddrContext;
use enforcer_common::address::Address;
use enforcer_common::hook::Hook;

use super::{address, own_address, word};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const UDPLITE: u8 = 136;
/// `IPPROTO_MPTCP`: the kernel's number for a socket option, not an IP protocol; what goes over the wire is TCP.
const MPTCP: u32 = 262;
const UNCHOSEN: Address = Address { high: 0, low: 0 };

/// Where a call wants to go.
#[derive(Clone, Copy)]
pub struct Destination {
    pub address: Address,
    /// The caller's own address if it has chosen one, else zero.
    pub source: Address,
    /// The caller's own port if it has one, else 0.
    pub source_port: u16,
    pub port: u16,
    pub protocol: u8,
}

/// The socket of the call, null in theory only. Written out for the same reason as [`word`].
#[inline(always)]
pub fn socket(raw: *mut bpf_sock_addr) -> *mut bpf_sock {
    let sk: *mut bpf_sock;
    // SAFETY: `raw` is the context the kernel passed in; `sk` is a full socket in every hook of this type.
    unsafe {
        asm!(
            "{sk} = *(u64 *)({raw} + {offset})",
            sk = out(reg) sk,
            raw = in(reg) raw,
            offset = const offset_of!(bpf_sock_addr, __bindgen_anon_1),
            options(pure, readonly, nostack)
        );
    }
    sk
}

/// Reads the destination as the caller wrote it (`0.0.0.0` and `::` included). The attach point tells the form of the address, never the family field: the kernel accepts
/// `AF_UNSPEC` in `sendto`, and an IPv6 socket sends to IPv4 addresses through the IPv4 hook.
#[inline(always)]
pub fn destination(hook: u64, ctx: &SockAddrContext) -> Destination {
    let raw = ctx.sock_addr;
    let address = if [Hook::Connect6, Hook::Sendmsg6, Hook::Bind6].iter().any(|v6| *v6 as u64 == hook) {
        address!(raw, bpf_sock_addr, user_ip6)
    } else {
        Address::v4(u32::from_be(word!(raw, bpf_sock_addr, user_ip4)))
    };
    let protocol = word!(raw, bpf_sock_addr, protocol);
    Destination {
        address,
        source: source(hook, raw),
        source_port: source_port(raw),
        port: u16::from_be((word!(raw, bpf_sock_addr, user_port) & 0xffff) as u16),
        protocol: transport(protocol),
    }
}

/// What goes over the wire for a socket's protocol number.
#[inline(always)]
pub fn transport(protocol: u32) -> u8 {
    if protocol == MPTCP { TCP } else { (protocol & 0xff) as u8 }
}

/// The caller's own address: what this message names, else what the socket is bound to, else zero.
#[inline(always)]
fn source(hook: u64, raw: *mut bpf_sock_addr) -> Address {
    let message = if hook == Hook::Sendmsg4 as u64 {
        Address::v4(u32::from_be(word!(raw, bpf_sock_addr, msg_src_ip4)))
    } else if hook == Hook::Sendmsg6 as u64 {
        address!(raw, bpf_sock_addr, msg_src_ip6)
    } else {
        UNCHOSEN
    };
    if !message.is_unchosen() {
        return message;
    }
    let sk = socket(raw);
    if sk.is_null() {
        return UNCHOSEN;
    }
    own_address!(sk)
}

/// The port the socket is bound to, host byte order; 0 where none is chosen yet.
#[inline(always)]
fn source_port(raw: *mut bpf_sock_addr) -> u16 {
    let sk = socket(raw);
    if sk.is_null() { 0 } else { (word!(sk, bpf_sock, src_port) & 0xffff) as u16 }
}
