//! Policy objects: each is judged by itself, and the last good version of one that is refused is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::kinds::Kind;
use super::wire::{Metadata, read};
use crate::domain::cluster_policy::{ClusterPolicy, GoodPolicy, ObjectVersion};
use crate::domain::command::PolicyFile;
use crate::domain::policy::check::check;
use crate::domain::policy::model::{Policy, PolicyKey, PolicyKind};
use crate::domain::yaml::write;

/// What `kubectl apply` keeps beside an object: all of it, once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Policy objects by name.
pub(super) type Policies = BTreeMap<PolicyKey, Arc<ClusterPolicy>>;

/// The name of a policy object.
pub(super) fn key(kind: PolicyKind, (namespace, name): (String, String)) -> PolicyKey {
    PolicyKey { kind, namespace: if kind.is_namespaced() { namespace } else { String::new() }, name }
}

/// Reads a policy object; `before` is what was known of it.
pub(super) fn policy(
    kind: Kind,
    key: &PolicyKey,
    value: &Value,
    before: Option<&Arc<ClusterPolicy>>,
) -> Arc<ClusterPolicy> {
    let metadata = value.get("metadata").cloned().unwrap_or_default();
    let Metadata { uid, generation, .. } = read(metadata).unwrap_or_default();
    let object = ObjectVersion { uid, generation };
    let text = document(kind, value);
    // Objects are told again for many reasons, most of them a status.
    if let Some(before) = before
        && let Some(good) = before.good.as_ref().filter(|good| good.text == text)
    {
        let good = if good.object == object {
            Arc::clone(good)
        } else {
            Arc::new(GoodPolicy { object: object.clone(), ..(**good).clone() })
        };
        let same = ClusterPolicy { key: key.clone(), object, good: Some(good), problems: Vec::new() };
        return if same == **before { Arc::clone(before) } else { Arc::new(same) };
    }
    // What is made anew under the name of something else owes nothing to it.
    let known = before.filter(|before| before.object.uid == object.uid).and_then(|it| it.good.clone());
    Arc::new(match judge(key, &text) {
        Ok(policy) => {
            let good = GoodPolicy { policy, text, object: object.clone() };
            ClusterPolicy { key: key.clone(), object, good: Some(Arc::new(good)), problems: Vec::new() }
        }
        Err(problems) => ClusterPolicy { key: key.clone(), object, good: known, problems },
    })
}

/// The policy of a document, or everything that is wrong with it.
pub(super) fn judge(key: &PolicyKey, text: &str) -> Result<Policy, Vec<String>> {
    let file = PolicyFile { name: key.to_string(), text: text.to_owned() };
    let checked = check(std::slice::from_ref(&file))
        .into_result()
        .map_err(|diagnostics| diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    match <[_; 1]>::try_from(checked) {
        Ok([one]) if one.policy.key == *key => Ok(one.policy),
        _ => Err(vec![format!("{key}: it is not the one policy that its name says")]),
    }
}

/// The document without what the API server and `kubectl` add to it.
fn document(kind: Kind, value: &Value) -> String {
    let mut metadata = Map::new();
    let of = |field: &str| value.get("metadata").and_then(|metadata| metadata.get(field)).cloned();
    for field in ["name", "namespace", "labels"] {
        metadata.extend(of(field).map(|value| (field.to_owned(), value)));
    }
    if let Some(Value::Object(mut annotations)) = of("annotations") {
        annotations.remove(LAST_APPLIED);
        if !annotations.is_empty() {
            metadata.insert("annotations".to_owned(), annotations.into());
        }
    }
    // The items of a list have none of their own.
    let version = value.get("apiVersion").cloned().unwrap_or_else(|| kind.api_version().into());
    let mut document = json!({ "apiVersion": version, "kind": kind.label(), "metadata": metadata });
    if let (Some(fields), Some(spec)) = (document.as_object_mut(), value.get("spec")) {
        fields.insert("spec".to_owned(), spec.clone());
    }
    let text = write::document(&document);
    text.strip_prefix("---\n").map_or_else(|| text.clone(), str::to_owned)
}
