//! Events and counters in, words and numbers out.

mod budget;
mod events;
mod flood;
mod series;

use std::collections::BTreeMap;
use std::sync::Arc;

use enforcer_common::id::{CgroupId, IdentityId, RuleId};

use crate::domain::container::Containers;
use crate::domain::labels::LabelSet;
use crate::domain::names::Names;
use crate::domain::policy::model::{PolicyKey, RuleDirection, RuleKey};
use crate::domain::registry::IdentityKey;
use crate::domain::workload::{ByName, Workload, WorkloadKey};

const WEB: u32 = 256;
const DB: u32 = 257;
const BATCH: u32 = 258;

/// `web` is one workload in cgroup 11, `db` has ten, `batch` has two and no label that names it.
fn names() -> Names {
    let labels = |pairs: &[(&str, &str)]| {
        LabelSet(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    };
    let identity = |labels| Arc::new(IdentityKey::new("shop", labels));
    let workload = |name: String| {
        ByName(Arc::new(Workload {
            key: WorkloadKey { namespace: "shop".into(), name },
            labels: Arc::default(),
            cgroup: None,
            addresses: Vec::new(),
            ports: BTreeMap::new(),
            account: None,
            containers: Containers::Unknown,
        }))
    };
    let rule = |index| RuleKey {
        policy: PolicyKey::traffic("shop", "db"),
        direction: RuleDirection::Ingress,
        index,
    };
    Names {
        identities: [
            (IdentityId(WEB), identity(labels(&[("app", "web"), ("tier", "front")]))),
            (IdentityId(DB), identity(labels(&[("app", "db")]))),
            (IdentityId(BATCH), identity(labels(&[("job", "nightly")]))),
        ]
        .into_iter()
        .collect(),
        workloads: [
            (IdentityId(WEB), Arc::new([workload("web".into())].into_iter().collect())),
            (IdentityId(BATCH), Arc::new((0..2).map(|count| workload(format!("nightly-{count}"))).collect())),
            (IdentityId(DB), Arc::new((0..10).map(|count| workload(format!("db-{count}"))).collect())),
        ]
        .into_iter()
        .collect(),
        cgroups: [(CgroupId(11), workload("web".into()))].into_iter().collect(),
        rules: Arc::new(BTreeMap::from([
            (RuleId(1), (rule(None), None)),
            (RuleId(2), (rule(Some(0)), Some("from-api".into()))),
        ])),
        ..Names::default()
    }
}
