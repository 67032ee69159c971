//! Names for numbers: what telemetry needs to turn events and counters into words. Published as a whole; the next whole
//! shares with the last one what is the same in both.

use std::collections::BTreeMap;
use std::sync::Arc;

use enforcer_common::id::{CgroupId, IdentityId, RuleId};
use rpds::RedBlackTreeSetSync;

use super::delta::Shared;
use super::policy::model::RuleKey;
use super::registry::IdentityKey;
use super::workload::{ByName, WorkloadKey};

/// A consistent set of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Identities with a number.
    pub identities: Shared<IdentityId, Arc<IdentityKey>>,
    /// Workloads of each identity, in the order of names.
    pub workloads: Shared<IdentityId, Arc<RedBlackTreeSetSync<ByName>>>,
    /// Workloads by their directory.
    pub cgroups: Shared<CgroupId, ByName>,
    /// Rules with a number; the second is the rule's own name.
    pub rules: Arc<BTreeMap<RuleId, (RuleKey, Option<String>)>>,
    /// Counts the sets, one after the other.
    pub version: u64,
    /// Workloads that may have another identity than in the version before: what each has now, the highest of several. So who
    /// knows that version need not look through all of them.
    pub changed: Arc<BTreeMap<WorkloadKey, Option<IdentityId>>>,
}
