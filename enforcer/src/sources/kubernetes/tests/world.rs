//! What follows from objects and directories.

use std::collections::BTreeMap;

use enforcer_common::id::CgroupId;

use super::*;
use crate::domain::cgroup_path::PodUid;
use crate::domain::container::Containers;
use crate::domain::workload::{Changes, WorkloadKey};
use crate::sources::Directory;
use crate::sources::kubernetes::known::Find;
use crate::sources::kubernetes::world::World;

const A: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const B: &str = "bbbbbbbb-0000-0000-0000-000000000002";

/// A world seen from `n1`, and the directories of that node.
struct Scene {
    world: World,
    directories: Tree,
}

/// Ids of directories: of pods by UID, of containers by id, with the UID of the pod in which they are.
#[derive(Default)]
struct Tree {
    pods: BTreeMap<String, u64>,
    containers: BTreeMap<String, (String, u64)>,
}

impl Find for Tree {
    fn pod(&self, uid: &str) -> Option<Directory> {
        let id = self.pods.get(uid)?;
        Some(Directory { path: format!("/kubepods/pod{uid}"), id: CgroupId(*id), above: vec![CgroupId(9)] })
    }

    fn container(&self, id: &str) -> Option<Directory> {
        let (uid, number) = self.containers.get(id)?;
        let pod = self.pod(uid)?;
        Some(Directory {
            path: format!("{}/{id}", pod.path),
            id: CgroupId(*number),
            above: [vec![pod.id], pod.above].concat(),
        })
    }
}

impl Scene {
    fn new() -> Self {
        Self { world: World::new("n1".into()), directories: Tree::default() }
    }

    fn pod(&mut self, object: Value) {
        self.world.pod(read_pod(object).0, false);
    }

    fn make(&mut self, uid: &str, id: u64) {
        self.directories.pods.insert(uid.to_owned(), id);
        self.moved(uid);
    }

    fn remove(&mut self, uid: &str) {
        self.directories.pods.remove(uid);
        self.moved(uid);
    }

    fn moved(&mut self, uid: &str) {
        self.world.directory_moved(PodUid::parse(uid).unwrap());
    }

    fn changes(&mut self) -> Changes {
        self.world.changes(&self.directories)
    }

    /// A container's directory comes, in that of a pod.
    fn start(&mut self, uid: &str, container: &str, id: u64) {
        self.directories.containers.insert(container.to_owned(), (uid.to_owned(), id));
        self.world.directory_moved(PodUid::parse(uid).unwrap());
    }

    /// And goes.
    fn end(&mut self, uid: &str, container: &str) {
        self.directories.containers.remove(container);
        self.world.directory_moved(PodUid::parse(uid).unwrap());
    }

    /// What is told now: names with directory and addresses.
    fn told(&mut self) -> Vec<String> {
        self.changes();
        let crate::domain::workload::WorkloadEvent::Snapshot { workloads, .. } = self.world.snapshot("x")
        else {
            panic!("a snapshot");
        };
        let words = workloads.iter().map(|it| {
            let addresses: Vec<_> = it.workload.addresses.iter().map(|net| net.addr().to_string()).collect();
            let directory = it.cgroup.map_or_else(|| "-".to_owned(), |id| id.0.to_string());
            format!("{} {directory} {}", it.workload.key, addresses.join(","))
        });
        words.collect()
    }
}

#[test]
fn a_pod_is_bound_whichever_comes_first() {
    let mut object_first = Scene::new();
    object_first.pod(pod_object("web", A, "198.51.100.1"));
    assert_eq!(object_first.told(), ["shop/web - 198.51.100.1"]);
    object_first.make(A, 7);
    let mut directory_first = Scene::new();
    directory_first.make(A, 7);
    directory_first.pod(pod_object("web", A, "198.51.100.1"));
    for scene in [&mut object_first, &mut directory_first] {
        assert_eq!(scene.told(), ["shop/web 7 198.51.100.1"]);
        assert_eq!(scene.changes(), Changes::default());
    }
}

