//! A node of a cluster: pods as directories laid out like a kubelet's, objects in an API server, and the daemon between.

mod containers;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use enforcer::domain::command::EndpointInfo;
use enforcer::domain::labels::LabelSet;
use enforcer_common::abi::identity::Binding;
use enforcer_tests::agent::Agent;
use enforcer_tests::apiserver::{ApiServer, Network};
use enforcer_tests::bpf::PinnedMap;
use enforcer_tests::patience;
use enforcer_tests::puppet::Puppet;
use enforcer_tests::workload::{Workload, cgroup_id};
use enforcer_tests::world::World;
use serde_json::{Value, json};

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("pods_are_who_the_api_server_says", pods_are_who_the_api_server_says),
    ("services_are_judged_by_who_answers", services_are_judged_by_who_answers),
    ("an_api_server_that_is_away", an_api_server_that_is_away),
    ("a_server_that_says_nothing", a_server_that_says_nothing),
    ("objects_that_are_wrong", objects_that_are_wrong),
    ("a_directory_is_bound_at_once", a_directory_is_bound_at_once),
    ("containers_of_pods", containers::containers_of_pods),
];

const EPERM: i32 = 1;
const DB: &str = "127.0.0.1:5432";

/// A cluster with one node, `n1`, which is here.
struct Cluster {
    // In this order they go.
    agent: Agent,
    api: ApiServer,
    world: World,
    /// Tests run side by side in one cgroup tree, and a UID is anywhere in it.
    number: u32,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// How a kubelet names directories.
#[derive(Clone, Copy)]
enum Driver {
    Cgroupfs,
    Systemd,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let world = World::new(name);
        let api = world.inside(ApiServer::start);
        api.install_definitions();
        for namespace in ["shop", "bank"] {
            api.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } }));
        }
        api.put(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" },
            "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }] },
        }));
        let kubeconfig = world.folder().join("kubeconfig");
        fs::write(&kubeconfig, api.kubeconfig("")).unwrap();
        let agent = Agent::new(&world);
        agent.configure(&[
            ("attach", &world.relative(&world.guarded())),
            ("managed", &format!("[{}]", world.relative(&world.directory("kubepods")))),
            ("kubernetes", "\"on\""),
            ("kubeconfig", &kubeconfig.display().to_string()),
            ("node-name", "n1"),
        ]);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        Self { agent, api, world, number }
    }

    fn uid(&self, number: u8) -> String {
        format!("{number:08x}-{:04x}-4e57-9c7e-{:012x}", self.number, std::process::id())
    }

    /// A pod as the API server has it once the kubelet has taken it.
    fn pod(&self, namespace: &str, name: &str, uid: &str, address: &str) -> Value {
        self.api.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": namespace, "name": name, "uid": uid, "labels": { "app": name } },
            "spec": {
                "nodeName": "n1", "serviceAccountName": "default",
                "containers": [{ "name": "main", "image": "x", "ports": [{ "name": "sql", "containerPort": 5432 }] }],
            },
            "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }], "hostIP": "192.0.2.1" },
        }))
    }

    /// Its directory, and that of its container.
    fn directory(&self, driver: Driver, uid: &str) -> (PathBuf, PathBuf) {
        let container = "0123456789abcdef".repeat(4);
        let (pod, container) = match driver {
            Driver::Cgroupfs => (format!("kubepods/burstable/pod{uid}"), container),
            Driver::Systemd => {
                let uid = uid.replace('-', "_");
                let pod = format!(
                    "kubepods/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid}.slice"
                );
                (pod, format!("cri-containerd-{container}.scope"))
            }
        };
        let pod = self.world.directory(&pod);
        let container = pod.join(container);
        fs::create_dir_all(&container).unwrap();
        (pod, container)
    }

    /// A process in the container of a pod.
    fn process(&self, namespace: &str, name: &str, driver: Driver, uid: &str) -> Workload {
        let (pod, container) = self.directory(driver, uid);
        let puppet = Puppet::start(name, &container, self.world.namespace());
        Workload {
            namespace: namespace.into(),
            name: name.into(),
            labels: LabelSet::default(),
            cgroup: pod,
            puppet,
        }
    }

    fn endpoints(&self) -> Vec<EndpointInfo> {
        let output = self.agent.cli(&["endpoint", "list", "-o", "json"]).expect_ok();
        let value: Value = serde_json::from_str(&output).expect("JSON");
        let list = value.as_object().and_then(|it| it.values().find(|it| it.is_array())).unwrap_or(&value);
        serde_json::from_value(list.clone()).expect("endpoints")
    }

    /// Waits until the endpoints are as they should be.
    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn(&[EndpointInfo]) -> bool) {
        patience::until_true(what, patience::seconds(20), || is_so(&self.endpoints()));
    }

    fn network_policy(&self, name: &str, spec: &Value) {
        self.api.put(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "namespace": "shop", "name": name }, "spec": spec,
        }));
    }
}

