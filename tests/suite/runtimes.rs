//! Containers of real runtimes: found, named, enforced, renamed, killed, gone.

mod compose;
mod daemonset;

use std::fs;

use enforcer::domain::command::EndpointInfo;
use enforcer_tests::agent::{Agent, Output};
use enforcer_tests::patience;
use enforcer_tests::runtimes::{IMAGE, Podman, Runtimes, image, missing};
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;

use crate::registry::{self, Test};

pub(crate) const TESTS: &[Test] = &[
    ("docker", docker),
    ("podman", podman),
    ("containerd_and_pods", containerd_and_pods),
    ("our_image_as_the_manifest_says", daemonset::runs_as_the_manifest_says),
    ("units_of_systemd", units_of_systemd),
    ("sockets_that_lie", sockets_that_lie),
];

const DB: &str = "127.0.0.1:5432";
const MAIN_CALLS_NOBODY: &str = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: main, namespace: \
                                 shop}\nspec:\n  subject: {matchLabels: {app: api}, container: main}\n  egress: []\n";
const UID: &str = "3b8c2d1e-0f4a-4c6b-9d7e-5a1b2c3d4e5f";
const ID: &str = "d0f1e2a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f";

/// A server that only `app=api` of one namespace may call, and an agent with these settings.
fn start(world: &World, namespace: &str, settings: &[(&str, &str)]) -> (Agent, Workload) {
    let db = world.workload("db");
    let mut agent = Agent::new(world);
    agent.workloads([&db]);
    let guarded = world.relative(&world.guarded());
    let mut all = vec![("attach", guarded.as_str())];
    all.extend(settings);
    agent.configure(&all);
    let policy = format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: db}}\nspec:\n  \
         subject: {{matchLabels: {{app: db}}}}\n  ingress:\n    - from: [{{workloads: {{matchLabels: {{app: api}}}}, \
         namespaces: [{namespace}]}}]\n"
    );
    fs::write(agent.policies().join("db.yaml"), policy).expect("the policy");
    agent.run();
    db.serve(true, DB);
    (agent, db)
}

fn need() {
    let missing = missing();
    if !missing.is_empty() {
        registry::skip(format!("{} are missing; `cargo xtask setup` installs them", missing.join(", ")));
    }
}

/// The workload of this name.
fn endpoint(agent: &Agent, name: &str) -> Option<EndpointInfo> {
    let text = agent.cli(&["endpoint", "list", "-o", "json"]).expect_ok();
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let list = value.get("endpoints").cloned().unwrap_or(value);
    let all: Vec<EndpointInfo> = serde_json::from_value(list).expect("workloads");
    all.into_iter().find(|one| format!("{}/{}", one.namespace, one.name) == name)
}

fn until_bound(agent: &Agent, name: &str) -> EndpointInfo {
    patience::until(&format!("{name} is bound"), patience::seconds(15), || {
        endpoint(agent, name).filter(|found| serde_json::to_value(found.state).expect("a word") == "bound")
    })
}

fn until_gone(agent: &Agent, name: &str) {
    patience::until_true(&format!("{name} is gone"), patience::seconds(15), || {
        endpoint(agent, name).is_none()
    });
}

fn until_stands(agent: &Agent, source: &str, word: &str) {
    patience::until_true(&format!("{source} is {word}"), patience::seconds(20), || {
        agent.status().runtimes.get(source).is_some_and(|standing| standing.starts_with(word))
    });
}

#[track_caller]
fn allowed(output: &Output) {
    assert_eq!(output.code, 0, "{output:#?}");
}

#[track_caller]
fn denied(output: &Output) {
    assert!(output.code != 0 && output.stderr.contains("Operation not permitted"), "{output:#?}");
}

