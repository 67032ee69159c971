//! Objects: their metadata, conflicts, status and end.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Event;
use kube::api::{DeleteParams, Patch, PatchParams};

use super::*;

#[tokio::test]
async fn discovery_names_every_resource() {
    let (_server, client) = started();
    assert_eq!(client.apiserver_version().await.unwrap().minor, "36");
    let groups = client.list_api_groups().await.unwrap();
    let names: Vec<_> = groups.groups.iter().map(|group| group.name.as_str()).collect();
    assert!(names.contains(&"coordination.k8s.io") && names.contains(&"networking.k8s.io"), "{names:?}");
    let core = client.list_core_api_resources("v1").await.unwrap();
    assert!(core.resources.iter().any(|resource| resource.name == "pods/status"));
    let missing = client.list_api_group_resources("enforcer.dev/v1alpha1").await;
    assert!(matches!(missing, Err(kube::Error::Api(status)) if status.code == 404));
}

#[tokio::test]
async fn an_object_gets_its_metadata_from_the_server() {
    let (_server, client) = started();
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let made = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let metadata = made.metadata.clone();
    assert!(metadata.uid.unwrap().len() == 36 && metadata.creation_timestamp.is_some());
    assert_eq!(metadata.namespace.as_deref(), Some("default"));
    let (code, reason, _) = refused(maps.create(&PostParams::default(), &config_map("a", "1")).await);
    assert_eq!((code, reason.as_str()), (409, "AlreadyExists"));
    assert_eq!(refused(maps.create(&PostParams::default(), &made).await).0, 500, "it has a version");
    assert_eq!(refused(maps.create(&PostParams::default(), &config_map("Not_a_name", "1")).await).0, 422);
    assert_eq!(refused(maps.get("b").await).1, "NotFound");
}

#[tokio::test]
async fn a_namespace_must_be_there() {
    let (_server, client) = started();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "nowhere");
    let (code, _, message) = refused(maps.create(&PostParams::default(), &config_map("a", "1")).await);
    assert_eq!((code, message.as_str()), (404, "namespaces \"nowhere\" not found"));
    let all: Api<Namespace> = Api::all(client);
    let name = all.get("default").await.unwrap();
    assert_eq!(name.metadata.labels.unwrap()["kubernetes.io/metadata.name"], "default");
}

#[tokio::test]
async fn a_write_over_another_is_a_conflict() {
    let (_server, client) = started();
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let first = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let mut second = first.clone();
    second.data.as_mut().unwrap().insert("key".into(), "2".into());
    let second = maps.replace("a", &PostParams::default(), &second).await.unwrap();
    assert_ne!(first.metadata.resource_version, second.metadata.resource_version);
    let (code, reason, message) = refused(maps.replace("a", &PostParams::default(), &first).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert!(message.contains("the object has been modified"), "{message}");
    // The same again changes nothing.
    let third = maps.replace("a", &PostParams::default(), &second).await.unwrap();
    assert_eq!(third.metadata.resource_version, second.metadata.resource_version);
    // Not every kind is replaced without saying what is replaced.
    let leases: Api<Lease> = Api::default_namespaced(client);
    let lease: Lease = serde_json::from_value(json!({ "metadata": { "name": "l" }, "spec": {} })).unwrap();
    leases.create(&PostParams::default(), &lease).await.unwrap();
    assert_eq!(refused(leases.replace("l", &PostParams::default(), &lease).await).0, 422);
    assert!(maps.replace("a", &PostParams::default(), &config_map("a", "4")).await.is_ok());
}

#[tokio::test]
async fn a_merge_patch_changes_what_it_names() {
    let (_server, client) = started();
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
    let patch = json!({ "data": { "key": null, "other": "2" }, "metadata": { "labels": { "l": "x" } } });
    let after = maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(after.data.unwrap().into_iter().collect::<Vec<_>>(), [("other".to_owned(), "2".to_owned())]);
    assert_eq!(after.metadata.labels.unwrap()["l"], "x");
    let old = json!({ "metadata": { "resourceVersion": "1" } });
    assert_eq!(refused(maps.patch("a", &PatchParams::default(), &Patch::Merge(&old)).await).0, 409);
    assert_eq!(refused(maps.patch("a", &PatchParams::default(), &Patch::Strategic(&patch)).await).0, 415);
}

#[tokio::test]
async fn status_is_written_apart_and_generations_count_the_rest() {
    let (server, client) = started();
    server.put(pod("a", "n1"));
    let pods: Api<Pod> = Api::default_namespaced(client);
    let before = pods.get("a").await.unwrap();
    assert_eq!(before.metadata.generation, Some(1));
    let status = json!({ "status": { "phase": "Failed" }, "spec": { "nodeName": "n2" } });
    let after = pods.patch_status("a", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    assert_eq!(after.status.unwrap().phase.as_deref(), Some("Failed"));
    assert_eq!(after.spec.unwrap().node_name.as_deref(), Some("n1"), "that is not of the status");
    assert_eq!(after.metadata.generation, Some(1));
    let spec = json!({ "status": { "phase": "Unknown" }, "spec": { "priority": 3 } });
    let after = pods.patch("a", &PatchParams::default(), &Patch::Merge(&spec)).await.unwrap();
    assert_eq!(after.status.unwrap().phase.as_deref(), Some("Failed"), "that is of the status");
    assert_eq!(after.metadata.generation, Some(2));
}

#[tokio::test]
async fn fields_that_a_kind_does_not_have_are_dropped_or_refused() {
    let (_server, client) = started();
    let maps = dynamic(&client, "", "v1", "ConfigMap");
    let object =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "dta": { "a": "b" } });
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let made = maps.create(&PostParams::default(), &object).await.unwrap();
    assert_eq!(made.data.get("dta"), None);
    let mut wrong = object;
    wrong.metadata.name = Some("b".into());
    wrong.data = json!({ "data": ["a"] });
    assert_eq!(refused(maps.create(&PostParams::default(), &wrong).await).0, 400);
}

