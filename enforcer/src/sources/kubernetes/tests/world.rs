//! What follows from objects and directories.

use std::collections::BTreeMap;

use enforcer_common::id::CgroupId;

use super::*;
use crate::domain::workload::{Changes, WorkloadKey};
use crate::sources::Directory;
use crate::sources::kubernetes::world::World;

const A: &str = "aaaaaaaa-0000-0000-0000-000000000001";
const B: &str = "bbbbbbbb-0000-0000-0000-000000000002";

/// A world seen from `n1`, and the directories of that node by UID.
struct Scene {
    world: World,
    directories: BTreeMap<String, u64>,
}

impl Scene {
    fn new() -> Self {
        Self { world: World::new("n1".into()), directories: BTreeMap::new() }
    }

    fn pod(&mut self, object: Value) {
        self.world.pod(read_pod(object).0, false);
    }

    fn make(&mut self, uid: &str, id: u64) {
        self.directories.insert(uid.to_owned(), id);
        self.world.directories_moved();
    }

    fn remove(&mut self, uid: &str) {
        self.directories.remove(uid);
        self.world.directories_moved();
    }

    fn changes(&mut self) -> Changes {
        let directories = &self.directories;
        self.world.changes(&|uid| {
            let id = directories.get(uid)?;
            Some(Directory {
                path: format!("/kubepods/pod{uid}"),
                id: CgroupId(*id),
                above: vec![CgroupId(9)],
            })
        })
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
    scene.directories.remove(A);
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
