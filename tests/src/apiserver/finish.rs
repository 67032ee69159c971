//! The last steps of a write: the metadata that is the server's, and what follows from an object.

use std::sync::Arc;

use serde_json::{Value, json};

use super::apply::{self, Manager};
use super::events;
use super::kinds::Kind;
use super::remove::remove;
use super::schema;
use super::settle::is_name;
use super::status::Failure;
use super::store::{Place, Store, Write};

/// Writes the metadata that is the server's, and keeps the object.
pub fn finish(
    store: &mut Store,
    kind: &Kind,
    write: &Write,
    place: &Place,
    before: &Value,
    mut object: Value,
    updates: Option<&Manager>,
) -> Result<Arc<Value>, Failure> {
    let is_new = before.is_null();
    if !is_name(&place.name) {
        let wrong = format!(
            "Invalid value: {:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'",
            place.name
        );
        return Err(Failure::invalid(kind, &place.name, &[("metadata.name".into(), wrong)]));
    }
    if is_new && kind.namespaced {
        let namespaces =
            Place { stored: "namespaces".into(), namespace: String::new(), name: place.namespace.clone() };
        if store.get(&namespaces).is_none() {
            let kind = store.kinds.find("", "v1", "namespaces").cloned();
            return Err(Failure::not_found(&kind.expect("namespaces are served"), &place.namespace));
        }
    }
    part(kind, write, before, &mut object);
    object["metadata"]["name"] = place.name.clone().into();
    if kind.namespaced {
        object["metadata"]["namespace"] = place.namespace.clone().into();
    }
    if kind.kind == "Namespace" {
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = place.name.clone().into();
    }
    let wrong = if is_new { events::wrong(kind, &object) } else { Vec::new() };
    if !wrong.is_empty() {
        return Err(Failure::invalid(kind, &place.name, &wrong));
    }
    if kind.kind == "CustomResourceDefinition" {
        let wrong = schema::unsound(&object);
        if !wrong.is_empty() {
            return Err(Failure::invalid(kind, &place.name, &wrong));
        }
        establish(&mut object, &write.now);
    }
    if let Some(manager) = updates {
        apply::note_update(kind, before, &mut object, manager, &write.now);
    }
    let uid = if is_new { store.new_uid().into() } else { before["metadata"]["uid"].clone() };
    own_metadata(kind, before, &mut object, uid, &write.now);
    let object = events::kept_as(kind, object);
    if write.dry_run {
        return Ok(Arc::new(object));
    }
    let object = keep(store, kind, place, object);
    Ok(object)
}

/// The part of an object that this endpoint does not write is as it was.
fn part(kind: &Kind, write: &Write, before: &Value, object: &mut Value) {
    if !kind.status {
        return;
    }
    if write.subresource == "status" {
        let (status, fields) = (object["status"].take(), object["metadata"]["managedFields"].take());
        object.clone_from(before);
        object["status"] = status;
        object["metadata"]["managedFields"] = fields;
    } else {
        object["status"] = before["status"].clone();
        if before.is_null() && kind.kind == "Pod" {
            object["status"] = json!({ "phase": "Pending", "qosClass": "BestEffort" });
        }
        if before.is_null() && kind.kind == "Namespace" {
            object["status"] = json!({ "phase": "Active" });
        }
    }
    if let Value::Object(fields) = object
        && fields.get("status").is_some_and(Value::is_null)
    {
        fields.remove("status");
    }
}

fn own_metadata(kind: &Kind, before: &Value, object: &mut Value, uid: Value, now: &str) {
    let is_new = before.is_null();
    let generation = if !kind.generation {
        Value::Null
    } else if is_new {
        1.into()
    } else {
        let is_changed = asked_for(before) != asked_for(object);
        (before["metadata"]["generation"].as_u64().unwrap_or(1) + u64::from(is_changed)).into()
    };
    let old = |name: &str| before["metadata"][name].clone();
    let created = if is_new { now.into() } else { old("creationTimestamp") };
    let metadata = [
        ("uid", uid),
        ("creationTimestamp", created),
        ("resourceVersion", old("resourceVersion")),
        ("generation", generation),
        ("deletionTimestamp", old("deletionTimestamp")),
        ("deletionGracePeriodSeconds", old("deletionGracePeriodSeconds")),
    ];
    let Some(fields) = object["metadata"].as_object_mut() else { return };
    for (name, value) in metadata {
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.into(), value);
        }
    }
}

/// An object without what is not asked for.
fn asked_for(object: &Value) -> Value {
    let mut object = object.clone();
    if let Value::Object(fields) = &mut object {
        fields.remove("metadata");
        fields.remove("status");
    }
    object
}

/// A definition is in force at once.
fn establish(object: &mut Value, now: &str) {
    let condition = |kind: &str, reason: &str| json!({ "type": kind, "status": "True", "reason": reason, "message": "", "lastTransitionTime": now });
    if object["status"]["conditions"].is_array() {
        return;
    }
    object["status"] = json!({
        "acceptedNames": object["spec"]["names"],
        "storedVersions": ["v1alpha1"],
        "conditions": [condition("NamesAccepted", "NoConflicts"), condition("Established", "InitialNamesAccepted")],
    });
}

/// Keeps an object, and does what follows from it.
pub fn keep(store: &mut Store, kind: &Kind, place: &Place, object: Value) -> Arc<Value> {
    let is_ended = object["metadata"]["deletionTimestamp"].is_string()
        && object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
        && object["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) == 0;
    let object = store.commit(place.clone(), object);
    if kind.kind == "CustomResourceDefinition" {
        store.kinds.define(&object);
    }
    if is_ended {
        remove(store, kind, place);
    }
    object
}
