//! Packets, as the wall sees them: from the IP header on.

use core::mem::offset_of;

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use enforcer_common::address::Address;
use enforcer_common::packet::{self, Bytes, Family, Fragment, Packet};

use super::sock_addr::{TCP, UDP};
use super::{pointer, word};
use crate::facts::{self, Facts};
use crate::policy::opaque;

/// `ETH_P_IP` and `ETH_P_IPV6` in network byte order, as `skb->protocol` has them.
const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;
/// Index of the loopback device in every network namespace (`LOOPBACK_IFINDEX`). What goes from one socket of a
/// namespace to another, whatever the addresses, goes through it.
const LOOPBACK: u32 = 1;

/// `SYN` of the TCP header, and those flags of which it is the only one in a packet that opens a connection: `SYN`, `ACK`
/// (RFC 9293, section 3.1).
const OPENS: u64 = 2;
const OPENING: u64 = 2 | 16;

/// The other end of a packet whose header is plain: no options, no extension headers, not a fragment, TCP or UDP.
#[derive(Clone, Copy)]
pub struct Plain {
    pub remote: Address,
    pub remote_port: u16,
    pub local_port: u16,
    pub protocol: u8,
    /// TCP that opens a connection, or seems to.
    pub opens: bool,
}

/// The socket that the packet belongs to, null in theory only.
#[inline(always)]
pub fn socket(skb: *mut __sk_buff) -> *mut bpf_sock {
    pointer!(skb, "u64", offset_of!(__sk_buff, __bindgen_anon_2)) as *mut bpf_sock
}

/// Whether both ends are in this network namespace.
#[inline(always)]
pub fn is_local(skb: *mut __sk_buff) -> bool {
    word!(skb, __sk_buff, ifindex) == LOOPBACK
}

/// Bytes of the packet, IP header included.
#[inline(always)]
pub fn length(skb: *mut __sk_buff) -> u32 {
    word!(skb, __sk_buff, len)
}

/// Number of packets on the wire: more than one where the network card cuts them.
#[inline(always)]
pub fn packets(skb: *mut __sk_buff) -> u32 {
    let segments = word!(skb, __sk_buff, gso_segs);
    if segments == 0 { 1 } else { segments }
}

/// A number of packet data, in network byte order.
macro_rules! at {
    ($data:expr, $size:literal, $offset:literal) => {
        pointer!($data, $size, $offset)
    };
}

/// Reads a plain header straight from memory: the fast path. `None` for every other packet.
#[inline(always)]
pub fn plain(skb: *mut __sk_buff, outbound: bool) -> Option<Plain> {
    let data = pointer!(skb, "u32", offset_of!(__sk_buff, data));
    let end = pointer!(skb, "u32", offset_of!(__sk_buff, data_end));
    if word!(skb, __sk_buff, protocol) == IPV4 {
        if data + 24 > end {
            return None;
        }
        // Version 4, five words of header; neither a fragment nor more fragments to come.
        if at!(data, "u8", 0) != 0x45 || at!(data, "u16", 6) as u16 & 0x3fff_u16.to_be() != 0 {
            return None;
        }
        let protocol = at!(data, "u8", 9) as u8;
        let (source, destination) = (at!(data, "u32", 12) as u32, at!(data, "u32", 16) as u32);
        let remote = if outbound { destination } else { source };
        let ports = (at!(data, "u16", 20) as u16, at!(data, "u16", 22) as u16);
        let opens = data + 34 > end || at!(data, "u8", 33) & OPENING == OPENS;
        return known(Address::v4(u32::from_be(remote)), ports, protocol, outbound, opens);
    }
    if data + 44 > end || word!(skb, __sk_buff, protocol) != IPV6 || at!(data, "u8", 0) >> 4 != 6 {
        return None;
    }
    let protocol = at!(data, "u8", 6) as u8;
    let (high, low) = if outbound {
        (at!(data, "u64", 24), at!(data, "u64", 32))
    } else {
        (at!(data, "u64", 8), at!(data, "u64", 16))
    };
    let ports = (at!(data, "u16", 40) as u16, at!(data, "u16", 42) as u16);
    let opens = data + 54 > end || at!(data, "u8", 53) & OPENING == OPENS;
    let remote = Address { high: u64::from_be(high), low: u64::from_be(low) };
    known(remote, ports, protocol, outbound, opens)
}

