//! What nodes tell a cluster of themselves.

use super::*;
use crate::apiserver::{Failure, Fault, Network, User};

fn counted(server: &ApiServer, name: &str) -> Option<(u64, u64)> {
    let object = server.get(POLICIES, "default", name)?;
    Some((object["status"]["nodesRealized"].as_u64()?, object["status"]["nodesDesired"].as_u64()?))
}

#[tokio::test]
async fn what_two_nodes_say_becomes_one_status() {
    let server = cluster();
    let object = server.put(policy("p"));
    let first = reporting(&server, "n1", facts(&[seen(&object, "Enforcing")]));
    let second = reporting(&server, "n2", facts(&[seen(&object, "CanaryPending")]));
    until("one of two", || (counted(&server, "p")? == (1, 2)).then_some(())).await;
    let waits = || condition(&server, "p", "Enforcing").filter(|(status, _)| status == "False");
    let (_, message) = until("a condition", waits).await;
    assert_eq!(message, "1 of 2 nodes; not n2 (CanaryPending)");
    assert_eq!(condition(&server, "p", "Programmed").unwrap().0, "True");
    second.facts.send_replace(facts(&[seen(&object, "Enforcing")]));
    until("two of two", || (counted(&server, "p")? == (2, 2)).then_some(())).await;
    assert_eq!(condition(&server, "p", "Enforcing").unwrap(), ("True".into(), "2 of 2 nodes".into()));
    let status = server.get(POLICIES, "default", "p").unwrap();
    assert_eq!(status["metadata"]["generation"], 1, "a status is no change of what is asked for");
    assert_eq!(status["status"]["conditions"][2]["observedGeneration"], 1);
    // A new version is enforced by nobody yet.
    let object = server.patch(POLICIES, "default", "p", &json!({ "spec": { "egress": [] } }));
    let unseen = ClusterPolicyInfo { in_force: None, ..seen(&object, "") };
    first.facts.send_replace(facts(std::slice::from_ref(&unseen)));
    second.facts.send_replace(facts(&[unseen]));
    until("none of two", || (counted(&server, "p")? == (0, 2)).then_some(())).await;
    // One Lease for each node, and the reporter's; and nothing is written again and again.
    assert_eq!(server.all(LEASES).len(), 3);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let written =
        |server: &ApiServer| server.asked().iter().filter(|it| it.path.ends_with("/status")).count();
    let before = written(&server);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(written(&server), before);
}

#[tokio::test]
async fn another_node_reports_when_the_reporter_is_gone() {
    let server = cluster();
    let object = server.put(policy("p"));
    let first = reporting(&server, "n1", facts(&[seen(&object, "Enforcing")]));
    let holder = || {
        let lease = server.get(LEASES, NAMESPACE, "enforcer-reporter")?;
        lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
    };
    until("n1 to report", || (holder()? == "n1").then_some(())).await;
    let second = reporting(&server, "n2", facts(&[seen(&object, "Enforcing")]));
    until("both to count", || (counted(&server, "p")? == (2, 2)).then_some(())).await;
    assert_eq!(holder().unwrap(), "n1", "nobody is pushed out");
    drop(first);
    until("n2 to report", || (holder()? == "n2").then_some(())).await;
    assert_eq!(server.get(LEASES, NAMESPACE, "enforcer-reporter").unwrap()["spec"]["leaseTransitions"], 1);
    second.facts.send_replace(facts(&[seen(&object, "HooksNotAttached")]));
    // What n1 said last still counts for its two minutes.
    until("n2 to be told of", || (counted(&server, "p")? == (1, 2)).then_some(())).await;
}

