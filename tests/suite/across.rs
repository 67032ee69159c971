//! Questions to all nodes of a cluster: real agents, asked by the command line through the API server.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use enforcer::domain::command::PolicyFile;
use enforcer::domain::policy::diagnostic::Source;
use enforcer::domain::yaml::{self, Reader};
use enforcer_tests::agent::{self, Agent, Output};
use enforcer_tests::apiserver::{ApiServer, User, Way};
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;
use enforcer_tests::{patience, puppet};
use serde_json::{Value, json};

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    (
        "flows_of_all_nodes_and_what_keeps_one_from_answering",
        flows_of_all_nodes_and_what_keeps_one_from_answering,
    ),
    ("nodes_explain_and_are_followed", nodes_explain_and_are_followed),
];

// Each part begins with the scene that the one before it has left, because two agents take their time to start.

fn flows_of_all_nodes_and_what_keeps_one_from_answering() {
    let scene = Scene::new("across-flows");
    flows_of_all_nodes_are_one_story(&scene);
    a_node_that_does_not_answer_is_named(&scene);
    missing_rights_are_named(&scene);
}

fn nodes_explain_and_are_followed() {
    let scene = Scene::new("across-follow");
    nodes_explain_what_they_enforce(&scene);
    flows_are_followed_on_all_nodes(&scene);
    following_goes_on_where_the_agents_do(scene);
}

const DB: &str = "127.0.0.1:5432";
const POLICY: &str = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: db}\n\
                      spec: {subject: {matchLabels: {app: db}}, ingress: []}\n";

/// A node: an agent with workloads of its own.
struct Node {
    name: &'static str,
    agent: Agent,
    web: Workload,
    _db: Workload,
    world: World,
}

impl Node {
    fn new(test: &str, name: &'static str) -> Self {
        let world = World::new(&format!("{test}-{name}"));
        let (web, db) = (world.workload("web"), world.workload("db"));
        db.serve(true, DB);
        let mut agent = Agent::new(&world);
        agent.configure(&[("attach", &world.relative(&world.guarded())), ("node-name", name)]);
        agent.workloads([&web, &db]);
        agent.run();
        Self { name, agent, web, _db: db, world }
    }

    /// Makes a connection, and waits until the agent tells of it.
    fn talk(&self) {
        let told = || self.agent.cli(&["observe", "--all"]).expect_ok().lines().count();
        let before = told();
        assert_eq!(self.web.connect(DB).errno, 0);
        patience::until_true("the flow is told", patience::seconds(10), || told() > before);
    }
}

/// Two nodes of one cluster, in whose pods commands are executed.
struct Scene {
    server: ApiServer,
    one: Node,
    two: Node,
}