#[test]
fn pods_of_other_nodes_have_addresses_only() {
    let mut scene = Scene::new();
    scene.make(A, 7);
    scene.pod(with(pod_object("web", A, "198.51.100.1"), &[("/spec/nodeName", json!("n2"))]));
    scene.pod(with(pod_object("new", B, ""), &[("/spec/nodeName", Value::Null)]));
    assert_eq!(scene.told(), ["shop/web - 198.51.100.1"]);
}

#[test]
fn a_finished_pod_loses_its_address_to_whoever_has_it_now() {
    let mut scene = Scene::new();
    scene.make(A, 7);
    scene.pod(pod_object("old", A, "198.51.100.1"));
    assert_eq!(scene.told(), ["shop/old 7 198.51.100.1"]);
    scene.pod(with(pod_object("old", A, "198.51.100.1"), &[("/status/phase", json!("Succeeded"))]));
    scene.pod(pod_object("new", B, "198.51.100.1"));
    assert_eq!(scene.told(), ["shop/new - 198.51.100.1"]);
    assert_eq!(scene.world.disputes().count(), 0);
}

#[test]
fn of_two_living_pods_the_newer_one_has_the_address_and_that_is_told() {
    let newer = [("/metadata/creationTimestamp", json!("2026-11-22T11:00:00Z"))];
    let old = || pod_object("a", A, "198.51.100.1");
    let new = || with(pod_object("b", B, "198.51.100.1"), &newer);
    for turn in [[old(), new()], [new(), old()]] {
        let mut scene = Scene::new();
        for object in turn {
            scene.pod(object);
        }
        assert_eq!(scene.told(), ["shop/a - ", "shop/b - 198.51.100.1"]);
        let said: Vec<_> = scene.world.disputes().cloned().collect();
        assert!(said[0].contains("pod shop/b and of pod shop/a"), "{said:?}");
        // The older one ends: nothing is disputed any more, and nothing changes for the newer one.
        scene.world.pod_gone(&WorkloadKey { namespace: "shop".into(), name: "a".into() });
        assert_eq!(scene.told(), ["shop/b - 198.51.100.1"]);
        assert_eq!(scene.world.disputes().count(), 0);
    }
    let mut scene = Scene::new();
    scene.pod(old());
    scene.pod(with(new(), &[("/metadata/deletionTimestamp", json!("2026-11-22T11:01:00Z"))]));
    assert_eq!(scene.told(), ["shop/a - 198.51.100.1", "shop/b - "], "one that ends comes last");
}

#[test]
fn the_address_of_any_node_is_nobodys() {
    let mut scene = Scene::new();
    scene.pod(pod_object("web", A, "198.51.100.1"));
    let node = json!({ "metadata": { "name": "n9" }, "status": { "addresses": [{ "type": "InternalIP", "address": "198.51.100.1" }] } });
    scene.world.node(place::node(node).unwrap().0);
    assert_eq!(scene.told(), ["shop/web - "]);
    assert!(scene.world.disputes().next().unwrap().contains("an address of node n9"));
    scene.world.node_gone("n9");
    assert_eq!(scene.told(), ["shop/web - 198.51.100.1"]);
}

#[test]
fn processes_keep_their_identity_when_their_object_is_gone() {
    let mut scene = Scene::new();
    scene.make(A, 7);
    scene.pod(pod_object("db-0", A, "198.51.100.1"));
    scene.told();
    scene.world.pod_gone(&WorkloadKey { namespace: "shop".into(), name: "db-0".into() });
    assert_eq!(scene.told(), ["shop/db-0 7 "], "its address may be anybody's");
    // Its successor of the same name has the name.
    scene.pod(pod_object("db-0", B, "198.51.100.1"));
    scene.make(B, 8);
    assert_eq!(scene.told(), ["shop/db-0 8 198.51.100.1", "shop/db-0.aaaaaaaa 7 "]);
    scene.remove(A);
    assert_eq!(scene.told(), ["shop/db-0 8 198.51.100.1"]);
}

