//! Who is who: cgroup directory -> identity, address prefix -> identity, and what a socket remembers.

use crate::limits::{CGROUP_DEPTH, FLOWS_PER_SOCKET};
use crate::wire::wire;

wire! {
    /// Value of map `BINDINGS`, keyed by cgroup id. Holds for the directory and everything below it.
    ///
    /// The key is repeated inside: a BPF hash that changes in place was measured to return another key's value. The
    /// element can even change between two reads of its words, so the words are bound to each other by a seal: the
    /// reader takes a copy, checks that it is whole and has the right key, and looks again if not.
    pub struct Binding {
        /// The cgroup id this binding is for.
        pub cgroup: u64,
        /// Nanoseconds since boot at which `after` takes the place of `identity`; `u64::MAX` for never.
        pub until: u64,
        /// The identity number.
        pub identity: u32,
        /// The identity number that counts from `until` on.
        pub after: u32,
        /// Made of all other words.
        pub seal: u64,
    }
}

impl Binding {
    /// A sealed one.
    pub const fn new(cgroup: u64, identity: u32, until: u64, after: u32) -> Self {
        Self { cgroup, until, identity, after, seal: Self::seal_of(cgroup, until, identity, after) }
    }

    /// Whether all words belong together.
    #[inline(always)]
    pub const fn is_whole(&self) -> bool {
        self.seal == Self::seal_of(self.cgroup, self.until, self.identity, self.after)
    }

    /// One-to-one in each word while the others stay (odd factors, as in splitmix64): a single word of another binding
    /// never goes unnoticed, and several do once in 2^64.
    #[inline(always)]
    const fn seal_of(cgroup: u64, until: u64, identity: u32, after: u32) -> u64 {
        let mut x = cgroup.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^= x >> 31;
        x = (x ^ until).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 29;
        x = (x ^ (identity as u64) << 32 ^ after as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^ x >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_another_binding_is_noticed() {
        let (one, other) = (Binding::new(7, 300, u64::MAX, 300), Binding::new(8, 301, 5, 302));
        assert!(one.is_whole() && other.is_whole());
        for bits in 1..31_u8 {
            let mixed = Binding {
                cgroup: if bits & 1 == 0 { one.cgroup } else { other.cgroup },
                until: if bits & 2 == 0 { one.until } else { other.until },
                identity: if bits & 4 == 0 { one.identity } else { other.identity },
                after: if bits & 8 == 0 { one.after } else { other.after },
                seal: if bits & 16 == 0 { one.seal } else { other.seal },
            };
            assert!(!mixed.is_whole(), "{mixed:?}");
        }
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
    /// Value of the socket storage `SOCKETS`: who created the socket, and what was decided for it.
    ///
    /// The chain of cgroup ids is the truth, not an identity number: bindings come and go and labels change
    /// while sockets live. What was found or decided counts for one epoch only.
    ///
    /// At most 184 bytes: with the kernel's own 72 (`struct bpf_local_storage_elem`) an allocation of 256.
    pub struct SocketIdentity {
        /// Ids from the outermost level (below the root) inwards; 0 where the tree is not that deep.
        pub cgroups: [u64; CGROUP_DEPTH],
        /// The cgroup the socket was created in; differs from the last of `cgroups` only when the tree is deeper.
        pub leaf: u64,
        /// The identity that the chain led to (lower half) and the low half of the epoch in which it did; 0 for none.
        pub found: u64,
        /// A [`Role`] code: who opened the connection. Streams only; datagram flows have a role each.
        pub role: u64,
        /// Decided flows. A stream uses the first.
        pub flows: [DecidedFlow; FLOWS_PER_SOCKET],
        /// Number of flows remembered so far; the next one goes to this number modulo the length.
        pub flow_count: u64,
        /// When this socket sent its first SYN, in nanoseconds since boot without the time asleep; 0 for none.
        pub began: u64,
    }
}

wire! {
    /// A flow of this socket that was allowed. The words are written one by one and bound to each other, so that a
    /// reader on another CPU can't take half of one flow and half of another for a decided one.
    pub struct DecidedFlow {
        /// [`crate::flow_id::FlowId`] of the flow; 0 where nothing is remembered.
        pub flow: u64,
        /// Epoch of the verdict and role of this end, see [`crate::flow_id::seal`].
        pub seal: u64,
        /// Identity of this end (upper half) and of the other end (lower half), for counting.
        pub parties: u64,
    }
}

wire! {
    /// Key of the LRU map `FLOWS`: the decided flows of datagram sockets with many peers.
    pub struct FlowRef {
        /// Socket cookie, unique while the host is up.
        pub cookie: u64,
        /// [`crate::flow_id::FlowId`] of the flow.
        pub flow: u64,
    }
}

const _: () = assert!(size_of::<SocketIdentity>() <= 184);

/// Which end of a flow a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// Not known: a socket from before enforcer.
    Unknown = 0,
    /// This end opened the flow.
    Client = 1,
    /// The other end opened the flow.
    Server = 2,
}

impl Role {
    /// The role with this code.
    pub const fn from_code(code: u64) -> Self {
        match code {
            1 => Self::Client,
            2 => Self::Server,
            _ => Self::Unknown,
        }
    }

    /// The name in events.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}