impl Scene {
    fn new(test: &str) -> Self {
        let (one, two) = (Node::new(test, "n1"), Node::new(test, "n2"));
        let server = one.world.inside(ApiServer::start);
        server.put(
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "enforcer-system" } }),
        );
        for node in [&one, &two] {
            server.put(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": node.name } }));
            server.put(pod("enforcer-system", &format!("enforcer-{}", node.name), node.name));
        }
        let scene = Self { server, one, two };
        scene.answer();
        scene
    }

    /// Both nodes execute what they are asked to, with their own agent.
    fn answer(&self) {
        let configs = [&self.one, &self.two].map(|node| (node.name, node.agent.config()));
        self.server.execute(move |it| {
            let config = configs.iter().find(|(name, _)| *name == it.node).map(|(_, config)| config.clone());
            let (Some(config), Some(("enforcer", words))) =
                (config, it.command.split_first().map(|(first, rest)| (first.as_str(), rest)))
            else {
                return Way::Fail(format!("exec: {:?}: executable file not found in $PATH", it.command));
            };
            let mut command = Command::new(agent::program());
            command.env_clear().arg("--config").arg(config).args(words);
            Way::Run(command)
        });
    }

    /// One of the nodes can't be reached any more.
    fn lose(&self, lost: &'static str) {
        let config = self.one.agent.config();
        self.server.execute(move |it| {
            if lost.is_empty() || it.node == lost {
                return Way::Fail("error dialing backend: dial tcp 192.0.2.7:10250: i/o timeout".into());
            }
            let mut command = Command::new(agent::program());
            command.env_clear().arg("--config").arg(&config).args(&it.command[1..]);
            Way::Run(command)
        });
    }

    fn kubeconfig(&self, token: &str) -> String {
        let file = self.one.world.folder().join(format!("kubeconfig-{token}"));
        // Not once more: a command that was started with it may be about to read it.
        if !file.exists() {
            fs::write(&file, self.server.kubeconfig(token)).unwrap();
        }
        file.to_str().unwrap().to_owned()
    }

    /// A command of somebody with this token.
    fn ask_as(&self, token: &str, arguments: &[&str]) -> Output {
        let kubeconfig = self.kubeconfig(token);
        self.one.agent.cli_inside(&[arguments, &["--kubeconfig", &kubeconfig]].concat())
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.ask_as("", arguments)
    }

    /// Nodes and times of the flows that a question finds.
    fn flows(&self, arguments: &[&str]) -> Vec<(String, String)> {
        let told = self.ask(&[&["observe", "-o", "json"], arguments].concat()).expect_ok();
        let flow = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            (text("node_name"), text("time"))
        };
        told.lines().map(flow).collect()
    }
}

fn pod(namespace: &str, name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app.kubernetes.io/name": "enforcer" } },
        "spec": { "nodeName": node, "containers": [{ "name": "enforcer", "image": "none" }] },
        "status": { "phase": "Running" },
    })
}

fn nodes(flows: &[(String, String)]) -> Vec<&str> {
    flows.iter().map(|(node, _)| node.as_str()).collect()
}

fn flows_of_all_nodes_are_one_story(scene: &Scene) {
    for node in [&scene.one, &scene.two, &scene.two, &scene.one, &scene.one] {
        node.talk();
    }
    let all = scene.flows(&["--all"]);
    assert_eq!(nodes(&all), ["n1", "n2", "n2", "n1", "n1"], "{all:?}");
    assert!(all.is_sorted_by_key(|(_, time)| time), "{all:?}");
    assert_eq!(scene.flows(&["--last", "3"]), all[2..]);
    assert_eq!(scene.flows(&["--first", "3"]), all[..3]);
    assert_eq!(nodes(&scene.flows(&["--to", "default/db", "--not", "--ip-version", "6"])), nodes(&all));
    assert_eq!(scene.flows(&["--traffic-direction", "ingress"]), []);
    assert_eq!(scene.flows(&["--since", &all[2].1, "--until", &all[3].1]), all[2..=3]);
    assert_eq!(scene.flows(&["--verdict", "DROPPED"]), []);
    assert_eq!(nodes(&scene.flows(&["--node-name", "x,*2"])), ["n2", "n2"]);
    assert_eq!(nodes(&scene.flows(&["--not", "--node-name", "n1"])), ["n2", "n2"]);
    // Every form names the node, whoever calls it what.
    let lines = scene.ask(&["observe", "--cluster", "--last", "1"]).expect_ok();
    assert!(lines.contains(" [n1]: default/web (ID:") && lines.contains("ALLOWED"), "{lines}");
    let table = scene.ask(&["observe", "-o", "table"]).expect_ok();
    assert!(table.starts_with("NODE"), "{table}");
    let dict = scene.ask(&["observe", "-o", "dict", "--node-name", "n2"]).expect_ok();
    assert_eq!(dict.matches("       NODE: n2\n").count(), 2, "{dict}");
    // Nobody was asked who was not meant, and everybody by the command that people type.
    let asked = scene.server.executed();
    let of_two = asked.iter().filter(|it| it.execution.node == "n2").count();
    assert!(of_two < asked.len() && asked.iter().all(|it| it.code == Some(0)), "{asked:#?}");
    assert!(asked.iter().all(|it| it.execution.command[..2] == ["enforcer", "observe"]), "{asked:#?}");
    let nobody = scene.ask(&["observe", "--node-name", "m*"]);
    assert_eq!(nobody.code, 2, "{nobody:#?}");
    assert!(nobody.stderr.contains("agents are on n1, n2"), "{}", nobody.stderr);
}

