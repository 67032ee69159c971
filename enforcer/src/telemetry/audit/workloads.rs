//! Workloads that come, change their labels and go: the difference of two sets of names.

use std::collections::BTreeMap;
use std::sync::Arc;

use enforcer_common::id::IdentityId;
use rpds::RedBlackTreeSetSync;

use crate::domain::audit::Kind;
use crate::domain::audit::record::{Action, Host, Record, Workload};
use crate::domain::names::Names;
use crate::domain::timestamp::Timestamp;
use crate::domain::workload::ByName;

/// Workloads of one identity.
type Workloads = Arc<RedBlackTreeSetSync<ByName>>;

/// Identity of each workload, by `namespace/name`.
pub(super) type Known = BTreeMap<String, u32>;

/// One record for each workload that is not as it is known, which it is from now on. `before` are the names that were
/// looked at last: only what differs from them is looked at, because there may be ten thousand workloads, and one more a
/// moment later.
pub(super) fn changes(
    known: &mut Known,
    before: Option<&Names>,
    names: &Names,
    at: Timestamp,
    host: &Host,
) -> Vec<Record> {
    let (mut gone, mut now) = (Known::new(), Known::new());
    match before {
        None => gone.clone_from(known),
        Some(before) => {
            let others = before.workloads.iter().filter(|(id, keys)| names.workloads.get(id) != Some(*keys));
            others.for_each(|(id, keys)| add(&mut gone, *id, keys));
        }
    }
    let is_new = |id: &IdentityId, keys: &Workloads| {
        before.is_none_or(|before| before.workloads.get(id) != Some(keys))
    };
    let others = names.workloads.iter().filter(|(id, keys)| is_new(id, keys));
    others.for_each(|(id, keys)| add(&mut now, *id, keys));
    let mut records = Vec::new();
    for (name, identity) in now {
        gone.remove(&name);
        let (action, types): (_, &[&str]) = match known.insert(name.clone(), identity) {
            Some(old) if old == identity => continue,
            Some(_) => ("workload-changed", &["change"]),
            None => ("workload-appeared", &["creation"]),
        };
        records.push(record(&name, Some(identity), (action, types), names, at, host));
    }
    for name in gone.into_keys() {
        known.remove(&name);
        records.push(record(&name, None, ("workload-gone", &["deletion"]), names, at, host));
    }
    records
}

fn add(known: &mut Known, id: IdentityId, keys: &Workloads) {
    known.extend(keys.iter().map(|key| (key.to_string(), id.0)));
}

fn record(
    name: &str,
    identity: Option<u32>,
    (action, types): (&'static str, &'static [&'static str]),
    names: &Names,
    at: Timestamp,
    host: &Host,
) -> Record {
    let what = Action { kind: Kind::Identity, action, category: "host", types, outcome: "success" };
    let mut record = Record::new(at, host, what, format!("{} {name}", action.replace('-', " ")));
    if let Some(id) = identity {
        let key = names.identities.get(&IdentityId(id));
        let labels =
            key.iter().flat_map(|key| key.labels.0.iter()).map(|(key, value)| format!("{key}={value}"));
        record.labels.insert("workload_labels".to_owned(), labels.collect::<Vec<_>>().join(","));
        record.labels.insert("workload_identity".to_owned(), id.to_string());
    }
    record.enforcer.workload = Some(Workload { name: name.to_owned(), identity });
    record
}

#[cfg(test)]
mod tests {
    use crate::domain::container::Containers;

    use super::*;
    use crate::domain::labels::LabelSet;
    use crate::domain::registry::IdentityKey;
    use crate::domain::workload::{Workload, WorkloadKey};

    /// Names of workloads by identity, such as `256:web,api`.
    fn names(texts: &[&str]) -> Names {
        let mut names = Names::default();
        for text in texts {
            let (id, workloads) = text.split_once(':').unwrap();
            let id = IdentityId(id.parse().unwrap());
            let labels = LabelSet([("id".to_owned(), id.0.to_string())].into());
            names.identities.insert_mut(id, Arc::new(IdentityKey::new("default", labels)));
            let workload = |name: &str| {
                let key = WorkloadKey { namespace: "default".into(), name: name.into() };
                ByName(Arc::new(Workload {
                    key,
                    labels: Arc::default(),
                    cgroup: None,
                    addresses: Vec::new(),
                    ports: BTreeMap::new(),
                    account: None,
                    containers: Containers::Unknown,
                }))
            };
            names.workloads.insert_mut(id, Arc::new(workloads.split(',').map(workload).collect()));
        }
        names
    }

    #[test]
    fn each_workload_is_told_once_however_it_is_found() {
        let mut known = Known::new();
        let mut before = None;
        for (texts, expected) in [
            (&["256:web,api", "257:db"][..], &["appeared api", "appeared db", "appeared web"][..]),
            (&["256:web,api", "257:db"], &[]),
            (&["256:web", "257:api,db"], &["changed api"]),
            (&["257:api,db", "258:web,x"], &["changed web", "appeared x"]),
            (&["258:web,x"], &["gone api", "gone db"]),
            (&[], &["gone web", "gone x"]),
        ] {
            let now = names(texts);
            let (mut other, at) = (known.clone(), Timestamp::default());
            let tell = |records: Vec<Record>| -> Vec<String> {
                let action = |record: &Record| record.event.action.replace("workload-", "");
                let name =
                    |record: &Record| record.enforcer.workload.clone().unwrap().name.replace("default/", "");
                records.iter().map(|record| format!("{} {}", action(record), name(record))).collect()
            };
            let told = tell(changes(&mut known, before.as_ref(), &now, at, &Host::default()));
            assert_eq!(told, expected, "{texts:?}");
            assert_eq!(
                tell(changes(&mut other, None, &now, at, &Host::default())),
                expected,
                "all of it: {texts:?}"
            );
            assert_eq!(other, known);
            before = Some(now);
        }
    }
}