#[tokio::test]
async fn a_lease_goes_with_its_node() {
    let server = cluster();
    server.put(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } }));
    let _reporting = reporting(&server, "n1", facts(&[]));
    let lease = until("the Lease", || server.get(LEASES, NAMESPACE, "enforcer-node-n1")).await;
    assert_eq!(lease["metadata"]["annotations"]["enforcer.dev/phase"], "enforcing");
    assert_eq!(lease["metadata"]["ownerReferences"][0]["name"], "n1");
    let renewed = lease["spec"]["renewTime"].clone();
    let again =
        || server.get(LEASES, NAMESPACE, "enforcer-node-n1").filter(|it| it["spec"]["renewTime"] != renewed);
    until("a heartbeat", again).await;
    // The node joins again: what belongs to its old object is removed by the cluster, however often it is written.
    server.remove("nodes", "", "n1");
    let node = server.put(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } }));
    server.remove(LEASES, NAMESPACE, "enforcer-node-n1");
    let owner = || {
        let lease = server.get(LEASES, NAMESPACE, "enforcer-node-n1")?;
        (lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]).then_some(())
    };
    until("the new node to be its owner", owner).await;
}

#[tokio::test]
async fn what_could_not_be_told_is_counted_and_told_later() {
    let server = cluster();
    let object = server.put(policy("p"));
    let reporting = reporting(&server, "n1", facts(&[seen(&object, "CanaryPending")]));
    until("a status", || counted(&server, "p")).await;
    server.network(Network::Refused);
    reporting.facts.send_replace(facts(&[seen(&object, "Enforcing")]));
    until("a failure", || (reporting.counts.all()[&("lease", "failed")] > 0).then_some(())).await;
    assert!(!reporting.task.is_finished());
    server.network(Network::Up);
    until("one of one", || (counted(&server, "p")? == (1, 1)).then_some(())).await;
}

#[tokio::test]
async fn without_the_right_nothing_is_told_and_nothing_ends() {
    let server = cluster();
    server.allow("t", User::nobody("system:serviceaccount:enforcer-system:enforcer"));
    let reporting = reporting_as(&server, "n1", "t", facts(&[]));
    let failed = || (reporting.counts.all()[&("lease", "failed")] > 1).then_some(());
    until("two failures", failed).await;
    assert!(!reporting.task.is_finished());
    // With back-off: in the second that passed, not every heartbeat was tried.
    let tried = server.asked().iter().filter(|it| it.verb == "patch").count();
    assert!(tried <= 4, "{tried}");
    assert_eq!(reporting.counts.all()[&("lease", "done")], 0);
}

