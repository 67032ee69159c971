//! Sets of fields: who owns what in an object, by the paths of its leaves.
//!
//! The form on the wire is `fieldsV1` of `metadata.managedFields`
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/>): `f:` names a field, `k:` the item of a list by
//! its keys, `v:` the item of a set, and `.` the thing itself beside what is in it.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::kinds::{Kind, Schema};

/// One step down into an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Into a field.
    Field(String),
    /// Into the item of a list that has these keys, as JSON.
    Key(String),
    /// To an item of a set, as JSON.
    Item(String),
}

/// From the object's root to a leaf.
pub type Path = Vec<Step>;

/// How a list is put together from what several have written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Whoever writes it writes all of it.
    Atomic,
    /// A set of values.
    Set,
    /// Items with keys, and what they are where an item leaves them out.
    Map(Vec<(String, Value)>),
}

/// What a kind says of its lists and maps.
#[derive(Clone, Copy, Debug)]
pub struct Shapes<'a>(pub &'a Kind);

impl Shapes<'_> {
    /// How the list at this path is put together.
    pub fn list(self, path: &[Step]) -> ListType {
        let names = names(path);
        match names.as_slice() {
            ["metadata", "finalizers"] => return ListType::Set,
            ["metadata", "ownerReferences"] => return keys(&["uid"]),
            _ => {}
        }
        match &self.0.schema {
            Schema::Structural(schema) => at(schema, path).map_or(ListType::Atomic, of_schema),
            Schema::Typed(_) => self.builtin(&names),
        }
    }

    fn builtin(self, names: &[&str]) -> ListType {
        let protocol = || ("protocol".to_owned(), json!("TCP"));
        match (self.0.kind.as_str(), names) {
            (_, ["status", "conditions"]) | ("Node", ["status", "addresses"]) => keys(&["type"]),
            ("Service", ["spec", "ports"]) => ListType::Map(vec![("port".into(), Value::Null), protocol()]),
            (
                "Pod",
                ["spec", "containers" | "initContainers" | "volumes"]
                | ["spec", "containers" | "initContainers", "env"],
            ) => keys(&["name"]),
            ("Pod", ["spec", "containers" | "initContainers", "ports"]) => {
                ListType::Map(vec![("containerPort".into(), Value::Null), protocol()])
            }
            ("Pod", ["status", "podIPs" | "hostIPs"]) => keys(&["ip"]),
            _ => ListType::Atomic,
        }
    }

    /// Whether the object at this path is written as a whole.
    pub fn is_atomic(self, path: &[Step]) -> bool {
        match &self.0.schema {
            Schema::Structural(schema) => {
                at(schema, path).is_some_and(|schema| schema["x-kubernetes-map-type"] == "atomic")
            }
            Schema::Typed(_) => matches!(
                names(path).as_slice(),
                ["spec", "selector" | "podSelector" | "nodeSelector"] | ["involvedObject"]
            ),
        }
    }
}

fn keys(names: &[&str]) -> ListType {
    ListType::Map(names.iter().map(|name| ((*name).to_owned(), Value::Null)).collect())
}

fn names(path: &[Step]) -> Vec<&str> {
    path.iter()
        .filter_map(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            Step::Key(_) | Step::Item(_) => None,
        })
        .collect()
}

/// The schema of what is at a path.
fn at<'a>(schema: &'a Value, path: &[Step]) -> Option<&'a Value> {
    let mut schema = schema;
    for step in path {
        schema = match step {
            Step::Field(name) => {
                schema["properties"].get(name).or_else(|| schema.get("additionalProperties"))?
            }
            Step::Key(_) | Step::Item(_) => schema.get("items")?,
        };
    }
    Some(schema)
}

fn of_schema(schema: &Value) -> ListType {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListType::Set,
        Some("map") => {
            let names = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            ListType::Map(
                names
                    .filter_map(Value::as_str)
                    .map(|name| (name.to_owned(), schema["items"]["properties"][name]["default"].clone()))
                    .collect(),
            )
        }
        _ => ListType::Atomic,
    }
}

/// The step to an item of a list with keys.
pub fn key_of(item: &Value, keys: &[(String, Value)]) -> Step {
    let values: Map<String, Value> = keys
        .iter()
        .map(|(name, default)| {
            let value = item.get(name).filter(|value| !value.is_null()).unwrap_or(default);
            (name.clone(), value.clone())
        })
        .collect();
    Step::Key(Value::Object(values).to_string())
}

/// Fields that nobody owns, because the server writes them or the path has them.
fn is_nobodys(path: &[Step]) -> bool {
    let names = names(path);
    match names.as_slice() {
        ["apiVersion" | "kind"] => true,
        ["metadata", name, ..] => matches!(
            *name,
            "name"
                | "namespace"
                | "uid"
                | "generation"
                | "creationTimestamp"
                | "deletionTimestamp"
                | "deletionGracePeriodSeconds"
                | "resourceVersion"
                | "selfLink"
                | "managedFields"
                | "generateName"
        ),
        _ => false,
    }
}

