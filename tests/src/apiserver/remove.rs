//! The end of objects.

use std::sync::Arc;

use serde_json::{Value, json};

use super::events;
use super::kinds::Kind;
use super::settle::{place, preconditions, shown};
use super::status::Failure;
use super::store::{Place, Store, Write};

/// `DELETE` of one object. `grace` is in seconds, where the request says.
pub fn delete(
    store: &mut Store,
    kind: &Kind,
    write: &Write,
    options: &Value,
    grace: Option<u64>,
) -> Result<(Arc<Value>, bool), Failure> {
    let place = place(kind, &write.namespace, &write.name);
    let before = shown(store, kind, &place)?;
    let asked = json!({ "metadata": {
        "uid": options["preconditions"]["uid"], "resourceVersion": options["preconditions"]["resourceVersion"],
    }});
    preconditions(kind, &before, &asked)?;
    let grace = grace.or(options["gracePeriodSeconds"].as_u64());
    let is_scheduled = kind.kind == "Pod" && before["spec"]["nodeName"].is_string();
    // The node's agent ends a pod's containers, and then deletes it with no grace.
    let grace = if is_scheduled {
        grace.or(before["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(30)
    } else {
        0
    };
    let is_held = before["metadata"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
    if write.dry_run {
        return Ok((Arc::new(before), !is_held));
    }
    if grace == 0 && !is_held {
        let gone = remove(store, kind, &place).ok_or_else(|| Failure::not_found(kind, &place.name))?;
        return Ok((gone, true));
    }
    let mut object = events::kept_as(kind, before);
    if object["metadata"]["deletionTimestamp"].is_null() {
        object["metadata"]["deletionTimestamp"] = write.now.clone().into();
    }
    object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    Ok((store.commit(place, object), false))
}

/// Removes an object with everything that can't be without it.
pub fn remove(store: &mut Store, kind: &Kind, place: &Place) -> Option<Arc<Value>> {
    let gone = store.forget(place)?;
    match kind.kind.as_str() {
        "Namespace" => {
            let inside = store.places(|other| other.namespace == place.name);
            for other in inside {
                store.forget(&other);
            }
        }
        "CustomResourceDefinition" => {
            let inside = store.places(|other| other.stored == place.name);
            for other in inside {
                store.forget(&other);
            }
            let (group, plural) = (&gone["spec"]["group"], &gone["spec"]["names"]["plural"]);
            store.kinds.forget(group.as_str().unwrap_or_default(), plural.as_str().unwrap_or_default());
        }
        _ => {}
    }
    // What an object owns goes with it.
    let uid = gone["metadata"]["uid"].clone();
    for owned in store.owned_by(&uid) {
        store.forget(&owned);
    }
    Some(gone)
}
