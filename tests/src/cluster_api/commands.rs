//! What the command line asks of a cluster.

use enforcer::cluster::policies::{Cluster, Error, Sight};
use enforcer::domain::fleet::progress;
use tokio::time::Instant;

use super::*;
use crate::apiserver::{Failure, Fault, Network, User};

fn asking(server: &ApiServer, token: &str) -> Cluster {
    Cluster::new(client(&server.url(), token), NAMESPACE.to_owned())
}

fn key() -> PolicyKey {
    PolicyKey::traffic("default", "p")
}

#[tokio::test]
async fn an_apply_says_what_it_did() {
    let server = cluster();
    let asking = asking(&server, "");
    let dry = asking.apply(&key(), &policy("p"), (true, false)).await.unwrap();
    assert_eq!((dry.change, server.get(POLICIES, "default", "p")), ("created", None));
    let made = asking.apply(&key(), &policy("p"), (false, false)).await.unwrap();
    assert_eq!((made.change, made.object.generation), ("created", 1));
    assert_eq!(asking.apply(&key(), &policy("p"), (false, false)).await.unwrap().change, "unchanged");
    let mut other = policy("p");
    other["spec"]["egress"] = json!([]);
    let changed = asking.apply(&key(), &other, (false, false)).await.unwrap();
    assert_eq!((changed.change, changed.object.generation), ("configured", 2));
    let kept = server.get(POLICIES, "default", "p").unwrap();
    assert_eq!(kept["metadata"]["managedFields"][0]["manager"], "enforcer-cli");
    asking.delete(&key()).await.unwrap();
    assert!(matches!(asking.delete(&key()).await, Err(Error::Absent(_))));
    assert!(matches!(asking.get(&key()).await, Err(Error::Absent(_))));
}

#[tokio::test]
async fn fields_of_others_are_a_conflict_unless_they_are_taken() {
    let server = cluster();
    let asking = asking(&server, "");
    asking.apply(&key(), &policy("p"), (false, false)).await.unwrap();
    let url = server.url();
    let resource = kube::core::ApiResource::from_gvk_with_plural(
        &kube::core::GroupVersionKind::gvk("enforcer.dev", "v1alpha1", "TrafficPolicy"),
        "trafficpolicies",
    );
    let api: kube::Api<kube::api::DynamicObject> =
        kube::Api::namespaced_with(client(&url, ""), "default", &resource);
    let edit = kube::api::Patch::Merge(json!({ "spec": { "mode": "audit" } }));
    let params = kube::api::PatchParams {
        field_manager: Some("kubectl-edit".into()),
        ..kube::api::PatchParams::default()
    };
    api.patch("p", &params, &edit).await.unwrap();
    let mut wanted = policy("p");
    wanted["spec"]["mode"] = json!("enforce");
    let error = asking.apply(&key(), &wanted, (false, false)).await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_answer() && text.contains("\"kubectl-edit\"") && text.contains(".spec.mode"), "{text}");
    assert!(text.contains("--force-conflicts"), "{text}");
    asking.apply(&key(), &wanted, (false, true)).await.unwrap();
    assert_eq!(server.get(POLICIES, "default", "p").unwrap()["spec"]["mode"], "enforce");
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let server = ApiServer::start();
    let asking = asking(&server, "");
    let error = asking.apply(&key(), &policy("p"), (false, false)).await.unwrap_err();
    assert!(error.to_string().contains("`enforcer policy crd | kubectl apply -f -` installs it"), "{error}");
    server.install_definitions();
    let elsewhere = PolicyKey::traffic("nowhere", "p");
    let mut document = policy("p");
    document["metadata"]["namespace"] = json!("nowhere");
    let error = asking.apply(&elsewhere, &document, (false, false)).await.unwrap_err();
    assert!(error.to_string().contains("kubectl create namespace nowhere"), "{error}");
    let mut wrong = policy("p");
    wrong["spec"]["mode"] = json!("loud");
    let error = asking.apply(&key(), &wrong, (false, false)).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { .. }) && error.is_answer(), "{error}");
}

