//! Workloads that come, change their labels and go, told by one set of names after the other.

use std::collections::BTreeMap;

use enforcer_common::id::IdentityId;

use crate::domain::audit::Kind;
use crate::domain::audit::record::{Action, Host, Record, Workload};
use crate::domain::names::Names;
use crate::domain::timestamp::Timestamp;

/// Identity of each workload, by `namespace/name`.
pub(super) type Known = BTreeMap<String, u32>;

/// One record for each workload that is not as it is known, which it is from now on. `before` is the version of the names that
/// were looked at last: where these are the next, what they say of themselves is looked at and nothing else, because there
/// may be ten thousand workloads, and one more a moment later.
pub(super) fn changes(
    known: &mut Known,
    before: Option<u64>,
    names: &Names,
    at: Timestamp,
    host: &Host,
) -> Vec<Record> {
    let told = match before {
        Some(before) if names.version == before + 1 => {
            names.changed.iter().map(|(key, id)| (key.to_string(), id.map(|id| id.0))).collect()
        }
        _ => all(known, names),
    };
    let mut records = Vec::new();
    for (name, identity) in told {
        let old = match identity {
            Some(identity) => known.insert(name.clone(), identity),
            None => known.remove(&name),
        };
        let (action, types): (_, &[&str]) = match (old, identity) {
            (old, identity) if old == identity => continue,
            (None, _) => ("workload-appeared", &["creation"]),
            (_, None) => ("workload-gone", &["deletion"]),
            _ => ("workload-changed", &["change"]),
        };
        records.push(record(&name, identity, (action, types), names, at, host));
    }
    records
}

/// The identity of every workload; none for those that are known and not there any more.
fn all(known: &Known, names: &Names) -> BTreeMap<String, Option<u32>> {
    let mut all: BTreeMap<_, _> = known.keys().map(|name| (name.clone(), None)).collect();
    for (id, keys) in &names.workloads {
        all.extend(keys.iter().map(|key| (key.to_string(), Some(id.0))));
    }
    all
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
    use std::sync::Arc;

    use super::*;
    use crate::domain::container::Containers;
    use crate::domain::labels::LabelSet;
    use crate::domain::registry::IdentityKey;
    use crate::domain::workload::{ByName, Workload, WorkloadKey};

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
        let (mut known, mut before, mut version) = (Known::new(), Names::default(), 3);
        for (texts, expected) in [
            (&["256:web,api", "257:db"][..], &["appeared api", "appeared db", "appeared web"][..]),
            (&["256:web,api", "257:db"], &[]),
            (&["256:web", "257:api,db"], &["changed api"]),
            (&["257:api,db", "258:web,x"], &["changed web", "appeared x"]),
            (&["258:web,x"], &["gone api", "gone db"]),
            (&[], &["gone web", "gone x"]),
        ] {
            let mut now = names(texts);
            now.version = version + 1;
            let ids = |names: &Names| {
                let mut ids = BTreeMap::new();
                for (id, keys) in &names.workloads {
                    ids.extend(keys.iter().map(|key| ((**key).clone(), *id)));
                }
                ids
            };
            let (old, new) = (ids(&before), ids(&now));
            let differ = old.keys().chain(new.keys()).filter(|key| old.get(key) != new.get(key));
            now.changed = Arc::new(differ.map(|key| (key.clone(), new.get(key).copied())).collect());
            let (mut other, mut third, at) = (known.clone(), known.clone(), Timestamp::default());
            let tell = |records: Vec<Record>| -> Vec<String> {
                let action = |record: &Record| record.event.action.replace("workload-", "");
                let name =
                    |record: &Record| record.enforcer.workload.clone().unwrap().name.replace("default/", "");
                records.iter().map(|record| format!("{} {}", action(record), name(record))).collect()
            };
            let told = tell(changes(&mut known, Some(version), &now, at, &Host::default()));
            assert_eq!(told, expected, "{texts:?}");
            // Names that are not the next, because others were lost, are looked through.
            now.changed = Arc::default();
            for (known, before) in [(&mut other, None), (&mut third, Some(version + 7))] {
                let told = tell(changes(known, before, &now, at, &Host::default()));
                assert_eq!(told, expected, "all of it: {texts:?}");
            }
            assert_eq!((&other, &third), (&known, &known));
            (before, version) = (now, version + 1);
        }
    }
}
