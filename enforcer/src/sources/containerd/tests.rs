//! What containers become.

use super::wire::{Any, Container};
use super::*;

const UID: &str = "3b8c2d1e-0f4a-4c6b-9d7e-5a1b2c3d4e5f";
const ID: &str = "d0f1e2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f";

fn container(id: &str, labels: &[(&str, &str)], path: &str) -> Container {
    let value = serde_json::json!({"linux": {"cgroupsPath": path}}).to_string().into_bytes();
    Container {
        id: id.to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        spec: Some(Any { type_url: String::new(), value }),
        created_at: None,
    }
}

const POD: [(&str, &str); 5] = [
    ("io.cri-containerd.kind", "sandbox"),
    ("io.kubernetes.pod.namespace", "shop"),
    ("io.kubernetes.pod.name", "api-0"),
    ("io.kubernetes.pod.uid", UID),
    ("app", "api"),
];

#[test]
fn only_a_sandbox_of_the_kubelet_is_a_pod() {
    let told = thing(CRI, container("a", &POD, "/x")).unwrap().unwrap();
    assert_eq!(told.key.to_string(), "shop/api-0");
    assert_eq!(
        (told.place, told.labels.to_string()),
        (Place::Pod(PodUid::parse(UID).unwrap()), "app=api".to_owned())
    );
    let liar = thing("default", container("a", &POD, "/x")).unwrap().unwrap();
    assert_eq!((liar.key.to_string(), liar.place), ("default/a".to_owned(), Place::Path("/x".to_owned())));
    assert_eq!(liar.labels.to_string(), "app=api");
    assert_eq!(thing(CRI, container("a", &[("io.cri-containerd.kind", "image")], "/x")), Ok(None));
    assert_eq!(thing(CRI, container("a", &POD[1..], "/x")), Ok(None));
}

#[test]
fn a_container_of_the_kubelet_is_one_of_its_pod_and_names_no_other() {
    let labels = |name: &'static str| {
        let mut labels = POD.to_vec();
        labels[0].1 = "container";
        labels.push(("io.kubernetes.container.name", name));
        labels
    };
    let told = thing(CRI, container(ID, &labels("main"), "/x")).unwrap().unwrap();
    assert_eq!(told.key.to_string(), "shop/api-0", "it is told with its pod");
    assert_eq!(told.of, Some((PodUid::parse(UID).unwrap(), "main".to_owned())));
    assert_eq!(told.place, Place::Container(ContainerId::parse(ID).unwrap()));
    for (id, labels, needle) in [
        (ID, labels("../x"), "is no name of a container"),
        (ID, labels("a/b"), "is no name of a container"),
        (ID, labels("?"), "is no name of a container"),
        (ID, labels("main")[..5].to_vec(), "io.kubernetes.container.name"),
        ("short", labels("main"), "64 hex digits"),
    ] {
        let problem = thing(CRI, container(id, &labels, "/x")).unwrap_err();
        assert!(problem.contains(needle), "{problem}");
    }
    // Elsewhere the same labels say nothing.
    let liar = thing("default", container(ID, &labels("main"), "/x")).unwrap().unwrap();
    assert_eq!((liar.of, liar.key.namespace.as_str()), (None, "default"));
}

#[test]
fn what_can_not_be_told_says_why() {
    for (at, (key, _)) in POD.iter().enumerate().take(4).skip(1) {
        let mut labels = POD.to_vec();
        labels.remove(at);
        assert!(thing(CRI, container("a", &labels, "/x")).is_err(), "{key}");
        labels.push((*key, "../\u{1}"));
        assert!(thing(CRI, container("a", &labels, "/x")).is_err(), "{key}");
    }
    assert!(thing("default", container("a", &[], "relative")).unwrap_err().contains("no cgroup directory"));
    assert!(thing("a b", container("a", &[], "/x")).unwrap_err().contains("namespace"));
    let id = ID;
    let by_id = thing("default", container(id, &[("nerdctl/name", "web")], "")).unwrap().unwrap();
    assert_eq!(
        (by_id.key.name.as_str(), by_id.place),
        ("web", Place::Container(ContainerId::parse(id).unwrap()))
    );
}
