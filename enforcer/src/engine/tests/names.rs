//! Names, followed as the audit log does: by what each set says of the one before.

use std::collections::BTreeMap;

use crate::domain::id::IdentityId;
use crate::domain::names::Names;
use crate::domain::workload::WorkloadKey;

/// The number of the names that were told last, and the identity of each workload.
#[derive(Default)]
pub(super) struct Followed {
    version: u64,
    known: BTreeMap<WorkloadKey, IdentityId>,
}

impl Followed {
    /// What names say of themselves is what has changed.
    pub(super) fn follow(&mut self, names: &Names) {
        let mut all = BTreeMap::new();
        for (id, keys) in &names.workloads {
            all.extend(keys.iter().map(|key| ((**key).clone(), *id)));
        }
        if names.version == self.version + 1 {
            for (key, id) in &*names.changed {
                match id {
                    Some(id) => _ = self.known.insert(key.clone(), *id),
                    None => _ = self.known.remove(key),
                }
            }
            assert_eq!(self.known, all);
        }
        (self.version, self.known) = (names.version, all);
    }
}
