//! How long things took: handshakes, and round trips.

use core::ptr::addr_of_mut;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use enforcer_common::abi::config::Stat;
use enforcer_common::abi::flow::{LATENCY_BUCKETS, Latency, latency_bucket};
use enforcer_common::abi::identity::{Role, SocketIdentity};

use crate::account::add;
use crate::fault;
use crate::maps::LATENCY;
use crate::parse::sock_addr::TCP;
use crate::traffic::key;

/// A new row. Static, because it is larger than what is left of the stack.
static EMPTY: Latency = Latency::NONE;

/// Which histogram.
#[derive(Clone, Copy)]
enum Kind {
    Handshake,
    RoundTrip,
}

/// A socket is about to send its first SYN.
#[inline(always)]
pub fn begin(own: *mut SocketIdentity) {
    if !own.is_null() {
        // SAFETY: not null, and alive as long as the socket; no arguments.
        unsafe { (*own).began = bpf_ktime_get_ns() };
    }
}

/// A connection was established. Only the client's end knows when it began.
#[inline(always)]
pub fn opened(own: *mut SocketIdentity, parties: u64, port: u16, role: u64) {
    // SAFETY: the caller looked it up, it is not null and alive as long as the socket; no arguments.
    let (began, now) = unsafe { ((*own).began, bpf_ktime_get_ns()) };
    if role == Role::Client as u64 && began != 0 {
        let flow = u64::from(port) | (role << 16);
        count((now - began) / 1_000, parties, flow, Kind::Handshake as u64);
    }
}

/// A connection ended, whose round trips took so many microseconds.
#[inline(always)]
pub fn closed(microseconds: u64, parties: u64, port: u16, role: u64) {
    let flow = u64::from(port) | (role << 16);
    count(microseconds, parties, flow, Kind::RoundTrip as u64);
}

#[inline(always)]
fn count(microseconds: u64, parties: u64, flow: u64, kind: u64) {
    count_time(microseconds, parties, flow, kind);
}

/// Global (see `judge.rs`): its stack is not its callers'. `flow`: port and role.
#[unsafe(no_mangle)]
#[inline(never)]
fn count_time(microseconds: u64, parties: u64, flow: u64, kind: u64) -> u64 {
    let key = key(parties, flow as u16, TCP, (flow >> 16) & 3);
    let mut found = LATENCY.get_ptr_mut(key);
    if found.is_none() {
        // By reference: the stack has no room for a copy.
        let empty: &Latency = &EMPTY;
        let _ = LATENCY.insert(key, empty, BPF_NOEXIST.into());
        found = LATENCY.get_ptr_mut(key);
    }
    let Some(row) = found else {
        fault::count(Stat::LatencyFull);
        return 0;
    };
    let bucket = latency_bucket(microseconds);
    // SAFETY: a live value of this CPU's row, made of aligned words; the bucket is one of the array's.
    unsafe {
        let (buckets, sum) = if kind == Kind::Handshake as u64 {
            (addr_of_mut!((*row).handshake), addr_of_mut!((*row).handshake_microseconds))
        } else {
            (addr_of_mut!((*row).round_trip), addr_of_mut!((*row).round_trip_microseconds))
        };
        if bucket < LATENCY_BUCKETS {
            add(buckets.cast::<u64>().add(bucket), 1);
        }
        add(sum, microseconds);
    }
    0
}
