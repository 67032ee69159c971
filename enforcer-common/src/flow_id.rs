//! Fingerprints of flows, as socket storage remembers them.
//!
//! A flow is remembered as one word, because words are read and written at once: comparing addresses and ports field by
//! field could meet half of one flow and half of another, written by two CPUs at the same time, and take them for a flow
//! that was allowed. The fingerprint depends on a secret, so that nobody can look for two flows with the same one.

use crate::abi::identity::Role;
use crate::address::Address;

/// Fingerprint of a flow of one socket: the other end's address and port, and the protocol. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(pub u64);

impl FlowId {
    /// The fingerprint.
    #[inline(always)]
    pub const fn new(secret: u64, remote: Address, port: u16, protocol: u8) -> Self {
        // IPv4 has nothing in the first half.
        let mut x = secret;
        if remote.high != 0 {
            x = mix(x ^ remote.high);
        }
        x = mix(x ^ remote.low);
        x = mix(x ^ ((port as u64) << 8) ^ protocol as u64 ^ secret.rotate_left(32));
        Self(x | 1)
    }
}

/// splitmix64's finaliser.
#[inline(always)]
const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Binds an epoch and a role to a flow.
#[inline(always)]
pub const fn seal(flow: FlowId, epoch: u64, role: Role) -> u64 {
    ((epoch << 2) | role as u64) ^ flow.0
}

/// Epoch and role code of a sealed word: `(epoch << 2) | role`. For a word that was sealed for another flow this is a
/// random number, which as an epoch lies in a far future: see [`is_credible`].
#[inline(always)]
pub const fn unseal(flow: FlowId, sealed: u64) -> u64 {
    sealed ^ flow.0
}

/// Whether an unsealed word was sealed for this flow: its role is one, and its epoch is not yet to come.
#[inline(always)]
pub const fn is_credible(unsealed: u64, now: u64) -> bool {
    unsealed >> 2 <= now && (unsealed & 3 == Role::Client as u64 || unsealed & 3 == Role::Server as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_opens_only_for_its_flow_and_not_before_its_epoch() {
        let a = FlowId::new(7, Address::v4(0xc000_0201), 443, 6);
        let b = FlowId::new(7, Address::v4(0xc000_0202), 443, 6);
        for other in [
            b,
            FlowId::new(8, Address::v4(0xc000_0201), 443, 6),
            FlowId::new(7, Address::v4(0xc000_0201), 444, 6),
            FlowId::new(7, Address::v4(0xc000_0201), 443, 17),
            FlowId::new(7, Address { high: 1, ..Address::v4(0xc000_0201) }, 443, 6),
        ] {
            assert_ne!(a, other);
        }
        let word = unseal(a, seal(a, 5, Role::Server));
        assert_eq!((word >> 2, Role::from_code(word & 3)), (5, Role::Server));
        assert!(is_credible(word, 5) && is_credible(word, 9) && !is_credible(word, 4));
        assert!(!is_credible(unseal(b, seal(a, 5, Role::Server)), u64::MAX >> 20));
        assert!(!is_credible(unseal(a, 0), u64::MAX >> 20));
    }
}
