//! Bucketed cuckoo hashing: where each entry of a table lies.
//!
//! A key lies in one of two buckets of four slots. Such tables can be filled to about 98 %; staying below
//! [`FILL_PERCENT`] makes moves rare and failure an event for the next seed. The same entries always give the same
//! rows, so two hosts with the same policies and registry hold the same bytes.

use enforcer_common::abi::policy::{Row, buckets};
use enforcer_common::limits::TABLE_ROWS;
use enforcer_common::verdict::Word;

use super::CompileError;

const SLOTS: usize = 4;
const FILL_PERCENT: usize = 70;
/// Buckets are a power of two and share [`TABLE_ROWS`] with the other sections: half of it is theirs.
const MAX_BUCKETS: usize = TABLE_ROWS as usize / 2;
/// Most entries that a table holds.
pub const MAX_ENTRIES: usize = MAX_BUCKETS * SLOTS / 100 * FILL_PERCENT;
/// Moves before a seed is given up. Below [`FILL_PERCENT`] a handful is usual.
const MOVES: u32 = 500;
/// Seeds tried before the table is doubled.
const SEEDS: u64 = 8;

/// The section of entries.
#[derive(Debug)]
pub(super) struct Buckets {
    /// Seed of the hash.
    pub(super) seed: u64,
    /// One row per bucket; a power of two, at least one.
    pub(super) rows: Vec<Row>,
}

/// Places all entries, whose keys must be distinct.
pub(super) fn place(entries: &[(u64, Word)]) -> Result<Buckets, CompileError> {
    CompileError::check("entries", entries.len() as u64, MAX_ENTRIES as u64)?;
    let mut count = (entries.len() * 100).div_ceil(SLOTS * FILL_PERCENT).max(1).next_power_of_two();
    while count <= MAX_BUCKETS {
        for attempt in 1..=SEEDS {
            let seed = attempt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if let Some(rows) = fill(entries, seed, count) {
                return Ok(Buckets { seed, rows });
            }
        }
        count *= 2;
    }
    Err(CompileError::Limit { what: "buckets", limit: MAX_BUCKETS as u64, needed: count as u64 })
}

fn fill(entries: &[(u64, Word)], seed: u64, count: usize) -> Option<Vec<Row>> {
    let mut rows = vec![Row::ZERO; count];
    let mask = u32::try_from(count - 1).ok()?;
    let mut random = seed;
    entries.iter().all(|entry| insert(&mut rows, *entry, seed, mask, &mut random)).then_some(rows)
}

/// Puts an entry where there is room, else moves others out of the way along a random walk.
fn insert(rows: &mut [Row], entry: (u64, Word), seed: u64, mask: u32, random: &mut u64) -> bool {
    let (mut key, mut word) = (entry.0, entry.1.0);
    for _ in 0..MOVES {
        let (first, second) = buckets(key, seed, mask);
        if put(&mut rows[first as usize], key, word) || put(&mut rows[second as usize], key, word) {
            return true;
        }
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let victim = if *random >> 63 == 0 { first } else { second };
        let slot = ((*random >> 60) & 3) as usize;
        let words = &mut rows[victim as usize].words;
        std::mem::swap(&mut key, &mut words[slot * 2]);
        std::mem::swap(&mut word, &mut words[slot * 2 + 1]);
    }
    false
}

fn put(row: &mut Row, key: u64, word: u64) -> bool {
    for slot in row.words.chunks_exact_mut(2) {
        if slot[0] == 0 {
            slot.copy_from_slice(&[key, word]);
            return true;
        }
    }
    false
}
