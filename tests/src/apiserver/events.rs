//! Events have two faces, `v1` and `events.k8s.io/v1`; they are kept as the first.

use serde_json::{Value, json};

use super::kinds::Kind;

const NAMES: [(&str, &str); 5] = [
    ("message", "note"),
    ("involvedObject", "regarding"),
    ("source", "deprecatedSource"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
];
const LAST: (&str, &str) = ("lastTimestamp", "deprecatedLastTimestamp");
const REPORTER: (&str, &str) = ("reportingComponent", "reportingController");
const INSTANCE: (&str, &str) = ("reportingInstance", "reportingInstance");

fn pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    NAMES.into_iter().chain([LAST, REPORTER, INSTANCE])
}

fn is_newer_face(kind: &Kind) -> bool {
    kind.group == "events.k8s.io"
}

/// An object as it is kept.
pub fn kept_as(kind: &Kind, object: Value) -> Value {
    if is_newer_face(kind) { renamed(object, "v1", |(old, new)| (new, old)) } else { object }
}

/// An object as this kind shows it.
pub fn shown_as(kind: &Kind, object: &Value) -> Value {
    if is_newer_face(kind) {
        renamed(object.clone(), "events.k8s.io/v1", |names| names)
    } else {
        object.clone()
    }
}

fn renamed<'a>(
    mut object: Value,
    version: &str,
    direction: impl Fn((&'a str, &'a str)) -> (&'a str, &'a str),
) -> Value {
    if let Value::Object(fields) = &mut object {
        for pair in pairs() {
            let (from, to) = direction(pair);
            if let Some(value) = fields.remove(from) {
                fields.insert(to.into(), value);
            }
        }
        fields.insert("apiVersion".into(), json!(version));
    }
    object
}
