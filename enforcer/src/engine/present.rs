//! Who a workload is now: by its directory and by its addresses, in quarantine and out of it.

use super::state::State;
use crate::domain::delta::Bound;
use crate::domain::quarantine::{self, Quarantines, marked};
use crate::domain::registry::{IdentityKey, Registry};
use crate::domain::workload::{Workload, WorkloadKey};

/// The identity that a workload has now: one of its own while it is in quarantine.
pub(super) fn present_key(state: &State, workload: &Workload, quarantines: &Quarantines) -> IdentityKey {
    present(&workload.key, state.ordinary(workload), quarantines)
}

/// The identity that its addresses stand for now.
pub(super) fn present_at_address(
    state: &State,
    workload: &Workload,
    quarantines: &Quarantines,
) -> IdentityKey {
    present(&workload.key, state.ordinary_at_address(workload), quarantines)
}

/// An identity of a workload, or the one that it has in the place of it while it is in quarantine.
pub(super) fn present(key: &WorkloadKey, ordinary: IdentityKey, quarantines: &Quarantines) -> IdentityKey {
    match quarantine::of(quarantines, key) {
        Some(_) => marked(&ordinary, &key.name),
        None => ordinary,
    }
}

/// What a workload's directory is bound to. Gives a number to a new identity, in quarantine to both.
pub(super) fn bound(
    key: &WorkloadKey,
    ordinary: &IdentityKey,
    quarantines: &Quarantines,
    registry: &mut Registry,
) -> Bound {
    let number = registry.identity(ordinary);
    let Some(quarantine) = quarantine::of(quarantines, key) else { return Bound::always(number) };
    let identity = registry.identity(&marked(ordinary, &key.name));
    let ordinary = number;
    match &quarantine.until {
        Some(until) => Bound { identity, until: Some(until.boot), after: ordinary },
        None => Bound::always(identity),
    }
}
