//! From objects to what is read of them.

use super::*;
use crate::domain::cluster::Backend;

const UID: &str = "0b5a1c9e-7c1f-4e57-9c7e-2f6a1d1f0a11";

#[test]
fn a_pod_is_what_the_api_server_says() {
    let (pod, notes) = read_pod(pod_object("web", UID, "198.51.100.7"));
    assert_eq!(pod.key.to_string(), "shop/web");
    assert_eq!((pod.uid.as_str(), pod.node.as_str(), pod.hash), (UID, "n1", None));
    assert_eq!(pod.labels.to_string(), "app=web,pod-template-hash=6c9f");
    assert_eq!(pod.account.as_deref(), Some("till"));
    assert_eq!(pod.addresses, ["198.51.100.7".parse::<std::net::IpAddr>().unwrap()]);
    let ports: Vec<_> =
        pod.ports.iter().map(|(name, port)| (name.as_str(), port.protocol, port.port)).collect();
    assert_eq!(ports, [("dns", 17, 53), ("http", 6, 8080), ("mesh", 6, 15001)]);
    let containers: Vec<_> = pod.containers.iter().map(|(name, id)| (name.as_str(), id.is_some())).collect();
    assert_eq!(containers, [("before", false), ("beside", false), ("main", false), ("other", false)]);
    assert_eq!(pod.created, 1_795_341_600);
    assert!(!pod.finished && !pod.deleting && notes.is_empty());
}

#[test]
fn what_a_pod_does_not_say_has_its_meaning() {
    let bare = json!({ "metadata": { "name": "web", "namespace": "shop", "uid": UID } });
    let (pod, _) = read_pod(bare);
    assert_eq!(pod.account.as_deref(), Some("default"));
    assert!(pod.addresses.is_empty() && pod.node.is_empty() && pod.labels.0.is_empty());
    let host = with(pod_object("web", UID, "192.0.2.1"), &[("/spec/hostNetwork", json!(true))]);
    assert!(read_pod(host).0.addresses.is_empty());
    for phase in ["Succeeded", "Failed"] {
        let ended = with(pod_object("web", UID, "198.51.100.7"), &[("/status/phase", json!(phase))]);
        assert!(read_pod(ended).0.finished);
    }
    let both = [("/status/podIPs", json!([{ "ip": "198.51.100.7" }, { "ip": "2001:db8::7" }]))];
    assert_eq!(read_pod(with(pod_object("web", UID, "198.51.100.7"), &both)).0.addresses.len(), 2);
}

#[test]
fn a_nodes_address_is_never_a_pods() {
    let (pod, notes) = read_pod(pod_object("web", UID, "192.0.2.1"));
    assert!(pod.addresses.is_empty());
    assert_eq!(notes, ["the address 192.0.2.1 is its node's, and tells nobody apart"]);
}

#[test]
fn malformed_pods_are_refused_with_the_reason() {
    let pod_at = |path: &str, value: Value| with(pod_object("web", UID, "198.51.100.7"), &[(path, value)]);
    for (object, needle) in [
        (pod_at("/metadata/name", json!("Web_1")), "its name can't be `Web_1`"),
        (pod_at("/metadata/namespace", json!("a/b")), "its namespace can't be `a/b`"),
        (pod_at("/metadata/uid", Value::Null), "it has no UID"),
        (pod_at("/metadata/labels", json!({ "a b": "c" })), "`a b` can't be a label key"),
        (pod_at("/metadata/labels", json!({ "a": "b c" })), "the label `a` can't be `b c`"),
        (pod_at("/metadata/labels", json!({ "a": 7 })), "invalid type: integer `7`"),
        (pod_at("/status/podIP", json!("198.51.100.700")), "its address can't be `198.51.100.700`"),
        (pod_at("/status/podIP", json!("127.0.0.1")), "its address can't be 127.0.0.1"),
        (pod_at("/spec/containers", json!([{ "ports": [{ "containerPort": 70000 }] }])), "70000"),
        (pod_at("/spec/serviceAccountName", json!("../x")), "its service account can't be `../x`"),
        (json!({ "spec": {} }), "missing field `metadata`"),
        (json!("pod"), "invalid type: string"),
    ] {
        let problem = pod::pod(object).unwrap_err();
        assert!(problem.contains(needle), "{problem}");
    }
}

#[test]
fn a_thousand_labels_are_labels() {
    let many: serde_json::Map<String, Value> =
        (0..1_000).map(|at| (format!("example.com/l{at}"), json!(format!("v{at}")))).collect();
    let (pod, notes) =
        read_pod(with(pod_object("web", UID, "198.51.100.7"), &[("/metadata/labels", many.into())]));
    assert_eq!((pod.labels.0.len(), notes.len()), (1_000, 0));
}

#[test]
fn nobody_gets_a_label_that_is_enforcers_own() {
    let labels = json!({ "app": "web", "enforcer.dev/quarantine": "x", "reserved:host": "" });
    let (pod, notes) =
        read_pod(with(pod_object("web", UID, "198.51.100.7"), &[("/metadata/labels", labels)]));
    assert_eq!(pod.labels.to_string(), "app=web");
    assert_eq!(notes.len(), 2, "{notes:?}");
}