#[tokio::test]
async fn a_refused_policy_gets_one_event_for_each_version() {
    let server = cluster();
    let object = server.put(policy("p"));
    let refused = |object: &Value, why: &str| ClusterPolicyInfo {
        problems: vec![why.to_owned()],
        in_force: None,
        ..seen(object, "")
    };
    let reporting = reporting(&server, "n1", facts(&[refused(&object, "spec: no such peer")]));
    let events = || {
        let all = server.all("events");
        let of_policy = all.into_iter().filter(|it| it["involvedObject"]["name"] == "p");
        of_policy.collect::<Vec<_>>()
    };
    let event = until("an event", || events().into_iter().next()).await;
    assert_eq!((&event["reason"], &event["type"]), (&json!("PolicyRefused"), &json!("Warning")));
    assert_eq!(event["message"], "spec: no such peer");
    assert_eq!(event["involvedObject"]["uid"], object["metadata"]["uid"]);
    let (status, message) =
        until("Accepted", || condition(&server, "p", "Accepted").filter(|it| it.0 == "False")).await;
    assert_eq!((status.as_str(), message.as_str()), ("False", "spec: no such peer"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(events().len(), 1);
    let object = server.patch(POLICIES, "default", "p", &json!({ "spec": { "egress": [] } }));
    reporting.facts.send_replace(facts(&[refused(&object, "spec: another problem")]));
    until("another event", || (events().len() == 2).then_some(())).await;
}

#[tokio::test]
async fn an_event_fits_whatever_it_is_about() {
    let server = cluster();
    // Longest names, with marks where they are cut; text of more bytes than letters.
    let [dash, point] = ["-x", ".x"].map(|cut| format!("{}{cut}{}", "p".repeat(199), "q".repeat(52)));
    let refused = |name: &str| {
        let object = server.put(policy(name));
        ClusterPolicyInfo { problems: vec!["é".repeat(1000)], in_force: None, ..seen(&object, "") }
    };
    let all = [refused("a"), refused(&dash), refused(&point)];
    let node = format!("n{}", "-1".repeat(100));
    let reporting = reporting(&server, &node, facts(&all));
    until("all events", || (reporting.counts.all()[&("event", "done")] == 3).then_some(())).await;
    assert_eq!(reporting.counts.all()[&("event", "failed")], 0);
    for event in server.all("events") {
        assert_eq!(event["message"].as_str().unwrap().len(), 1024, "as much as there is room for");
        assert_eq!(event["reportingInstance"].as_str().unwrap().len(), 128);
    }
}

#[tokio::test]
async fn an_event_that_is_refused_keeps_no_other_from_being_told() {
    let server = cluster();
    let refused = |name: &str| {
        let object = server.put(policy(name));
        ClusterPolicyInfo { problems: vec!["wrong".into()], in_force: None, ..seen(&object, "") }
    };
    let all = [refused("a"), refused("b")];
    let message = "events.events.k8s.io \"a.1\" is forbidden: unable to create new content in namespace default because it is being terminated";
    let failure = Failure::new(403, "Forbidden", message);
    server.fail(Fault { verb: "create".into(), resource: "events".into(), times: 1, failure });
    let reporting = reporting(&server, "n1", facts(&all));
    until("one event", || (reporting.counts.all()[&("event", "done")] == 1).then_some(())).await;
    assert_eq!(reporting.counts.all()[&("event", "failed")], 1);
    assert_eq!(server.all("events")[0]["involvedObject"]["name"], "b");
}

#[tokio::test]
async fn many_refused_policies_are_few_events_and_the_rest_is_counted() {
    let server = cluster();
    let all: Vec<_> = (0..30)
        .map(|n| {
            let object = server.put(policy(&format!("p{n}")));
            ClusterPolicyInfo { problems: vec!["wrong".into()], in_force: None, ..seen(&object, "") }
        })
        .collect();
    let reporting = reporting(&server, "n1", facts(&all));
    until("all to be told or dropped", || {
        let counts = reporting.counts.all();
        (counts[&("event", "done")] + counts[&("event", "dropped")] == 30).then_some(())
    })
    .await;
    assert_eq!(server.all("events").len(), 10);
    assert_eq!(reporting.counts.all()[&("event", "dropped")], 20);
}

#[tokio::test]
async fn a_status_that_fails_is_written_later() {
    let server = cluster();
    let object = server.put(policy("p"));
    let failure = Failure::new(500, "InternalError", "etcdserver: request timed out");
    server.fail(Fault { verb: "patch".into(), resource: "trafficpolicies/status".into(), times: 2, failure });
    let reporting = reporting(&server, "n1", facts(&[seen(&object, "Enforcing")]));
    until("one of one", || (counted(&server, "p")? == (1, 1)).then_some(())).await;
    assert_eq!(reporting.counts.all()[&("status", "failed")], 2);
}

#[tokio::test]
async fn the_rights_of_the_manifests_are_enough() {
    let server = cluster();
    server.put(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } }));
    server.anonymous(None);
    server.allow("t", User::agent());
    let (good, bad) = (server.put(policy("p")), server.put(policy("q")));
    let refused = ClusterPolicyInfo { problems: vec!["wrong".into()], in_force: None, ..seen(&bad, "") };
    let _reporting = reporting_as(&server, "n1", "t", facts(&[seen(&good, "Enforcing"), refused]));
    until("a status", || (counted(&server, "p")? == (1, 1)).then_some(())).await;
    until("an event", || (!server.all("events").is_empty()).then_some(())).await;
    let denied: Vec<_> = server.asked().into_iter().filter(|it| it.code == 401 || it.code == 403).collect();
    assert!(denied.is_empty(), "{denied:?}");
}
