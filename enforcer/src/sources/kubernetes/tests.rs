//! Objects as an API server writes them, and what is made of them.

mod mirror;
mod read;
mod world;

use serde_json::{Value, json};

use super::wire::Notes;
use super::{place, pod, service};

/// A running pod of the node `n1`, with what kubelet and scheduler have added.
pub(super) fn pod_object(name: &str, uid: &str, address: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": uid, "resourceVersion": "4711", "generation": 1,
            "creationTimestamp": "2026-11-22T10:00:00Z",
            "labels": { "app": name, "pod-template-hash": "6c9f" },
            "annotations": { "example.com/x": "y" },
            "managedFields": [{ "manager": "kubelet", "operation": "Update", "fieldsV1": { "f:status": {} } }],
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true }],
        },
        "spec": {
            "nodeName": "n1", "serviceAccountName": "till", "restartPolicy": "Always", "enableServiceLinks": true,
            "containers": [
                { "name": "main", "image": "x", "ports": [
                    { "name": "http", "containerPort": 8080, "protocol": "TCP" },
                    { "name": "dns", "containerPort": 53, "protocol": "UDP" },
                    { "containerPort": 9000 },
                ] },
                { "name": "other", "image": "x", "ports": [{ "name": "http", "containerPort": 9090 }] },
            ],
            "initContainers": [
                { "name": "before", "image": "x", "ports": [{ "name": "init", "containerPort": 1 }] },
                { "name": "beside", "image": "x", "restartPolicy": "Always", "ports": [{ "name": "mesh", "containerPort": 15001 }] },
            ],
        },
        "status": {
            "phase": "Running", "qosClass": "BestEffort", "hostIP": "192.0.2.1", "hostIPs": [{ "ip": "192.0.2.1" }],
            "podIP": address, "podIPs": [{ "ip": address }],
            "containerStatuses": [{ "name": "main", "containerID": "containerd://0123" }],
        },
    })
}

/// The object with other values at these paths; `null` takes a field away.
pub(super) fn with(mut object: Value, changes: &[(&str, Value)]) -> Value {
    for (path, value) in changes {
        let (parent, field) = path.rsplit_once('/').expect("a path");
        let parent = object.pointer_mut(parent).and_then(Value::as_object_mut).expect("its parent");
        if value.is_null() {
            parent.remove(field);
        } else {
            parent.insert((*field).to_owned(), value.clone());
        }
    }
    object
}

pub(super) fn read_pod(object: Value) -> (pod::Pod, Notes) {
    pod::pod(object).expect("a pod")
}
