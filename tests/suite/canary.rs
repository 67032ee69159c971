//! The canary: policies are called enforcing because a call was tried and refused, and no longer when one was not.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use enforcer_common::id::CgroupId;
use enforcer_tests::agent::Agent;
use enforcer_tests::bpf::{self, PinnedMap};
use enforcer_tests::patience;
use enforcer_tests::workload::{Workload, cgroup_id};
use enforcer_tests::world::World;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("what_is_refused_is_proven", what_is_refused_is_proven),
    ("what_is_let_through_is_told", what_is_let_through_is_told),
    ("a_detached_hook_is_noticed", a_detached_hook_is_noticed),
    ("where_nothing_can_be_tried_nothing_is_proven", where_nothing_can_be_tried_nothing_is_proven),
    ("what_could_not_be_made_is_made_later", what_could_not_be_made_is_made_later),
    ("peers_that_wait_are_shown", peers_that_wait_are_shown),
];

const DB: &str = "127.0.0.1:5432";
const EPERM: i32 = 1;
const TIERS: &str = include_str!("../../policies/three-tier.yaml");
const SUCCESS: &str = "enforcer_canary_last_success_timestamp_seconds";
const NOBODY: &str = "65534";

struct Scene {
    agent: Agent,
    web: Workload,
    _db: Workload,
    world: World,
}

impl Scene {
    /// An agent whose canary tries all the time.
    fn new(name: &str, settings: &[(&str, &str)]) -> Self {
        Self::in_world(World::new(name), settings, &|_| {})
    }

    /// The same, with something done before the agent starts.
    fn in_world(world: World, settings: &[(&str, &str)], before: &dyn Fn(&World)) -> Self {
        let (web, db) = (world.workload("web"), world.workload("db"));
        db.serve(true, DB);
        let mut agent = Agent::new(&world);
        let attach = world.relative(&world.guarded());
        let own = [("attach", attach.as_str()), ("canary-interval", "100ms")];
        let is_own = |key: &str| !settings.iter().any(|(given, _)| *given == key);
        let all: Vec<_> =
            own.into_iter().filter(|(key, _)| is_own(key)).chain(settings.iter().copied()).collect();
        agent.configure(&all);
        agent.workloads([&web, &db]);
        before(&world);
        agent.run();
        Self { agent, web, _db: db, world }
    }

    /// The directory of its canary.
    fn directory(&self) -> PathBuf {
        let found = fs::read_dir(self.world.guarded()).unwrap().map(|entry| entry.unwrap().path());
        let mut found = found.filter(|path| name(path).starts_with("enforcer-canary"));
        let directory = found.next().expect("a directory of the canary");
        assert!(
            name(&directory).ends_with("-bpf-enforcer"),
            "the pins have made the name: {}",
            directory.display()
        );
        directory
    }

    fn push(&self) {
        self.agent.cli_with(&["policy", "apply", "-f", "-"], TIERS).expect_ok();
    }

    fn policies(&self) -> Vec<serde_json::Value> {
        let listed = self.agent.cli(&["policy", "list", "-o", "json"]).expect_ok();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        listed["policies"].as_array().unwrap().clone()
    }

    /// Waits until every policy has this word, and gives the sentences.
    #[track_caller]
    fn until(&self, word: &str) -> Vec<String> {
        let what = format!("every policy is {word}");
        patience::until(&what, patience::seconds(10), || {
            let policies = self.policies();
            let enforcing = |it: &serde_json::Value| it["status"]["conditions"][2].clone();
            let is_it =
                |it: &serde_json::Value| it["status"]["summary"] == word && enforcing(it)["reason"] == word;
            let all = !policies.is_empty() && policies.iter().all(is_it);
            all.then(|| {
                policies.iter().map(|it| enforcing(it)["message"].as_str().unwrap().to_owned()).collect()
            })
        })
    }