fn named<'a>(endpoints: &'a [EndpointInfo], name: &str) -> Option<&'a EndpointInfo> {
    endpoints.iter().find(|it| it.name == name)
}

fn until_errno(who: &Workload, to: &str, errno: i32) {
    patience::until_true("a verdict", patience::seconds(10), || who.connect(to).errno == errno);
}

/// `db` takes calls from pods with `app=api` of namespaces with `team=a`, and from nobody else.
fn from_api() -> Value {
    json!({
        "podSelector": { "matchLabels": { "app": "db" } },
        "ingress": [{ "from": [{
            "namespaceSelector": { "matchLabels": { "team": "a" } }, "podSelector": { "matchLabels": { "app": "api" } },
        }] }],
    })
}

fn pods_are_who_the_api_server_says() {
    let mut cluster = Cluster::new("pods");
    cluster.network_policy("db", &from_api());
    cluster.pod("shop", "db", &cluster.uid(1), "198.51.100.1");
    let db = cluster.process("shop", "db", Driver::Cgroupfs, &cluster.uid(1));
    cluster.agent.run();
    db.serve(true, DB);

    // Known before its first process is there.
    cluster.pod("bank", "api", &cluster.uid(2), "198.51.100.2");
    let (directory, _) = cluster.directory(Driver::Systemd, &cluster.uid(2));
    cluster.until("the directory is bound", |it| named(it, "api").is_some_and(|it| it.cgroup_id.is_some()));
    let api = cluster.process("bank", "api", Driver::Systemd, &cluster.uid(2));
    assert_eq!(api.cgroup, directory);
    assert_eq!(api.connect(DB).errno, EPERM, "its namespace has not the label");
    let listed = cluster.agent.cli(&["policy", "list", "-o", "json"]).expect_ok();
    assert!(listed.contains("\"kubernetes\""), "the origin is told: {listed}");
    let text = cluster.agent.cli(&["policy", "get", "networkpolicy/shop/db"]).expect_ok();
    assert!(text.contains("namespaceSelector"), "{text}");

    // Labels of the namespace, then of the pod.
    cluster.api.patch("namespaces", "", "bank", &json!({ "metadata": { "labels": { "team": "a" } } }));
    until_errno(&api, DB, 0);
    cluster.api.patch("pods", "bank", "api", &json!({ "metadata": { "labels": { "app": "other" } } }));
    until_errno(&api, DB, EPERM);
    cluster.api.patch("pods", "bank", "api", &json!({ "metadata": { "labels": { "app": "api" } } }));
    until_errno(&api, DB, 0);

    // A process of nobody in the managed tree.
    let stranger = cluster.process("shop", "x", Driver::Cgroupfs, &cluster.uid(9));
    assert_eq!(stranger.connect(DB).errno, EPERM);

    // Its object goes before its processes: they stay who they are, and the address is another's.
    cluster.api.remove("pods", "bank", "api");
    cluster.pod("shop", "late", &cluster.uid(3), "198.51.100.2");
    cluster.until("the address is the new pod's", |it| {
        named(it, "late").is_some_and(|it| it.addresses == ["198.51.100.2/32"])
            && named(it, "api").is_some_and(|it| it.addresses.is_empty())
    });
    assert_eq!(api.connect(DB).errno, 0, "the processes are still those of the pod");
    drop(api);
    for below in fs::read_dir(&directory).unwrap().flatten().filter(|it| it.path().is_dir()) {
        patience::until_true("the container's directory goes", patience::seconds(5), || {
            fs::remove_dir(below.path()).is_ok()
        });
    }
    fs::remove_dir(&directory).unwrap();
    cluster.until("it goes with its directory", |it| named(it, "api").is_none());

    // Policies go as they came.
    cluster.api.remove("networkpolicies.networking.k8s.io", "shop", "db");
    let late = cluster.process("shop", "late", Driver::Cgroupfs, &cluster.uid(3));
    until_errno(&late, DB, 0);
    let status = cluster.agent.status();
    let source = &status.sources[0];
    assert_eq!((source.state.as_str(), status.problems.len()), ("synced", 0), "{status:#?}");
    let pods = source.kinds.iter().find(|kind| kind.kind == "Pod").unwrap();
    assert_eq!(pods.objects, 2, "{source:#?}");
}