fn docker() {
    need();
    let world = World::new("docker");
    let socket = world.folder().join("docker.sock");
    let sockets = format!("[{}]", socket.display());
    let (agent, db) = start(&world, "docker", &[("docker-sockets", &sockets)]);
    until_stands(&agent, "docker", "absent");
    let mut runtimes = Runtimes::start(&world);
    runtimes.start_docker();
    runtimes.docker(&["load", "--input", &image(&world).display().to_string()]).expect_ok();
    let parent = world.relative(&world.guarded().join("docker"));
    let run = |name: &str, labels: &[&str]| {
        let mut arguments =
            vec!["run", "--detach", "--network", "host", "--cgroup-parent", &parent, "--name", name];
        arguments.extend(labels.iter().flat_map(|label| ["--label", label]));
        arguments.push(IMAGE);
        runtimes.docker(&arguments).expect_ok().trim().to_owned()
    };
    let id = run("api", &["app=api", "com.docker.compose.service=api", "com.docker.compose.config-hash=1"]);
    run("web", &["app=web", "io.kubernetes.pod.namespace=shop", "description=with blanks"]);
    until_stands(&agent, "docker", "connected");
    let found = until_bound(&agent, "docker/api");
    assert_eq!(found.labels, ["app=api", "com.docker.compose.service=api"]);
    assert_eq!(found.cgroup, Some(format!("{parent}/{id}")));
    assert_eq!(until_bound(&agent, "docker/web").labels, ["app=web"]);
    let call = |name: &str| {
        runtimes.docker(&["exec", name, "/busybox", "nc", "127.0.0.1", "5432", "-e", "/busybox", "true"])
    };
    allowed(&call("api"));
    denied(&call("web"));

    runtimes.docker(&["rename", "web", "shop"]).expect_ok();
    until_bound(&agent, "docker/shop");
    until_gone(&agent, "docker/web");
    denied(&call("shop"));
    runtimes.docker(&["kill", "api"]).expect_ok();
    until_gone(&agent, "docker/api");
    runtimes.docker(&["start", "api"]).expect_ok();
    let again = until_bound(&agent, "docker/api");
    assert_ne!(again.cgroup_id, found.cgroup_id, "the same path, another directory");
    allowed(&call("api"));
    runtimes.docker(&["rm", "--force", "api", "shop"]).expect_ok();
    until_gone(&agent, "docker/shop");
    // Its port is the page's.
    drop(db);
    compose::as_the_page_says(&world, &agent, &runtimes, &parent);
    assert!(agent.status().problems.is_empty(), "{:?}", agent.status().problems);
}

fn podman() {
    need();
    let world = World::new("podman");
    let sockets = format!("[{}]", Podman::socket(&world).display());
    let (agent, _db) = start(&world, "podman", &[("docker-sockets", &sockets)]);
    let podman = Podman::start(&world);
    until_stands(&agent, "podman", "connected");
    podman.run(&["load", "--input", &image(&world).display().to_string()]).expect_ok();
    let parent = world.relative(&world.guarded().join("podman"));
    let run = |name: &str, label: &str| {
        // Without limits, because the tree has no controllers.
        let limits = ["--pids-limit=-1", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
        let place =
            ["--detach", "--network=host", "--cgroup-parent", &parent, "--name", name, "--label", label];
        podman.run(&[&["run"], &place[..], &limits, &[IMAGE]].concat()).expect_ok().trim().to_owned()
    };
    let id = run("api", "app=api");
    run("web", "app=web");
    let found = until_bound(&agent, "podman/api");
    assert_eq!(found.labels, ["app=api"]);
    assert_eq!(found.cgroup, Some(format!("{parent}/libpod-{id}")));
    until_bound(&agent, "podman/web");
    let call = |name: &str| {
        podman.run(&["exec", name, "/busybox", "nc", "127.0.0.1", "5432", "-e", "/busybox", "true"])
    };
    allowed(&call("api"));
    denied(&call("web"));

    podman.run(&["rename", "web", "shop"]).expect_ok();
    until_bound(&agent, "podman/shop");
    denied(&call("shop"));
    podman.run(&["kill", "api"]).expect_ok();
    until_gone(&agent, "podman/api");
    podman.run(&["start", "api"]).expect_ok();
    let again = until_bound(&agent, "podman/api");
    assert_ne!(again.cgroup_id, found.cgroup_id, "the same path, another directory");
    allowed(&call("api"));
    podman.run(&["rm", "--force", "--time", "0", "api", "shop"]).expect_ok();
    until_gone(&agent, "podman/shop");
    assert!(agent.status().problems.is_empty(), "{:?}", agent.status().problems);
}

/// Containers are made by containerd's own client, below what is guarded.
struct Ctr<'a> {
    runtimes: &'a Runtimes<'a>,
    image: String,
    guarded: String,
}

