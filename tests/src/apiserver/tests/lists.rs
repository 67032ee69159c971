//! Lists, in parts and by selectors.

use super::*;

fn many(server: &ApiServer, count: usize) {
    for index in 0..count {
        server.put(pod(&format!("p{index:03}"), if index % 2 == 0 { "n1" } else { "n2" }));
    }
}

#[tokio::test]
async fn a_list_comes_in_parts_of_one_revision() {
    let (server, client) = started();
    many(&server, 25);
    let pods: Api<Pod> = Api::all(client);
    let first = pods.list(&ListParams::default().limit(10)).await.unwrap();
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (10, Some(15)));
    // What happens between the parts is in none of them.
    server.remove("pods", "default", "p020");
    server.put(pod("p999", "n1"));
    let token = first.metadata.continue_.clone().unwrap();
    let second = pods.list(&ListParams::default().limit(10).continue_token(&token)).await.unwrap();
    let token = second.metadata.continue_.clone().unwrap();
    let third = pods.list(&ListParams::default().limit(10).continue_token(&token)).await.unwrap();
    assert_eq!((third.items.len(), third.metadata.continue_.as_deref()), (5, None));
    assert!(third.items.iter().any(|pod| pod.metadata.name.as_deref() == Some("p020")));
    assert_eq!(first.metadata.resource_version, third.metadata.resource_version);
}

#[tokio::test]
async fn a_part_of_a_list_that_is_forgotten_is_gone() {
    let (server, client) = started();
    many(&server, 3);
    let pods: Api<Pod> = Api::all(client);
    let first = pods.list(&ListParams::default().limit(2)).await.unwrap();
    server.put(pod("p999", "n1"));
    server.compact();
    let token = first.metadata.continue_.unwrap();
    let (code, reason, _) = refused(pods.list(&ListParams::default().limit(2).continue_token(&token)).await);
    assert_eq!((code, reason.as_str()), (410, "Expired"));
    let (code, _, _) = refused(pods.list(&ListParams::default().continue_token("nonsense")).await);
    assert_eq!(code, 400);
}

#[tokio::test]
async fn selectors_choose() {
    let (server, client) = started();
    many(&server, 6);
    let pods: Api<Pod> = Api::all(client);
    let count = async |params: ListParams| pods.list(&params).await.unwrap().items.len();
    assert_eq!(count(ListParams::default().fields("spec.nodeName=n1")).await, 3);
    assert_eq!(count(ListParams::default().fields("spec.nodeName!=n1,metadata.name=p001")).await, 1);
    assert_eq!(count(ListParams::default().labels("app in (p000, p003)")).await, 2);
    assert_eq!(count(ListParams::default().labels("app notin (p000,p003),app!=p001")).await, 3);
    assert_eq!(count(ListParams::default().labels("!app")).await, 0);
    assert_eq!(count(ListParams::default().labels("app")).await, 6);
    let (code, _, message) = refused(pods.list(&ListParams::default().fields("spec.color=red")).await);
    assert_eq!(code, 400);
    assert!(message.contains("field label not supported: spec.color"), "{message}");
}

/// The client would try again and again.
#[test]
fn the_future_is_not_listed() {
    let mut store = crate::apiserver::store::Store::new(1, "2026-01-01T00:00:00Z");
    let now = store.revision();
    assert_eq!(store.check_revision(now), Ok(()));
    assert_eq!(store.check_revision(now + 1).unwrap_err().code, 504);
    store.compact();
    assert_eq!(store.check_revision(now), Ok(()));
    assert_eq!(store.check_revision(now - 1).unwrap_err().code, 410);
}

#[tokio::test]
async fn only_metadata_may_be_asked_for() {
    let (server, client) = started();
    many(&server, 2);
    let pods: Api<Pod> = Api::all(client);
    let list = pods.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 2);
    assert_eq!(list.items[0].metadata.labels.as_ref().unwrap()["app"], "p000");
}
