//! Identities that get their numbers after a table was made.
//!
//! A table is made with room for some. Where such an identity has a class that the table knows, that class is all that the
//! table lacks, so it is written into the table in force, and into those that follow it, before anything names the
//! identity.
//!
//! # Why that can't be seen half done
//! A row of an array is replaced by copying 64 bytes over it (`array_map_update_elem` in the kernel's
//! `kernel/bpf/arraymap.c`, by way of `copy_map_value` and `memcpy`), while programs on other CPUs read it.
//!
//! * Of the classes in that row only those change that were 0, unknown, whom nobody has asked for: all other bytes are
//!   overwritten with themselves, and a copy stores no byte but those that it copies, so whoever reads them in between
//!   reads what they were.
//! * A class that changes is looked up by a number that was found in `BINDINGS` or `ADDRESSES` only. It is written there
//!   after this write has returned, by another system call, and into an element that others see when it is complete
//!   (`hlist_nulls_add_head_rcu` in `kernel/bpf/hashtab.c`, `rcu_assign_pointer` in `kernel/bpf/lpm_trie.c`: both
//!   release what was stored before). The place in the table is computed from the number, so the second read depends on
//!   the first and can't be earlier. So it meets the class as it was written, however the copy was done.
//! * Should somebody ask for a number that stands in no map, it is 0, or the class, or some bytes of it. Nobody is bound to
//!   such a number, and an old one is never given again, so no flow is judged by that.

use enforcer_common::abi::policy::{H_IDENTITIES, Row};
use enforcer_common::id::IdentityId;
use enforcer_common::verdict::PolicyView;

use super::PolicyTable;

/// Identities per row.
const HALVES: u32 = 16;

/// The rows of a table that may change, as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spare {
    pub(super) first: u32,
    pub(super) rows: Vec<Row>,
}

impl Spare {
    /// So many rows from this one on, as far as there are so many identities.
    pub(super) fn new(rows: &[Row], first: u32, count: usize) -> Self {
        let section = rows.first().map_or(0, |header| header.words[H_IDENTITIES]);
        let end = (section & 0xffff_ffff) + (section >> 32).div_ceil(HALVES.into());
        let end = usize::try_from(end).unwrap_or(rows.len()).min(first as usize + count);
        Self { first, rows: rows.get(first as usize..end).unwrap_or_default().to_vec() }
    }
}

/// The rows of a table as they are now.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) rows: &'a [Row],
    pub(super) spare: &'a Spare,
}

impl PolicyView for View<'_> {
    #[inline]
    fn row(&self, index: u32) -> Option<&Row> {
        let spare = index.checked_sub(self.spare.first).and_then(|at| self.spare.rows.get(at as usize));
        spare.or_else(|| self.rows.get(index as usize))
    }
}

impl PolicyTable {
    /// This table with the class of an identity that it did not know; `None` if it has no room for that number, or knows
    /// it already.
    #[must_use]
    pub fn place(&self, identity: IdentityId, class: u32) -> Option<Self> {
        let (number, row) = self.identity_row(identity)?;
        let mut row = *row;
        let (word, half) = ((identity.0 / 2 % 8) as usize, identity.0 % 2 * 32);
        if row.words[word] >> half & 0xffff_ffff != 0 {
            return None;
        }
        row.words[word] |= u64::from(class) << half;
        let mut placed = self.clone();
        let at = number.checked_sub(placed.spare.first)?;
        *placed.spare.rows.get_mut(at as usize)? = row;
        Some(placed)
    }

    /// The number of the row with the class of an identity, and the row.
    pub fn identity_row(&self, identity: IdentityId) -> Option<(u32, &Row)> {
        let section = self.rows.first()?.words[H_IDENTITIES];
        if u64::from(identity.0) >= section >> 32 {
            return None;
        }
        let number = u32::try_from(section & 0xffff_ffff).ok()? + identity.0 / HALVES;
        Some((number, self.row(number)?))
    }
}
