//! Objects as they come by watches: what is wrong with one leaves the others alone.

use kube::core::Status;
use kube::runtime::watcher::{Error, Event};

use super::*;
use crate::domain::timestamp::Timestamp;
use crate::sources::directories::Directories;
use crate::sources::kubernetes::kinds::{Kind, Object};
use crate::sources::kubernetes::mirror::Mirror;
use crate::sources::kubernetes::saved::Saved;

const A: &str = "aaaaaaaa-0000-0000-0000-000000000001";

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

fn object(value: Value) -> Object {
    serde_json::from_value(value).expect("every object is one")
}

fn list(mirror: &mut Mirror, kind: Kind, objects: impl IntoIterator<Item = Value>) {
    mirror.take(kind, Event::Init, at(1));
    for value in objects {
        mirror.take(kind, Event::InitApply(object(value)), at(1));
    }
    mirror.take(kind, Event::InitDone, at(1));
}

/// Everything was listed: this pod, and this policy.
fn synced() -> Mirror {
    let mut mirror = Mirror::new("n1".into(), at(0));
    for kind in Kind::ALL {
        assert!(!mirror.is_complete(), "{kind:?}");
        match kind {
            Kind::Pod => list(&mut mirror, kind, [pod_object("web", A, "198.51.100.1")]),
            Kind::NetworkPolicy => list(&mut mirror, kind, [policy_object(1, &json!({ "podSelector": {} }))]),
            _ => list(&mut mirror, kind, []),
        }
    }
    assert!(mirror.is_complete());
    mirror
}

fn policy_object(generation: i64, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {
            "name": "deny", "namespace": "shop", "uid": "p", "generation": generation, "resourceVersion": "9",
            "managedFields": [{}],
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "kept" },
        },
        "spec": spec,
    })
}

fn refused(code: u16) -> Error {
    let mut status = Status::failure("no", "Reason");
    status.code = code;
    Error::InitialListFailed(kube::Error::Api(Box::new(status)))
}

fn explain(error: &kube::Error) -> String {
    error.to_string()
}

#[test]
fn a_malformed_pod_is_its_own_problem_and_stays_what_it_was() {
    let mut mirror = synced();
    let bad = with(pod_object("web", A, "198.51.100.1"), &[("/metadata/labels", json!({ "a b": "" }))]);
    mirror.take(Kind::Pod, Event::Apply(object(bad)), at(2));
    let fine = pod_object("api", "cccccccc-0000-0000-0000-000000000003", "198.51.100.3");
    mirror.take(Kind::Pod, Event::Apply(object(fine)), at(2));
    assert_eq!(mirror.world.pods().count(), 2);
    let problems = mirror.problems(true);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("Pod shop/web: `a b` can't be a label key"), "{problems:?}");
    mirror.take(Kind::Pod, Event::Apply(object(pod_object("web", A, "198.51.100.1"))), at(3));
    assert!(mirror.problems(true).is_empty());
}

#[test]
fn a_refused_policy_leaves_its_last_good_version_in_force() {
    let mut mirror = synced();
    let newer = json!({ "podSelector": {}, "policyTypes": ["Ingress"], "futureField": { "x": 1 } });
    mirror.take(Kind::NetworkPolicy, Event::Apply(object(policy_object(2, &newer))), at(2));
    let policies = mirror.policies();
    let [policy] = policies.as_slice() else { panic!("one") };
    assert_eq!((policy.object.generation, policy.good.as_ref().unwrap().object.generation), (2, 1));
    assert!(policy.problems[0].contains("futureField"), "{:?}", policy.problems);
    // Made anew under the same name it owes nothing to the one before.
    let other = with(policy_object(1, &json!({ "podSelector": 7 })), &[("/metadata/uid", json!("q"))]);
    mirror.take(Kind::NetworkPolicy, Event::Apply(object(other)), at(3));
    assert_eq!(mirror.policies()[0].good, None);
    mirror.take(Kind::NetworkPolicy, Event::Delete(object(policy_object(1, &json!({})))), at(4));
    assert!(mirror.policies().is_empty());
}

#[test]
fn a_document_has_nothing_that_the_server_added() {
    let policies = synced().policies();
    let text = &policies[0].good.as_ref().unwrap().text;
    let expected = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  annotations:\n    note: kept\n  name: \
                    deny\n  namespace: shop\nspec:\n  podSelector: {}\n";
    assert_eq!(text, expected);
}

#[test]
fn a_newer_version_of_a_definition_is_refused() {
    let mut mirror = synced();
    let newer = json!({
        "apiVersion": "enforcer.dev/v2", "kind": "TrafficPolicy",
        "metadata": { "name": "x", "namespace": "shop", "uid": "t", "generation": 1 }, "spec": {},
    });
    mirror.take(Kind::TrafficPolicy, Event::Apply(object(newer)), at(2));
    let policies = mirror.policies();
    let policy = policies.iter().find(|policy| policy.key.name == "x").unwrap();
    assert!(policy.good.is_none() && policy.problems[0].contains("enforcer.dev/v2"), "{policy:?}");
}

