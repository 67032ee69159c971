//! What is published together: the table in force and those that follow it by the kernel's clock alone.

use std::sync::Arc;

use enforcer_common::id::IdentityId;

use super::table::PolicyTable;
use super::time::BootTime;

/// Most tables that can follow the one in force.
pub const SUCCESSORS: usize = enforcer_common::limits::SUCCESSORS;

/// A table and its successors. All of them have the same generation: one publication is one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The table in force.
    pub table: Arc<PolicyTable>,
    /// From each of these moments on, which rise, this table.
    pub next: Vec<(BootTime, Arc<PolicyTable>)>,
}

impl Publication {
    /// Every table with the moment at which the next one takes over, in their order.
    pub fn chain(&self) -> impl Iterator<Item = (&PolicyTable, Option<BootTime>)> {
        let tables = std::iter::once(&self.table).chain(self.next.iter().map(|(_, table)| table));
        let ends = self.next.iter().map(|(from, _)| Some(*from)).chain([None]);
        tables.map(|table| &**table).zip(ends)
    }

    /// The same with an identity that is new, by its class in each table; `None` if one of them has no room for it.
    #[must_use]
    pub fn place(&self, identity: IdentityId, classes: impl IntoIterator<Item = u32>) -> Option<Self> {
        let mut classes = classes.into_iter();
        let mut place = |table: &PolicyTable| table.place(identity, classes.next()?).map(Arc::new);
        let table = place(&self.table)?;
        let next = self.next.iter().map(|(from, table)| Some((*from, place(table)?)));
        Some(Self { table, next: next.collect::<Option<_>>()? })
    }

    /// Whether a successor has taken over at that moment.
    pub fn has_passed(&self, now: BootTime) -> bool {
        self.next.first().is_some_and(|(from, _)| *from <= now)
    }
}
