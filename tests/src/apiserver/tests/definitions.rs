//! Custom resource definitions, and the resources that they make.

use enforcer::domain::policy::model::PolicyKind;
use enforcer::domain::policy::schema::crd;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::*;

#[tokio::test]
async fn our_own_definitions_are_accepted_and_served() {
    let (_server, client) = started();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for kind in [PolicyKind::TrafficPolicy, PolicyKind::ClusterTrafficPolicy] {
        let text = crd(kind).expect("a definition");
        let definition: CustomResourceDefinition = serde_json::from_value(text).unwrap();
        definitions.create(&PostParams::default(), &definition).await.unwrap();
    }
    let resources = client.list_api_group_resources("enforcer.dev/v1alpha1").await.unwrap();
    let names: Vec<_> = resources.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert!(names.contains(&"trafficpolicies/status"), "{names:?}");
}

#[tokio::test]
async fn a_schema_that_is_not_structural_is_refused() {
    let (_server, client) = started();
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    let definition = |schema: Value| -> CustomResourceDefinition {
        serde_json::from_value(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": "things.example.com" },
            "spec": {
                "group": "example.com", "scope": "Cluster", "names": { "kind": "Thing", "plural": "things" },
                "versions": [{
                    "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema },
                }],
            },
        }))
        .unwrap()
    };
    for (schema, field) in [
        (json!({ "type": "object", "properties": { "a": {} } }), "properties[a].type"),
        (json!({ "type": "array", "items": { "type": "string" } }), "openAPIV3Schema.type"),
        (json!({ "type": "object", "properties": { "a": { "type": "array" } } }), "properties[a].items"),
        (
            json!({ "type": "object", "properties": { "a": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": { "type": "object", "properties": { "k": { "type": "string" } } } } } }),
            "so it must have a default or be a required property",
        ),
    ] {
        let (code, _, message) =
            refused(definitions.create(&PostParams::default(), &definition(schema)).await);
        assert_eq!(code, 422, "{message}");
        assert!(message.contains(field), "{message}");
    }
    let made = definition(json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }));
    assert!(definitions.create(&PostParams::default(), &made).await.is_ok());
}

#[tokio::test]
async fn what_is_left_out_is_filled_in_and_limits_hold() {
    let (server, client) = started();
    server.put(crd(PolicyKind::TrafficPolicy).unwrap());
    let policies = dynamic(&client, "enforcer.dev", "v1alpha1", "TrafficPolicy");
    let policy = |spec: Value| -> DynamicObject {
        let policy = json!({
            "apiVersion": "enforcer.dev/v1alpha1", "kind": "TrafficPolicy", "metadata": { "name": "p" }, "spec": spec,
        });
        serde_json::from_value(policy).unwrap()
    };
    let ports = |port: Value| json!({ "subject": {}, "ingress": [{ "ports": [port] }] });
    for (port, wrong) in [
        (json!({ "port": 1, "endPort": 65536 }), "endPort in body should be less than or equal to 65535"),
        (json!({ "protocol": "ICMP", "types": [] }), "types in body should have at least 1 items"),
    ] {
        let (code, _, message) = refused(policies.create(&PostParams::default(), &policy(ports(port))).await);
        assert_eq!((code, message.contains(wrong)), (422, true), "{message}");
    }
    let made = policies.create(&PostParams::default(), &policy(ports(json!({ "port": 1 })))).await.unwrap();
    let filled = json!({
        "subject": {}, "mode": "enforce", "errno": "EPERM", "ingress": [{ "action": "Allow", "ports": [{ "port": 1 }] }],
    });
    assert_eq!(made.data["spec"], filled);
}

#[tokio::test]
async fn with_its_definition_a_resource_ends() {
    let (server, client) = started();
    server.put(crd(PolicyKind::TrafficPolicy).unwrap());
    let policies = dynamic(&client, "enforcer.dev", "v1alpha1", "TrafficPolicy");
    let policy = json!({
        "apiVersion": "enforcer.dev/v1alpha1", "kind": "TrafficPolicy", "metadata": { "name": "p" },
        "spec": { "subject": {}, "ingress": [] }, "status": { "nodesDesired": 3 }, "unknown": 1,
    });
    let policy: DynamicObject = serde_json::from_value(policy).unwrap();
    let made = policies.create(&PostParams::default(), &policy).await.unwrap();
    assert_eq!((made.data.get("status"), made.data.get("unknown")), (None, None));
    server.remove("customresourcedefinitions.apiextensions.k8s.io", "", "trafficpolicies.enforcer.dev");
    assert!(policies.get("p").await.is_err());
    server.put(crd(PolicyKind::TrafficPolicy).unwrap());
    assert_eq!(refused(policies.get("p").await).1, "NotFound");
}
