//! What becomes of an object on its way into the store: its metadata, what is dropped, what is refused.

use std::sync::Arc;

use serde_json::{Value, json};

use super::apply::{self, Manager};
use super::finish::{finish, keep};
use super::kinds::{Kind, Schema};
use super::status::Failure;
use super::store::{Place, Store, Write};
use super::{defaults, events, schema};

/// What was written, and what the server has to say of it beside.
pub type Written = Result<(Arc<Value>, Vec<String>), Failure>;

/// An object as the kind writes it: fields it does not have are gone, and named.
fn read(kind: &Kind, object: Value) -> Result<(Value, Vec<String>), Failure> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match &kind.schema {
        Schema::Typed(typed) => {
            let before = object.clone();
            let read = typed(object).map_err(|error| {
                Failure::bad_request(format!(
                    "{} in version {:?} cannot be handled as a {}: {error}",
                    kind.kind, kind.version, kind.kind
                ))
            })?;
            let mut gone = Vec::new();
            lost(&before, &read, "", &mut gone);
            Ok((defaults::fill(kind, read), gone))
        }
        Schema::Structural(schema) => {
            let mut object = object;
            let gone = schema::prune(&mut object, schema);
            schema::fill(&mut object, schema);
            let wrong = schema::wrong(&object, schema);
            if wrong.is_empty() { Ok((object, gone)) } else { Err(Failure::invalid(kind, &name, &wrong)) }
        }
    }
}

/// Paths that are in one and no longer in the other.
fn lost(before: &Value, after: &Value, at: &str, gone: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before.iter().filter(|(_, value)| !value.is_null()) {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                match after.get(name) {
                    Some(kept) => lost(value, kept, &path, gone),
                    None if value.as_object().is_some_and(serde_json::Map::is_empty) => {}
                    None if value.as_array().is_some_and(Vec::is_empty) => {}
                    None => gone.push(path),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                lost(before, after, &format!("{at}[{index}]"), gone);
            }
        }
        _ => {}
    }
}

pub fn place(kind: &Kind, namespace: &str, name: &str) -> Place {
    Place { stored: kind.stored.clone(), namespace: namespace.to_owned(), name: name.to_owned() }
}

fn manager(kind: &Kind, write: &Write, applies: bool) -> Manager {
    let subresource = if kind.status { write.subresource.clone() } else { String::new() };
    Manager { name: write.manager.clone(), applies, subresource }
}

/// Fields that were dropped, as warnings or as a refusal.
fn complain(kind: &Kind, write: &Write, gone: &[String]) -> Result<Vec<String>, Failure> {
    let words: Vec<String> = gone.iter().map(|path| format!("unknown field {path:?}")).collect();
    if write.strict && !words.is_empty() {
        return Err(Failure::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
            kind.kind,
            kind.version,
            kind.kind,
            words.join(", ")
        )));
    }
    Ok(words)
}

fn check_names(kind: &Kind, write: &Write, object: &Value) -> Result<(), Failure> {
    let metadata = &object["metadata"];
    if object["kind"] != kind.kind.as_str() || object["apiVersion"] != kind.api_version().as_str() {
        return Err(Failure::bad_request(format!(
            "the object provided ({} {}) is not a {} {}",
            object["apiVersion"],
            object["kind"],
            kind.api_version(),
            kind.kind
        )));
    }
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    if !namespace.is_empty() && namespace != write.namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let name = metadata["name"].as_str().unwrap_or_default();
    if !write.name.is_empty() && !name.is_empty() && name != write.name {
        return Err(Failure::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            write.name
        )));
    }
    Ok(())
}

/// A name as a DNS subdomain, which is the least that all kinds ask for.
pub fn is_name(name: &str) -> bool {
    let inner = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let outer = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let is_part = |part: &str| part.chars().all(inner) && part.starts_with(outer) && part.ends_with(outer);
    name.len() <= 253 && name.split('.').all(is_part)
}