impl Ctr<'_> {
    fn run(&self, namespace: &str, id: &str, directory: &str, labels: &[&str]) {
        self.runtimes
            .ctr(namespace, &["images", "import", "--snapshotter", "native", &self.image])
            .expect_ok();
        let directory = format!("{}/{directory}", self.guarded);
        let mut arguments = vec!["run", "--detach", "--snapshotter", "native", "--net-host"];
        arguments.extend(["--cpu-shares", "0", "--cgroup", &directory]);
        arguments.extend(labels.iter().flat_map(|label| ["--label", label]));
        arguments.extend([IMAGE, id, "/busybox", "sleep", "1000"]);
        self.runtimes.ctr(namespace, &arguments).expect_ok();
    }

    /// A call of the server from within a container.
    fn call(&self, namespace: &str, id: &str) -> Output {
        let mut arguments = vec!["task", "exec", "--exec-id", "call", id];
        arguments.extend(["/busybox", "nc", "127.0.0.1", "5432", "-e", "/busybox", "true"]);
        self.runtimes.ctr(namespace, &arguments)
    }
}

/// A policy names a container of a pod: what is none of its containers, the sandbox too, has what all of them have.
fn containers_of_a_pod(agent: &Agent, ctr: &Ctr<'_>, pod: &str, labels: &[&str]) {
    fs::write(agent.policies().join("main.yaml"), MAIN_CALLS_NOBODY).expect("the policy");
    patience::until_true("the pod is divided", patience::seconds(10), || ctr.call("k8s.io", ID).code != 0);
    let inner = |id: &str, name: &str| {
        let name = format!("io.kubernetes.container.name={name}");
        let labels = [&["io.cri-containerd.kind=container"], &labels[1..], &[name.as_str()]].concat();
        ctr.run("k8s.io", id, &format!("{pod}/{id}"), &labels);
    };
    let (main, proxy) = (ID.replace('d', "1"), ID.replace('d', "2"));
    inner(&main, "main");
    inner(&proxy, "proxy");
    let found = until_bound(agent, "shop/api-0/proxy");
    assert_eq!(found.labels, ["app=api"], "what its pod has");
    until_bound(agent, "shop/api-0/main");
    allowed(&ctr.call("k8s.io", &proxy));
    denied(&ctr.call("k8s.io", &main));
    denied(&ctr.call("k8s.io", ID));
    fs::remove_file(agent.policies().join("main.yaml")).expect("it is there");
    until_gone(agent, "shop/api-0/main");
    allowed(&ctr.call("k8s.io", &main));
}

