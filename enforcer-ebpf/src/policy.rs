//! The policy table as the kernel sees it.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use enforcer_common::abi::policy::Row;
use enforcer_common::verdict::{PolicyView, Query, Verdict, Word, decide};

use crate::facts::forget;
use crate::maps::{TABLES, Table};

/// The table of one generation. Whoever holds it reads that generation only, whatever is published meanwhile.
#[derive(Clone, Copy)]
pub struct KernelTable(&'static Table);

impl PolicyView for KernelTable {
    #[inline(always)]
    fn row(&self, index: u32) -> Option<&Row> {
        self.0.get(index)
    }

    #[inline(always)]
    fn opaque(self, value: u64) -> u64 {
        // SAFETY: no arguments; a plain load after the verifier's fix-ups.
        forget(value, unsafe { bpf_jiffies64() })
    }
}

/// The table that is enforced now.
#[inline(always)]
pub fn current() -> Option<KernelTable> {
    TABLES.get(0).map(KernelTable)
}

/// Judges one flow in one direction.
#[inline(always)]
pub fn verdict(table: KernelTable, query: &Query) -> Verdict {
    let mut verdict = Verdict { enforced: Word::NONE, hypothetical: Word::NONE };
    decide_into(table, query, &mut verdict);
    verdict
}

/// [`decide`] as one BPF subprogram, present once in the object.
#[inline(never)]
fn decide_into(table: KernelTable, query: &Query, out: &mut Verdict) {
    *out = decide(table, query);
}