/// The leaves of an object.
pub fn leaves(object: &Value, shapes: Shapes<'_>) -> BTreeSet<Path> {
    let mut set = BTreeSet::new();
    collect(object, shapes, &mut Vec::new(), &mut set);
    set
}

fn collect(value: &Value, shapes: Shapes<'_>, path: &mut Path, set: &mut BTreeSet<Path>) {
    if is_nobodys(path) {
        return;
    }
    match value {
        Value::Object(fields) if path.is_empty() || (!fields.is_empty() && !shapes.is_atomic(path)) => {
            for (name, field) in fields {
                path.push(Step::Field(name.clone()));
                collect(field, shapes, path, set);
                path.pop();
            }
        }
        Value::Array(items) if !items.is_empty() => match shapes.list(path) {
            ListType::Atomic => {
                set.insert(path.clone());
            }
            ListType::Set => {
                for item in items {
                    path.push(Step::Item(item.to_string()));
                    set.insert(path.clone());
                    path.pop();
                }
            }
            ListType::Map(keys) => {
                for item in items {
                    path.push(key_of(item, &keys));
                    set.insert(path.clone());
                    collect(item, shapes, path, set);
                    path.pop();
                }
            }
        },
        _ if names(path) == ["metadata"] => {}
        _ => {
            set.insert(path.clone());
        }
    }
}

/// What is at a path.
pub fn get<'a>(object: &'a Value, path: &[Step]) -> Option<&'a Value> {
    let mut value = object;
    for step in path {
        value = match step {
            Step::Field(name) => value.get(name)?,
            Step::Key(key) => value.as_array()?.iter().find(|item| has_key(item, key))?,
            Step::Item(text) => value.as_array()?.iter().find(|item| item.to_string() == *text)?,
        };
    }
    Some(value)
}

/// Whether an item has the keys; one that it leaves out is what it is by default.
pub fn has_key(item: &Value, key: &str) -> bool {
    let Ok(Value::Object(keys)) = serde_json::from_str(key) else { return false };
    keys.iter().all(|(name, value)| item.get(name).is_none_or(|found| found == value))
        && keys.keys().any(|name| item.get(name).is_some())
}

/// Takes away what is at a path, and lists and objects that are empty thereby.
pub fn remove(object: &mut Value, path: &[Step]) {
    let Some((step, rest)) = path.split_first() else { return };
    match (step, object) {
        (Step::Field(name), Value::Object(fields)) => {
            if rest.is_empty() {
                fields.remove(name);
            } else if let Some(inner) = fields.get_mut(name) {
                remove(inner, rest);
                if is_empty(inner) && name != "spec" && name != "metadata" {
                    fields.remove(name);
                }
            }
        }
        (Step::Key(key), Value::Array(items)) => {
            if rest.is_empty() {
                items.retain(|item| !has_key(item, key));
            } else if let Some(item) = items.iter_mut().find(|item| has_key(item, key)) {
                remove(item, rest);
            }
        }
        (Step::Item(text), Value::Array(items)) => items.retain(|item| !is_text(item, text)),
        _ => {}
    }
}

/// Whether this is how the value is written.
fn is_text(value: &Value, text: &str) -> bool {
    value.to_string().as_str() == text
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// As people read it: `.spec.ports[port=80,protocol="TCP"].name`.
pub fn display(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) => {
                text.push('.');
                text.push_str(name);
            }
            Step::Key(key) => {
                let keys: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                text.extend(["[", &keys.join(","), "]"]);
            }
            Step::Item(value) => text.extend(["[=", value, "]"]),
        }
    }
    text
}

/// As `fieldsV1`.
pub fn write(set: &BTreeSet<Path>) -> Value {
    let mut root = json!({});
    for path in set {
        let mut node = &mut root;
        for step in path {
            let name = match step {
                Step::Field(name) => format!("f:{name}"),
                Step::Key(key) => format!("k:{key}"),
                Step::Item(value) => format!("v:{value}"),
            };
            node = &mut node[name];
            if node.is_null() {
                *node = json!({});
            }
        }
        if matches!(path.last(), Some(Step::Key(_))) {
            node["."] = json!({});
        }
    }
    root
}

/// From `fieldsV1`.
pub fn read(fields: &Value) -> BTreeSet<Path> {
    let mut set = BTreeSet::new();
    walk(fields, &mut Vec::new(), &mut set);
    set
}

fn walk(fields: &Value, path: &mut Path, set: &mut BTreeSet<Path>) {
    let Some(fields) = fields.as_object() else { return };
    if (fields.is_empty() || fields.contains_key(".")) && !path.is_empty() {
        set.insert(path.clone());
    }
    for (name, inner) in fields {
        let step = match name.split_once(':') {
            Some(("f", name)) => Step::Field(name.to_owned()),
            Some(("k", key)) => Step::Key(key.to_owned()),
            Some(("v", value)) => Step::Item(value.to_owned()),
            _ => continue,
        };
        path.push(step);
        walk(inner, path, set);
        path.pop();
    }
}
