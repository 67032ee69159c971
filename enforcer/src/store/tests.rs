//! Against real directories.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::domain::labels::LabelSet;
use crate::domain::policy::model::{RuleDirection, RuleKey};
use crate::domain::registry::IdentityKey;
use crate::domain::time::{BootTime, Deadline};
use crate::domain::timestamp::Timestamp;

fn key(name: &str) -> PolicyKey {
    PolicyKey::traffic("default", name)
}

fn document(name: &str) -> String {
    format!(
        "# who wrote this\napiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}}}\nspec: \
         {{subject: {{}}, ingress: []}}\n"
    )
}

fn registry() -> Registry {
    let mut registry = Registry::default();
    for app in ["web", "db"] {
        let labels = LabelSet([("app".to_owned(), app.to_owned())].into());
        registry.identity(&IdentityKey::new("default", labels));
    }
    registry.rule(&RuleKey { policy: key("db"), direction: RuleDirection::Ingress, index: None });
    registry
}

fn write(names: &[&str]) -> Changes {
    let write = names.iter().map(|name| (key(name), document(name))).collect();
    Changes { write, ..Changes::default() }
}

fn workload(name: &str) -> WorkloadKey {
    WorkloadKey { namespace: "default".into(), name: name.into() }
}

fn until() -> Deadline {
    Deadline { boot_id: "this".into(), boot: BootTime(7), wall: Timestamp { seconds: 7, nanos: 1 } }
}

fn quarantines() -> Quarantines {
    let allow_from = ["default/probe", "a=b", "192.0.2.0/24", "reserved:host"];
    let quarantine = Quarantine {
        since: Timestamp { seconds: 1, nanos: 0 },
        until: Some(until()),
        allow_from: allow_from.iter().map(|text| text.parse().unwrap()).collect(),
        by: Some(1000),
    };
    let endless = Quarantine { until: None, allow_from: Vec::new(), by: None, ..quarantine.clone() };
    [(workload("web"), quarantine), (workload("db"), endless)].into()
}

fn unconfirmed(names: &[&str]) -> UnconfirmedPush {
    let documents = names.iter().map(|name| (key(name), document(name))).collect();
    UnconfirmedPush { since: Timestamp::default(), until: until(), by: Some(0), documents }
}

/// The error of opening the directory, which must be one line.
fn refusal(root: &Path) -> String {
    let error = Store::open(root).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn what_is_saved_is_found_again() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b");
    let (mut store, saved) = Store::open(&path).unwrap();
    assert_eq!(saved, Saved::default());
    let first = Changes { registry: Some(registry()), ..write(&["db", "a.b"]) };
    store.save(&first).unwrap();
    store.save(&Changes { remove: vec![key("a.b"), key("never-there")], ..write(&["web"]) }).unwrap();
    drop(store);
    let (_store, saved) = Store::open(&path).unwrap();
    assert_eq!(saved.registry, registry());
    let texts: Vec<_> = saved.documents.iter().map(|file| file.text.as_str()).collect();
    assert_eq!(texts, [document("db"), document("web")]);
    for (path, mode) in
        [("", 0o700), ("policies", 0o700), (REGISTRY, 0o600), ("policies/default.db.yaml", 0o600)]
    {
        let found = fs::metadata(root.path().join("a/b").join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path}");
    }
}

#[test]
fn one_instance_has_the_directory() {
    let root = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(root.path()).unwrap();
    let error = refusal(root.path());
    assert!(
        error.starts_with(&format!("another instance is running (pid {}) ", std::process::id())),
        "{error}"
    );
    Store::require_stopped(root.path()).unwrap_err();
    drop(store);
    Store::require_stopped(root.path()).unwrap();
    Store::require_stopped(&root.path().join("never-made")).unwrap();
    Store::open(root.path()).unwrap();
}

#[test]
fn what_a_crash_left_is_removed_and_what_it_replaced_is_there() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(root.path()).unwrap();
    store.save(&Changes { registry: Some(registry()), ..write(&["db"]) }).unwrap();
    let unfinished = root.path().join("policies/.unfinished-0");
    fs::write(&unfinished, "half a docu").unwrap();
    drop(store);
    let (_store, saved) = Store::open(root.path()).unwrap();
    assert!(!unfinished.exists());
    assert_eq!(saved.documents.len(), 1);
}