    fn attempts(&self, result: &str) -> f64 {
        self.agent.metrics()[&format!("enforcer_canary_attempts_total{{result=\"{result}\"}}")]
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn processes(directory: &Path) -> Vec<u32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

fn what_is_refused_is_proven() {
    let mut scene = Scene::new("proven", &[]);
    scene.push();
    for message in scene.until("Enforcing") {
        assert!(message.ends_with("refused with EHOSTUNREACH"), "{message}");
    }
    assert_eq!(scene.web.connect(DB).errno, EPERM, "what is said is so");
    let generation = scene.agent.status().generation;
    for policy in scene.policies() {
        let conditions = policy["status"]["conditions"].as_array().unwrap();
        let types: Vec<_> = conditions.iter().map(|it| it["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["Accepted", "Programmed", "Enforcing"]);
        assert!(conditions.iter().all(|it| it["status"] == "True" && it["observedGeneration"] == generation));
    }
    // A document with its status is a document.
    let got = scene.agent.cli(&["policy", "get", "default/db"]).expect_ok();
    assert!(got.contains("\nstatus:\n  conditions:\n  - type: Accepted\n"), "{got}");
    let again = scene.agent.cli_with(&["policy", "apply", "-f", "-"], &got).expect_ok();
    assert!(again.contains("trafficpolicy default/db "), "{again}");
    let wide = scene.agent.cli(&["policy", "list", "-o", "wide"]).expect_ok();
    assert!(wide.lines().next().unwrap().contains("GENERATION"), "{wide}");
    assert_eq!(scene.agent.status().canary.state, "refused");

    // Who it is: nobody, alone in its directory, with one descriptor besides the standard ones.
    let directory = scene.directory();
    let [pid] = processes(&directory)[..] else { panic!("one process") };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
        line.trim_start_matches(':').split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid"), [NOBODY; 4]);
    assert_eq!(field("Gid"), [NOBODY; 4]);
    assert_eq!(field("Groups"), [""; 0]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("NoNewPrivs"), ["1"]);
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(open <= 4, "{open} descriptors");

    // Nobody sees its flows, and everybody sees that they were counted.
    let flows = patience::until("the flow to db is told", patience::seconds(5), || {
        let flows = scene.agent.cli(&["observe", "--last", "4096", "-o", "json"]).expect_ok();
        flows.contains("db").then_some(flows)
    });
    assert!(!flows.contains("canary") && !flows.contains("CANARY"), "{flows}");
    // What was applied since is tried, too.
    scene.until("Enforcing");
    let metrics = patience::until("the numbers say so", patience::seconds(5), || {
        let metrics = scene.agent.metrics();
        (metrics[r#"enforcer_policy_status{status="Enforcing"}"#] > 2.5).then_some(metrics)
    });
    assert!(metrics[SUCCESS] > 1e9 && scene.attempts("refused") > 0.5);
    assert!(metrics["enforcer_canary_verdicts_total"] > 3.5);
    assert!(!metrics.keys().any(|name| name.contains("reserved:canary") || name.contains("CANARY")));
    assert!(metrics[r#"enforcer_policy_status{status="CanaryFailed"}"#] < 0.5);

    // It dies with its agent, whatever kills that, and the next one finds the directory.
    scene.agent.kill9();
    patience::until_true("it has ended", patience::seconds(5), || processes(&directory).is_empty());
    scene.agent.run();
    scene.until("Enforcing");
    let [next] = processes(&directory)[..] else { panic!("one process") };
    assert_ne!(next, pid);
    assert_eq!(scene.agent.terminate(), 0);
    let removed = scene.agent.cli(&["uninstall"]).expect_ok();
    assert!(removed.contains(&format!("removed {}\n", directory.display())), "{removed}");
    assert!(!directory.exists());
}

fn what_is_let_through_is_told() {
    let scene = Scene::new("let-through", &[]);
    scene.push();
    scene.until("Enforcing");
    let failed = scene.attempts("failed");
    // What nobody looks after: to the hooks it is the host now.
    let bindings = PinnedMap::open(&scene.world.pins().join("BINDINGS")).unwrap();
    bindings.remove(&cgroup_id(&scene.directory()).0).unwrap();
    for message in scene.until("CanaryFailed") {
        assert!(message.contains("connect4 was let through") || message.contains("errno 111"), "{message}");
    }
    let status = scene.agent.status();
    assert_eq!((status.state.as_str(), status.canary.state.as_str()), ("degraded", "failed"));
    assert!(status.problems.iter().any(|it| it.starts_with("the canary was not refused")), "{status:?}");
    assert!(scene.attempts("failed") > failed);
    patience::until_true("the numbers say so", patience::seconds(5), || {
        scene.agent.metrics()[r#"enforcer_degraded{reason="canary"}"#] > 0.5
    });
    assert_eq!(scene.agent.cli(&["status"]).code, 1);
}

fn a_detached_hook_is_noticed() {
    let scene = Scene::new("detached", &[]);
    scene.push();
    scene.until("Enforcing");
    // The agent puts it back within a second; the canary tries ten times as often.
    for hook in ["connect4", "sendmsg6"] {
        let seen = (0..10).any(|_| {
            let before = scene.attempts("failed");
            bpf::detach(&scene.world.pins().join(format!("link_{hook}"))).unwrap();
            patience::until_true("it is attached again", patience::seconds(10), || {
                let status = scene.agent.status();
                status.hooks.iter().any(|it| it == hook) && status.problems.is_empty()
            });
            scene.attempts("failed") > before
        });
        assert!(seen, "{hook} was detached ten times, and the canary has not seen it");
        // An attempt is counted before it is told of.
        patience::until_true("it says which call was not refused", patience::seconds(5), || {
            scene.agent.told().contains(&format!("{hook} was "))
        });
        scene.until("Enforcing");
    }
}

fn where_nothing_can_be_tried_nothing_is_proven() {
    let scene = Scene::new("not-tried", &[("canary-interval", "none")]);
    scene.push();
    for message in scene.until("NotProven") {
        assert_eq!(message, "not proven: the setting canary-interval is none");
    }
    let status = scene.agent.status();
    assert_eq!((status.state.as_str(), status.canary.state.as_str()), ("enforcing", "unproven"));
    drop(scene);
    for (mode, word) in [("audit", "AuditMode"), ("off", "Off")] {
        let scene = Scene::new("no-mode", &[("mode", mode)]);
        scene.push();
        scene.until(word);
        assert!(scene.attempts("refused") < 0.5 && scene.attempts("failed") < 0.5);
        assert_eq!(scene.agent.status().canary.state, "unproven");
    }
}

fn what_could_not_be_made_is_made_later() {
    // The tree takes no more directories: what a read-only one comes to.
    let limit = |world: &World, value: &str| {
        fs::write(world.guarded().join("cgroup.max.descendants"), value).unwrap();
    };
    let scene = Scene::in_world(World::new("no-room"), &[], &|world| limit(world, "2"));
    scene.push();
    for message in scene.until("NotProven") {
        assert!(message.starts_with("not proven: no cgroup /"), "{message}");
    }
    assert_eq!(scene.agent.status().state, "enforcing", "that is no failure");
    assert_eq!(scene.web.connect(DB).errno, EPERM);
    limit(&scene.world, "max");
    scene.until("Enforcing");
    // Whoever removes it while its process is away finds it again.
    let directory = scene.directory();
    let old = cgroup_id(&directory);
    patience::until_true("it is another directory", patience::seconds(20), || {
        let found = fs::metadata(&directory).map(|found| CgroupId(found.ino()));
        if found.as_ref().is_ok_and(|found| *found == old) {
            fs::write(directory.join("cgroup.kill"), "1").ok();
            fs::remove_dir(&directory).ok();
        }
        found.is_ok_and(|found| found != old)
    });
    scene.until("Enforcing");
    assert!(scene.attempts("failed") < 0.5, "nothing was ever let through");
}

fn peers_that_wait_are_shown() {
    let scene = Scene::new("pending", &[]);
    let names = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: out}\n\
                 spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: \
                 [{domainNames: [example.com]}, {nodes: {matchLabels: {zone: a}}}]}]}\n";
    scene.agent.cli_with(&["policy", "apply", "-f", "-"], names).expect_ok();
    for message in scene.until("PendingPeers") {
        assert!(message.contains("egress[0]: domainNames example.com; egress[0]: nodes zone=a"), "{message}");
    }
    let status = scene.agent.cli(&["status"]);
    assert!(status.stdout.contains("clusternetworkpolicy/out egress[0]: nodes zone=a"), "{status:#?}");
    let wide = scene.agent.cli(&["policy", "list", "-o", "wide"]).expect_ok();
    assert!(wide.contains("egress[0]: domainNames example.com"), "{wide}");
    let got = scene.agent.cli(&["policy", "get", "clusternetworkpolicy/out", "-o", "json"]).expect_ok();
    assert!(got.contains("\"PendingPeers\""), "{got}");
    let lint = scene.agent.cli_with(&["policy", "lint", "-"], names);
    assert!(lint.code == 1 && lint.stdout.contains("domainNames"), "{lint:#?}");
}
