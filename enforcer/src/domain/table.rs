//! The policy table of one generation: the very rows that the kernel reads.

mod cuckoo;
mod layout;
#[cfg(test)]
mod tests;

use enforcer_common::abi::policy::Row;
use enforcer_common::address::Address;
use enforcer_common::id::{Generation, IdentityId};
use enforcer_common::verdict::{self, Query, Verdict, decide, decide_listen};

pub use cuckoo::MAX_ENTRIES;
pub use layout::{ProtocolPorts, Sections};

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

    /// The rows, laid out as `enforcer_common::abi::policy` says. The kernel's map must have exactly as many: the
    /// search over address intervals ends where there is no row.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Number of entries (keys with a word).
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The class of an identity, 0 if the table does not know its number.
    pub fn class_of_identity(&self, identity: IdentityId) -> u32 {
        verdict::identity_class(self.rows.as_slice(), identity)
    }

    /// The class of an address, 0 if no policy names a block with it.
    pub fn class_of_address(&self, address: Address) -> u32 {
        verdict::address_class(self.rows.as_slice(), address)
    }

    /// Judges a flow exactly as the kernel would.
    pub fn decide(&self, query: &Query) -> Verdict {
        decide(self.rows.as_slice(), query)
    }

    /// Judges whether a workload may listen on a port, exactly as the kernel would.
    pub fn decide_listen(&self, subject: IdentityId, protocol: u8, port: u16) -> Verdict {
        decide_listen(self.rows.as_slice(), subject, protocol, port)
    }
}

/// Why there is no table. Nothing is ever left out of one: a set of policies fits as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A bounded part of the table is too small.
    #[error(
        "the loaded policies and workloads need {needed} {what}, but a policy table holds at most {limit}"
    )]
    Limit {
        /// What there is too much of, in the plural.
        what: &'static str,
        /// How many there may be.
        limit: u64,
        /// How many were needed, or at least, where counting stopped.
        needed: u64,
    },
}

impl CompileError {
    /// `Ok` if the need is within the limit.
    pub(crate) fn check(what: &'static str, needed: u64, limit: u64) -> Result<(), Self> {
        if needed > limit { Err(Self::Limit { what, limit, needed }) } else { Ok(()) }
    }
}
