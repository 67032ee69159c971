//! Watches: what is told, from where and how it ends.

use std::collections::BTreeMap;

use futures_util::{Stream, StreamExt, TryStreamExt};
use kube::api::{WatchEvent, WatchParams};
use kube::runtime::watcher::{self, watcher};

use super::*;

/// The next event, as its type and the object's name.
async fn next(stream: &mut (impl Stream<Item = kube::Result<WatchEvent<Pod>>> + Unpin)) -> (String, String) {
    let event = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("an event in time");
    let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
    match event {
        None => ("end".into(), String::new()),
        Some(Ok(WatchEvent::Added(pod))) => ("ADDED".into(), name(&pod)),
        Some(Ok(WatchEvent::Modified(pod))) => ("MODIFIED".into(), name(&pod)),
        Some(Ok(WatchEvent::Deleted(pod))) => ("DELETED".into(), name(&pod)),
        Some(Ok(WatchEvent::Bookmark(mark))) => ("BOOKMARK".into(), mark.metadata.resource_version),
        Some(Ok(WatchEvent::Error(status))) => ("ERROR".into(), status.code.to_string()),
        Some(Err(error)) => ("cut".into(), error.to_string()),
    }
}

fn is(kind: &str, name: &str) -> (String, String) {
    (kind.into(), name.into())
}

#[tokio::test]
async fn a_watch_goes_on_where_a_list_ended() {
    let (server, client) = started();
    server.put(pod("a", "n1"));
    let pods: Api<Pod> = Api::all(client);
    let list = pods.list(&ListParams::default()).await.unwrap();
    server.put(pod("b", "n1"));
    let version = list.metadata.resource_version.unwrap();
    let mut stream = pods.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, is("ADDED", "b"));
    server.patch("pods", "default", "a", &json!({ "metadata": { "labels": { "x": "y" } } }));
    assert_eq!(next(&mut stream).await, is("MODIFIED", "a"));
    server.remove("pods", "default", "a");
    assert_eq!(next(&mut stream).await, is("DELETED", "a"));
}

#[tokio::test]
async fn a_watch_without_a_beginning_begins_with_everything() {
    let (server, client) = started();
    server.put(pod("a", "n1"));
    let pods: Api<Pod> = Api::all(client);
    let mut stream = pods.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, is("ADDED", "a"));
}

#[tokio::test]
async fn what_no_longer_matches_is_deleted_for_a_watch() {
    let (server, client) = started();
    server.put(pod("a", "n1"));
    let pods: Api<Pod> = Api::all(client);
    let params = WatchParams::default().labels("app=a");
    let version = server.revision().to_string();
    let mut stream = pods.watch(&params, &version).await.unwrap().boxed();
    server.patch("pods", "default", "a", &json!({ "metadata": { "labels": { "app": "b" } } }));
    assert_eq!(next(&mut stream).await, is("DELETED", "a"));
    server.patch("pods", "default", "a", &json!({ "metadata": { "labels": { "app": "a" } } }));
    assert_eq!(next(&mut stream).await, is("ADDED", "a"));
}

#[tokio::test]
async fn what_is_forgotten_can_not_be_watched() {
    let (server, client) = started();
    let old = server.revision().to_string();
    server.put(pod("a", "n1"));
    let pods: Api<Pod> = Api::all(client);
    // A watch that is open goes on.
    let mut open = pods.watch(&WatchParams::default(), &old).await.unwrap().boxed();
    assert_eq!(next(&mut open).await, is("ADDED", "a"));
    server.compact();
    let mut late = pods.watch(&WatchParams::default(), &old).await.unwrap().boxed();
    assert_eq!(next(&mut late).await, is("ERROR", "410"));
    server.put(pod("b", "n1"));
    assert_eq!(next(&mut open).await, is("ADDED", "b"));
}

#[tokio::test]
async fn bookmarks_say_how_far_a_watch_is() {
    let (server, client) = started();
    server.bookmark_every(Duration::from_millis(20));
    let pods: Api<Pod> = Api::all(client);
    let version = server.revision().to_string();
    let mut stream = pods.watch(&WatchParams::default(), &version).await.unwrap().boxed();
    // Of something else, so that only the bookmark knows.
    server.put(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" } }));
    let marked = server.revision().to_string();
    assert_eq!(next(&mut stream).await, is("BOOKMARK", &marked));
}

#[tokio::test]
async fn a_watch_ends_in_time_and_says_where() {
    let (server, client) = started();
    let pods: Api<Pod> = Api::all(client);
    let version = server.revision().to_string();
    let mut stream = pods.watch(&WatchParams::default().timeout(1), &version).await.unwrap().boxed();
    assert_eq!(next(&mut stream).await, is("BOOKMARK", &version));
    assert_eq!(next(&mut stream).await.0, "end");
}

/// The client's own watcher keeps a copy that ends like the server, whatever happens between.
async fn follows(server: &ApiServer, client: Client, config: watcher::Config) {
    server.put(pod("a", "n1"));
    server.put(pod("b", "n1"));
    let pods: Api<Pod> = Api::all(client);
    let mut stream = watcher(pods, config).boxed();
    let mut copy: BTreeMap<String, String> = BTreeMap::new();
    let mut fresh = BTreeMap::new();
    let mut step = 0;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let text =
        |pod: &Pod| (pod.metadata.name.clone().unwrap(), pod.metadata.resource_version.clone().unwrap());
    loop {
        let server_copy: BTreeMap<String, String> = server
            .all("pods")
            .iter()
            .map(|pod| {
                let text = |name: &str| pod["metadata"][name].as_str().unwrap().to_owned();
                (text("name"), text("resourceVersion"))
            })
            .collect();
        if !copy.is_empty() && copy == server_copy {
            step += 1;
            match step {
                1 => {
                    server.put(pod("c", "n1"));
                }
                2 => {
                    server.cut();
                    server.remove("pods", "default", "a");
                }
                3 => {
                    // Cut, and what happened meanwhile is forgotten.
                    server.network(crate::apiserver::Network::Refused);
                    server.put(pod("d", "n1"));
                    server.remove("pods", "default", "b");
                    server
                        .put(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" } }));
                    server.compact();
                    server.network(crate::apiserver::Network::Up);
                }
                _ => return,
            }
        }
        let event =
            tokio::time::timeout_at(deadline, stream.try_next()).await.expect("the watcher catches up");
        match event {
            Ok(Some(watcher::Event::Init)) => fresh.clear(),
            Ok(Some(watcher::Event::InitApply(pod))) => drop(fresh.insert(text(&pod).0, text(&pod).1)),
            Ok(Some(watcher::Event::InitDone)) => copy = std::mem::take(&mut fresh),
            Ok(Some(watcher::Event::Apply(pod))) => drop(copy.insert(text(&pod).0, text(&pod).1)),
            Ok(Some(watcher::Event::Delete(pod))) => drop(copy.remove(&text(&pod).0)),
            Ok(None) => panic!("a watcher does not end"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[tokio::test]
async fn the_clients_watcher_follows_by_lists() {
    let (server, client) = started();
    follows(&server, client, watcher::Config::default().page_size(1)).await;
}

#[tokio::test]
async fn the_clients_watcher_follows_by_streams() {
    let (server, client) = started();
    follows(&server, client, watcher::Config::default().streaming_lists()).await;
}
