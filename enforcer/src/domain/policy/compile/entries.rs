//! Collects entries; of two words for one key the greater stays.

use enforcer_common::abi::policy::{Plane, key};
use enforcer_common::verdict::Word;

use crate::domain::table::CompileError;

/// Fewer entries than this are not worth sorting in between.
const BATCH: usize = 1 << 16;

/// Entries so far, with repetitions.
#[derive(Debug)]
pub(super) struct Entries {
    limit: usize,
    list: Vec<(u64, Word)>,
    /// How many there were after the last time that repetitions were removed.
    distinct: usize,
}

impl Entries {
    /// No entries, with room for so many distinct ones.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, list: Vec::new(), distinct: 0 }
    }

    /// Adds a word for (subject class, peer class, port class).
    ///
    /// Fails as soon as there are more distinct keys than a table holds, not when memory is full of them.
    pub(super) fn add(
        &mut self,
        plane: Plane,
        ingress: bool,
        (subject, peer, port): (u32, u32, u16),
        word: Word,
    ) -> Result<(), CompileError> {
        if word == Word::NONE {
            return Ok(());
        }
        self.list.push((key(plane, ingress, subject, peer, port.into()), word));
        if self.list.len() >= BATCH.max(2 * self.distinct) { self.compact() } else { Ok(()) }
    }

    /// All entries so far, ordered by key.
    pub(super) fn sorted(&mut self) -> Result<&[(u64, Word)], CompileError> {
        self.compact()?;
        Ok(&self.list)
    }

    /// All entries, ordered by key.
    pub(super) fn finish(mut self) -> Result<Vec<(u64, Word)>, CompileError> {
        self.compact()?;
        Ok(self.list)
    }

    fn compact(&mut self) -> Result<(), CompileError> {
        // Greatest word first, because the first of a run is the one that stays.
        self.list.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        self.list.dedup_by_key(|entry| entry.0);
        self.distinct = self.list.len();
        CompileError::check("entries", self.distinct as u64, self.limit as u64)
    }
}

#[cfg(test)]
mod tests {
    use enforcer_common::id::RuleId;
    use enforcer_common::reason::Reason;
    use enforcer_common::verdict::Tier;

    use super::*;

    fn word(rule: u32) -> Word {
        Word::allow(Tier::Allow, Reason::AllowedByRule, RuleId(rule))
    }

    #[test]
    fn of_two_words_for_a_key_the_greater_stays() {
        let mut entries = Entries::new(10);
        for rule in [3, 1, 2] {
            entries.add(Plane::Enforced, true, (1, 2, 3), word(rule)).unwrap();
            entries.add(Plane::Hypothetical, true, (1, 2, 3), word(rule + 1)).unwrap();
        }
        let words: Vec<Word> = entries.finish().unwrap().into_iter().map(|(_, word)| word).collect();
        assert_eq!(words, [word(1), word(2)]);
    }

    #[test]
    fn too_many_entries_are_refused_while_they_are_collected() {
        let add = |limit: usize, keys: u32| {
            let mut entries = Entries::new(limit);
            (0..3 * BATCH)
                .zip((0..keys).cycle())
                .try_for_each(|(_, peer)| entries.add(Plane::Enforced, true, (1, peer, 0), word(1)))
        };
        assert_eq!(add(1_000, 1_000), Ok(()));
        assert_eq!(
            add(1_000, 1_001),
            Err(CompileError::Limit { what: "entries", limit: 1_000, needed: 1_001 })
        );
    }
}
