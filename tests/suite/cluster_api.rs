//! A policy on its way through a cluster's API: from the command line to a real agent and back.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use enforcer::domain::cluster_policy::ObjectVersion;
use enforcer::domain::fleet;
use enforcer_tests::agent::{Agent, Output};
use enforcer_tests::apiserver::{ApiServer, Network, User};
use enforcer_tests::patience;
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;
use serde_json::{Value, json};

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("a_policy_reaches_every_node_and_is_reported", a_policy_reaches_every_node_and_is_reported),
    ("what_keeps_a_policy_from_the_cluster_is_named", what_keeps_a_policy_from_the_cluster_is_named),
    ("waiting_outlasts_an_outage", waiting_outlasts_an_outage),
    ("every_right_of_the_manifests_is_used", every_right_of_the_manifests_is_used),
];

const EPERM: i32 = 1;
const DB: &str = "127.0.0.1:5432";
/// The token of the agent's account.
const AGENT: &str = "agent";
const LEASES: &str = "leases.coordination.k8s.io";
const POLICIES: &str = "trafficpolicies.enforcer.dev";
const POLICY: &str = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: db}\n\
                      spec: {subject: {matchLabels: {app: db}}, ingress: []}\n";

struct Scene {
    agent: Agent,
    server: ApiServer,
    web: Workload,
    _db: Workload,
    world: World,
}

impl Scene {
    /// An agent that is node n1 of a cluster.
    fn new(name: &str) -> Self {
        Self::with(name, "")
    }

    /// The same; the agent comes with this token.
    fn with(name: &str, token: &str) -> Self {
        let world = World::new(name);
        let server = world.inside(ApiServer::start);
        server.allow(AGENT, User::agent());
        server.install_definitions();
        for name in ["enforcer-system", "shop"] {
            server.put(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }));
        }
        server.put(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } }));
        let (web, db) = (world.workload("web"), world.workload("db"));
        db.serve(true, DB);
        let mut agent = Agent::new(&world);
        let scene_file = world.folder().join("kubeconfig");
        fs::write(&scene_file, server.kubeconfig(token)).unwrap();
        agent.configure(&[
            ("attach", &world.relative(&world.guarded())),
            ("canary-interval", "200ms"),
            ("kubernetes", "on"),
            ("node-name", "n1"),
            ("kubeconfig", scene_file.to_str().unwrap()),
        ]);
        agent.workloads([&web, &db]);
        agent.run();
        patience::until_true("the node reports", patience::seconds(20), || {
            server.get(LEASES, "enforcer-system", "enforcer-node-n1").is_some()
        });
        Self { agent, server, web, _db: db, world }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.world.folder().join(name);
        fs::write(&file, text).unwrap();
        file
    }

    /// A command of somebody with this token.
    fn ask(&self, token: &str, arguments: &[&str]) -> Output {
        let kubeconfig = self.file(&format!("kubeconfig-{token}"), &self.server.kubeconfig(token));
        let all = [arguments, &["--kubeconfig", kubeconfig.to_str().unwrap()]].concat();
        self.agent.cli_inside(&all)
    }

    fn apply(&self, token: &str, more: &[&str]) -> Output {
        let file = self.file("policy.yaml", POLICY);
        self.ask(token, &[&["policy", "apply", "-f", file.to_str().unwrap()], more].concat())
    }
}

