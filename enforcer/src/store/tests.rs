//! Against real directories.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::domain::labels::LabelSet;
use crate::domain::policy::model::{RuleDirection, RuleKey};
use crate::domain::registry::IdentityKey;

fn key(name: &str) -> PolicyKey {
    PolicyKey { namespace: "default".into(), name: name.into() }
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
        registry.identity(&IdentityKey { namespace: "default".into(), labels });
    }
    registry.rule(&RuleKey { policy: key("db"), direction: RuleDirection::Ingress, index: None });
    registry
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
    let (store, saved) = Store::open(&path).unwrap();
    assert_eq!(saved, Saved::default());
    store
        .save(Some(&registry()), &[(key("db"), document("db")), (key("a.b"), document("a.b"))], &[])
        .unwrap();
    store.save(None, &[(key("web"), document("web"))], &[key("a.b"), key("never-there")]).unwrap();
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
    let (store, _) = Store::open(root.path()).unwrap();
    store.save(Some(&registry()), &[(key("db"), document("db"))], &[]).unwrap();
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
    let (store, _) = Store::open(root.path()).unwrap();
    store.save(None, &[(key("db"), document("db"))], &[]).unwrap();
    let bad = PolicyKey { namespace: "..".into(), name: "/etc/passwd".into() };
    let error = store.save(None, &[(key("web"), document("web")), (bad, String::new())], &[]).unwrap_err();
    assert!(matches!(error, Error::Name { .. }));
    // A directory in the place of a file can't be replaced by a rename.
    fs::create_dir(root.path().join("policies/default.api.yaml")).unwrap();
    store.save(None, &[(key("api"), document("api"))], &[]).unwrap_err();
    let mut names: Vec<_> =
        fs::read_dir(root.path().join("policies")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["default.api.yaml", "default.db.yaml"], "nothing unfinished stays");
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
fn a_file_without_its_seal_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(root.path()).unwrap();
    store.save(Some(&registry()), &[(key("db"), document("db"))], &[]).unwrap();
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