/// `POST`.
pub fn create(store: &mut Store, kind: &Kind, write: &Write, object: Value) -> Written {
    let mut object = object;
    default_type(kind, &mut object);
    check_names(kind, write, &object)?;
    if object["metadata"]["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
        return Err(Failure::unnamed("resourceVersion should not be set on objects to be created"));
    }
    let mut name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if name.is_empty()
        && let Some(prefix) = object["metadata"]["generateName"].as_str()
    {
        let uid = store.new_uid();
        name = format!("{prefix}{}", &uid[uid.len() - 5..]);
        object["metadata"]["name"] = name.clone().into();
    }
    if name.is_empty() {
        return Err(Failure::invalid(
            kind,
            "",
            &[("metadata.name".into(), "Required value: name or generateName is required".into())],
        ));
    }
    let place = place(kind, &write.namespace, &name);
    if store.get(&place).is_some() {
        return Err(Failure::already_exists(kind, &name));
    }
    let manager = manager(kind, write, false);
    let (object, gone) = read(kind, object)?;
    let warnings = complain(kind, write, &gone)?;
    finish(store, kind, write, &place, &Value::Null, object, Some(&manager)).map(|object| (object, warnings))
}

/// `PUT`.
pub fn replace(store: &mut Store, kind: &Kind, write: &Write, object: Value) -> Written {
    let mut object = object;
    default_type(kind, &mut object);
    check_names(kind, write, &object)?;
    let place = place(kind, &write.namespace, &write.name);
    let before = shown(store, kind, &place)?;
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    if version.is_empty() && !kind.unconditional {
        let cause =
            ("metadata.resourceVersion".into(), "Invalid value: 0: must be specified for an update".into());
        return Err(Failure::invalid(kind, &write.name, &[cause]));
    }
    preconditions(kind, &before, &object)?;
    object["metadata"]["name"] = write.name.clone().into();
    let manager = manager(kind, write, false);
    let (object, gone) = read(kind, object)?;
    let warnings = complain(kind, write, &gone)?;
    finish(store, kind, write, &place, &before, object, Some(&manager)).map(|object| (object, warnings))
}

/// `PATCH` with a JSON merge patch.
pub fn merge_patch(store: &mut Store, kind: &Kind, write: &Write, patch: &Value) -> Written {
    let place = place(kind, &write.namespace, &write.name);
    let before = shown(store, kind, &place)?;
    preconditions(kind, &before, patch)?;
    let mut object = before.clone();
    apply::merge_patch(&mut object, patch);
    check_names(kind, write, &object)?;
    let manager = manager(kind, write, false);
    let (object, gone) = read(kind, object)?;
    let warnings = complain(kind, write, &gone)?;
    finish(store, kind, write, &place, &before, object, Some(&manager)).map(|object| (object, warnings))
}

/// `PATCH` by server-side apply; whether the object is new.
pub fn apply(
    store: &mut Store,
    kind: &Kind,
    write: &Write,
    wanted: Value,
    force: bool,
) -> Result<(Arc<Value>, bool), Failure> {
    let mut wanted = wanted;
    if wanted["apiVersion"].is_null() || wanted["kind"].is_null() {
        return Err(Failure::bad_request(
            "invalid object type: apiVersion and kind must be set in an applied object",
        ));
    }
    check_names(kind, write, &wanted)?;
    if wanted["metadata"]["managedFields"].as_array().is_some_and(|fields| !fields.is_empty()) {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    wanted["metadata"]["name"] = write.name.clone().into();
    let place = place(kind, &write.namespace, &write.name);
    let live = shown(store, kind, &place).ok();
    if live.is_none() && !write.subresource.is_empty() {
        return Err(Failure::not_found(kind, &write.name));
    }
    if live.is_none()
        && let Some(uid) = wanted["metadata"]["uid"].as_str()
    {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Failure::conflict(kind, &write.name, &why));
    }
    if let Some(live) = &live {
        preconditions(kind, live, &wanted)?;
    }
    // An apply has no room for fields that nobody knows, nor for values of other types.
    let (wanted, gone) = read_part(kind, wanted)?;
    let gone = gone.iter().map(|path| format!(".{path}: field not declared in schema"));
    let list: Vec<String> = gone.chain(mistyped(kind, &wanted)).collect();
    if !list.is_empty() {
        return Err(Failure::unnamed(format!(
            "failed to create typed patch object ({}/{}; {}, Kind={}): {}",
            write.namespace,
            write.name,
            kind.api_version(),
            kind.kind,
            list.join(", ")
        )));
    }
    let mut wanted = wanted;
    ignore_foreign_part(kind, write, &mut wanted);
    let manager = manager(kind, write, true);
    let empty =
        json!({ "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": { "name": write.name } });
    let object = apply::apply(kind, live.as_ref().unwrap_or(&empty), &wanted, &manager, force, &write.now)?;
    let (object, _) = read(kind, object)?;
    let is_new = live.is_none();
    let before = live.unwrap_or(Value::Null);
    finish(store, kind, write, &place, &before, object, None).map(|object| (object, is_new))
}

