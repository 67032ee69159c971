//! The commands of the manual, executed as they stand there.

use std::fs;
use std::process::{Command, Stdio};

use enforcer_tests::agent::{self, Agent, Output};
use enforcer_tests::apiserver::{ApiServer, Way};
use enforcer_tests::world::World;
use enforcer_tests::{patience, puppet};
use serde_json::{Value, json};

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[("host", host), ("kubernetes", kubernetes)];

pub(crate) const HOST: &str = include_str!("../../docs/host.md");
const KUBERNETES: &str = include_str!("../../docs/kubernetes.md");
const EPERM: i32 = 1;
const DB: &str = "127.0.0.1:5432";
const LEASES: &str = "leases.coordination.k8s.io";
const POLICY: &str = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: db, namespace: shop}\n\
                      spec: {subject: {matchLabels: {app: db}}, ingress: []}\n";

/// Words of the program's own commands in the consoles of a page, in their order.
fn commands(page: &str) -> Vec<Vec<String>> {
    let consoles = page.split("```console\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let typed = consoles.flat_map(str::lines).filter_map(|line| {
        let line = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# "))?;
        line.split("  #").next()?.strip_prefix("enforcer ")
    });
    typed
        .map(|line| line.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect())
        .collect()
}

/// A node n1 of a cluster, as the page has it.
struct Cluster {
    agent: Agent,
    server: ApiServer,
    world: World,
}

impl Cluster {
    fn new() -> Self {
        let world = World::new("page-kubernetes");
        let server = world.inside(ApiServer::start);
        server.install_definitions();
        for name in ["enforcer-system", "shop"] {
            server.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }));
        }
        server.put(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } }));
        server.put(pod("enforcer-system", "enforcer-x", "app.kubernetes.io/name", "enforcer", "192.0.2.1"));
        server.put(pod("shop", "web", "app", "web", "192.0.2.2"));
        server.put(pod("shop", "db", "app", "db", "192.0.2.3"));
        let mut agent = Agent::new(&world);
        fs::write(world.folder().join("kubeconfig"), server.kubeconfig("")).unwrap();
        fs::write(world.folder().join("db.yaml"), POLICY).unwrap();
        agent.configure(&[
            ("attach", &world.relative(&world.guarded())),
            ("canary-interval", "200ms"),
            ("kubernetes", "on"),
            ("node-name", "n1"),
            ("kubeconfig", world.folder().join("kubeconfig").to_str().unwrap()),
        ]);
        agent.run();
        let config = agent.config();
        server.execute(move |it| {
            let mut command = Command::new(agent::program());
            command.env_clear().arg("--config").arg(&config).args(&it.command[1..]);
            Way::Run(command)
        });
        patience::until_true("the node reports", patience::seconds(20), || {
            server.get(LEASES, "enforcer-system", "enforcer-node-n1").is_some()
        });
        Self { agent, server, world }
    }

    /// A command of somebody who has a kubeconfig, in the folder with the policy.
    fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new(agent::program());
        command.env_clear().env("KUBECONFIG", self.world.folder().join("kubeconfig")).args(words);
        command.current_dir(self.world.folder()).stdin(Stdio::null());
        puppet::enter(&mut command, &self.world.agents(), self.world.namespace());
        command
    }

    /// Executes a command that goes on, until it is known to have reached the node.
    fn begin(&self, words: &[String]) {
        let before = self.server.executed().len();
        let mut child = self.command(words).stdout(Stdio::null()).spawn().unwrap();
        patience::until_true("it reaches the node", patience::seconds(20), || {
            self.server.executed().len() > before
        });
        assert!(child.try_wait().unwrap().is_none(), "{words:?} has ended");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn pod(namespace: &str, name: &str, label: &str, value: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": { label: value } },
        "spec": { "nodeName": "n1", "containers": [{ "name": "enforcer", "image": "none" }] },
        "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }] },
    })
}

