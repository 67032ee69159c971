//! Fingerprints of flows, as socket storage remembers them.
//!
//! A flow is remembered as one word, because words are read and written at once: comparing addresses and ports field by
//! field could meet half of one flow and half of another, written by two CPUs at the same time, and take them for a flow
//! that was allowed. The fingerprint depends on a secret, so that nobody can look for two flows with the same one.

use crate::abi::identity::Role;
use crate::address::Address;

/// Fingerprint of a flow: the other end's address and port, this end's port, and the protocol. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(pub u64);

impl FlowId {
    /// The fingerprint. `ports` is the other end's port (upper 16 of 32 bits) and this end's.
    #[inline(always)]
    pub const fn new(secret: u64, remote: Address, ports: u32, protocol: u8) -> Self {
        let mut x = mix(secret ^ remote.high);
        x = mix(x ^ remote.low);
        x = mix(x ^ ((ports as u64) << 8) ^ protocol as u64 ^ secret.rotate_left(32));
        Self(x | 1)
    }
}

/// One round of splitmix64's finaliser.
#[inline(always)]
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Binds an epoch and a role to a flow.
#[inline(always)]
pub const fn seal(flow: FlowId, epoch: u64, role: Role) -> u64 {
    ((epoch << 2) | role as u64) ^ mix(flow.0)
}

/// Epoch and role of a sealed word. `None` if the word was not sealed for this flow, or in an epoch that is yet to come
/// (a word of another flow, or the value of another key).
#[inline(always)]
pub const fn open(flow: FlowId, sealed: u64, now: u64) -> Option<(u64, Role)> {
    let word = sealed ^ mix(flow.0);
    let epoch = word >> 2;
    match Role::from_code(word & 3) {
        Role::Unknown => None,
        role if epoch <= now => Some((epoch, role)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_opens_only_for_its_flow_and_not_before_its_epoch() {
        let a = FlowId::new(7, Address::v4(0xc000_0201), 443 << 16 | 40_000, 6);
        let b = FlowId::new(7, Address::v4(0xc000_0202), 443 << 16 | 40_000, 6);
        assert_ne!(a, b);
        assert_ne!(a, FlowId::new(8, Address::v4(0xc000_0201), 443 << 16 | 40_000, 6));
        assert_ne!(a, FlowId::new(7, Address::v4(0xc000_0201), 443 << 16 | 40_000, 17));
        let sealed = seal(a, 5, Role::Server);
        assert_eq!(open(a, sealed, 5), Some((5, Role::Server)));
        assert_eq!(open(a, sealed, 9), Some((5, Role::Server)));
        assert_eq!(open(a, sealed, 4), None);
        assert_eq!(open(b, sealed, 9), None);
        assert_eq!(open(a, 0, 9), None);
    }
}