fn a_policy_reaches_every_node_and_is_reported() {
    let scene = Scene::new("cluster-api");
    assert_eq!(scene.web.connect(DB).errno, 0);
    let applied = scene.apply("", &["--wait", "--timeout", "30s"]);
    let talk = applied.stderr.clone();
    assert_eq!(applied.expect_ok(), "trafficpolicy default/db created (generation 1)\n");
    assert!(talk.contains("n1: trafficpolicy default/db enforced"), "{talk}");
    assert!(talk.ends_with("1 of 1 nodes enforce trafficpolicy default/db (generation 1)\n"), "{talk}");
    assert_eq!(scene.web.connect(DB).errno, EPERM);
    // The status is there for everybody else.
    patience::until_true("the status", patience::seconds(20), || {
        let object = scene.server.get(POLICIES, "default", "db").unwrap();
        object["status"]["nodesRealized"] == 1 && object["status"]["nodesDesired"] == 1
    });
    let got = scene.ask("", &["policy", "get", "db", "-o", "json"]).expect_ok();
    let got: Value = serde_json::from_str(&got).unwrap();
    let enforcing =
        got["status"]["conditions"].as_array().unwrap().iter().find(|it| it["type"] == "Enforcing");
    assert_eq!(enforcing.unwrap()["status"], "True");
    assert_eq!(enforcing.unwrap()["observedGeneration"], got["metadata"]["generation"]);
    let nodes = scene.ask("", &["status"]).expect_ok();
    let row: Vec<&str> = nodes.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[3], row[4]), ("n1", "enforcing", "1/1"), "{nodes}");
    // A node that is not heard of is one that does not enforce what is new.
    let mut other = scene.server.get(LEASES, "enforcer-system", "enforcer-node-n1").unwrap();
    other["metadata"] = json!({
        "name": "enforcer-node-n2", "namespace": "enforcer-system",
        "labels": { "enforcer.dev/lease": "node" }, "annotations": { "enforcer.dev/phase": "enforcing" },
    });
    other["spec"]["holderIdentity"] = json!("n2");
    other["spec"]["renewTime"] = json!("2026-01-01T00:00:00.000000Z");
    scene.server.put(other);
    // Who has not even seen the nodes in that time has nothing to say.
    let waited = ["1s", "5s", "25s"]
        .map(|time| move |scene: &Scene| scene.ask("", &["policy", "wait", "db", "--timeout", time]));
    let missing = "n2 (not heard of since 2026-01-01T00:00:00Z)";
    let seen = waited.into_iter().map(|wait| wait(&scene)).find(|waited| {
        assert_eq!(waited.code, 1, "{waited:#?}");
        waited.stderr.contains(missing)
    });
    assert!(seen.is_some(), "nobody names the node that is missing");
    let nodes = scene.ask("", &["status"]);
    assert_eq!(nodes.code, 1);
    assert!(nodes.stdout.contains("unheard (was enforcing)"), "{}", nodes.stdout);
    let deleted = scene.ask("", &["policy", "delete", "db"]).expect_ok();
    assert_eq!(deleted, "trafficpolicy default/db deleted\n");
    patience::until_true("the policy is gone", patience::seconds(20), || scene.web.connect(DB).errno == 0);
}

fn what_keeps_a_policy_from_the_cluster_is_named() {
    let scene = Scene::new("cluster-no");
    let no_way = scene.agent.cli_inside(&["policy", "get", "db", "--kubeconfig", "/nowhere"]);
    assert_eq!(no_way.code, 2, "{no_way:#?}");
    assert!(no_way.stderr.contains("read the kubeconfig /nowhere"), "{}", no_way.stderr);
    let role = json!({ "rules": [
        { "apiGroups": ["enforcer.dev"], "resources": ["trafficpolicies"], "verbs": ["get", "patch", "create"] },
    ]});
    scene.server.allow("reader", User::nobody("alice"));
    scene.server.allow("writer", User::nobody("bob").with_role(&role));
    let denied = scene.apply("reader", &[]);
    assert_eq!((denied.code, denied.stdout.as_str()), (2, ""), "{denied:#?}");
    assert!(
        denied.stderr.contains("ask for the verb `patch` on `trafficpolicies.enforcer.dev`"),
        "{}",
        denied.stderr
    );
    assert_eq!(scene.server.get(POLICIES, "default", "db"), None);
    let dry = scene.apply("writer", &["--dry-run=server"]).expect_ok();
    assert_eq!(dry, "trafficpolicy default/db created (generation 1) (server dry run)\n");
    assert_eq!(scene.server.get(POLICIES, "default", "db"), None);
    // Who may not read Leases waits by the status.
    let waited = scene.apply("writer", &["--wait", "--timeout", "30s"]);
    assert!(waited.stderr.contains("only the counts in the status are seen"), "{}", waited.stderr);
    assert!(waited.stderr.contains("1 of 1 nodes enforce trafficpolicy default/db"), "{}", waited.stderr);
    waited.expect_ok();
    let bad = scene.file("bad.yaml", &POLICY.replace("ingress", "ingres"));
    let bad = scene.ask("writer", &["policy", "apply", "-f", bad.to_str().unwrap()]);
    assert_eq!(bad.code, 1, "{bad:#?}");
    assert!(bad.stderr.contains("nothing was applied"), "{}", bad.stderr);
    scene.server.expire("writer");
    let over = scene.apply("writer", &[]);
    assert_eq!(over.code, 2, "{over:#?}");
    assert!(over.stderr.contains("401"), "{}", over.stderr);
}

