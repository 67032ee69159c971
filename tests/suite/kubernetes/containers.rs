//! Containers of a cluster's pods: known by what the kubelet says of them, and before that none of them.

use std::fs;
use std::path::PathBuf;

use enforcer::domain::labels::LabelSet;
use enforcer_tests::puppet::Puppet;
use enforcer_tests::workload::Workload;
use serde_json::{Value, json};

use super::{Cluster, DB, Driver, EPERM, named, until_errno};

/// Where `main` may not go.
const ELSEWHERE: &str = "127.0.0.1:8080";

/// Containers by name, with a number for the id.
type Containers<'a> = &'a [(&'a str, u8)];

impl Cluster {
    /// Tests run side by side in one cgroup tree, and an id is anywhere in it.
    fn container_id(&self, number: u8) -> String {
        format!("{:032x}{:016x}{number:016x}", std::process::id(), self.number)
    }

    /// A pod with containers of each kind: ordinary ones, sidecars, and for debugging.
    fn pod_of(&self, name: &str, uid: &str, [ordinary, sidecars, ephemeral]: [Containers<'_>; 3]) {
        let specs = |all: Containers<'_>, policy: Option<&str>| -> Value {
            let one = |(name, _): &(&str, u8)| json!({ "name": name, "image": "x", "restartPolicy": policy });
            all.iter().map(one).collect()
        };
        let statuses = |all: Containers<'_>| -> Value {
            let one = |(name, number): &(&str, u8)| json!({ "name": name, "containerID": format!("containerd://{}", self.container_id(*number)) });
            // One without a number was not started.
            all.iter().filter(|(_, number)| *number > 0).map(one).collect()
        };
        let address = if name == "web" { "198.51.100.1" } else { "198.51.100.2" };
        self.api.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": "shop", "name": name, "uid": uid, "labels": { "app": name } },
            "spec": {
                "nodeName": "n1", "serviceAccountName": "default", "containers": specs(ordinary, None),
                "initContainers": specs(sidecars, Some("Always")), "ephemeralContainers": specs(ephemeral, None),
            },
            "status": {
                "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "hostIP": "192.0.2.1",
                "containerStatuses": statuses(ordinary), "initContainerStatuses": statuses(sidecars),
                "ephemeralContainerStatuses": statuses(ephemeral),
            },
        }));
    }

    fn container_directory(&self, driver: Driver, pod: &str, number: u8) -> PathBuf {
        let (pod, _) = self.directory(driver, pod);
        let id = self.container_id(number);
        pod.join(match driver {
            Driver::Cgroupfs => id,
            Driver::Systemd => format!("cri-containerd-{id}.scope"),
        })
    }

    /// A process in a container of a pod.
    fn inner(&self, driver: Driver, pod: &str, number: u8) -> Workload {
        let cgroup = self.container_directory(driver, pod, number);
        fs::create_dir_all(&cgroup).unwrap();
        let puppet = Puppet::start(&format!("c{number}"), &cgroup, self.world.namespace());
        Workload { namespace: "shop".into(), name: "c".into(), labels: LabelSet::default(), cgroup, puppet }
    }

    fn only_5432(&self, name: &str) {
        self.api.put(json!({
            "apiVersion": "enforcer.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": { "namespace": "shop", "name": name },
            "spec": {
                "subject": { "matchLabels": { "app": name }, "container": "main" },
                "egress": [{ "ports": [{ "port": 5432 }] }],
            },
        }));
    }
}

/// What becomes of calls to both servers.
fn calls(who: &Workload) -> [i32; 2] {
    [who.connect(DB).errno, who.connect(ELSEWHERE).errno]
}

pub(super) fn containers_of_pods() {
    let mut cluster = Cluster::new("containers");
    cluster.pod("shop", "db", &cluster.uid(9), "198.51.100.9");
    let db = cluster.process("shop", "db", Driver::Cgroupfs, &cluster.uid(9));
    cluster.agent.run();
    db.serve(true, DB);
    db.serve(true, ELSEWHERE);
    for (name, number, driver) in [("web", 1, Driver::Cgroupfs), ("mesh", 11, Driver::Systemd)] {
        let uid = cluster.uid(number);
        let ids: Vec<u8> = (number..number + 5).collect();
        cluster.pod_of(name, &uid, [&[("main", 0)], &[("proxy", 0)], &[]]);
        cluster.directory(driver, &uid);
        cluster.until("the pod is bound", |it| named(it, name).is_some_and(|it| it.cgroup_id.is_some()));
        cluster.only_5432(name);
        // Nobody has said yet which container this is. It has no right that only another one has, and what is denied to one
        // of them is denied to it, from its first packet on.
        let main = cluster.inner(driver, &uid, ids[0]);
        until_errno(&main, ELSEWHERE, EPERM);
        assert_eq!(calls(&main), [EPERM, EPERM], "{name}: a container that nobody knows");
        cluster.pod_of(name, &uid, [&[("main", ids[0])], &[("proxy", ids[1])], &[]]);
        until_errno(&main, DB, 0);
        assert_eq!(calls(&main), [0, EPERM], "{name}: itself");
        let proxy = cluster.inner(driver, &uid, ids[1]);
        until_errno(&proxy, ELSEWHERE, 0);
        assert_eq!(
            (calls(&proxy), calls(&main)),
            ([0, 0], [0, EPERM]),
            "{name}: a sidecar that no policy names"
        );
        let listed = cluster.endpoints();
        let (pod, of_main) =
            (named(&listed, name).unwrap(), named(&listed, &format!("{name}/main")).unwrap());
        assert!(pod.cgroup_id != of_main.cgroup_id && named(&listed, &format!("{name}/proxy")).is_some());

        // It is started again: another directory, and the one before is nobody's any more.
        let again = cluster.inner(driver, &uid, ids[2]);
        assert_eq!(calls(&again), [EPERM, EPERM], "{name}: before its status is known");
        cluster.pod_of(name, &uid, [&[("main", ids[2])], &[("proxy", ids[1])], &[]]);
        until_errno(&again, DB, 0);
        assert_eq!(calls(&again), [0, EPERM], "{name}: the same name, another id");
        // Who is new is bound before what was is let go.
        until_errno(&main, DB, EPERM);
        assert_eq!(calls(&main), [EPERM, EPERM], "{name}: what the directory before is not");

        // One for debugging comes to a pod that runs, and one that a status claims is in another pod.
        let debug = cluster.inner(driver, &uid, ids[3]);
        let elsewhere = cluster.inner(Driver::Cgroupfs, &cluster.uid(9), ids[4]);
        let claimed: Containers<'_> = &[("debug", ids[3]), ("claimed", ids[4])];
        cluster.pod_of(name, &uid, [&[("main", ids[2])], &[("proxy", ids[1])], claimed]);
        until_errno(&debug, ELSEWHERE, 0);
        assert_eq!(calls(&debug), [0, 0], "{name}: an ephemeral container");
        assert!(named(&cluster.endpoints(), &format!("{name}/claimed")).is_none());
        assert_eq!(calls(&elsewhere), [0, 0], "it is the pod's in whose directory it is");

        // Nobody names containers any more: the pod is one again.
        cluster.api.remove("trafficpolicies.enforcer.dev", "shop", name);
        until_errno(&main, ELSEWHERE, 0);
        cluster.until("only pods are told", |it| it.iter().all(|it| !it.name.contains('/')));
        for who in [&main, &again, &proxy, &debug] {
            assert_eq!(calls(who), [0, 0], "{name}");
        }
    }
    assert!(cluster.agent.status().problems.is_empty(), "{:?}", cluster.agent.status().problems);
}
