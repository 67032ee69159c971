//! Addresses as the verdict sees them: one 128-bit number for both families.
//!
//! An IPv4 address is its IPv4-mapped IPv6 form (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2), so a mapped
//! destination on an IPv6 socket and the plain IPv4 destination are the same value and meet the same policy.

/// An address in one canonical 128-bit form, host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The first 64 bits of the address.
    pub high: u64,
    /// The last 64 bits of the address.
    pub low: u64,
}

const MAPPED: u64 = 0x0000_ffff_0000_0000;

impl Address {
    /// `127.0.0.1` in canonical form.
    pub const LOOPBACK_V4: Self = Self::v4(0x7f00_0001);
    /// `::1`.
    pub const LOOPBACK_V6: Self = Self { high: 0, low: 1 };

    /// An IPv4 address, given in host byte order.
    #[inline(always)]
    pub const fn v4(address: u32) -> Self {
        Self { high: 0, low: MAPPED | address as u64 }
    }

    /// An IPv6 address, given as its 16 bytes.
    pub const fn v6(bytes: [u8; 16]) -> Self {
        let value = u128::from_be_bytes(bytes);
        Self { high: (value >> 64) as u64, low: value as u64 }
    }

    /// The 16 bytes of the canonical form, network byte order.
    pub const fn bytes(self) -> [u8; 16] {
        (((self.high as u128) << 64) | self.low as u128).to_be_bytes()
    }

    /// Whether this is an IPv4 address (in mapped form).
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.high == 0 && self.low & 0xffff_ffff_0000_0000 == MAPPED
    }

    /// What the kernel will really use: `0.0.0.0` and `::` are rewritten to loopback after the hook has run.
    #[inline(always)]
    #[must_use]
    pub const fn zero_is_loopback(self) -> Self {
        if self.high == 0 && self.low == MAPPED {
            Self::LOOPBACK_V4
        } else if self.high == 0 && self.low == 0 {
            Self::LOOPBACK_V6
        } else {
            self
        }
    }

    /// Whether this is `0.0.0.0` or `::`: no address chosen yet.
    #[inline(always)]
    pub const fn is_unchosen(self) -> bool {
        self.high == 0 && (self.low == MAPPED || self.low == 0)
    }

    /// Whether this address can only mean this host's network namespace: `127.0.0.0/8` or `::1`.
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        (self.is_v4() && (self.low >> 24) & 0xff == 0x7f) || (self.high == 0 && self.low == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        let mapped = Address::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
        assert_eq!(mapped, Address::v4(0xc000_0201));
        assert!(mapped.is_v4() && !mapped.is_loopback());
        assert_eq!(Address::v6([0; 16]).zero_is_loopback(), Address::LOOPBACK_V6);
        assert_eq!(Address::v4(0).zero_is_loopback(), Address::LOOPBACK_V4);
        assert!(Address::v4(0x7f12_3456).is_loopback() && Address::LOOPBACK_V6.is_loopback());
        assert!(!Address::v4(0x8000_0001).is_loopback());
        assert_eq!(Address::LOOPBACK_V4.bytes()[10..], [0xff, 0xff, 127, 0, 0, 1]);
    }
}
