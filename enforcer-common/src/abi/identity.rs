//! Who is who: cgroup directory -> identity, address prefix -> identity, and what a socket remembers.

use crate::limits::{CGROUP_DEPTH, SENT_TO};
use crate::wire::wire;

wire! {
    /// Value of map `BINDINGS`, keyed by cgroup id. Holds for the directory and everything below it.
    ///
    /// The key is repeated inside: a BPF hash that changes in place was measured to return another key's value,
    /// so the reader compares and looks again.
    pub struct Binding {
        /// The cgroup id this binding is for.
        pub cgroup: u64,
        /// The identity number.
        pub identity: u32,
        /// Always zero.
        pub reserved: u32,
    }
}

wire! {
    /// Value of the prefix trie `ADDRESSES`. The prefix is repeated inside, as in [`Binding`].
    pub struct AddressEntry {
        /// First 64 bits of the prefix, see [`crate::address::Address`].
        pub high: u64,
        /// Last 64 bits of the prefix.
        pub low: u64,
        /// Length of the prefix in bits of the canonical form (an IPv4 `/n` is `96 + n`).
        pub prefix: u32,
        /// The identity number.
        pub identity: u32,
    }
}

wire! {
    /// Value of the socket storage `SOCKETS`: who created the socket.
    ///
    /// The chain of cgroup ids is the truth, not an identity number: bindings come and go and labels change
    /// while sockets live.
    pub struct SocketIdentity {
        /// Ids from the outermost level (below the root) inwards; 0 where the tree is not that deep.
        pub cgroups: [u64; CGROUP_DEPTH],
        /// The cgroup the socket was created in; differs from the last of `cgroups` only when the tree is deeper.
        pub leaf: u64,
        /// Destinations of the last datagrams that were allowed: what comes back from one of them is a reply.
        pub sent: [SentTo; SENT_TO],
        /// Number of destinations remembered so far; the next one goes to this number modulo the length.
        pub sent_count: u64,
    }
}

wire! {
    /// Where a datagram socket has sent to.
    pub struct SentTo {
        /// First 64 bits of the address.
        pub high: u64,
        /// Last 64 bits of the address.
        pub low: u64,
        /// Port (upper 16 bits), and the lower 48 bits of the generation that judged. 0 where nothing is remembered.
        pub port_generation: u64,
    }
}
