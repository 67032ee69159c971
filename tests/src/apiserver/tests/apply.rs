//! Server-side apply: who owns which field.

use kube::api::{Patch, PatchParams};

use super::*;

const DEFINITION: &str = r#"{
  "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
  "metadata": { "name": "things.example.com" },
  "spec": { "group": "example.com", "scope": "Namespaced",
    "names": { "kind": "Thing", "listKind": "ThingList", "plural": "things", "singular": "thing" },
    "versions": [{ "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
      "schema": { "openAPIV3Schema": { "type": "object", "properties": {
        "spec": { "type": "object", "properties": {
          "color": { "type": "string", "enum": ["red", "blue"] }, "size": { "type": "integer" },
          "list": { "type": "array", "items": { "type": "string" } } } },
        "status": { "type": "object", "properties": {
          "nodes": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": { "type": "object", "required": ["name"], "properties": {
              "name": { "type": "string" }, "done": { "type": "integer" } } } } } } } } } }] } }"#;

fn things(server: &ApiServer, client: &Client) -> Api<DynamicObject> {
    server.put(serde_json::from_str(DEFINITION).unwrap());
    dynamic(client, "example.com", "v1", "Thing")
}

fn thing(fields: &Value) -> Value {
    let mut thing = json!({ "apiVersion": "example.com/v1", "kind": "Thing", "metadata": { "name": "t" } });
    for (name, value) in fields.as_object().unwrap() {
        thing[name] = value.clone();
    }
    thing
}

async fn apply(api: &Api<DynamicObject>, manager: &str, spec: Value) -> kube::Result<DynamicObject> {
    let object = thing(&json!({ "spec": spec }));
    api.patch("t", &PatchParams::apply(manager), &Patch::Apply(&object)).await
}

#[tokio::test]
async fn an_apply_creates_and_then_changes() {
    let (server, client) = started();
    let api = things(&server, &client);
    let made = apply(&api, "a", json!({ "color": "red", "size": 1 })).await.unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let fields = made.metadata.managed_fields.unwrap();
    assert_eq!((fields.len(), fields[0].manager.as_deref()), (1, Some("a")));
    assert_eq!(fields[0].operation.as_deref(), Some("Apply"));
    // The same again is no change at all.
    let again = apply(&api, "a", json!({ "color": "red", "size": 1 })).await.unwrap();
    assert_eq!(again.metadata.resource_version, made.metadata.resource_version);
    // What is no longer wanted goes.
    let less = apply(&api, "a", json!({ "color": "red" })).await.unwrap();
    assert_eq!(less.data["spec"], json!({ "color": "red" }));
    assert_eq!(less.metadata.generation, Some(2));
}

