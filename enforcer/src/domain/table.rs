//! The policy table of one generation: the very rows that the kernel reads.

use enforcer_common::abi::policy::Row;
use enforcer_common::id::Generation;
use enforcer_common::verdict::{Query, Verdict, decide};

/// An immutable table. Made by `policy::compile`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTable {
    generation: Generation,
    rows: Vec<Row>,
    entries: usize,
}

impl PolicyTable {
    /// The generation this table is for.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The rows, laid out as `enforcer_common::abi::policy` says.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Number of entries (keys with a word).
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Judges a flow exactly as the kernel would.
    pub fn decide(&self, query: &Query) -> Verdict {
        decide(self.rows.as_slice(), query)
    }
}
