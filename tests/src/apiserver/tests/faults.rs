//! What goes wrong on demand.

use std::time::Instant;

use super::*;
use crate::apiserver::{Failure, Fault, Network};

#[tokio::test]
async fn a_server_that_is_not_there_refuses_and_comes_back() {
    let (server, client) = started();
    let pods: Api<Pod> = Api::all(client);
    assert!(pods.list(&ListParams::default()).await.is_ok());
    server.network(Network::Refused);
    assert!(matches!(
        pods.list(&ListParams::default()).await,
        Err(kube::Error::Service(_) | kube::Error::HyperError(_))
    ));
    server.network(Network::Up);
    assert!(pods.list(&ListParams::default()).await.is_ok());
}

#[tokio::test]
async fn a_server_that_hangs_says_nothing() {
    let (server, client) = started();
    let pods: Api<Pod> = Api::all(client);
    server.network(Network::Hanging);
    let params = ListParams::default();
    let mut answer = Box::pin(pods.list(&params));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut answer).await.is_err());
    server.network(Network::Up);
    assert!(answer.await.is_ok());
}

#[tokio::test]
async fn single_requests_fail_as_often_as_asked_for() {
    let (server, client) = started();
    let failure = Failure::new(500, "InternalError", "etcdserver: request timed out");
    server.fail(Fault { verb: "create".into(), resource: "configmaps".into(), times: 1, failure });
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    assert!(maps.list(&ListParams::default()).await.is_ok());
    assert_eq!(refused(maps.create(&PostParams::default(), &config_map("a", "1")).await).0, 500);
    assert!(maps.create(&PostParams::default(), &config_map("a", "1")).await.is_ok());
}

#[tokio::test]
async fn answers_take_as_long_as_asked_for() {
    let (server, client) = started();
    server.latency(Duration::from_millis(60));
    let pods: Api<Pod> = Api::all(client);
    let start = Instant::now();
    pods.list(&ListParams::default()).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(60));
}
