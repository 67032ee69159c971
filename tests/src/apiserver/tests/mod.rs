//! The promises of the server, each asked for by the client that the product uses.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{Api, DynamicObject, ListParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::ApiServer;

mod access;
mod apply;
mod definitions;
mod exec;
mod faults;
mod lists;
mod objects;
mod watches;

/// A client with the token, or without one.
fn client(server: &ApiServer, token: &str) -> Client {
    let mut config = Config::new(server.url().parse().unwrap());
    if !token.is_empty() {
        config.auth_info.token = Some(token.to_owned().into());
    }
    Client::try_from(config).unwrap()
}

fn started() -> (ApiServer, Client) {
    let server = ApiServer::start();
    let client = client(&server, "");
    (server, client)
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "key": value } })).unwrap()
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": name } },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "none" }] },
        "status": { "phase": "Running", "podIP": "192.0.2.1", "podIPs": [{ "ip": "192.0.2.1" }] },
    })
}

/// The code and the reason of a refusal.
fn refused<T: std::fmt::Debug>(done: kube::Result<T>) -> (u16, String, String) {
    match done {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone(), status.message.clone()),
        other => panic!("not refused: {other:?}"),
    }
}

fn dynamic(client: &Client, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), "default", &resource)
}
