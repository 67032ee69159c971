//! Names for numbers: what telemetry needs to turn events and counters into words. Published as a whole.

use std::collections::BTreeMap;

use enforcer_common::id::{CgroupId, IdentityId, RuleId};

use super::policy::model::RuleKey;
use super::registry::IdentityKey;
use super::workload::WorkloadKey;

/// A consistent set of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Identities with a number.
    pub identities: BTreeMap<IdentityId, IdentityKey>,
    /// Workloads of each identity, in the order of names.
    pub workloads: BTreeMap<IdentityId, Vec<WorkloadKey>>,
    /// Workloads by their directory.
    pub cgroups: BTreeMap<CgroupId, WorkloadKey>,
    /// Rules with a number; the second is the rule's own name.
    pub rules: BTreeMap<RuleId, (RuleKey, Option<String>)>,
}
