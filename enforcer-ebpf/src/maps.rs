//! The maps: who writes, who reads, how large, and what happens when full. Declarations only.
//!
//! All are pinned under their own name. Sizes come from [`enforcer_common::limits`].

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{
    Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray, PerCpuHashMap, RingBuf, SkStorage,
};
use aya_ebpf::macros::btf_map;
use enforcer_common::abi::config::{Setting, Stat};
use enforcer_common::abi::flow::{FlowCount, FlowEvent, FlowKey};
use enforcer_common::abi::identity::{AddressEntry, Binding, SocketIdentity};
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

/// Daemon writes slot 0 once per generation; every verdict reads it. Cannot be full.
#[btf_map]
pub static TABLES: ArrayOfMaps<Table, 1> = ArrayOfMaps::new();

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

/// `sock_create` writes; the other hooks read, and remember the last reported flow. Lives and dies with the socket.
#[btf_map]
pub static SOCKETS: SkStorage<SocketIdentity> = SkStorage::new();

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