#[test]
fn a_list_says_what_is_gone() {
    let mut mirror = synced();
    list(&mut mirror, Kind::Pod, [pod_object("api", "cccccccc-0000-0000-0000-000000000003", "198.51.100.3")]);
    let names: Vec<_> = mirror.world.pods().map(|(pod, _)| pod.key.to_string()).collect();
    assert_eq!(names, ["shop/api"]);
}

#[test]
fn what_is_not_installed_is_no_trouble_and_what_was_there_is_not_lost() {
    let mut mirror = Mirror::new("n1".into(), at(0));
    for kind in Kind::ALL {
        mirror.failed(kind, &refused(404), explain, at(1));
    }
    assert_eq!(
        mirror.waiting(),
        ["nodes", "namespaces", "pods", "services", "endpointslices", "networkpolicies"]
    );
    let mut mirror = synced();
    let policy = json!({
        "apiVersion": "enforcer.dev/v1alpha1", "kind": "ClusterTrafficPolicy", "metadata": { "name": "x", "uid": "t" },
        "spec": { "tier": "admin", "priority": 1, "subject": { "namespaces": ["*"] }, "ingress": [] },
    });
    mirror.take(Kind::ClusterTrafficPolicy, Event::Apply(object(policy)), at(2));
    let count = mirror.policies().len();
    mirror.failed(Kind::ClusterTrafficPolicy, &refused(404), explain, at(3));
    assert_eq!(mirror.policies().len(), count);
    assert!(
        mirror.problems(true)[0].contains("listing clustertrafficpolicies fails"),
        "{:?}",
        mirror.problems(true)
    );
}

#[test]
fn trouble_is_told_since_when_and_only_where_the_server_answers() {
    let mut mirror = synced();
    mirror.failed(Kind::Pod, &refused(403), explain, at(60));
    mirror.failed(Kind::Pod, &refused(403), explain, at(90));
    let said = mirror.problems(true);
    assert!(
        said[0].contains("listing pods fails") && said[0].contains("since 1970-01-01T00:01:00Z"),
        "{said:?}"
    );
    assert!(mirror.problems(false).is_empty() && mirror.is_troubled());
    let pods = mirror.kinds(None).into_iter().find(|kind| kind.kind == "Pod").unwrap();
    assert_eq!((pods.state.as_str(), pods.objects), ("away", 1));
    list(&mut mirror, Kind::Pod, []);
    assert!(mirror.problems(true).is_empty() && !mirror.is_troubled());
}

#[test]
fn what_was_saved_is_known_again_unless_something_newer_is() {
    let mut before = synced();
    let changes = before.world.changes(&Directories::new("/nowhere".into()));
    assert_eq!(changes.workloads.len(), 1);
    let mut text = Vec::new();
    before.save(at(5)).write(&mut text).unwrap();
    // As agents before this one wrote it: nothing is seen of what is shared.
    let written: Value = serde_json::from_slice(&text).unwrap();
    let [pod, seen] = written["pods"][0].as_array().unwrap().as_slice() else { panic!("{written}") };
    assert_eq!(
        (&pod["labels"], seen),
        (&json!({ "app": "web", "pod-template-hash": "6c9f" }), &json!(false))
    );
    let saved = Saved::read(&text).unwrap();
    assert_eq!(saved.at, at(5));
    let mut after = Mirror::new("n1".into(), at(6));
    // A list has begun, and has told this of the pod.
    let newer = with(pod_object("web", A, "198.51.100.1"), &[("/metadata/labels", json!({ "app": "new" }))]);
    after.take(Kind::Pod, Event::Init, at(6));
    after.take(Kind::Pod, Event::InitApply(object(newer)), at(6));
    after.restore(saved, at(7));
    assert!(after.is_complete() && after.is_restored());
    assert_eq!(after.policies()[0].good, before.policies()[0].good);
    let labels: Vec<_> = after.world.pods().map(|(pod, _)| pod.labels.to_string()).collect();
    assert_eq!(labels, ["app=new"]);
    let containers = |mirror: &Mirror| mirror.world.pods().next().unwrap().0.containers.len();
    assert_eq!((containers(&before), containers(&after)), (4, 4));
    // What is saved and not listed is gone.
    list(&mut after, Kind::NetworkPolicy, []);
    assert!(after.policies().is_empty());
    assert!(Saved::read(b"{}").is_err());
    assert!(
        Saved::read(&String::from_utf8(text).unwrap().replacen(":1,", ":2,", 1).into_bytes())
            .unwrap_err()
            .contains("version 2")
    );
}
