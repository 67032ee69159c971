//! Containers of pods: each is judged as itself, within its pod and by pods elsewhere.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use enforcer_tests::agent::Agent;
use enforcer_tests::cluster::{Attempt, Places, Seen, TCP};
use enforcer_tests::puppet::{Means, Order};
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;
use enforcer_tests::{patience, sockaddr};

use crate::registry::Test;

pub(crate) const TESTS: &[Test] =
    &[("two_in_one_pod", two_in_one_pod), ("between_pods", between_pods), ("quarantine", quarantine)];

const EPERM: i32 = libc::EPERM;
const WEB: [u8; 4] = [192, 0, 2, 10];
const DB: [u8; 4] = [192, 0, 2, 20];
const API: [u8; 4] = [192, 0, 2, 30];

/// A policy of the project's own kind, named after nothing but its place.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}}}\nspec:\n{spec}\n---\n"
    )
}

/// Pods with containers, each pod in a network namespace of its own. Dropped in this order.
struct Scene {
    places: Places,
    agent: Agent,
    world: World,
}

impl Scene {
    fn new(name: &str) -> Self {
        let world = World::new(name);
        let mut places = Places::new();
        let mut items = String::new();
        // The socket of a server belongs to the container in which it was made.
        for (pod, address, containers) in [
            ("web", WEB, &[("main", None), ("proxy", None)][..]),
            ("db", DB, &[("main", Some(5_432)), ("backup", Some(9_100))]),
            ("api", API, &[]),
        ] {
            places.settle(&world, address.into(), true);
            let cgroup = places.at(address.into()).workload.cgroup.clone();
            let mut names = Vec::new();
            for (container, _) in containers {
                fs::create_dir(cgroup.join(container)).expect("a directory below the pod's");
                names.push(format!("{container}: {container}"));
            }
            writeln!(
                items,
                "- {{name: {pod}, labels: {{app: {pod}}}, cgroup: {}, addresses: [{}], containers: {{{}}}}}",
                world.relative(&cgroup),
                IpAddr::from(address),
                names.join(", ")
            )
            .expect("a string takes what is written");
        }
        let mut agent = Agent::new(&world);
        fs::write(world.folder().join("workloads.yaml"), format!("workloads:\n{items}"))
            .expect("the workloads");
        agent.run();
        let mut scene = Self { places, agent, world };
        for (container, port) in [("main", 5_432), ("backup", 9_100)] {
            scene.enter(DB, container);
            scene.places.serve(DB.into(), TCP, port);
        }
        scene.places.serve(API.into(), TCP, 80);
        scene
    }

    fn apply(&self, policies: &[String]) {
        self.agent.cli_with(&["policy", "apply", "-f", "-"], &policies.concat()).expect_ok();
    }

    fn pod(&self, address: [u8; 4]) -> &Workload {
        &self.places.at(address.into()).workload
    }

    /// Moves the process of a pod into a container of it.
    fn enter(&self, pod: [u8; 4], container: &str) {
        let cgroup: PathBuf = self.pod(pod).cgroup.join(container);
        self.pod(pod).must(&Order::Enter { cgroup });
    }

    /// What becomes of a connection of a container of `web`, which should come about or not.
    fn call(&self, container: &str, to: [u8; 4], port: u16, hoped: bool) -> Seen {
        self.enter(WEB, container);
        let to = SocketAddr::new(to.into(), port);
        let attempt = Attempt { from: WEB.into(), means: Means::Connection, to, bound: false };
        self.places.try_one(attempt, hoped)
    }

    /// Whether it comes about, which `explain` must say too.
    #[track_caller]
    fn assert(&self, container: &str, (to, name, port): ([u8; 4], &str, u16), reaches: bool) -> Seen {
        let seen = self.call(container, to, port, reaches);
        assert_eq!(seen.reached, reaches, "web/{container} to {name}:{port}: {seen:?}");
        let (from, to) = (format!("default/web/{container}"), format!("default/{name}:{port}"));
        let said = self.agent.cli(&["policy", "explain", "--from", &from, "--to", &to, "-o", "json"]);
        let said: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
        let verdict = if reaches { "FORWARDED" } else { "DROPPED" };
        assert!(said.to_string().contains(&format!("\"verdict\":\"{verdict}\"")), "{from} to {to}: {said}");
        seen
    }
}