#[test]
fn a_failed_save_leaves_what_was_there() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(root.path()).unwrap();
    store.save(&write(&["db"])).unwrap();
    let bad = PolicyKey::traffic("..", "/etc/passwd");
    let mut changes = write(&["web"]);
    changes.write.push((bad, String::new()));
    let error = store.save(&changes).unwrap_err();
    assert!(matches!(error, Error::Name { .. }));
    // A directory in the place of a file can't be replaced by a rename.
    fs::create_dir(root.path().join("policies/default.api.yaml")).unwrap();
    store.save(&write(&["api"])).unwrap_err();
    store.save(&write(&["api", "web"])).unwrap_err();
    let names = |path: &str| {
        let entries = fs::read_dir(root.path().join(path)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("policies"), ["default.api.yaml", "default.db.yaml"], "nothing unfinished stays");
    assert_eq!(names(""), ["lock", "policies"], "and no journal of what was told to have failed");
}

#[test]
fn damage_is_refused_with_its_file_and_the_next_command() {
    let whole = serde_json::json!({"version": 1, "registry": registry()});
    let with = |pointer: &str, value: serde_json::Value| {
        let mut changed = whole.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed.to_string()
    };
    let rows = [
        (String::new(), "EOF while parsing"),
        (whole.to_string()[..40].to_owned(), "EOF while parsing"),
        (with("/version", 2.into()), "has version 2 and this agent reads version 1"),
        (with("/registry/identities/0/0", 256.into()), "number 256 is given twice"),
        (with("/registry/identities/0/0", 3.into()), "number 3 is reserved"),
        (with("/registry/rules/0/0", 0.into()), "number 0 is reserved"),
    ];
    for (text, problem) in rows {
        let root = tempfile::tempdir().unwrap();
        let text = String::from_utf8(seal::seal(text.as_bytes())).unwrap();
        fs::write(root.path().join(REGISTRY), &text).unwrap();
        let error = refusal(root.path());
        assert!(error.contains(problem) && error.contains("registry.json"), "{text}: {error}");
        assert!(error.contains(".bad` and start again") || error.contains("start the version"), "{error}");
        assert_eq!(fs::read_to_string(root.path().join(REGISTRY)).unwrap(), text, "left as it was found");
    }
}

#[test]
fn a_document_is_what_its_name_says() {
    let rows: [(&str, Vec<u8>, &str); 3] = [
        ("default.web.yaml", document("db").into_bytes(), "not the one policy"),
        (
            "default.db.yaml",
            [document("db"), document("web")].join("---\n").into_bytes(),
            "not the one policy",
        ),
        ("default.db.yaml", vec![0xff, 0xfe], "no UTF-8"),
    ];
    for (name, text, problem) in rows {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("policies")).unwrap();
        fs::write(root.path().join("policies").join(name), seal::seal(&text)).unwrap();
        let error = refusal(root.path());
        assert!(error.contains(problem) && error.contains(name), "{error}");
    }
}

#[test]
fn quarantines_and_an_unconfirmed_push_are_found_again() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(root.path()).unwrap();
    let push = Some(Confirmation::Awaited(unconfirmed(&["web"])));
    let changes = Changes { quarantines: Some(quarantines()), confirmation: push, ..write(&["db"]) };
    store.save(&changes).unwrap();
    drop(store);
    let (mut store, saved) = Store::open(root.path()).unwrap();
    let awaited = Confirmation::Awaited(unconfirmed(&["web"]));
    assert_eq!((saved.quarantines, saved.confirmation), (quarantines(), awaited));
    assert_eq!(saved.documents.len(), 1, "the documents before the push");
    let none = Some(Quarantines::new());
    store
        .save(&Changes { quarantines: none, confirmation: Some(Confirmation::Settled), ..Changes::default() })
        .unwrap();
    drop(store);
    let (store, saved) = Store::open(root.path()).unwrap();
    assert_eq!((saved.quarantines, saved.confirmation), (Quarantines::new(), Confirmation::Settled));
    let twice =
        r#"{"version":1,"quarantines":[[{"namespace":"a","name":"b"},Q],[{"namespace":"a","name":"b"},Q]]}"#;
    let one = r#"{"since":"1970-01-01T00:00:00Z","until":null,"allow_from":[],"by":null}"#;
    drop(store);
    for (text, problem) in [(twice.replace('Q', one), "listed twice"), ("{}".to_owned(), "missing field")] {
        fs::write(root.path().join(QUARANTINES), seal::seal(text.as_bytes())).unwrap();
        let error = refusal(root.path());
        assert!(error.contains(problem) && error.contains("quarantines.json"), "{error}");
    }
}