fn waiting_outlasts_an_outage() {
    let scene = Scene::new("cluster-away");
    scene.apply("", &[]).expect_ok();
    patience::until_true("it is enforced", patience::seconds(20), || scene.web.connect(DB).errno == EPERM);
    scene.server.network(Network::Refused);
    let away = scene.apply("", &[]);
    assert_eq!(away.code, 2, "{away:#?}");
    assert!(away.stderr.contains("nothing listens there"), "{}", away.stderr);
    assert_eq!(scene.web.connect(DB).errno, EPERM, "what is enforced does not depend on it");
    scene.server.network(Network::Up);
    // A second node that has not seen the policy yet keeps the command waiting.
    let second = |policies: &str| {
        let mut lease = scene.server.get(LEASES, "enforcer-system", "enforcer-node-n1").unwrap();
        lease["metadata"] = json!({
            "name": "enforcer-node-n2", "namespace": "enforcer-system", "labels": { "enforcer.dev/lease": "node" },
            "annotations": { "enforcer.dev/phase": "enforcing", "enforcer.dev/policies": policies },
        });
        lease["spec"]["holderIdentity"] = json!("n2");
        scene.server.put(lease);
    };
    second("");
    scene.server.allow("waiter", User::admin("waiter"));
    let kubeconfig = scene.file("kubeconfig-waiter", &scene.server.kubeconfig("waiter"));
    let kubeconfig = kubeconfig.to_str().unwrap();
    let words = ["policy", "wait", "db", "--timeout", "60s", "--kubeconfig", kubeconfig];
    let mut waiting = scene.agent.begin_inside(&words);
    patience::until_true("the command watches", patience::seconds(20), || {
        scene.server.asked().iter().any(|it| it.user == "waiter" && it.verb == "watch")
    });
    scene.server.network(Network::Refused);
    patience::until_true("it notices the outage", patience::seconds(10), || {
        waiting.said().contains("waiting for it to come back")
    });
    scene.server.network(Network::Up);
    let object = scene.server.get(POLICIES, "default", "db").unwrap();
    let uid = object["metadata"]["uid"].as_str().unwrap().to_owned();
    second(&fleet::mark(&ObjectVersion { uid, generation: 1 }));
    assert_eq!(waiting.until_ended(), 0, "{}", waiting.said());
    let said = waiting.said();
    assert!(said.ends_with("2 of 2 nodes enforce trafficpolicy default/db (generation 1)\n"), "{said}");
    // The outage did not end the report either.
    patience::until_true("the status has both", patience::seconds(40), || {
        let object = scene.server.get(POLICIES, "default", "db").unwrap();
        object["status"]["nodesRealized"] == 2
    });
    let metrics = scene.agent.metrics();
    assert!(metrics["enforcer_cluster_reports_total{what=\"lease\",outcome=\"done\"}"] >= 1.0);
}

/// Group, resource and subresource of a request's path.
fn resource(path: &str) -> (String, String) {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (group, mut rest) = match parts.as_slice() {
        ["api", _, rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => ("", &[][..]),
    };
    if let ["namespaces", _, inner @ ..] = rest
        && !inner.is_empty()
    {
        rest = inner;
    }
    let resource = match rest {
        [resource, _, sub] => format!("{resource}/{sub}"),
        [resource, ..] => (*resource).to_owned(),
        [] => String::new(),
    };
    (group.to_owned(), resource)
}

fn every_right_of_the_manifests_is_used() {
    let scene = Scene::with("cluster-rights", AGENT);
    let cluster_wide =
        json!({ "subject": { "namespaces": ["shop"] }, "ingress": [{ "from": [{ "cidr": "x" }] }] });
    for (kind, spec) in [
        ("TrafficPolicy", json!({ "subject": {}, "ingress": [] })),
        // What is wrong with it is an event.
        ("ClusterTrafficPolicy", cluster_wide),
    ] {
        scene.server.put(json!({
            "apiVersion": "enforcer.dev/v1alpha1", "kind": kind, "metadata": { "name": "p" }, "spec": spec,
        }));
    }
    let agent = User::agent();
    let mut unused: BTreeSet<(String, String, String)> = BTreeSet::new();
    for rule in &agent.rules {
        for (group, resource) in
            rule.groups.iter().flat_map(|group| rule.resources.iter().map(move |it| (group, it)))
        {
            unused.extend(rule.verbs.iter().map(|verb| (group.clone(), resource.clone(), verb.clone())));
        }
    }
    assert!(unused.len() > 25, "{unused:?}");
    // Who reports says again that it does, some seconds later.
    patience::until_true("every right to be used", patience::seconds(40), || {
        for asked in scene.server.asked().iter().filter(|it| it.user == agent.name) {
            assert!(!matches!(asked.code, 401 | 403), "{asked:?}");
            let (group, resource) = resource(&asked.path);
            unused.remove(&(group, resource, asked.verb.clone()));
        }
        unused.is_empty()
    });
}