fn services_are_judged_by_who_answers() {
    const SERVICE: &str = "203.0.113.10:80";
    let mut cluster = Cluster::new("services");
    cluster.api.put(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "shop", "name": "db" },
        "spec": { "clusterIP": "203.0.113.10", "clusterIPs": ["203.0.113.10"], "ports": [{ "name": "sql", "port": 80, "targetPort": "sql" }] },
    }));
    let slice = |endpoints: &[&str]| {
        let endpoints: Vec<Value> = endpoints.iter().map(|it| json!({ "addresses": [it] })).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "namespace": "shop", "name": "db-1", "labels": { "kubernetes.io/service-name": "db" } },
            "endpoints": endpoints, "ports": [{ "name": "sql", "port": 5432, "protocol": "TCP" }],
        })
    };
    cluster.pod("shop", "web", &cluster.uid(1), "198.51.100.1");
    for (number, name) in [(2, "db"), (3, "other")] {
        cluster.pod("shop", name, &cluster.uid(number), &format!("198.51.100.{number}"));
    }
    cluster.network_policy(
        "web",
        &json!({
            "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Egress"],
            "egress": [{ "to": [{ "podSelector": { "matchLabels": { "app": "db" } } }], "ports": [{ "port": 5432 }] }],
        }),
    );
    cluster.api.put(slice(&["198.51.100.2"]));
    let web = cluster.process("shop", "web", Driver::Cgroupfs, &cluster.uid(1));
    cluster.agent.run();
    // Nobody translates the address here: what is allowed finds no way, and says so in other words.
    let is_denied = || web.connect(SERVICE).errno == EPERM;
    assert!(!is_denied(), "all who answer may be called: {:#?}", {
        let explained = cluster.agent.cli(&[
            "policy",
            "explain",
            "--from",
            "shop/web",
            "--to",
            "service/shop/db",
            "--port",
            "80",
        ]);
        (explained, cluster.agent.cli(&["status"]), cluster.endpoints())
    });
    let until = |what: &str, denied: bool| {
        patience::until_true(what, patience::seconds(10), || is_denied() == denied);
    };
    cluster.api.put(slice(&["198.51.100.2", "198.51.100.3"]));
    until("some of those who answer may not be called", true);
    cluster.api.put(slice(&["198.51.100.2"]));
    until("they answer no more", false);
    cluster.api.put(slice(&[]));
    until("nobody answers", true);
    cluster.api.put(slice(&["198.51.100.2"]));
    until("somebody answers again", false);
    cluster.api.remove("services", "shop", "db");
    until("the address is nobody's", true);
}

