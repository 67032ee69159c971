//! Counters of what can go wrong inside the programs, and a line in the log for what never should.

use core::arch::asm;

use aya_log_ebpf::warn;
use enforcer_common::abi::config::Stat;

use crate::account::add;
use crate::maps::STATS;

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(stat: Stat) {
    if let Some(word) = STATS.get_ptr_mut(stat as u32) {
        // SAFETY: a live, aligned word of this CPU.
        unsafe { add(word, 1) };
    }
}

/// As [`count`], for what should never happen, and says so each time that the counter of this CPU has doubled: at most
/// 64 lines for each kind and CPU, however often it happens. The line names the code of the [`Stat`]: labels would be
/// one more path through the copying each (14,500 verified instructions).
#[inline(always)]
pub fn report(stat: Stat) {
    report_fault(stat as u64);
}

/// Global (see `judge.rs`): the log is large.
#[unsafe(no_mangle)]
#[inline(never)]
fn report_fault(stat: u64) -> u64 {
    let Some(word) = STATS.get_ptr_mut(stat as u32) else { return 0 };
    let mut count = 1_u64;
    // SAFETY: a live, aligned word of this CPU. The sum comes with the addition (Linux 5.12), so that of two tasks
    // that meet here one sees the power of two.
    unsafe {
        asm!(
            "{count} = atomic_fetch_add((u64 *)({word} + 0), {count})",
            word = in(reg) word,
            count = inout(reg) count,
            options(nostack)
        );
    }
    count += 1;
    if count.is_power_of_two() {
        warn!((), "fault {} seen {} times on this CPU", stat, count);
    }
    0
}