fn kubernetes() {
    let cluster = Cluster::new();
    let mut verbs = Vec::new();
    for words in commands(KUBERNETES) {
        verbs.push(
            words.iter().take_while(|word| !word.starts_with('-')).cloned().collect::<Vec<_>>().join(" "),
        );
        if words[0] == "observe" && words.iter().any(|word| word == "-f") {
            cluster.begin(&words);
            continue;
        }
        let Output { code, stdout, stderr } = agent::output(cluster.command(&words));
        match words[0].as_str() {
            // What this machine is fit for is not the page's business.
            "preflight" => assert!(code < 2 && stdout.starts_with("CHECK"), "{words:?}: {stdout}{stderr}"),
            // Nothing was refused, so there is nothing to see.
            "observe" => assert_eq!((code, stdout.as_str()), (0, ""), "{words:?}: {stderr}"),
            _ => assert_eq!(code, 0, "{words:?}: {stdout}{stderr}"),
        }
        let is_there = cluster.server.get("trafficpolicies.enforcer.dev", "shop", "db").is_some();
        match words.iter().map(String::as_str).take(2).collect::<Vec<_>>()[..] {
            ["policy", "apply"] => {
                assert_eq!(is_there, !words.iter().any(|word| word.starts_with("--dry-run")), "{words:?}");
            }
            ["policy", "explain"] => {
                assert!(stdout.starts_with("shop/web -> shop/db TCP/5432: DROPPED"), "{stdout}");
            }
            _ => {}
        }
    }
    for verb in
        ["preflight", "policy apply", "policy explain", "policy get", "policy wait", "status", "observe"]
    {
        assert!(verbs.iter().any(|it| it == verb), "the page has no {verb}: {verbs:?}");
    }
    assert!(cluster.agent.is_ready());
}

/// The YAML documents of a page that begin so.
pub(crate) fn documents<'a>(page: &'a str, beginning: &'a str) -> impl Iterator<Item = &'a str> {
    let all = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    all.filter(move |text| text.starts_with(beginning))
}

/// From nothing to an enforced policy on a plain host, as the page goes, by processes; `systemd::` has its part about units by units,
/// `runtimes::docker` that about Compose by containers. What is another test's too has another place than in
/// the page: directories, socket, pins.
fn host() {
    let world = World::new("page-host");
    let [web, db, other] = ["web", "db", "other"].map(|name| world.workload(name));
    db.serve(true, DB);
    let mut agent = Agent::new(&world);
    let private = fs::read_to_string(agent.config()).unwrap();
    for words in commands(HOST) {
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["config", "default", ">", "/etc/enforcer/enforcer.yaml"] => {
                let text = agent.cli(&["config", "default"]).expect_ok();
                let own =
                    |line: &str| private.lines().find(|own| own.split(':').next() == line.split(':').next());
                let lines: Vec<&str> = text.lines().map(|line| own(line).unwrap_or(line)).collect();
                fs::write(agent.config(), lines.join("\n")).unwrap();
                assert_eq!(
                    lines.iter().filter(|line| private.contains(**line) && line.contains(':')).count(),
                    private.lines().count()
                );
            }
            ["run"] => agent.run(),
            _ => panic!("nobody executes `enforcer {}` of the page", words.join(" ")),
        }
    }
    assert_eq!(other.connect(DB).errno, 0);
    let workloads = documents(HOST, "workloads:").next().expect("the page has workloads");
    let workloads = [&web, &db].iter().fold(workloads.to_owned(), |text, it| {
        text.replace(&format!("cgroup: /{}\n", it.name), &format!("cgroup: {}\n", world.relative(&it.cgroup)))
    });
    fs::write(world.folder().join("workloads.yaml"), workloads).unwrap();
    patience::until_true("the workloads are bound", patience::seconds(20), || {
        let listed = agent.cli(&["endpoint", "list"]).expect_ok();
        listed.lines().filter(|line| line.contains("bound")).count() == 2 && listed.contains("app=db")
    });
    assert!(HOST.contains("`enforcer policy apply -f db.yaml`"));
    for (place, policy) in documents(HOST, "apiVersion:").enumerate() {
        let file = world.folder().join(format!("{place}.yaml"));
        fs::write(&file, policy).unwrap();
        agent.cli(&["policy", "apply", "-f", file.to_str().unwrap()]).expect_ok();
    }
    assert_eq!((web.connect(DB).errno, other.connect(DB).errno), (0, EPERM));
    agent.cli(&["status"]).expect_ok();
}