#[test]
fn the_hash_of_a_static_pod_is_believed_where_nobody_else_can_write_it() {
    const HASH: &str = "77c1b263d6feb1b70a4d4041548834fd";
    let node = json!([{ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n" }]);
    let both = json!({ "kubernetes.io/config.hash": HASH, "kubernetes.io/config.mirror": HASH });
    let alone = json!({ "kubernetes.io/config.hash": HASH });
    let at = |annotations: &Value, owners: &Value| {
        let changes =
            [("/metadata/annotations", annotations.clone()), ("/metadata/ownerReferences", owners.clone())];
        with(pod_object("kube-apiserver-n1", UID, "198.51.100.7"), &changes)
    };
    let (pod, _) = read_pod(with(at(&both, &node), &[("/spec/serviceAccountName", Value::Null)]));
    assert_eq!((pod.hash.as_deref(), pod.account), (Some(HASH), None));
    // Whoever may create pods can write this.
    let (pod, notes) = read_pod(at(&alone, &json!([])));
    assert_eq!(pod.hash, None);
    assert!(notes[0].contains("counts on mirrors"), "{notes:?}");
    let other = json!([{ "apiVersion": "v1", "kind": "Node", "name": "n2", "uid": "n" }]);
    for owners in [json!([]), other] {
        assert!(pod::pod(at(&both, &owners)).unwrap_err().contains("belongs to no node"));
    }
    let odd = json!({ "kubernetes.io/config.hash": "../../x", "kubernetes.io/config.mirror": "../../x" });
    assert!(pod::pod(at(&odd, &node)).unwrap_err().contains("32 hex digits"));
}

#[allow(clippy::needless_pass_by_value, reason = "callers write the value in place")]
fn service_object(spec: Value) -> Value {
    json!({ "metadata": { "name": "db", "namespace": "shop", "uid": "s" }, "spec": spec, "status": { "loadBalancer": {} } })
}

#[allow(clippy::needless_pass_by_value, reason = "callers write the value in place")]
fn slice_object(name: &str, endpoints: Value, ports: Value) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "shop", "labels": { "kubernetes.io/service-name": "db" } },
        "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
    })
}

fn backends(service: &crate::domain::cluster::Service, at: usize) -> Vec<String> {
    service.ports[at].backends.iter().map(|Backend { address, port }| format!("{address}:{port}")).collect()
}

#[test]
fn a_service_has_its_addresses_and_who_answers() {
    let spec = json!({
        "clusterIP": "203.0.113.10", "clusterIPs": ["203.0.113.10", "2001:db8::10"], "externalIPs": ["203.0.113.99"],
        "ports": [{ "name": "sql", "port": 5432, "targetPort": "pg" }, { "name": "odd", "port": 7, "protocol": "UDP" }],
    });
    let (front, _) = service::service(service_object(spec)).unwrap();
    let ports = json!([{ "name": "sql", "port": 15432, "protocol": "TCP" }]);
    let one =
        slice_object("db-1", json!([{ "addresses": ["198.51.100.1"], "conditions": {} }]), ports.clone());
    let two = slice_object(
        "db-2",
        json!([
            { "addresses": ["198.51.100.2"], "conditions": { "ready": true } },
            { "addresses": ["198.51.100.3"], "conditions": { "ready": false } },
            { "addresses": ["198.51.100.4"], "conditions": { "ready": false, "serving": true, "terminating": true } },
        ]),
        ports,
    );
    let slices: Vec<_> = [one, two].into_iter().map(|it| service::slice(it).unwrap().0.unwrap()).collect();
    let service = front.with_backends(slices.iter()).unwrap();
    assert_eq!(service.addresses.len(), 3);
    assert_eq!(backends(&service, 0), ["198.51.100.1:15432", "198.51.100.2:15432"]);
    assert!(backends(&service, 1).is_empty());
    // Without slices it is there, and nobody answers.
    assert!(backends(&front.with_backends([].iter()).unwrap(), 0).is_empty());
}

#[test]
fn those_who_end_answer_while_nobody_else_does() {
    let (front, _) =
        service::service(service_object(json!({ "clusterIP": "203.0.113.10", "ports": [{ "port": 80 }] })))
            .unwrap();
    let ending = json!([
        { "addresses": ["198.51.100.4"], "conditions": { "ready": false, "serving": true, "terminating": true } },
        { "addresses": ["198.51.100.5"], "conditions": { "ready": false, "serving": false } },
    ]);
    let slice = service::slice(slice_object("db-1", ending, json!([{ "port": 8080 }]))).unwrap().0.unwrap();
    assert_eq!(backends(&front.with_backends([&slice].into_iter()).unwrap(), 0), ["198.51.100.4:8080"]);
}

#[test]
fn headless_and_foreign_services_have_no_address() {
    for spec in [
        json!({ "clusterIP": "None", "clusterIPs": ["None"], "ports": [{ "port": 80 }] }),
        json!({ "type": "ExternalName", "externalName": "example.com" }),
    ] {
        let (front, _) = service::service(service_object(spec)).unwrap();
        assert_eq!(front.with_backends([].iter()), None);
    }
    let bad = service_object(json!({ "clusterIP": "x" }));
    assert_eq!(service::service(bad).unwrap_err(), "`x` is not an address");
    let names = with(
        slice_object("db-1", json!([{ "addresses": ["example.com"] }]), json!([])),
        &[("/addressType", json!("FQDN"))],
    );
    assert!(service::slice(names).unwrap().0.is_none());
    let bad = slice_object("db-1", json!([{ "addresses": ["example.com"] }]), json!([]));
    assert!(service::slice(bad).is_err());
}

#[test]
fn nodes_have_addresses_and_namespaces_labels() {
    let node = json!({ "metadata": { "name": "n1", "uid": "n" }, "status": { "addresses": [
        { "type": "InternalIP", "address": "192.0.2.1" }, { "type": "Hostname", "address": "n1" },
        { "type": "ExternalIP", "address": "2001:db8::1" },
    ] } });
    assert_eq!(place::node(node).unwrap().0.addresses.len(), 2);
    let labels = json!({ "kubernetes.io/metadata.name": "shop", "team": "a" });
    let namespace = json!({ "metadata": { "name": "shop", "labels": labels } });
    assert_eq!(place::namespace(namespace).unwrap().0.labels.0["team"], "a");
}
