//! The maps: who writes, who reads, how large, and what happens when full. Declarations only.
//!
//! All are pinned under their own name. Sizes come from [`enforcer_common::limits`].

use core::ptr;

use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE;
use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{
    Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf,
};
use aya_ebpf::macros::btf_map;
use enforcer_common::abi::config::{Setting, Stat};
use enforcer_common::abi::flow::{FlowCount, FlowEvent, FlowKey, Latency, Quota, Traffic, TrafficKey};
use enforcer_common::abi::identity::{AddressEntry, Binding, DecidedFlow, FlowRef, SocketIdentity};
use enforcer_common::abi::policy::Row;
use enforcer_common::limits;

/// `BPF_F_INNER_MAP`: tables of different lengths fit the same slot (Linux 5.10).
const INNER_MAP: usize = 1 << 12;

/// One policy table. The declared length is that of an empty table; the daemon makes each to measure.
///
/// Its values are rows, but must not be a struct by name: Linux 6.1 looks for timers in structs, remembers for each map
/// that it found none, and refuses tables that came without type information because nothing was remembered for them.
pub type Table = Array<Words, 1, INNER_MAP>;

/// The words of a [`Row`].
pub type Words = [u64; size_of::<Row>() / size_of::<u64>()];

/// Daemon writes slot 0 once per generation; every verdict reads it. The other slots hold the tables that follow it by
/// kernel time, see [`enforcer_common::abi::policy::H_NEXT`]. Cannot be full.
#[btf_map]
pub static TABLES: ArrayOfMaps<Table, { limits::TABLE_SLOTS }> = ArrayOfMaps::new();

/// Daemon writes; every hook reads. One word for each [`Setting`].
#[btf_map]
pub static CONFIG: Array<u64, { Setting::COUNT }> = Array::new();

/// Daemon writes (size checked before); every identity look-up reads. Full: the daemon refuses the workload.
#[btf_map]
pub static BINDINGS: HashMap<u64, Binding, { limits::BINDINGS }> = HashMap::new();

/// Daemon writes (size checked before); peers that are not on this host are looked up. Full: as above.
#[btf_map]
pub static ADDRESSES: LpmTrie<[u8; 16], AddressEntry, { limits::ADDRESSES }, { BPF_F_NO_PREALLOC as usize }> =
    LpmTrie::new();

/// `sock_create` writes who creates a socket; the other hooks read that, and remember what they decided. Lives and dies
/// with the socket; a connection that a socket accepts inherits it.
#[btf_map]
pub static SOCKETS: InheritedStorage<SocketIdentity> = InheritedStorage::new();

/// Socket storage that accepted connections inherit (`BPF_F_CLONE`), which aya's own type does not offer. The fields are
/// read by the loader, from the type information alone.
#[repr(C)]
pub struct InheritedStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: nothing behind the pointers is ever read.
unsafe impl<T> Sync for InheritedStorage<T> {}

impl<T> InheritedStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }
}

/// Packet and call hooks remember datagram flows here that their socket has no room for. Full: the flow that was used
/// longest ago is forgotten, and judged again.
#[btf_map]
pub static FLOWS: LruHashMap<FlowRef, DecidedFlow, { limits::FLOWS }> = LruHashMap::new();

/// Daemon writes: the host's own addresses. The value repeats the key. Full: the daemon says so; peers at addresses that
/// are missing are known by address, and judged by the packet hooks.
#[btf_map]
pub static OWN_ADDRESSES: HashMap<[u8; 16], [u8; 16], { limits::OWN_ADDRESSES }> = HashMap::new();

/// Connections and datagrams add; the daemon reads. Full: counted in `STATS`.
#[btf_map]
pub static TRAFFIC: PerCpuHashMap<TrafficKey, Traffic, { limits::TRAFFIC }> = PerCpuHashMap::new();

/// Connections add; the daemon reads. Full: counted in `STATS`.
#[btf_map]
pub static LATENCY: PerCpuHashMap<TrafficKey, Latency, { limits::LATENCY }, { BPF_F_NO_PREALLOC as usize }> =
    PerCpuHashMap::new();

/// Events ask and add. Full: the identity that was quiet longest is forgotten, and begins anew.
#[btf_map]
pub static QUOTAS: LruHashMap<u32, Quota, { limits::QUOTAS }> = LruHashMap::new();

/// Every verdict adds; the daemon reads. Full: counted in `STATS`, so that sums stay exact.
#[btf_map]
pub static COUNTERS: PerCpuHashMap<FlowKey, FlowCount, { limits::COUNTERS }> = PerCpuHashMap::new();

/// Every hook adds; the daemon reads. Cannot be full.
#[btf_map]
pub static STATS: PerCpuArray<u64, { Stat::COUNT }> = PerCpuArray::new();

/// New flows and denials, for the daemon. Full: the event is dropped and counted in `STATS`.
#[btf_map]
pub static EVENTS: RingBuf<FlowEvent, { limits::EVENT_RING_BYTES }> = RingBuf::new();

/// One setting as it is now.
#[inline(always)]
pub fn setting(setting: Setting) -> u64 {
    match CONFIG.get(setting as u32) {
        // SAFETY: a live, aligned word of the map; volatile because the daemon may change it at any time.
        Some(word) => unsafe { core::ptr::read_volatile(word) },
        None => 0,
    }
}
