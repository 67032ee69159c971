//! Exact counting. Additions are atomic although the maps are per CPU: a program can be preempted by another task on
//! the same CPU between load and store.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use enforcer_common::abi::config::Stat;
use enforcer_common::abi::flow::{FlowCount, FlowKey};

use crate::fault;
use crate::maps::COUNTERS;

/// Adds one verdict to its row.
#[inline(always)]
pub fn verdict(key: &FlowKey) {
    if found(key) {
        return;
    }
    let one = FlowCount { verdicts: 1 };
    if COUNTERS.insert(key, one, BPF_NOEXIST.into()).is_ok() || found(key) {
        // The second attempt succeeds when another task has made the row in between.
        return;
    }
    fault::report(Stat::CountersFull);
}

#[inline(always)]
fn found(key: &FlowKey) -> bool {
    match COUNTERS.get_ptr_mut(key) {
        Some(count) => {
            // SAFETY: a live value of this CPU's row; `verdicts` is its only, 8-byte aligned word.
            unsafe { add(count.cast(), 1) };
            true
        }
        None => false,
    }
}

/// Adds one, atomically, and tells what was there before.
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn next(word: *mut u64) -> u64 {
    let mut value = 1_u64;
    // SAFETY: the caller's promise; the instruction reads and writes that word only.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            word = in(reg) word,
            value = inout(reg) value,
            options(nostack)
        );
    };
    value
}

/// Adds, atomically. The target has no `AtomicU64::fetch_add`, so the instruction is written out.
///
/// # Safety
/// `word` points at an aligned word of a map value.
#[inline(always)]
pub unsafe fn add(word: *mut u64, value: u64) {
    // SAFETY: the caller's promise; `lock +=` reads and writes that word only.
    unsafe {
        asm!(
            "lock *(u64 *)({word} + 0) += {value}",
            word = in(reg) word,
            value = in(reg) value,
            options(nostack)
        );
    };
}