fn an_api_server_that_is_away() {
    let mut cluster = Cluster::new("away");
    cluster.network_policy("db", &from_api());
    cluster.api.patch("namespaces", "", "shop", &json!({ "metadata": { "labels": { "team": "a" } } }));
    for (number, name) in [(1, "db"), (2, "api"), (3, "web")] {
        cluster.pod("shop", name, &cluster.uid(number), &format!("198.51.100.{number}"));
    }
    let db = cluster.process("shop", "db", Driver::Cgroupfs, &cluster.uid(1));
    let api = cluster.process("shop", "api", Driver::Cgroupfs, &cluster.uid(2));
    let web = cluster.process("shop", "web", Driver::Systemd, &cluster.uid(3));
    cluster.agent.run();
    db.serve(true, DB);
    let is_enforced = |when: &str| {
        assert_eq!((api.connect(DB).errno, web.connect(DB).errno), (0, EPERM), "{when}");
    };
    is_enforced("while it answers");

    let take_away = |cluster: &Cluster, network| cluster.world.inside(|| cluster.api.network(network));
    take_away(&cluster, Network::Refused);
    patience::until_true("the outage is told", patience::seconds(20), || {
        let status = cluster.agent.status();
        status.sources[0].state == "away"
            && status.problems.iter().any(|it| it.contains("is away") && it.contains("(since "))
    });
    is_enforced("while it is away");
    assert!(cluster.agent.is_ready(), "what was told last is in force");

    // A restart in the middle of it, and of the kernel's memory of it nothing is left.
    assert_eq!(cluster.agent.terminate(), 0);
    let uninstalled = cluster.agent.cli(&["uninstall"]);
    assert_eq!(uninstalled.code, 0, "{uninstalled:#?}");
    cluster.agent.run();
    is_enforced("after a restart during the outage");
    let status = cluster.agent.status();
    assert_eq!(status.sources[0].state, "restored", "{status:#?}");
    assert!(!status.sources[0].known.is_empty());

    // What changed meanwhile is there as soon as it answers.
    cluster.api.patch("pods", "shop", "web", &json!({ "metadata": { "labels": { "app": "api" } } }));
    cluster.api.patch("pods", "shop", "api", &json!({ "metadata": { "labels": { "app": "web" } } }));
    cluster.api.compact();
    take_away(&cluster, Network::Up);
    patience::until_true("it converges", patience::seconds(30), || {
        (api.connect(DB).errno, web.connect(DB).errno) == (EPERM, 0)
    });
    patience::until_true("the outage is over", patience::seconds(20), || {
        let status = cluster.agent.status();
        status.sources[0].state == "synced" && status.problems.is_empty()
    });
}

fn a_server_that_says_nothing() {
    let mut cluster = Cluster::new("silent");
    cluster.network_policy("db", &json!({ "podSelector": { "matchLabels": { "app": "db" } } }));
    for (number, name) in [(1, "db"), (2, "web")] {
        cluster.pod("shop", name, &cluster.uid(number), &format!("198.51.100.{number}"));
    }
    let db = cluster.process("shop", "db", Driver::Cgroupfs, &cluster.uid(1));
    let web = cluster.process("shop", "web", Driver::Cgroupfs, &cluster.uid(2));
    cluster.agent.run();
    db.serve(true, DB);
    assert_eq!(web.connect(DB).errno, EPERM);
    // It takes calls, and its watches stay open.
    cluster.world.inside(|| cluster.api.network(Network::Hanging));
    patience::until_true("silence is told", patience::seconds(40), || {
        cluster.agent.status().problems.iter().any(|it| it.contains("no answer within"))
    });
    assert_eq!(web.connect(DB).errno, EPERM);
    cluster.api.remove("networkpolicies.networking.k8s.io", "shop", "db");
    cluster.world.inside(|| cluster.api.network(Network::Up));
    until_errno(&web, DB, 0);
}