#[tokio::test]
async fn a_running_pod_takes_its_time_to_go() {
    let (server, client) = started();
    server.put(pod("a", "n1"));
    let pods: Api<Pod> = Api::default_namespaced(client);
    let going = pods.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(going.metadata.deletion_timestamp.is_some());
    assert_eq!(going.metadata.deletion_grace_period_seconds, Some(30));
    assert!(pods.get("a").await.is_ok());
    pods.delete("a", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert_eq!(refused(pods.get("a").await).0, 404);
}

#[tokio::test]
async fn what_is_held_stays_until_it_is_let_go() {
    let (server, client) = started();
    let mut held = config_map("a", "1");
    held.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &held).await.unwrap();
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(maps.get("a").await.unwrap().metadata.deletion_timestamp.is_some());
    let patch = json!({ "metadata": { "finalizers": null } });
    maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    assert_eq!(server.get("configmaps", "default", "a"), None);
}

#[tokio::test]
async fn what_is_owned_goes_with_its_owner() {
    let (server, client) = started();
    let node = server.put(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } }));
    let mut owned = config_map("a", "1");
    owned.metadata.owner_references = Some(
        serde_json::from_value(json!([
            { "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": node["metadata"]["uid"] },
        ]))
        .unwrap(),
    );
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &owned).await.unwrap();
    assert!(server.remove("nodes", "", "n1"));
    assert_eq!(refused(maps.get("a").await).0, 404);
}

#[tokio::test]
async fn an_event_has_two_faces() {
    let (_server, client) = started();
    let newer = dynamic(&client, "events.k8s.io", "v1", "Event");
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "e" },
        "eventTime": "2026-01-01T00:00:00.000000Z", "note": "hello", "reason": "Because", "type": "Warning",
        "reportingController": "enforcer.dev/agent", "reportingInstance": "n1", "action": "Look",
        "regarding": { "kind": "Pod", "name": "a", "namespace": "default" },
    });
    newer.create(&PostParams::default(), &serde_json::from_value(event).unwrap()).await.unwrap();
    let older: Api<Event> = Api::default_namespaced(client);
    let seen = older.get("e").await.unwrap();
    assert_eq!((seen.message.as_deref(), seen.involved_object.name.as_deref()), (Some("hello"), Some("a")));
    let of_pod = ListParams::default().fields("involvedObject.name=a");
    assert_eq!(older.list(&of_pod).await.unwrap().items.len(), 1);
}