#[tokio::test]
async fn a_field_of_another_manager_is_a_conflict_that_names_it() {
    let (server, client) = started();
    let api = things(&server, &client);
    apply(&api, "a", json!({ "color": "red", "size": 1 })).await.unwrap();
    // The same value is shared, another is a conflict, other fields are none.
    apply(&api, "b", json!({ "color": "red", "list": ["x"] })).await.unwrap();
    let (code, reason, message) = refused(apply(&api, "b", json!({ "size": 2, "list": ["y"] })).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert_eq!(message, "Apply failed with 1 conflict: conflict with \"a\": .spec.size");
    // What both own stays when one of them drops it.
    let both = apply(&api, "b", json!({ "list": ["x"] })).await.unwrap();
    assert_eq!(both.data["spec"]["color"], "red");
    let object = thing(&json!({ "spec": { "size": 2 } }));
    let forced = api.patch("t", &PatchParams::apply("b").force(), &Patch::Apply(&object)).await.unwrap();
    assert_eq!(forced.data["spec"], json!({ "color": "red", "size": 2 }));
    // It is the other's no longer, so leaving it out removes nothing.
    let left = apply(&api, "a", json!({ "color": "red" })).await.unwrap();
    assert_eq!(left.data["spec"]["size"], 2);
}

#[tokio::test]
async fn an_update_takes_what_it_changes() {
    let (server, client) = started();
    let api = things(&server, &client);
    apply(&api, "a", json!({ "color": "red", "size": 1 })).await.unwrap();
    let patch = json!({ "spec": { "color": "blue" } });
    let params = PatchParams { field_manager: Some("editor".into()), ..PatchParams::default() };
    api.patch("t", &params, &Patch::Merge(&patch)).await.unwrap();
    let (_, _, message) = refused(apply(&api, "a", json!({ "color": "red", "size": 1 })).await);
    assert!(message.contains("conflict with \"editor\" using example.com/v1: .spec.color"), "{message}");
}

#[tokio::test]
async fn items_of_a_list_with_keys_have_owners_of_their_own() {
    let (server, client) = started();
    let api = things(&server, &client);
    apply(&api, "a", json!({ "size": 1 })).await.unwrap();
    let status = async |manager: &str, nodes: Value| {
        let object = thing(&json!({ "status": { "nodes": nodes } }));
        api.patch_status("t", &PatchParams::apply(manager), &Patch::Apply(&object)).await
    };
    status("n1", json!([{ "name": "n1", "done": 1 }])).await.unwrap();
    let both = status("n2", json!([{ "name": "n2", "done": 1 }])).await.unwrap();
    assert_eq!(both.data["status"]["nodes"].as_array().unwrap().len(), 2);
    let (code, _, message) = refused(status("n2", json!([{ "name": "n1", "done": 2 }])).await);
    assert_eq!(code, 409, "{message}");
    assert!(message.contains(".status.nodes[name=\"n1\"].done"), "{message}");
    let one = status("n1", json!([])).await.unwrap();
    assert_eq!(one.data["status"]["nodes"], json!([{ "name": "n2", "done": 1 }]));
    assert_eq!((one.metadata.generation, &one.data["spec"]["size"]), (Some(1), &json!(1)));
}

#[tokio::test]
async fn an_apply_says_who_applies_what() {
    let (server, client) = started();
    let api = things(&server, &client);
    let (code, reason, message) = refused(apply(&api, "a", json!({ "colour": "red" })).await);
    assert_eq!((code, reason.as_str()), (500, ""), "a real one has no word for it");
    assert!(message.contains(".spec.colour: field not declared in schema"), "{message}");
    assert_eq!(refused(apply(&api, "a", json!({ "color": "green" })).await).0, 422);
    let (code, _, message) = refused(apply(&api, "a", json!({ "size": "big" })).await);
    assert_eq!(code, 500);
    assert!(message.contains(".spec.size: expected numeric (int or float)"), "{message}");
    let mut other = thing(&json!({ "spec": {} }));
    other["metadata"]["uid"] = json!("x");
    let of_none = api.patch("t", &PatchParams::apply("a"), &Patch::Apply(&other)).await;
    assert_eq!(refused(of_none).0, 409, "nobody has this UID");
    let dry = PatchParams { dry_run: true, ..PatchParams::apply("a") };
    let object = thing(&json!({ "spec": { "size": 1 } }));
    assert!(api.patch("t", &dry, &Patch::Apply(&object)).await.is_ok());
    assert_eq!(refused(api.get("t").await).0, 404, "nothing was kept");
}

#[tokio::test]
async fn ports_of_a_service_are_told_apart_by_their_keys() {
    let (_server, client) = started();
    let api = dynamic(&client, "", "v1", "Service");
    let apply = async |manager: &str, port: Value| {
        let object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" }, "spec": { "ports": [port] },
        });
        api.patch("s", &PatchParams::apply(manager), &Patch::Apply(&object)).await
    };
    apply("a", json!({ "name": "x", "port": 80 })).await.unwrap();
    let both = apply("b", json!({ "name": "y", "port": 81, "protocol": "TCP" })).await.unwrap();
    assert_eq!(both.data["spec"]["ports"].as_array().unwrap().len(), 2);
    assert_eq!(refused(apply("b", json!({ "name": "z", "port": 80 })).await).0, 409);
}
