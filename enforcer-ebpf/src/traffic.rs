//! What flows carry: connections opened and closed, packets and bytes.

use core::mem::offset_of;
use core::ptr::addr_of_mut;

use aya_ebpf::bindings::{
    __sk_buff, BPF_NOEXIST, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
    BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::bpf_sock_ops_cb_flags_set;
use enforcer_common::abi::config::Stat;
use enforcer_common::abi::flow::{Traffic, TrafficKey};
use enforcer_common::abi::identity::{Role, SocketIdentity};
use enforcer_common::address::Address;

use crate::account::add;
use crate::fault;
use crate::maps::TRAFFIC;
use crate::parse::sock_addr::{TCP, UDP};
use crate::parse::{address, pointer, skb, word};
use crate::{flows, latency, sockets};

/// `BPF_TCP_CLOSE`
const CLOSE: u32 = 7;

/// Adds one datagram.
#[inline(always)]
pub fn datagram(raw: *mut __sk_buff, outbound: bool, parties: u64, port: u16, role: u64) {
    // SAFETY: the hook's own context.
    unsafe { add_datagram(raw, parties, u64::from(port) | (role << 16) | (u64::from(outbound) << 32)) };
}

/// Global (see `judge.rs`): its stack is not its callers'. `flow`: port, role, and whether the datagram is sent.
///
/// # Safety
/// `raw` is the context.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe fn add_datagram(raw: *mut __sk_buff, parties: u64, flow: u64) -> u64 {
    let (port, role, outbound) = (flow as u16, (flow >> 16) & 3, flow >> 32 != 0);
    let row = row(parties, port, UDP, role);
    if row.is_null() {
        return 0;
    }
    let (packets, bytes) = (u64::from(skb::packets(raw)), u64::from(skb::length(raw)));
    // SAFETY: a live value of this CPU's row, made of aligned words.
    unsafe {
        if outbound {
            add(addr_of_mut!((*row).packets_sent), packets);
            add(addr_of_mut!((*row).bytes_sent), bytes);
        } else {
            add(addr_of_mut!((*row).packets_received), packets);
            add(addr_of_mut!((*row).bytes_received), bytes);
        }
    }
    0
}

/// A TCP connection was established, or ended. The kernel keeps its own exact counts: they are taken over at the end.
#[inline(always)]
pub fn connection(ops: *mut bpf_sock_ops) -> u32 {
    let op = word!(ops, bpf_sock_ops, op);
    let is_opened = op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB || op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB;
    if op == BPF_SOCK_OPS_TCP_CONNECT_CB {
        latency::begin(own_socket(ops));
        return 1;
    }
    if is_opened {
        // SAFETY: the hook's own context. Fails only for partial sockets, which these two operations never see.
        unsafe { bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_STATE_CB_FLAG.cast_signed()) };
    } else if op != BPF_SOCK_OPS_STATE_CB || state(ops) != CLOSE {
        return 1;
    }
    let own = own_socket(ops);
    if own.is_null() {
        return 1;
    }
    let remote_port = u16::from_be((word!(ops, bpf_sock_ops, remote_port) >> 16) as u16);
    let flow = flows::id(remote(ops), remote_port, TCP);
    // SAFETY: not null, and alive as long as the socket.
    let memory = unsafe { flows::recall(own, flow) };
    let (role, parties) = (memory.role(), memory.parties);
    if role == 0 {
        // A server's end that did not inherit its flow: it is counted with its first packet.
        return 1;
    }
    let port =
        if role == Role::Server as u64 { word!(ops, bpf_sock_ops, local_port) as u16 } else { remote_port };
    let row = row(parties, port, TCP, role);
    if row.is_null() {
        return 1;
    }
    // SAFETY: a live value of this CPU's row, made of aligned words.
    unsafe {
        if is_opened {
            add(addr_of_mut!((*row).opened), 1);
        } else {
            close(ops, row);
        }
    }
    if is_opened {
        latency::opened(own, parties, port, role);
    } else {
        latency::closed(round_trip(ops), parties, port, role);
    }
    1
}