#[inline(always)]
fn known(remote: Address, ports: (u16, u16), protocol: u8, outbound: bool, opens: bool) -> Option<Plain> {
    if protocol != TCP && protocol != UDP {
        return None;
    }
    let (source, destination) = (u16::from_be(ports.0), u16::from_be(ports.1));
    let (remote_port, local_port) = if outbound { (destination, source) } else { (source, destination) };
    Some(Plain { remote, remote_port, local_port, protocol, opens })
}

/// Reads the headers to the end, whatever they are, into facts: this end is the one of the packet's socket. `false` if
/// that is impossible.
#[inline(always)]
pub fn read(skb: *mut __sk_buff, outbound: bool, facts: &mut Facts) -> bool {
    // SAFETY: the hook's own context, and a live value.
    unsafe { read_packet(skb, outbound.into(), facts) != 0 }
}

/// Global (see `judge.rs`): the parser's stack is gone when a verdict is asked for.
///
/// # Safety
/// `facts` is null or points at a live value.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn read_packet(skb: *mut __sk_buff, outbound: u64, facts: *mut Facts) -> u64 {
    // SAFETY: the caller's promise; null is ruled out.
    let Some(facts) = (unsafe { facts.as_mut() }) else { return 0 };
    let family = match word!(skb, __sk_buff, protocol) {
        IPV4 => Family::V4,
        IPV6 => Family::V6,
        _ => return 0,
    };
    let Some(packet) = packet::parse(Contents(skb), family) else { return 0 };
    let (source, destination) = (packet.source_port(), packet.destination_port());
    let (remote_port, local_port) = if outbound != 0 {
        (facts.address, facts.source) = (packet.destination, packet.source);
        (destination, source)
    } else {
        (facts.address, facts.source) = (packet.source, packet.destination);
        (source, destination)
    };
    facts.set(remote_port, local_port, packet.protocol(), opaque(flags(&packet)));
    1
}

/// What matters to the wall, as flags of facts.
#[inline(always)]
fn flags(packet: &Packet) -> u64 {
    /// `SYN`, `RST` and `ACK` of the TCP header (RFC 9293, section 3.1).
    const OPENS: u8 = 2;
    const RESETS: u8 = 4;
    const ANSWERS: u8 = 16;
    let mut flags = 0;
    if packet.options() {
        flags |= facts::OPTIONS;
    }
    if packet.routed() {
        flags |= facts::ROUTED;
    }
    if packet.fragment() == Fragment::Later {
        flags |= facts::LATER_FRAGMENT;
    }
    let tcp = packet.flags();
    if tcp & (OPENS | ANSWERS) == OPENS {
        flags |= facts::SYN;
    }
    if tcp & (OPENS | ANSWERS) == OPENS | ANSWERS {
        flags |= facts::SYN_ACK;
    }
    if tcp & (OPENS | RESETS) == RESETS && packet.payload_offset() == packet.length() {
        flags |= facts::BARE_RESET;
    }
    flags
}

/// The packet's bytes, wherever the kernel keeps them.
#[derive(Clone, Copy)]
struct Contents(*mut __sk_buff);

impl Bytes for Contents {
    #[inline(always)]
    fn length(self) -> u32 {
        length(self.0)
    }

    #[inline(always)]
    fn word(self, offset: u32) -> Option<u32> {
        let mut value = 0_u32;
        let to = core::ptr::from_mut(&mut value).cast();
        // SAFETY: the hook's own context, and four writable bytes.
        let result = unsafe { bpf_skb_load_bytes(self.0.cast(), offset, to, 4) };
        if result == 0 { Some(u32::from_be(value)) } else { None }
    }

    #[inline(always)]
    fn long(self, offset: u32) -> Option<u64> {
        let mut value = 0_u64;
        let to = core::ptr::from_mut(&mut value).cast();
        // SAFETY: the hook's own context, and eight writable bytes.
        let result = unsafe { bpf_skb_load_bytes(self.0.cast(), offset, to, 8) };
        if result == 0 { Some(u64::from_be(value)) } else { None }
    }

    #[inline(always)]
    fn opaque(self, value: u64) -> u64 {
        opaque(value)
    }
}