#[tokio::test]
async fn a_missing_right_is_named_with_its_verb() {
    let server = cluster();
    let role = json!({ "rules": [
        { "apiGroups": ["enforcer.dev"], "resources": ["trafficpolicies"], "verbs": ["get"] },
    ]});
    server.allow("t", User::nobody("alice").with_role(&role));
    let asking = asking(&server, "t");
    let error = asking.apply(&key(), &policy("p"), (false, false)).await.unwrap_err();
    let text = error.to_string();
    assert!(!error.is_answer());
    assert!(text.contains("User \"alice\" cannot patch"), "{text}");
    assert!(text.contains("ask for the verb `patch` on `trafficpolicies.enforcer.dev`"), "{text}");
    // To apply what is not there yet is to create it too.
    let writer = json!({ "rules": [
        { "apiGroups": ["enforcer.dev"], "resources": ["trafficpolicies"], "verbs": ["get", "patch"] },
    ]});
    server.allow("w", User::nobody("bob").with_role(&writer));
    let writing = self::asking(&server, "w");
    let text = writing.apply(&key(), &policy("p"), (false, false)).await.unwrap_err().to_string();
    assert!(text.contains("ask for the verb `create` on `trafficpolicies.enforcer.dev`"), "{text}");
    server.put(policy("p"));
    writing.apply(&key(), &policy("p"), (false, true)).await.unwrap();
    // What admission refuses is no right.
    let denied = "trafficpolicies.enforcer.dev \"p\" is forbidden: exceeded quota: q";
    let failure = Failure::new(403, "Forbidden", denied);
    server.fail(Fault { verb: "patch".into(), resource: "trafficpolicies".into(), times: 1, failure });
    let error = writing.apply(&key(), &policy("p"), (false, true)).await.unwrap_err();
    assert!(error.is_answer() && error.to_string().contains("exceeded quota"), "{error}");
    let text = asking.nodes().await.unwrap_err().to_string();
    assert!(text.contains("ask for the verb `list` on `leases.coordination.k8s.io`"), "{text}");
    server.expire("t");
    let text = asking.get(&key()).await.unwrap_err().to_string();
    assert!(text.contains("401"), "{text}");
}

#[tokio::test]
async fn waiting_outlasts_an_outage() {
    let server = cluster();
    let object = server.put(policy("p"));
    let reporting = reporting(&server, "n1", facts(&[seen(&object, "CanaryPending")]));
    until("the Lease", || server.get(LEASES, NAMESPACE, "enforcer-node-n1")).await;
    let version = seen(&object, "").object;
    let (told, mut news) = tokio::sync::mpsc::unbounded_channel();
    server.allow("t", User::admin("alice"));
    let asking = asking(&server, "t");
    let waiting = tokio::spawn(async move {
        let until = Instant::now() + Duration::from_secs(30);
        asking
            .follow(Some(until), |sight| match sight {
                Sight::Away(_) => {
                    told.send("away").ok();
                    false
                }
                Sight::Nodes(nodes) => {
                    told.send("nodes").ok();
                    let now = enforcer::domain::timestamp::Timestamp { seconds: 0, nanos: 0 };
                    progress(nodes.values(), &version, now).is_done()
                }
            })
            .await
    });
    assert_eq!(news.recv().await, Some("nodes"));
    server.network(Network::Refused);
    while news.recv().await != Some("away") {}
    // A server that has just started refuses everybody for a moment, until it has read the roles.
    server.allow("t", User::nobody("alice"));
    server.network(Network::Up);
    let refused = || server.asked().iter().any(|it| it.user == "alice" && it.code == 403).then_some(());
    until("a refusal", refused).await;
    server.allow("t", User::admin("alice"));
    reporting.facts.send_replace(facts(&[seen(&object, "Enforcing")]));
    assert!(waiting.await.unwrap().unwrap());
}

#[tokio::test]
async fn waiting_ends_in_time() {
    let server = cluster();
    let asking = asking(&server, "");
    let until = Instant::now() + Duration::from_millis(200);
    assert!(!asking.follow(Some(until), |_| false).await.unwrap());
}

#[tokio::test]
async fn nodes_come_in_the_order_of_their_names() {
    let server = cluster();
    for name in ["n2", "n1"] {
        let _reporting = reporting(&server, name, facts(&[]));
        until("the Lease", || server.get(LEASES, NAMESPACE, &format!("enforcer-node-{name}"))).await;
    }
    let nodes = asking(&server, "").nodes().await.unwrap();
    let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["n1", "n2"]);
    assert_eq!(nodes[0].report.version, "0.1.0");
}
