//! Workloads that come, change their labels and go: the difference of two sets of names.

use std::collections::BTreeMap;

use enforcer_common::id::IdentityId;

use crate::domain::audit::Kind;
use crate::domain::audit::record::{Action, Host, Record, Workload};
use crate::domain::names::Names;
use crate::domain::timestamp::Timestamp;

/// Identity of each workload, by `namespace/name`.
pub(super) type Known = BTreeMap<String, u32>;

/// The workloads that have names now.
pub(super) fn known(names: &Names) -> Known {
    let pairs =
        names.workloads.iter().flat_map(|(id, keys)| keys.iter().map(move |key| (key.to_string(), id.0)));
    pairs.collect()
}

/// One record for each workload that is not as it was.
pub(super) fn changes(before: &Known, now: &Known, names: &Names, at: Timestamp, host: &Host) -> Vec<Record> {
    let mut records = Vec::new();
    for (name, identity) in now {
        match before.get(name) {
            Some(old) if old == identity => {}
            Some(_) => records.push(record(
                name,
                Some(*identity),
                ("workload-changed", &["change"]),
                names,
                at,
                host,
            )),
            None => records.push(record(
                name,
                Some(*identity),
                ("workload-appeared", &["creation"]),
                names,
                at,
                host,
            )),
        }
    }
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        records.push(record(name, None, ("workload-gone", &["deletion"]), names, at, host));
    }
    records
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