/// A command that goes on.
struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn start(scene: &Scene, arguments: &[&str]) -> Self {
        let mut command = Command::new(agent::program());
        command.env_clear().args(["--config", "/dev/null", "observe", "-f"]).args(arguments);
        command.args(["--kubeconfig", &scene.kubeconfig("")]).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(Stdio::piped());
        puppet::enter(&mut command, &scene.one.world.agents(), scene.one.world.namespace());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        match self.lines.next() {
            Some(line) => line.unwrap(),
            None => panic!("it ends: {}", self.said()),
        }
    }

    /// What it has said, once it has ended.
    fn said(&mut self) -> String {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Every command that was executed has ended.
fn all_ended(server: &ApiServer) -> bool {
    server.executed().iter().all(|it| it.code.is_some())
}

fn flows_are_followed_on_all_nodes(scene: &Scene) {
    scene.one.talk();
    let before = scene.server.executed().len();
    let arguments = ["--last", "1", "--traffic-direction", "egress"];
    let mut follower = Follower::start(scene, &arguments);
    let mut second = Follower::start(scene, &["-o", "json"]);
    // What is remembered says that this node is followed; the other has nothing to remember.
    assert!(follower.line().contains(" [n1]: default/web"));
    patience::until_true("four commands run", patience::seconds(10), || {
        scene.server.executed().len() == before + 4
    });
    // A stream that has begun is told of everything; whether it has is not seen from here.
    let said = patience::until("both tell", patience::seconds(20), || {
        scene.two.talk();
        let line = follower.line();
        line.contains(" [n2]: default/web").then_some(line)
    });
    assert!(said.contains("policy-verdict:EGRESS ALLOWED"), "{said}");
    scene.one.talk();
    while !follower.line().contains(" [n1]: ") {}
    let line: Value = serde_json::from_str(&second.line()).unwrap();
    assert!(line["flow"]["verdict"] == "FORWARDED", "{line}");
    // Whoever leaves takes along what was started for them, though nothing is printed there.
    assert!(!all_ended(&scene.server));
    drop((follower, second));
    patience::until_true("the commands on the nodes end", patience::seconds(10), || all_ended(&scene.server));
}

/// A node that ends is told, and the others go on. Whoever comes back is followed again, also in another pod.
fn following_goes_on_where_the_agents_do(mut scene: Scene) {
    scene.two.agent.terminate();
    let mut follower = Follower::start(&scene, &["--last", "1"]);
    assert!(follower.line().contains(" [n1]: "));
    scene.one.talk();
    assert!(follower.line().contains(" [n1]: "));
    scene.one.agent.terminate();
    scene.server.delete("pods", "enforcer-system", "enforcer-n2").unwrap();
    scene.server.put(pod("enforcer-system", "enforcer-later", "n2"));
    scene.two.agent.run();
    // It is told of what happened before it was asked again.
    scene.two.talk();
    assert!(follower.line().contains(" [n2]: "));
    scene.one.agent.run();
    scene.one.talk();
    assert!(follower.line().contains(" [n1]: "));
    follower.child.kill().unwrap();
    let said = follower.said();
    assert!(said.contains("error: n2: no agent listens on"), "{said}");
    assert!(said.contains("error: n1: the agent on ") && said.contains("ended the stream"), "{said}");
    for node in ["n1", "n2"] {
        assert_eq!(said.matches(&format!("error: {node}: ")).count(), 1, "{said}");
        assert_eq!(said.matches(&format!("{node} tells again")).count(), 1, "{said}");
    }
    // Where nobody can be followed, nobody waits.
    scene.one.agent.terminate();
    scene.two.agent.terminate();
    let mut follower = Follower::start(&scene, &[]);
    let said = follower.said();
    assert_eq!(follower.child.wait().unwrap().code(), Some(2), "{said}");
    assert!(said.ends_with("nothing is left to follow: no node tells anything\n"), "{said}");
}

fn nodes_explain_what_they_enforce(scene: &Scene) {
    for (name, node) in [("web", "n1"), ("db", "n2")] {
        let mut pod = pod("default", name, node);
        pod["metadata"]["labels"] = json!({});
        scene.server.put(pod);
    }
    let flow = ["policy", "explain", "--from", "web", "--to", "db:5432"];
    let explain = |more: &[&str]| scene.ask(&[&flow[..], more].concat());
    let same = explain(&["--cluster"]).expect_ok();
    assert!(same.starts_with("default/web -> default/db TCP/5432: FORWARDED\n"), "{same}");
    assert_eq!(same.matches(" -> ").count(), 1, "{same}");
    assert!(same.contains("\nby n1 (generation ") && same.contains("), n2 (generation "), "{same}");
    // Only one of them has the policy.
    let file = scene.two.world.folder().join("db.yaml");
    fs::write(&file, POLICY).unwrap();
    scene.two.agent.cli(&["policy", "apply", "-f", file.to_str().unwrap()]).expect_ok();
    let differ = explain(&["-o", "json"]);
    assert_eq!(differ.code, 1, "{differ:#?}");
    assert!(differ.stderr.contains("the nodes answer differently"), "{}", differ.stderr);
    let answers: Value = serde_json::from_str(&differ.stdout).unwrap();
    let verdicts: Vec<_> =
        answers["nodes"].as_array().unwrap().iter().map(|it| (&it["node"], &it["verdict"])).collect();
    let expected =
        [("n1", "FORWARDED"), ("n2", "DROPPED")].map(|(node, verdict)| (json!(node), json!(verdict)));
    assert_eq!(verdicts, expected.each_ref().map(|(node, verdict)| (node, verdict)), "{answers}");
    let one = explain(&["--node-name", "n2"]).expect_ok();
    assert!(one.contains("default/db TCP/5432: DROPPED") && one.contains("EPERM"), "{one}");
    // Who lives nowhere is explained by whom you like.
    let nowhere = ["policy", "explain", "--from", "192.0.2.1", "--to", "shop/db:5432"];
    let nowhere = scene.ask(&nowhere);
    assert_eq!(nowhere.code, 2, "{nowhere:#?}");
    assert!(nowhere.stderr.contains("name the nodes to ask with --node-name"), "{}", nowhere.stderr);
    let unknown = ["policy", "explain", "--from", "x", "--to", "db:5432", "--node-name", "*"];
    let unknown = scene.ask(&unknown);
    assert_eq!(unknown.code, 2, "{unknown:#?}");
    assert!(
        unknown.stderr.contains("n1: the agent knows no workload and no service `default/x`"),
        "{}",
        unknown.stderr
    );
    // All that an agent says of itself.
    let status = scene.ask(&["status", "--node-name", "n*"]).expect_ok();
    assert!(status.starts_with("Node        n1\nAgent       enforcing, version"), "{status}");
    assert!(status.contains("\nNode        n2\nAgent       enforcing"), "{status}");
    let status = scene.ask(&["status", "--node-name", "n2", "-o", "json"]).expect_ok();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (&status["nodes"][0]["node"], &status["nodes"][0]["status"]["policies"]),
        (&json!("n2"), &json!(1))
    );
    scene.two.agent.cli(&["policy", "delete", "default/db"]).expect_ok();
}

