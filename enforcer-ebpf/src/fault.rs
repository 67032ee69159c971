//! Counters of what can go wrong inside the programs.

use enforcer_common::abi::config::Stat;

use crate::account::increment;
use crate::maps::STATS;

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(stat: Stat) {
    if let Some(word) = STATS.get_ptr_mut(stat as u32) {
        // SAFETY: a live, aligned word of this CPU.
        unsafe { increment(word) };
    }
}

/// As [`count`], for what should never happen.
#[inline(always)]
pub fn report(stat: Stat) {
    count(stat);
}
