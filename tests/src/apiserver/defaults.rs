//! What the real server fills in where an object leaves it out.

use serde_json::{Value, json};

use super::kinds::Kind;

/// The object with its defaults.
pub fn fill(kind: &Kind, mut object: Value) -> Value {
    match kind.kind.as_str() {
        "Service" => {
            for port in list(&mut object["spec"]["ports"]) {
                let number = port["port"].clone();
                set(port, "protocol", json!("TCP"));
                set(port, "targetPort", number);
            }
        }
        "Pod" => {
            for container in list(&mut object["spec"]["containers"]) {
                for port in list(&mut container["ports"]) {
                    set(port, "protocol", json!("TCP"));
                }
            }
        }
        "EndpointSlice" => {
            for port in list(&mut object["ports"]) {
                set(port, "protocol", json!("TCP"));
                set(port, "name", json!(""));
            }
        }
        "NetworkPolicy" => network_policy(&mut object["spec"]),
        _ => {}
    }
    without_nulls(&mut object);
    object
}

fn network_policy(spec: &mut Value) {
    for (rules, _) in [("ingress", "from"), ("egress", "to")] {
        for rule in list(&mut spec[rules]) {
            for port in list(&mut rule["ports"]) {
                set(port, "protocol", json!("TCP"));
            }
        }
    }
    let has_egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
    let types = if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    if spec.is_object() {
        set(spec, "policyTypes", types);
    }
}

fn list(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_array_mut().into_iter().flatten()
}

fn set(object: &mut Value, name: &str, value: Value) {
    if object[name].is_null() {
        object[name] = value;
    }
}

/// Indexing an object to write makes nulls where nothing was.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
