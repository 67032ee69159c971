//! The policy table of one generation: the very rows that the kernel reads.

mod cuckoo;
mod layout;
mod spare;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use enforcer_common::abi::config::SocketKind;
use enforcer_common::abi::policy::Row;
use enforcer_common::address::Address;
use enforcer_common::id::{Generation, IdentityId};
use enforcer_common::verdict::{
    self, Query, Verdict, configured_socket, decide, decide_listen, decide_socket, speaks_of_sockets,
};

use self::spare::{Spare, View};
pub use cuckoo::MAX_ENTRIES;
pub use layout::{ProtocolPorts, Sections};

/// A table. Made by `policy::compile`; nothing of it changes but that it learns classes of identities that are new
/// ([`PolicyTable::place`]). A copy costs next to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTable {
    generation: Generation,
    /// As they were made.
    rows: Arc<[Row]>,
    spare: Spare,
    entries: usize,
}

impl PolicyTable {
    /// The generation this table is for.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The rows as the table was made, laid out as `enforcer_common::abi::policy` says. The kernel's map must have exactly
    /// as many: the search over address intervals ends where there is no row.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// A row as it is now.
    pub fn row(&self, index: u32) -> Option<&Row> {
        let spare = index.checked_sub(self.spare.first).and_then(|at| self.spare.rows.get(at as usize));
        spare.or_else(|| self.rows.get(index as usize))
    }

    fn view(&self) -> View<'_> {
        View { rows: &self.rows, spare: &self.spare }
    }

    /// Number of entries (keys with a word).
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The class of an identity, 0 if the table does not know its number.
    pub fn class_of_identity(&self, identity: IdentityId) -> u32 {
        verdict::identity_class(self.view(), identity)
    }

    /// The class of an address, 0 if no policy names a block with it.
    pub fn class_of_address(&self, address: Address) -> u32 {
        verdict::address_class(self.view(), address)
    }

    /// Judges a flow exactly as the kernel would.
    pub fn decide(&self, query: &Query) -> Verdict {
        decide(self.view(), query)
    }

    /// Judges whether a workload may listen on a port, exactly as the kernel would.
    pub fn decide_listen(&self, subject: IdentityId, protocol: u8, port: u16) -> Verdict {
        decide_listen(self.view(), subject, protocol, port)
    }

    /// Judges whether a workload may create a socket of a kind that the configuration allows, or not, exactly as the kernel
    /// would.
    pub fn decide_socket(&self, subject: IdentityId, kind: SocketKind, allowed: bool) -> Verdict {
        let otherwise = configured_socket(allowed);
        if !speaks_of_sockets(self.view()) {
            return Verdict { enforced: otherwise, hypothetical: otherwise };
        }
        decide_socket(self.view(), subject, kind.class(), otherwise)
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