fn two_in_one_pod() {
    let scene = Scene::new("pod");
    scene.apply(&[policy(
        "proxy-only",
        "  subject: {matchLabels: {app: web}, container: main}
  egress:
    - ports: [{port: 15001}]",
    )]);
    // Both on the loopback address of the pod they share.
    let web = scene.pod(WEB);
    scene.enter(WEB, "proxy");
    let server = web.open(true, &([127, 0, 0, 1], 15_001).into());
    let other = web.open(true, &([127, 0, 0, 1], 8_080).into());
    for (container, port, errno) in [
        ("main", server.port, 0),
        ("main", other.port, EPERM),
        ("proxy", other.port, 0),
        ("proxy", server.port, 0),
    ] {
        scene.enter(WEB, container);
        let fd = web.socket(libc::AF_INET, libc::SOCK_STREAM);
        let to = sockaddr::of(([127, 0, 0, 1], port).into());
        assert_eq!(web.connect_on(fd, to).errno, errno, "{container} to {port}");
        web.close(fd);
    }
    let said = scene.agent.cli(&["endpoint", "list"]).expect_ok();
    for name in ["web/main", "web/proxy", "db/backup"] {
        assert!(said.contains(name), "{said}");
    }
    // A peer within the pod is told by its socket, too.
    scene.apply(&[policy(
        "proxy-only",
        "  subject: {matchLabels: {app: web}}
  ingress:
    - from: [{workloads: {matchLabels: {app: web}, container: main}}]
      ports: [{port: 8080}]",
    )]);
    for (container, errno) in [("main", 0), ("proxy", EPERM)] {
        scene.enter(WEB, container);
        let fd = web.socket(libc::AF_INET, libc::SOCK_STREAM);
        let to = sockaddr::of(([127, 0, 0, 1], other.port).into());
        assert_eq!(web.connect_on(fd, to).errno, errno, "{container}");
        web.close(fd);
    }
}

fn between_pods() {
    let scene = Scene::new("pods");
    let closed = policy("closed", "  subject: {matchLabels: {app: db}}\n  ingress: []");
    let main = policy(
        "main",
        "  subject: {matchLabels: {app: db}, container: main}
  ingress:
    - from: [{workloads: {matchLabels: {app: web}}}]",
    );
    let api = policy(
        "api",
        "  subject: {matchLabels: {app: api}}
  ingress:
    - from: [{workloads: {matchLabels: {app: web}, container: main}}]",
    );
    scene.apply(std::slice::from_ref(&closed));
    scene.assert("main", (DB, "db", 5_432), false);
    scene.apply(&[closed, main, api]);
    // What a container lets in is let in although its pod is closed, and nothing else is.
    for container in ["main", "proxy"] {
        scene.assert(container, (DB, "db/main", 5_432), true);
        scene.assert(container, (DB, "db/backup", 9_100), false);
    }
    scene.assert("main", (API, "api", 80), true);
    let seen = scene.assert("proxy", (API, "api", 80), false);
    assert_eq!(seen.errno, EPERM, "the caller's own end knows the container, so the call is told");
    // Nobody takes the pod for its container.
    scene.pod(WEB).must(&Order::Enter { cgroup: scene.pod(WEB).cgroup.clone() });
    let to = SocketAddr::new(API.into(), 80);
    let attempt = Attempt { from: WEB.into(), means: Means::Connection, to, bound: false };
    assert_eq!(scene.places.try_one(attempt, false), Seen { errno: EPERM, reached: false });
}

fn quarantine() {
    let scene = Scene::new("ward");
    for container in ["main", "proxy"] {
        scene.assert(container, (API, "api", 80), true);
    }
    let run = |arguments: &[&str]| scene.agent.cli(arguments).expect_ok();
    run(&["quarantine", "add", "default/web/proxy"]);
    scene.assert("main", (API, "api", 80), true);
    scene.assert("proxy", (API, "api", 80), false);
    run(&["quarantine", "release", "default/web/proxy"]);
    scene.assert("proxy", (API, "api", 80), true);
    // A pod's is that of its containers.
    run(&["quarantine", "add", "default/web"]);
    for container in ["main", "proxy"] {
        scene.assert(container, (API, "api", 80), false);
    }
    // Who is let in is let in as whichever container.
    run(&["quarantine", "add", "default/db", "--allow-from", "default/web"]);
    run(&["quarantine", "release", "default/web"]);
    patience::until_true("the guest is let in", patience::seconds(5), || {
        scene.call("proxy", DB, 5_432, false).reached
    });
    assert!(!scene.call("main", API, 81, false).reached);
    assert!(scene.world.guarded().is_dir());
}