/// The role that the manual has for people who may ask.
fn documented_role() -> Value {
    let manual = include_str!("../../docs/kubernetes.md");
    let examples = manual.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let text =
        examples.into_iter().find(|text| text.contains("kind: Role\n")).expect("the manual has a role");
    let file = PolicyFile { name: "role.yaml".into(), text: text.into() };
    let source = Source::new(0, &file);
    let mut reader = Reader::new(&source);
    let role = yaml::parse(&mut reader).first().map(|it| yaml::json::json(&it.root)).expect("it is YAML");
    assert_eq!(role["rules"].as_array().map(Vec::len), Some(2), "{role}");
    role
}

fn a_node_that_does_not_answer_is_named(scene: &Scene) {
    let remembered = scene.one.agent.cli(&["observe", "--all"]).expect_ok().lines().count();
    scene.lose("n2");
    let part = scene.ask(&["observe", "--all"]);
    assert_eq!((part.code, part.stdout.lines().count()), (1, remembered), "{part:#?}");
    assert!(part.stderr.contains("error: n2: the node can't run the command: "), "{}", part.stderr);
    assert!(part.stderr.contains("192.0.2.7:10250: i/o timeout"), "{}", part.stderr);
    assert!(part.stderr.ends_with("error: 1 of 2 nodes did not answer: n2\n"), "{}", part.stderr);
    scene.lose("");
    let none = scene.ask(&["observe", "--all"]);
    assert_eq!((none.code, none.stdout.as_str()), (2, ""), "{none:#?}");
    assert!(none.stderr.ends_with("error: none of 2 nodes answered: n1, n2\n"), "{}", none.stderr);
    scene.answer();
    // A pod that does not run.
    let waiting = json!({ "status": { "phase": "Pending" } });
    scene.server.patch("pods", "enforcer-system", "enforcer-n2", &waiting);
    let part = scene.ask(&["status", "--node-name", "*"]);
    assert_eq!(part.code, 1, "{part:#?}");
    assert!(part.stderr.contains("its pod is Pending"), "{}", part.stderr);
    scene.server.patch(
        "pods",
        "enforcer-system",
        "enforcer-n2",
        &json!({ "status": { "phase": "Running" } }),
    );
    let elsewhere = scene.ask(&["observe", "--report-namespace", "default"]);
    assert_eq!(elsewhere.code, 2, "{elsewhere:#?}");
    assert!(elsewhere.stderr.contains("no agent runs in the namespace default"), "{}", elsewhere.stderr);
    // A socket is the agents' own, and named as theirs.
    let other = scene.ask(&["observe", "--socket", "/nowhere.sock"]);
    assert_eq!(other.code, 2, "{other:#?}");
    assert!(other.stderr.contains("n1: no agent listens on /nowhere.sock"), "{}", other.stderr);
}

fn missing_rights_are_named(scene: &Scene) {
    let mut role = documented_role();
    scene.server.allow("nobody", User::nobody("alice"));
    scene.server.allow("both", User::nobody("alice").with_role(&role));
    role["rules"].as_array_mut().unwrap().retain(|rule| rule["resources"] != json!(["pods/exec"]));
    scene.server.allow("reader", User::nobody("alice").with_role(&role));
    let nobody = scene.ask_as("nobody", &["observe"]);
    assert_eq!(nobody.code, 2, "{nobody:#?}");
    assert!(
        nobody.stderr.contains("ask for the verb `list` on `pods` in the namespace enforcer-system"),
        "{}",
        nobody.stderr
    );
    let reader = scene.ask_as("reader", &["observe"]);
    assert_eq!(reader.code, 2, "{reader:#?}");
    let missing = "ask for the verbs `get` and `create` on `pods/exec` in the namespace enforcer-system";
    assert_eq!(reader.stderr.matches(missing).count(), 1, "{}", reader.stderr);
    let remembered = scene.ask(&["observe", "--all"]).expect_ok();
    assert_eq!(scene.ask_as("both", &["observe", "--all"]).expect_ok(), remembered);
}