/// A crash before each single call to the operating system: all of a change is found, or nothing of it.
#[test]
fn a_crash_at_any_point_leaves_the_old_or_the_new() {
    // The confirmation of a push that replaces one document, adds one and removes one.
    let before = write(&["db", "old"]);
    let pending =
        Changes { confirmation: Some(Confirmation::Awaited(unconfirmed(&["db", "new"]))), ..before };
    let mut change = write(&["db", "new"]);
    change.write[0].1.push_str("# another text\n");
    change.remove = vec![key("old")];
    change.confirmation = Some(Confirmation::Settled);
    let found = |root: &Path| {
        let (_store, saved) = Store::open(root).unwrap();
        let texts: Vec<String> = saved.documents.into_iter().map(|file| file.text).collect();
        (texts, saved.confirmation != Confirmation::Settled)
    };
    let mut outcomes = Vec::new();
    for crash in 0.. {
        let root = tempfile::tempdir().unwrap();
        let (mut store, _) = Store::open(root.path()).unwrap();
        store.save(&pending).unwrap();
        let mut batch = store.batch(&change).unwrap();
        let steps = batch.steps().unwrap();
        steps.iter().take(crash).for_each(|step| step.perform().unwrap());
        // A killed process cleans up nothing.
        std::mem::forget(batch);
        drop(store);
        let outcome = found(root.path());
        assert_eq!(outcome, found(root.path()), "a second start finds the same");
        assert!(!root.path().join("journal.json").exists());
        outcomes.push(outcome);
        if crash == steps.len() {
            break;
        }
    }
    let old = (vec![document("db"), document("old")], true);
    let new = (vec![change.write[0].1.clone(), document("new")], false);
    assert_eq!(outcomes.first(), Some(&old));
    assert_eq!(outcomes.last(), Some(&new));
    let switched = outcomes.iter().position(|outcome| *outcome == new).unwrap();
    assert_eq!(switched, 1, "the journal's rename is the moment");
    assert!(outcomes[..switched].iter().all(|outcome| *outcome == old));
    assert!(outcomes[switched..].iter().all(|outcome| *outcome == new));
}

