//! The packet parser against another one. The first byte chooses the family.
#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(not(feature = "libfuzzer"))]
use enforcer_fuzz::fuzz_target;
#[cfg(feature = "libfuzzer")]
use libfuzzer_sys::fuzz_target;

use enforcer_common::packet::Family;
use enforcer_tests::packets::reference::{ours, theirs};

fuzz_target!(|data: &[u8]| {
    let Some((family, packet)) = data.split_first() else { return };
    let family = if family & 1 == 0 { Family::V4 } else { Family::V6 };
    assert_eq!(ours(packet, family), theirs(packet, family));
});