#[test]
fn a_directory_that_is_missed_before_its_end_is_told_takes_its_pod_along() {
    let mut scene = Scene::new();
    scene.make(A, 7);
    scene.pod(pod_object("db-0", A, "198.51.100.1"));
    scene.told();
    scene.world.pod_gone(&WorkloadKey { namespace: "shop".into(), name: "db-0".into() });
    assert_eq!(scene.told(), ["shop/db-0 7 "]);
    // Something else is told in between.
    scene.directories.pods.remove(A);
    assert_eq!(scene.told(), [""; 0]);
    scene.world.directories_moved();
    assert_eq!(scene.told(), [""; 0]);
}

#[test]
fn a_pod_made_anew_without_the_old_one_being_missed_leaves_its_processes_who_they_are() {
    let mut scene = Scene::new();
    scene.make(A, 7);
    scene.pod(pod_object("db-0", A, "198.51.100.1"));
    scene.told();
    scene.pod(pod_object("db-0", B, "198.51.100.2"));
    assert_eq!(scene.told(), ["shop/db-0 - 198.51.100.2", "shop/db-0.aaaaaaaa 7 "]);
}

#[test]
fn a_pod_whose_directory_went_has_no_processes_and_no_address() {
    let mut scene = Scene::new();
    scene.make(A, 7);
    scene.pod(pod_object("web", A, "198.51.100.1"));
    // Older, so it does not have the address as long as the other lives.
    scene.pod(with(
        pod_object("other", B, "198.51.100.1"),
        &[("/spec/nodeName", json!("n2")), ("/metadata/creationTimestamp", json!("2026-11-22T09:00:00Z"))],
    ));
    assert_eq!(scene.told(), ["shop/other - ", "shop/web 7 198.51.100.1"].map(str::to_owned)[1..].to_vec());
    scene.remove(A);
    assert_eq!(scene.told(), ["shop/other - 198.51.100.1"]);
    // It was made again, under another id.
    scene.make(A, 11);
    assert_eq!(scene.told(), ["shop/web 11 198.51.100.1"]);
}

#[test]
fn those_who_have_the_same_labels_share_them() {
    let mut scene = Scene::new();
    let labels = [("/metadata/labels", json!({ "app": "web" }))];
    scene.pod(with(pod_object("a", A, "198.51.100.1"), &labels));
    scene.pod(with(pod_object("b", B, "198.51.100.2"), &labels));
    let changes = scene.changes();
    let [a, b] = changes.workloads.as_slice() else { panic!("two") };
    assert!(std::sync::Arc::ptr_eq(&a.workload.labels, &b.workload.labels));
}

/// Ids of containers.
fn id(number: u8) -> String {
    format!("{number:064x}")
}

/// The statuses of containers of one kind: name and id.
fn statuses(all: &[(&str, u8)]) -> Value {
    let status = |(name, number): &(&str, u8)| json!({ "name": name, "containerID": format!("containerd://{}", id(*number)) });
    all.iter().map(status).collect()
}

#[test]
fn containers_of_every_kind_are_told_while_they_have_directories() {
    let mut scene = Scene::new();
    scene.make(A, 7);
    let debug = ("/spec/ephemeralContainers", json!([{ "name": "debug", "image": "x" }]));
    let pod = |changes: &[(&str, Value)]| {
        with(with(pod_object("web", A, "198.51.100.1"), std::slice::from_ref(&debug)), changes)
    };
    scene.pod(pod(&[]));
    assert_eq!(scene.told(), ["shop/web 7 198.51.100.1"], "none has an id that could be one");
    let changes = [
        ("/status/containerStatuses", statuses(&[("main", 1), ("other", 2)])),
        ("/status/initContainerStatuses", statuses(&[("before", 3), ("beside", 4)])),
        ("/status/ephemeralContainerStatuses", statuses(&[("debug", 5)])),
    ];
    // The directory may be there before the status, or after it.
    scene.start(A, &id(1), 11);
    scene.pod(pod(&changes));
    assert_eq!(scene.told(), ["shop/web 7 198.51.100.1", "shop/web/main 11 "]);
    for (number, directory) in [(2, 12), (4, 14), (5, 15)] {
        scene.start(A, &id(number), directory);
    }
    let all = [
        "shop/web 7 198.51.100.1",
        "shop/web/beside 14 ",
        "shop/web/debug 15 ",
        "shop/web/main 11 ",
        "shop/web/other 12 ",
    ];
    assert_eq!(scene.told(), all);
    assert_eq!(scene.changes(), Changes::default());
    scene.end(A, &id(5));
    assert_eq!(scene.changes().gone, [WorkloadKey { namespace: "shop".into(), name: "web/debug".into() }]);
    // With the pod's directory go those in it.
    scene.remove(A);
    assert_eq!(scene.told(), [""; 0]);
}

