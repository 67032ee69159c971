//! Server-side apply: what several managers want of one object, put together by who owns which field.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::fields::{self, ListType, Path, Shapes, Step};
use super::kinds::Kind;
use super::status::Failure;

/// Who writes.
#[derive(Clone, Debug)]
pub struct Manager {
    /// Its name.
    pub name: String,
    /// Whether it applies, rather than updates.
    pub applies: bool,
    /// The subresource it writes to, or empty.
    pub subresource: String,
}

/// What one manager owns.
#[derive(Clone, Debug)]
struct Owner {
    manager: Manager,
    api_version: String,
    time: String,
    fields: BTreeSet<Path>,
}

impl Owner {
    fn is(&self, manager: &Manager) -> bool {
        self.manager.name == manager.name
            && self.manager.applies == manager.applies
            && self.manager.subresource == manager.subresource
    }
}

fn owners(object: &Value) -> Vec<Owner> {
    let entries = object["metadata"]["managedFields"].as_array();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    entries
        .into_iter()
        .flatten()
        .map(|entry| Owner {
            manager: Manager {
                name: text(&entry["manager"]),
                applies: entry["operation"] == "Apply",
                subresource: text(&entry["subresource"]),
            },
            api_version: text(&entry["apiVersion"]),
            time: text(&entry["time"]),
            fields: fields::read(&entry["fieldsV1"]),
        })
        .collect()
}

fn keep(object: &mut Value, owners: &[Owner]) {
    let entries: Vec<Value> = owners
        .iter()
        .filter(|owner| !owner.fields.is_empty())
        .map(|owner| {
            let mut entry = json!({
                "manager": owner.manager.name,
                "operation": if owner.manager.applies { "Apply" } else { "Update" },
                "apiVersion": owner.api_version,
                "time": owner.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": fields::write(&owner.fields),
            });
            if !owner.manager.subresource.is_empty() {
                entry["subresource"] = owner.manager.subresource.clone().into();
            }
            entry
        })
        .collect();
    object["metadata"]["managedFields"] = entries.into();
}

/// Puts what a manager wants into an object. Fields it wanted before and no longer does go, unless others own them.
pub fn apply(
    kind: &Kind,
    live: &Value,
    wanted: &Value,
    manager: &Manager,
    force: bool,
    now: &str,
) -> Result<Value, Failure> {
    let shapes = Shapes(kind);
    let wants = fields::leaves(wanted, shapes);
    let mut owners = owners(live);
    let mut conflicts = Vec::new();
    for owner in owners.iter_mut().filter(|owner| !owner.is(manager)) {
        let taken: Vec<Path> = owner
            .fields
            .iter()
            .filter(|path| wants.contains(*path) && fields::get(live, path) != fields::get(wanted, path))
            // That an item is there is not disputed by who wants it to be there.
            .filter(|path| !matches!(path.last(), Some(Step::Key(_))))
            .cloned()
            .collect();
        for path in taken {
            if force {
                owner.fields.remove(&path);
            } else {
                let api = if owner.manager.applies {
                    String::new()
                } else {
                    format!(" using {}", owner.api_version)
                };
                conflicts
                    .push((format!("conflict with {:?}{api}", owner.manager.name), fields::display(&path)));
            }
        }
    }
    if !conflicts.is_empty() {
        let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Failure::field_conflicts(kind, name, &conflicts));
    }
    let mut result = live.clone();
    merge(&mut result, wanted, shapes, &mut Vec::new());
    let before = owners.iter().position(|owner| owner.is(manager)).map(|index| owners.remove(index));
    let gone = before.iter().flat_map(|owner| &owner.fields).filter(|path| !wants.contains(*path));
    for path in gone {
        let is_others = owners.iter().any(|owner| owner.fields.iter().any(|other| other.starts_with(path)));
        let is_wanted = wants.iter().any(|other| other.starts_with(path));
        if !is_others && !is_wanted {
            fields::remove(&mut result, path);
        }
    }
    let is_same = before.as_ref().is_some_and(|owner| owner.fields == wants) && same(live, &result);
    let time = before.filter(|_| is_same).map_or_else(|| now.to_owned(), |owner| owner.time);
    owners.push(Owner { manager: manager.clone(), api_version: kind.api_version(), time, fields: wants });
    owners.sort_by(|a, b| (!a.manager.applies, &a.manager.name).cmp(&(!b.manager.applies, &b.manager.name)));
    keep(&mut result, &owners);
    Ok(result)
}

fn same(a: &Value, b: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        object["metadata"]["managedFields"] = Value::Null;
        object
    };
    bare(a) == bare(b)
}

fn merge(live: &mut Value, wanted: &Value, shapes: Shapes<'_>, path: &mut Path) {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) if path.is_empty() || !shapes.is_atomic(path) => {
            for (name, value) in wanted {
                path.push(Step::Field(name.clone()));
                merge(live.entry(name.clone()).or_insert(Value::Null), value, shapes, path);
                path.pop();
            }
        }
        (Value::Array(live), Value::Array(wanted)) => merge_lists(live, wanted, shapes, path),
        (live, wanted) => *live = wanted.clone(),
    }
}

fn merge_lists(live: &mut Vec<Value>, wanted: &[Value], shapes: Shapes<'_>, path: &mut Path) {
    match shapes.list(path) {
        ListType::Atomic => *live = wanted.to_vec(),
        ListType::Set => {
            for item in wanted {
                if !live.contains(item) {
                    live.push(item.clone());
                }
            }
        }
        ListType::Map(keys) => {
            for item in wanted {
                let step = fields::key_of(item, &keys);
                match live.iter_mut().find(|other| fields::key_of(other, &keys) == step) {
                    Some(found) => {
                        path.push(step);
                        merge(found, item, shapes, path);
                        path.pop();
                    }
                    None => live.push(item.clone()),
                }
            }
        }
    }
}

/// Notes who has changed what by an update: what a manager changes is its own, and nobody else's.
pub fn note_update(kind: &Kind, before: &Value, after: &mut Value, manager: &Manager, now: &str) {
    let shapes = Shapes(kind);
    let mut owners = owners(before);
    // A client that sends an empty list asks to forget who owned what.
    let is_reset = after["metadata"]["managedFields"].as_array().is_some_and(Vec::is_empty);
    if is_reset {
        owners.clear();
    }
    let all = fields::leaves(after, shapes);
    let changed: BTreeSet<Path> =
        all.iter().filter(|path| fields::get(before, path) != fields::get(after, path)).cloned().collect();
    // An item with keys has changed as a whole only if it is new.
    let changed: BTreeSet<Path> = changed
        .into_iter()
        .filter(|path| !matches!(path.last(), Some(Step::Key(_))) || fields::get(before, path).is_none())
        .collect();
    for owner in &mut owners {
        let is_own = owner.is(manager);
        owner.fields.retain(|path| fields::get(after, path).is_some() && (is_own || !changed.contains(path)));
    }
    if !changed.is_empty() {
        match owners.iter_mut().find(|owner| owner.is(manager)) {
            Some(owner) => {
                owner.fields.extend(changed);
                now.clone_into(&mut owner.time);
            }
            None => owners.push(Owner {
                manager: manager.clone(),
                api_version: kind.api_version(),
                time: now.to_owned(),
                fields: changed,
            }),
        }
    }
    keep(after, &owners);
}

/// A JSON merge patch (RFC 7396).
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge_patch(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}