fn containerd_and_pods() {
    need();
    let world = World::new("containerd");
    let mut runtimes = Runtimes::start(&world);
    let socket = runtimes.containerd_socket().display().to_string();
    let (agent, _db) = start(&world, "shop", &[("containerd-socket", &socket)]);
    until_stands(&agent, "containerd", "connected");
    let guarded = world.relative(&world.guarded());
    let ctr =
        Ctr { runtimes: &runtimes, image: image(&world).display().to_string(), guarded: guarded.clone() };
    // As the kubelet does it: the pod's directory first, the sandbox in it.
    let pod = format!("kubepods/burstable/pod{UID}");
    world.directory(&pod);
    let uid = format!("io.kubernetes.pod.uid={UID}");
    let labels = [
        "io.cri-containerd.kind=sandbox",
        "io.kubernetes.pod.namespace=shop",
        "io.kubernetes.pod.name=api-0",
        &uid,
        "app=api",
    ];
    ctr.run("k8s.io", ID, &format!("{pod}/{ID}"), &labels);
    // Its labels are the same, and nothing but labels.
    ctr.run("default", "liar", "liar", &labels);
    let found = until_bound(&agent, "shop/api-0");
    assert_eq!((found.cgroup, found.labels), (Some(format!("{guarded}/{pod}")), vec!["app=api".to_owned()]));
    let liar = until_bound(&agent, "default/liar");
    assert_eq!((liar.cgroup, liar.labels), (Some(format!("{guarded}/liar")), vec!["app=api".to_owned()]));
    allowed(&ctr.call("k8s.io", ID));
    denied(&ctr.call("default", "liar"));

    runtimes.ctr("default", &["container", "label", "liar", "app=other"]).expect_ok();
    patience::until_true("the new label", patience::seconds(10), || {
        endpoint(&agent, "default/liar").is_some_and(|found| found.labels == ["app=other"])
    });
    // Its directory goes with the task, not with its last process.
    runtimes.ctr("default", &["task", "delete", "--force", "liar"]);
    until_gone(&agent, "default/liar");
    let problems = agent.status().problems;
    assert!(problems.is_empty(), "{problems:?}");

    containers_of_a_pod(&agent, &ctr, &pod, &labels);

    // Whoever runs stays known while containerd is away.
    runtimes.kill_containerd();
    until_stands(&agent, "containerd", "absent");
    until_bound(&agent, "shop/api-0");
}

/// The directory is the unit: no systemd needs to have made it.
fn units_of_systemd() {
    let world = World::new("systemd");
    let tree = world.guarded().join("system.slice");
    let (agent, db) = start(&world, "systemd", &[("systemd", "[\"enforcer-test-*.service\"]")]);
    drop(db);
    until_stands(&agent, "systemd", "0 units");
    // Below a directory that is no slice, a unit is none; only at the root could it be one, and that belongs to the host.
    fs::create_dir_all(tree.join("enforcer-test-a.service")).expect("a directory");
    let name = format!("enforcer-test-{}-unit.service", std::process::id());
    let unit = world.cgroup_root().join("system.slice").join(&name);
    let had_slice = unit.parent().expect("a slice").exists();
    fs::create_dir_all(&unit).expect("a unit");
    let found =
        patience::until("the unit", patience::seconds(10), || endpoint(&agent, &format!("systemd/{name}")));
    fs::remove_dir(&unit).expect("an empty directory");
    if !had_slice {
        fs::remove_dir(unit.parent().expect("a slice")).expect("an empty directory");
    }
    assert_eq!(found.cgroup, Some(format!("/system.slice/{name}")));
    assert_eq!(found.labels, ["systemd.io/slice=system.slice".to_owned(), format!("systemd.io/unit={name}")]);
    until_gone(&agent, &format!("systemd/{name}"));
    assert_eq!(endpoint(&agent, "systemd/enforcer-test-a.service").map(|found| found.name), None);
}

/// A runtime that answers something else is a problem with its sentence, and changes nothing else.
fn sockets_that_lie() {
    let world = World::new("lies");
    let path = world.folder().join("docker.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                use std::io::Write as _;
                let mut stream = stream;
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                let mut chunk = format!("{:x}\r\n[", 1 << 20).into_bytes();
                chunk.resize(chunk.len() + (1 << 20) - 1, b' ');
                chunk.extend(b"\r\n");
                let mut sent = stream.write_all(head.as_bytes());
                while sent.is_ok() {
                    sent = stream.write_all(&chunk);
                }
            });
        }
    });
    let sockets = format!("[{}]", path.display());
    let (agent, db) = start(&world, "docker", &[("docker-sockets", &sockets)]);
    until_stands(&agent, "docker", "failing");
    let problems = agent.status().problems;
    assert!(problems.iter().any(|problem| problem.contains("docker.sock can't be used")), "{problems:?}");
    assert!(memory(&agent) < 256 << 20, "{} bytes", memory(&agent));
    assert_eq!(world.host().connect(DB).errno, 1, "the policy holds");
    drop(db);
}

/// The highest resident memory so far, in bytes.
fn memory(agent: &Agent) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("its status");
    let line = text.lines().find(|line| line.starts_with("VmHWM")).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") << 10
}