#[test]
fn a_pod_comes_with_the_names_of_all_its_containers_before_they_are_there() {
    let mut scene = Scene::new();
    scene.make(A, 7);
    scene.pod(pod_object("web", A, "198.51.100.1"));
    scene.pod(with(pod_object("far", B, "198.51.100.2"), &[("/spec/nodeName", json!("n2"))]));
    let changes = scene.changes();
    let [far, web] = changes.workloads.as_slice() else { panic!("{changes:?}") };
    let Containers::Told(Some(names)) = &web.workload.containers else { panic!("{web:?}") };
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["before", "beside", "main", "other"]);
    assert_eq!(far.workload.containers, Containers::Unknown, "elsewhere nobody tells them apart");
}

#[test]
fn a_container_that_is_started_again_has_its_name_with_another_id() {
    let mut scene = Scene::new();
    scene.make(A, 7);
    let main = |number| {
        with(
            pod_object("web", A, "198.51.100.1"),
            &[("/status/containerStatuses", statuses(&[("main", number)]))],
        )
    };
    scene.start(A, &id(1), 11);
    scene.pod(main(1));
    assert_eq!(scene.told()[1..], ["shop/web/main 11 "]);
    // The next one begins before its status is known: until then it is nobody's container.
    scene.end(A, &id(1));
    scene.start(A, &id(2), 12);
    assert_eq!(scene.told()[1..], [""; 0]);
    scene.pod(main(2));
    assert_eq!(scene.told()[1..], ["shop/web/main 12 "]);
}

#[test]
fn a_status_that_names_a_container_of_another_pod_says_nothing() {
    let mut scene = Scene::new();
    scene.make(A, 7);
    scene.make(B, 8);
    scene.start(B, &id(1), 11);
    scene.pod(with(
        pod_object("web", A, "198.51.100.1"),
        &[("/status/containerStatuses", statuses(&[("main", 1), ("nobody", 1)]))],
    ));
    assert_eq!(scene.told(), ["shop/web 7 198.51.100.1"]);
}

#[test]
fn containers_stay_with_a_pod_whose_object_is_gone() {
    let mut scene = Scene::new();
    scene.make(A, 7);
    scene.start(A, &id(1), 11);
    scene.pod(with(
        pod_object("db-0", A, "198.51.100.1"),
        &[("/status/containerStatuses", statuses(&[("main", 1)]))],
    ));
    scene.told();
    scene.world.pod_gone(&WorkloadKey { namespace: "shop".into(), name: "db-0".into() });
    assert_eq!(scene.told(), ["shop/db-0 7 ", "shop/db-0/main 11 "]);
    scene.pod(pod_object("db-0", B, "198.51.100.1"));
    scene.make(B, 8);
    assert_eq!(
        scene.told(),
        ["shop/db-0 8 198.51.100.1", "shop/db-0.aaaaaaaa 7 ", "shop/db-0.aaaaaaaa/main 11 "]
    );
    scene.end(A, &id(1));
    assert_eq!(scene.told(), ["shop/db-0 8 198.51.100.1", "shop/db-0.aaaaaaaa 7 "]);
}
