//! The policy table: one immutable array of 64-byte rows per generation.
//!
//! Everything a verdict needs lies in this one array, so that publishing is one pointer swap and no look-up can
//! ever meet two generations, a torn value or another key's value (BPF hashes that change in place were measured
//! to do all three). The same bytes are read by the kernel programs and by the offline simulator.
//!
//! ```text
//! row 0                 header (the H_ words below)
//! row 1                 more header
//! rows 2..18            protocol table: 256 x u32, see `Ports`
//! rows ..               port tables: 65,536 x u16 port classes per protocol that has port rules (2,048 rows)
//! rows ..               identity classes: u32 per identity number
//! rows ..               buckets: 4 x (key, word); a key lies in one of its two buckets (cuckoo hashing)
//! rows .. (last)        address intervals, sorted: 3 x start of interval, 3 x class
//! ```

use crate::wire::wire;

wire! {
    /// One row: a cache line.
    pub struct Row {
        /// Eight words whose meaning depends on the section.
        pub words: [u64; 8],
    }
}

impl Row {
    /// A row of zeros.
    pub const ZERO: Self = Self { words: [0; 8] };
}

/// First word of a table: format and version.
pub const MAGIC: u64 = u64::from_be_bytes(*b"ENFTBL01");

/// Header word: [`MAGIC`].
pub const H_MAGIC: usize = 0;
/// Header word: generation number.
pub const H_GENERATION: usize = 1;
/// Header word: flags.
pub const H_FLAGS: usize = 2;
/// Header word: first bucket row (low half) and bucket mask (high half: number of buckets - 1).
pub const H_BUCKETS: usize = 3;
/// Header word: seed of the hash.
pub const H_SEED: usize = 4;
/// Header word: first row of identity classes (low half) and number of identities (high half).
pub const H_IDENTITIES: usize = 5;
/// Header word: first row of address intervals (low half) and number of rows (high half).
pub const H_ADDRESSES: usize = 6;
/// Header word: the word for a known subject that no entry speaks of.
pub const H_DEFAULT: usize = 7;

/// Header word in row 1: nanoseconds since boot at which the next table takes over; 0 for never.
pub const H_UNTIL: usize = 0;
/// Header word in row 1: slot of the next table.
pub const H_NEXT: usize = 1;

/// In the place of a peer's class: the key speaks of listening on a port, not of a flow. Listening is asked for the
/// direction ingress.
pub const LISTEN: u32 = 0xff_ffff;

/// In the place of a peer's class: what the subject's policies say of those who call it depends on their addresses. Such an
/// entry stands for the direction ingress and any port; its word says nothing.
pub const BY_ADDRESS: u32 = 0xff_fffe;

/// In the place of a peer's class: the key speaks of creating a socket, not of a flow. Its port class is the
/// [`class`](crate::abi::config::SocketKind::class) of the socket's kind. Asked for the direction ingress.
pub const SOCKET: u32 = 0xff_fffd;

/// Flag: at least one policy is in audit mode, so the hypothetical plane has entries.
pub const F_HYPOTHETICAL: u64 = 1;
/// Flag: some entry speaks of creating sockets. Without it nobody asks, so a table from before there were such entries is
/// read as it was meant.
pub const F_SOCKETS: u64 = 2;

/// First row of the protocol table.
pub const PROTOCOL_ROW: u32 = 2;
/// Rows of the protocol table.
pub const PROTOCOL_ROWS: u32 = 16;
/// Rows of one port table.
pub const PORT_ROWS: u32 = 2_048;
/// Bit of a protocol table entry: the rest is the first row of the protocol's port table. Without it the rest is
/// the one port class of the whole protocol.
pub const HAS_PORTS: u32 = 1 << 31;

/// Which rules an entry was compiled from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Plane {
    /// Rules of policies in enforce mode: decides.
    Enforced = 0,
    /// Rules of all policies, those in audit mode included: what would be decided if they were enforced.
    Hypothetical = 1,
    /// As [`Plane::Enforced`], without the admin tier: decides where a rule of that tier passes. Only for subjects that
    /// such a rule may meet.
    BeneathEnforced = 2,
    /// As [`Plane::Hypothetical`], without the admin tier.
    BeneathHypothetical = 3,
}

impl Plane {
    /// The plane that decides where a rule of this one passes.
    #[inline(always)]
    #[must_use]
    pub const fn beneath(self) -> Self {
        match self {
            Self::Enforced | Self::BeneathEnforced => Self::BeneathEnforced,
            Self::Hypothetical | Self::BeneathHypothetical => Self::BeneathHypothetical,
        }
    }
}

/// Packs the key of an entry. Class 0 means "any".
#[inline(always)]
pub const fn key(plane: Plane, ingress: bool, subject: u32, peer: u32, port: u32) -> u64 {
    (1 << 63)
        | ((plane as u64 & 1) << 62)
        | ((plane as u64 >> 1) << 60)
        | ((ingress as u64) << 61)
        | ((subject as u64 & 0xf_ffff) << 40)
        | ((peer as u64 & 0xff_ffff) << 16)
        | (port as u64 & 0xffff)
}

/// The two candidate buckets of a key: a mixer of two multiplications (the constants of splitmix64).
#[inline(always)]
pub const fn buckets(key: u64, seed: u64, mask: u32) -> (u32, u32) {
    let mut x = key ^ seed;
    x ^= x >> 30;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    (x as u32 & mask, (x >> 32) as u32 & mask)
}
