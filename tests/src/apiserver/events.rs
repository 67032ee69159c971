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

/// What keeps a new event of the newer face from being kept: its limits, in bytes.
pub fn wrong(kind: &Kind, object: &Value) -> Vec<(String, String)> {
    if !is_newer_face(kind) {
        return Vec::new();
    }
    let rows = [("action", 128), ("reason", 128), ("note", 1024), ("reportingInstance", 128)];
    let mut causes = Vec::new();
    for (name, most) in rows {
        let length = object[name].as_str().unwrap_or_default().len();
        if length == 0 && name != "note" {
            causes.push((name.to_owned(), "Required value".to_owned()));
        } else if length > most {
            let said = if name == "note" { "message" } else { name };
            let wrong = format!("Invalid value: \"\": can have at most {most} characters");
            causes.push((said.to_owned(), wrong));
        }
    }
    for name in ["eventTime", "reportingController"].into_iter().filter(|name| object[name].is_null()) {
        causes.push((name.to_owned(), "Required value".to_owned()));
    }
    let namespace = |object: &Value| object["namespace"].as_str().unwrap_or_default().to_owned();
    let (own, of_object) = (namespace(&object["metadata"]), namespace(&object["regarding"]));
    if of_object.is_empty() && !matches!(own.as_str(), "default" | "kube-system") {
        let wrong = "Invalid value: \"\": does not match event.namespace";
        causes.push(("involvedObject.namespace".to_owned(), wrong.to_owned()));
    }
    causes
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