/// The storage of this operation's socket, null if there is none.
#[inline(always)]
fn own_socket(ops: *mut bpf_sock_ops) -> *mut SocketIdentity {
    let sk = pointer!(ops, "u64", offset_of!(bpf_sock_ops, __bindgen_anon_2)) as *mut bpf_sock;
    sockets::of_packet(sk)
}

/// The smoothed round-trip time in microseconds, of which the kernel keeps eight times.
#[inline(always)]
fn round_trip(ops: *mut bpf_sock_ops) -> u64 {
    u64::from(word!(ops, bpf_sock_ops, srtt_us) >> 3)
}

/// The other end's address.
#[inline(always)]
fn remote(ops: *mut bpf_sock_ops) -> Address {
    // `AF_INET6`
    if word!(ops, bpf_sock_ops, family) == 10 {
        address!(ops, bpf_sock_ops, remote_ip6)
    } else {
        Address::v4(u32::from_be(word!(ops, bpf_sock_ops, remote_ip4)))
    }
}

/// A server's end of a connection is known.
#[inline(always)]
pub fn opened(parties: u64, port: u16, role: u64) {
    count_opened(parties, u64::from(port), role);
}

/// Global (see `judge.rs`).
#[unsafe(no_mangle)]
#[inline(never)]
fn count_opened(parties: u64, port: u64, role: u64) -> u64 {
    let row = row(parties, port as u16, TCP, role);
    if !row.is_null() {
        // SAFETY: a live value of this CPU's row, made of aligned words.
        unsafe { add(addr_of_mut!((*row).opened), 1) };
    }
    0
}

/// Takes over the kernel's counts at the end of a connection.
///
/// # Safety
/// `row` points at a live value of this CPU's row.
#[inline(always)]
unsafe fn close(ops: *mut bpf_sock_ops, row: *mut Traffic) {
    let (sent, received) = (word!(ops, bpf_sock_ops, segs_out), word!(ops, bpf_sock_ops, segs_in));
    let acknowledged = pointer!(ops, "u64", offset_of!(bpf_sock_ops, bytes_acked));
    let taken = pointer!(ops, "u64", offset_of!(bpf_sock_ops, bytes_received));
    let again = word!(ops, bpf_sock_ops, total_retrans);
    let round_trip = round_trip(ops);
    // SAFETY: the caller's promise; made of aligned words.
    unsafe {
        add(addr_of_mut!((*row).closed), 1);
        add(addr_of_mut!((*row).packets_sent), sent.into());
        add(addr_of_mut!((*row).packets_received), received.into());
        add(addr_of_mut!((*row).bytes_sent), acknowledged);
        add(addr_of_mut!((*row).bytes_received), taken);
        add(addr_of_mut!((*row).retransmits), again.into());
        add(addr_of_mut!((*row).rtt_microseconds), round_trip);
    }
}

/// The state that a connection comes to, where one changes.
#[inline(always)]
fn state(ops: *mut bpf_sock_ops) -> u32 {
    // The second of the operation's arguments.
    pointer!(ops, "u32", offset_of!(bpf_sock_ops, __bindgen_anon_1) + 4) as u32
}

/// The key of a row.
#[inline(always)]
pub fn key(parties: u64, port: u16, protocol: u8, role: u64) -> TrafficKey {
    TrafficKey {
        subject: (parties >> 32) as u32,
        peer: parties as u32,
        port,
        protocol,
        role: role as u8,
        reserved: 0,
    }
}

/// This CPU's row, made if there is none; null if there is no room, which is counted.
#[inline(always)]
fn row(parties: u64, port: u16, protocol: u8, role: u64) -> *mut Traffic {
    let key = key(parties, port, protocol, role);
    if let Some(row) = TRAFFIC.get_ptr_mut(key) {
        return row;
    }
    let empty = Traffic {
        opened: 0,
        closed: 0,
        packets_sent: 0,
        packets_received: 0,
        bytes_sent: 0,
        bytes_received: 0,
        retransmits: 0,
        rtt_microseconds: 0,
    };
    let _ = TRAFFIC.insert(key, empty, BPF_NOEXIST.into());
    let Some(row) = TRAFFIC.get_ptr_mut(key) else {
        fault::count(Stat::TrafficFull);
        return core::ptr::null_mut();
    };
    row
}
