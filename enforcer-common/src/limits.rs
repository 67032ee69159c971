//! Sizes of everything that is bounded. Each map is declared with one of these; `/metrics` tells the capacities.

/// Levels of the cgroup tree, root excluded, that a socket records and an identity look-up walks. Deeper
/// workloads are found when their binding is within the outermost levels; the excess is counted as a fault.
pub const CGROUP_DEPTH: usize = 12;
/// Decided flows that a socket remembers; datagram flows beyond it are found in [`FLOWS`].
pub const FLOWS_PER_SOCKET: usize = 2;
/// Datagram flows that are remembered beyond those in the sockets, all sockets together. When one is forgotten before its
/// reply was sent, the reply is judged as a flow of its own.
pub const FLOWS: usize = 65_536;
/// Rows of per-CPU traffic counters.
pub const TRAFFIC: usize = 65_536;
/// Rows of per-CPU histograms (448 bytes for each CPU, made when they are needed).
pub const LATENCY: usize = 8_192;
/// Identities whose events are limited at the same time; the one that was quiet longest is forgotten, and begins anew.
pub const QUOTAS: usize = 16_384;
/// Own addresses of the host.
pub const OWN_ADDRESSES: usize = 4_096;
/// Slots for tables: the one in force, and two banks of those that follow it by kernel time.
pub const TABLE_SLOTS: usize = 1 + 2 * SUCCESSORS;
/// Most tables that can follow the one in force by kernel time (distinct times at which something expires).
pub const SUCCESSORS: usize = 8;
/// Bindings (cgroup directory -> identity).
pub const BINDINGS: usize = 65_536;
/// Addresses (prefix -> identity).
pub const ADDRESSES: usize = 65_536;
/// Rows of per-CPU flow counters.
pub const COUNTERS: usize = 65_536;
/// Bytes of the event ring; a power of two and a multiple of the page size.
pub const EVENT_RING_BYTES: usize = 1 << 20;
/// Rows (64 bytes each) of one policy table: 256 MiB, far above every budget, bounds the search loops.
pub const TABLE_ROWS: u32 = 1 << 22;
/// Highest class number of a subject in a table key (20 bits).
pub const SUBJECT_CLASSES: u32 = (1 << 20) - 1;
/// Highest class number of a peer in a table key (24 bits, of which the last 16 numbers are reserved).
pub const PEER_CLASSES: u32 = (1 << 24) - 17;
/// Highest port class (16 bits).
pub const PORT_CLASSES: u32 = (1 << 16) - 1;
/// Steps of the search over address intervals: up to 2^20 rows of three intervals each.
pub const ADDRESS_STEPS: u32 = 20;