fn objects_that_are_wrong() {
    let mut cluster = Cluster::new("wrong");
    for (number, name) in [(1, "db"), (2, "web")] {
        cluster.pod("shop", name, &cluster.uid(number), &format!("198.51.100.{number}"));
    }
    let traffic_policy = |ingress: Value| {
        cluster.api.put(json!({
            "apiVersion": "enforcer.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": { "namespace": "shop", "name": "db" },
            "spec": { "subject": { "matchLabels": { "app": "db" } }, "ingress": ingress },
        }));
    };
    traffic_policy(json!([]));
    let db = cluster.process("shop", "db", Driver::Cgroupfs, &cluster.uid(1));
    let web = cluster.process("shop", "web", Driver::Cgroupfs, &cluster.uid(2));
    cluster.agent.run();
    db.serve(true, DB);
    assert_eq!(web.connect(DB).errno, EPERM);

    // What a server takes whose rules are others: the last good version stays, and the others are not touched.
    traffic_policy(json!([{ "from": [{ "workloads": {}, "cidr": "192.0.2.0/24" }] }]));
    let problems = |needle: &'static str| {
        patience::until_true(needle, patience::seconds(10), || {
            cluster.agent.status().problems.iter().any(|it| it.contains(needle))
        });
    };
    problems("policy shop/db of the cluster is refused and its last good version");
    assert_eq!(web.connect(DB).errno, EPERM);
    let another = json!({ "podSelector": { "matchLabels": { "app": "web" } }, "ingress": [{}] });
    cluster.network_policy("web", &another);
    patience::until_true("the other is in force", patience::seconds(10), || {
        cluster.agent.cli(&["policy", "get", "networkpolicy/shop/web"]).code == 0
    });

    // Two pods with one address, and one with its node's.
    cluster.pod("shop", "twin", &cluster.uid(4), "198.51.100.2");
    problems("198.51.100.2 is the address of pod shop/");
    cluster.pod("shop", "proxy", &cluster.uid(5), "192.0.2.1");
    cluster.until("a node's address is nobody's", |it| {
        named(it, "proxy").is_some_and(|it| it.addresses.is_empty())
    });
    // Somebody writes what is said of a static pod, to be taken for one.
    let hash = "77c1b263d6feb1b70a4d4041548834fd";
    let annotations = json!({ "kubernetes.io/config.hash": hash });
    cluster.api.patch("pods", "shop", "twin", &json!({ "metadata": { "annotations": annotations } }));
    let (stolen, _) = cluster.directory(Driver::Cgroupfs, hash);
    problems("counts on mirrors of static pods only");
    let endpoints = cluster.endpoints();
    assert!(endpoints.iter().all(|it| it.cgroup_id != Some(cgroup_id(&stolen).0)), "{endpoints:#?}");
    assert_eq!(web.connect(DB).errno, EPERM);
}

/// Tells how long it takes from the directory to the binding. The figure is printed and asserted nowhere.
fn a_directory_is_bound_at_once() {
    const PODS: u8 = 100;
    let mut cluster = Cluster::new("at-once");
    for number in 1..=PODS {
        let name = format!("p{}", number % 10);
        let pod =
            cluster.pod("shop", &format!("p{number}"), &cluster.uid(number), &format!("198.51.100.{number}"));
        assert!(pod.is_object());
        cluster.api.patch(
            "pods",
            "shop",
            &format!("p{number}"),
            &json!({ "metadata": { "labels": { "app": name } } }),
        );
    }
    cluster.agent.run();
    cluster.until("all are known", |it| it.len() == usize::from(PODS));
    let bindings = PinnedMap::open(&cluster.world.pins().join("BINDINGS")).unwrap();
    let mut times = Vec::new();
    for number in 1..=PODS {
        let pod = cluster.world.guarded().join(format!("kubepods/pod{}", cluster.uid(number)));
        let begin = Instant::now();
        fs::create_dir(&pod).unwrap();
        let id = cgroup_id(&pod).0;
        while bindings.get::<u64, [u64; BINDING]>(&id).unwrap().is_none() {
            assert!(begin.elapsed() < patience::seconds(10), "{} is not bound", pod.display());
            std::thread::sleep(Duration::from_micros(100));
        }
        times.push(begin.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_micros();
    println!("directory to binding, {PODS} pods: p50 {} us, p99 {} us, max {} us", at(50), at(99), at(100));
    assert_eq!(times.len(), usize::from(PODS));
}

/// Words of a binding.
const BINDING: usize = size_of::<Binding>() / size_of::<u64>();