#[test]
fn a_strange_journal_is_refused() {
    for (journal, problem) in [
        ("", "EOF"),
        (r#"{"version":2,"rename":[],"remove":[]}"#, "has version 2"),
        (r#"{"version":1,"rename":[],"remove":["../x"]}"#, "not below its directory"),
        (r#"{"version":1,"rename":[["a","/etc/passwd"]],"remove":[]}"#, "not below its directory"),
        (r#"{"version":1,"rename":[[".unfinished-0","policies/x.yaml"]],"remove":[]}"#, "is gone"),
    ] {
        let root = tempfile::tempdir().unwrap();
        Store::open(root.path()).unwrap();
        fs::write(root.path().join("journal.json"), seal::seal(journal.as_bytes())).unwrap();
        let error = refusal(root.path());
        assert!(error.contains(problem) && error.contains("journal.json"), "{journal}: {error}");
    }
}

#[test]
fn a_file_without_its_seal_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(root.path()).unwrap();
    store.save(&Changes { registry: Some(registry()), ..write(&["db"]) }).unwrap();
    drop(store);
    for name in [REGISTRY, "policies/default.db.yaml"] {
        let path = root.path().join(name);
        let whole = fs::read(&path).unwrap();
        let content = seal::open(&whole).unwrap();
        // A document by itself is valid, and so is a part of it.
        fs::write(&path, content).unwrap();
        let error = refusal(root.path());
        assert!(error.contains(name) && error.contains("no seal"), "{error}");
        fs::write(&path, &whole).unwrap();
    }
    Store::open(root.path()).unwrap();
}

#[test]
fn policies_of_one_name_and_different_kinds_have_files_of_their_own() {
    let root = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(root.path()).unwrap();
    let cluster = |kind| PolicyKey::cluster(kind, "db");
    let keys = [
        key("db"),
        PolicyKey { kind: PolicyKind::NetworkPolicy, ..key("db") },
        cluster(PolicyKind::ClusterTrafficPolicy),
        cluster(PolicyKind::ClusterNetworkPolicy),
    ];
    let write = keys.iter().map(|key| (key.clone(), format!("key: {key}\n"))).collect();
    store.save(&Changes { write, ..Changes::default() }).unwrap();
    drop(store);
    let (mut store, saved) = Store::open(root.path()).unwrap();
    let texts = |saved: &Saved| -> BTreeSet<String> {
        saved.documents.iter().map(|document| document.text.clone()).collect()
    };
    assert_eq!(texts(&saved), keys.iter().map(|key| format!("key: {key}\n")).collect());
    let remove = keys[1..].to_vec();
    store.save(&Changes { remove, ..Changes::default() }).unwrap();
    drop(store);
    let (mut store, saved) = Store::open(root.path()).unwrap();
    assert_eq!(texts(&saved), BTreeSet::from(["key: default/db\n".to_owned()]));
    let namespaced = PolicyKey { namespace: "default".into(), ..cluster(PolicyKind::ClusterNetworkPolicy) };
    let write = vec![(namespaced, String::new())];
    assert!(store.save(&Changes { write, ..Changes::default() }).is_err());
}

fn numbered(registry: &mut Registry, app: &str) -> Changes {
    registry.identity(&IdentityKey::new("default", LabelSet([("app".to_owned(), app.to_owned())].into())));
    Changes { registry: Some(registry.clone()), ..Changes::default() }
}

fn names(root: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| name.starts_with("registry")).collect()
}

#[test]
fn new_numbers_are_a_file_of_their_own_and_damage_to_any_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let (mut store, _) = Store::open(root).unwrap();
    let mut all = registry();
    store.save(&Changes { registry: Some(all.clone()), ..Changes::default() }).unwrap();
    let whole = fs::read(root.join("registry.json")).unwrap();
    for app in ["one", "two"] {
        store.save(&numbered(&mut all, app)).unwrap();
    }
    all.rule(&RuleKey { policy: key("web"), direction: RuleDirection::Ingress, index: None });
    store.save(&Changes { registry: Some(all.clone()), ..Changes::default() }).unwrap();
    // The same again is nothing new.
    store.save(&Changes { registry: Some(all.clone()), ..Changes::default() }).unwrap();
    drop(store);
    let four = ["registry.1.json", "registry.2.json", "registry.3.json", "registry.json"];
    assert_eq!(names(root), four.map(str::to_owned).into());
    assert_eq!(fs::read(root.join("registry.json")).unwrap(), whole, "nothing old was written again");
    let (store, saved) = Store::open(root).unwrap();
    assert_eq!(saved.registry, all);
    drop(store);
    for name in four {
        let path = root.join(name);
        let good = fs::read(&path).unwrap();
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(refusal(root).contains(name), "{name} cut at {length}");
        }
        for at in 0..good.len() {
            let mut other = good.clone();
            other[at] ^= 4;
            fs::write(&path, other).unwrap();
            assert!(refusal(root).contains(name), "{name} changed at {at}");
        }
        fs::remove_file(&path).unwrap();
        if name != "registry.3.json" {
            assert!(refusal(root).contains("registry."), "{name} is missing");
        }
        fs::write(&path, good).unwrap();
    }
    fs::rename(root.join("registry.3.json"), root.join("registry.4.json")).unwrap();
    assert!(refusal(root).contains("part 3 of the registry, which comes before it"), "{}", refusal(root));
    fs::rename(root.join("registry.4.json"), root.join("registry.3.json")).unwrap();
    fs::copy(root.join("registry.2.json"), root.join("registry.3.json")).unwrap();
    assert!(refusal(root).contains("it is part 2 of the registry under another name"));
}

#[test]
fn many_parts_become_one_file_and_what_a_crash_left_of_them_does_no_harm() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let (mut store, _) = Store::open(root).unwrap();
    let mut all = Registry::default();
    for number in 0..=parts::PARTS {
        store.save(&numbered(&mut all, &number.to_string())).unwrap();
    }
    assert_eq!(names(root).len(), 1 + parts::PARTS as usize);
    let old = fs::read(parts::path(root, 1)).unwrap();
    store.save(&numbered(&mut all, "last")).unwrap();
    assert_eq!(names(root), ["registry.json".to_owned()].into());
    drop(store);
    fs::write(parts::path(root, 1), old).unwrap();
    let (mut store, saved) = Store::open(root).unwrap();
    assert_eq!(saved.registry, all);
    store.save(&numbered(&mut all, "later")).unwrap();
    drop(store);
    assert_eq!(Store::open(root).unwrap().1.registry, all);
}