/// What is of another type than the definition says.
fn mistyped(kind: &Kind, object: &Value) -> Vec<String> {
    let Schema::Structural(schema) = &kind.schema else { return Vec::new() };
    let causes = schema::wrong(object, schema).into_iter();
    let of_type = causes.filter_map(|(path, wrong)| {
        let wanted = match wrong.split_once("must be of type ")?.1 {
            "array" => "list",
            "object" => "map",
            "integer" | "number" => "numeric (int or float)",
            other => other,
        };
        Some(format!(".{path}: expected {wanted}"))
    });
    of_type.collect()
}

/// Like [`read`], of an object that need not be whole.
fn read_part(kind: &Kind, object: Value) -> Result<(Value, Vec<String>), Failure> {
    match &kind.schema {
        Schema::Typed(_) => read(kind, object),
        Schema::Structural(schema) => {
            let mut object = object;
            let gone = schema::prune(&mut object, schema);
            Ok((object, gone))
        }
    }
}

/// What is not this endpoint's to write is as if it had not been sent.
fn ignore_foreign_part(kind: &Kind, write: &Write, object: &mut Value) {
    let Value::Object(fields) = object else { return };
    if !kind.status {
        return;
    }
    if write.subresource == "status" {
        fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
        let name = fields["metadata"]["name"].clone();
        fields.insert("metadata".into(), json!({ "name": name }));
    } else {
        fields.remove("status");
    }
}

fn default_type(kind: &Kind, object: &mut Value) {
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in [("apiVersion", kind.api_version()), ("kind", kind.kind.clone())] {
        if object[name].is_null() {
            object[name] = value.into();
        }
    }
}

pub fn preconditions(kind: &Kind, before: &Value, asked: &Value) -> Result<(), Failure> {
    let name = before["metadata"]["name"].as_str().unwrap_or_default();
    let asked = &asked["metadata"];
    let version = asked["resourceVersion"].as_str().unwrap_or_default();
    if !version.is_empty() && before["metadata"]["resourceVersion"] != version {
        return Err(Failure::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        ));
    }
    match asked["uid"].as_str() {
        Some(uid) if before["metadata"]["uid"] != uid => {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                before["metadata"]["uid"].as_str().unwrap_or_default()
            );
            Err(Failure::conflict(kind, name, &why))
        }
        _ => Ok(()),
    }
}

/// An object as this kind shows it.
pub fn shown(store: &Store, kind: &Kind, place: &Place) -> Result<Value, Failure> {
    let object = store.get(place).ok_or_else(|| Failure::not_found(kind, &place.name))?;
    Ok(events::shown_as(kind, &object))
}

/// An object as a test gives it, whatever was there.
pub fn put(store: &mut Store, kind: &Kind, object: Value, now: &str) -> Result<Arc<Value>, Failure> {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    let (name, mut namespace, uid) = (text("name"), text("namespace"), object["metadata"]["uid"].clone());
    if kind.namespaced && namespace.is_empty() {
        namespace = "default".into();
    }
    let status = object["status"].clone();
    let place = place(kind, &namespace, &name);
    let write = Write {
        namespace,
        name: name.clone(),
        manager: "test".into(),
        strict: true,
        now: now.to_owned(),
        ..Write::default()
    };
    let mut object = object;
    let before = shown(store, kind, &place).unwrap_or(Value::Null);
    if let Some(fields) = object["metadata"].as_object_mut() {
        fields.remove("resourceVersion");
    }
    let (read, gone) = read(kind, object)?;
    complain(kind, &write, &gone)?;
    // Kept as a whole below; the first half is for the metadata only.
    let dry = Write { dry_run: true, ..write.clone() };
    let manager = Manager { name: write.manager.clone(), applies: false, subresource: String::new() };
    let made = finish(store, kind, &dry, &place, &before, read, Some(&manager))?;
    let mut made = (*made).clone();
    if !status.is_null() {
        made["status"] = status;
    }
    if !uid.is_null() {
        made["metadata"]["uid"] = uid;
    }
    Ok(keep(store, kind, &place, made))
}
