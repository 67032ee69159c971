//! What changes while everything runs, and what the kernel does alone: quarantine, expiry, pushes that nobody confirms.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use enforcer::domain::timestamp::Timestamp;
use enforcer_tests::agent::Agent;
use enforcer_tests::patience;
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("quarantine_cuts_off_in_both_directions", quarantine_cuts_off_in_both_directions),
    ("quarantine_outlives_the_daemon_and_the_cgroup", quarantine_outlives_the_daemon_and_the_cgroup),
    ("quarantine_ends_without_the_daemon", quarantine_ends_without_the_daemon),
    ("a_rule_expires_without_the_daemon", a_rule_expires_without_the_daemon),
    ("an_unconfirmed_push_goes_back_without_the_daemon", an_unconfirmed_push_goes_back_without_the_daemon),
    ("a_confirmed_push_stays", a_confirmed_push_stays),
];

const EPERM: i32 = 1;
const WEB: &str = "127.0.0.1:8081";
const DB: &str = "127.0.0.1:5432";
const PROBE: &str = "127.0.0.1:9999";
/// Everything is open to everyone, explicitly.
const OPEN: &str = "apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: open}
spec: {subject: {}, ingress: [{}], egress: [{}]}
";

/// Three servers under a real daemon.
struct Scene {
    agent: Agent,
    web: Workload,
    db: Workload,
    probe: Workload,
    _world: World,
}

impl Scene {
    fn new(name: &str) -> Self {
        let world = World::new(name);
        let (web, db, probe) = (world.workload("web"), world.workload("db"), world.workload("probe"));
        let agent = Agent::new(&world);
        agent.workloads([&web, &db, &probe]);
        let mut agent = agent;
        agent.run();
        web.serve(true, WEB);
        db.serve(true, DB);
        probe.serve(true, PROBE);
        Self { agent, web, db, probe, _world: world }
    }

    fn cli(&self, arguments: &[&str]) -> String {
        self.agent.cli(arguments).expect_ok()
    }

    fn push(&self, arguments: &[&str], text: &str) -> String {
        let all = [&["policy", "apply", "-f", "-"], arguments].concat();
        self.agent.cli_with(&all, text).expect_ok()
    }
}

/// Who may connect to whom: nothing for yes, the errno for no.
#[track_caller]
fn check(expected: [(&Workload, &str, i32); 4]) {
    for (who, to, errno) in expected {
        assert_eq!(who.connect(to).errno, errno, "{} -> {to}", who.name);
    }
}

/// A policy by which only `probe` reaches the database, until so long from now.
fn only_probe(lasts: Duration) -> String {
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + lasts;
    let seconds = i64::try_from(end.as_secs()).unwrap();
    let expires = Timestamp { seconds, nanos: end.subsec_nanos() };
    format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: db}}\nspec:\n  subject: \
         {{matchLabels: {{app: db}}}}\n  ingress:\n    - from: [{{workloads: {{matchLabels: {{app: probe}}}}}}]\n      \
         expiresAt: {expires}\n"
    )
}

/// Waits for the moment and a little more.
fn until(moment: Instant) {
    std::thread::sleep((moment + Duration::from_millis(300)).saturating_duration_since(Instant::now()));
}

fn quarantine_cuts_off_in_both_directions() {
    let scene = Scene::new("ward");
    let Scene { web, db, probe, .. } = &scene;
    scene.push(&[], OPEN);
    check([(web, DB, 0), (db, WEB, 0), (probe, WEB, 0), (web, PROBE, 0)]);
    let told = scene.cli(&["quarantine", "add", "web", "--allow-from", "default/probe"]);
    assert_eq!(told, "default/web is in quarantine until it is released; let in: default/probe\n");
    check([(web, DB, EPERM), (db, WEB, EPERM), (probe, WEB, 0), (web, PROBE, EPERM)]);
    assert_eq!(db.connect(PROBE).errno, 0, "who is not in quarantine is as before");
    let endpoints = scene.cli(&["endpoint", "list"]);
    let states: Vec<_> = endpoints.lines().filter(|line| line.contains("bound,quarantined")).collect();
    assert!(states.len() == 1 && states[0].contains("web"), "{endpoints}");
    assert_eq!(scene.agent.status().quarantined, ["default/web"]);
    assert!((scene.agent.metrics()["enforcer_quarantined_workloads"] - 1.0).abs() < 0.5);
    let flows = scene.cli(&["observe", "--last", "100", "--verdict", "DROPPED", "-o", "json"]);
    assert!(
        flows.lines().count() >= 3 && flows.lines().all(|line| line.contains("\"QUARANTINED\"")),
        "{flows}"
    );
    scene.cli(&["quarantine", "release", "web"]);
    check([(web, DB, 0), (db, WEB, 0), (probe, WEB, 0), (web, PROBE, 0)]);
    assert!(scene.agent.told().contains("quarantine of default/web ends; asked for by user 0"));
    let again = scene.agent.cli(&["quarantine", "release", "web"]);
    assert!(again.code == 1 && again.stderr.contains("is not in quarantine"), "{again:?}");
}

fn quarantine_outlives_the_daemon_and_the_cgroup() {
    let mut scene = Scene::new("ward-kill");
    scene.cli(&["quarantine", "add", "default/web"]);
    let closed = |scene: &Scene| {
        let Scene { web, db, probe, .. } = scene;
        check([(web, DB, EPERM), (db, WEB, EPERM), (probe, WEB, EPERM), (db, PROBE, 0)]);
    };
    closed(&scene);
    scene.agent.kill9();
    closed(&scene);
    scene.agent.run();
    closed(&scene);
    let list = scene.cli(&["quarantine", "list"]);
    assert!(list.contains("default") && list.contains("present"), "{list}");
    // The workload goes and comes back.
    scene.agent.workloads([&scene.db, &scene.probe]);
    patience::until_true("the workload is gone", patience::seconds(10), || {
        scene.cli(&["quarantine", "list"]).contains("absent")
    });
    // The list says what the sources say, the kernel learns of it after.
    patience::until_true("its directory belongs to no workload", patience::seconds(10), || {
        scene.web.connect(DB).errno == 0
    });
    scene.agent.workloads([&scene.web, &scene.db, &scene.probe]);
    patience::until_true("the workload is bound", patience::seconds(10), || {
        scene.cli(&["endpoint", "list"]).contains("bound,quarantined")
    });
    closed(&scene);
}

/// So many seconds, and more of them where a command takes that long.
fn lasting(seconds: u64) -> Duration {
    Duration::from_secs(patience::scaled(seconds, seconds * 5))
}

fn quarantine_ends_without_the_daemon() {
    let mut scene = Scene::new("ward-end");
    let start = Instant::now();
    let lasts = lasting(3);
    scene.cli(&["quarantine", "add", "web", "--for", &format!("{}s", lasts.as_secs())]);
    scene.agent.kill9();
    assert_eq!(scene.web.connect(DB).errno, EPERM);
    assert!(start.elapsed() < lasts, "too slow to say anything");
    // The time began somewhere in that command.
    until(start + lasts + lasting(1));
    let Scene { web, db, probe, .. } = &scene;
    check([(web, DB, 0), (db, WEB, 0), (probe, WEB, 0), (web, PROBE, 0)]);
    scene.agent.run();
    assert_eq!(scene.cli(&["quarantine", "list"]).lines().count(), 1);
    assert_eq!(scene.web.connect(DB).errno, 0);
}

fn a_rule_expires_without_the_daemon() {
    let mut scene = Scene::new("expiry");
    let lasts = lasting(4);
    let end = Instant::now() + lasts;
    scene.push(&[], &only_probe(lasts));
    assert_eq!(scene.probe.connect(DB).errno, 0);
    assert_eq!(scene.web.connect(DB).errno, EPERM);
    scene.agent.kill9();
    assert_eq!(scene.probe.connect(DB).errno, 0);
    assert!(Instant::now() < end, "too slow to say anything");
    until(end);
    assert_eq!(scene.probe.connect(DB).errno, EPERM, "the rule is over");
    assert_eq!(scene.web.connect(DB).errno, EPERM, "its isolation is not");
    scene.agent.run();
    assert_eq!(scene.probe.connect(DB).errno, EPERM);
    assert!(scene.cli(&["policy", "list"]).contains("1 (1 expired)"));
}

fn an_unconfirmed_push_goes_back_without_the_daemon() {
    let mut scene = Scene::new("unconfirmed");
    scene.push(&[], OPEN);
    let closed = OPEN.replace("ingress: [{}], egress: [{}]", "ingress: []");
    let start = Instant::now();
    let lasts = lasting(4);
    let told = scene.push(&["--confirm-within", &format!("{}s", lasts.as_secs())], &closed);
    assert!(told.contains("unless `enforcer policy confirm` comes first"), "{told}");
    assert_eq!(scene.web.connect(DB).errno, EPERM);
    let second = scene.agent.cli_with(&["policy", "apply", "-f", "-"], OPEN);
    assert!(second.code == 1 && second.stderr.contains("waits for its confirmation"), "{second:?}");
    scene.agent.kill9();
    assert_eq!(scene.web.connect(DB).errno, EPERM, "it holds while there is time");
    assert!(start.elapsed() < lasts, "too slow to say anything");
    until(start + lasts + lasting(1));
    assert_eq!(scene.web.connect(DB).errno, 0, "the kernel went back");
    scene.agent.run();
    assert_eq!(scene.web.connect(DB).errno, 0);
    assert!(scene.cli(&["policy", "get", "open"]).starts_with(OPEN));
    let status = scene.agent.status();
    assert!(status.rolled_back.is_some_and(|told| told.contains("was taken back")));
    let late = scene.agent.cli(&["policy", "confirm"]);
    assert!(late.code == 1 && late.stderr.contains("was taken back"), "{late:?}");
}

fn a_confirmed_push_stays() {
    let scene = Scene::new("confirmed");
    scene.push(&[], OPEN);
    let closed = OPEN.replace("ingress: [{}], egress: [{}]", "ingress: []");
    let start = Instant::now();
    let lasts = lasting(3);
    scene.push(&["--confirm-within", &format!("{}s", lasts.as_secs())], &closed);
    scene.cli(&["policy", "confirm"]);
    assert!(start.elapsed() < lasts, "too slow to say anything");
    until(start + lasts + lasting(1));
    assert_eq!(scene.web.connect(DB).errno, EPERM);
    assert!(scene.cli(&["policy", "get", "open"]).starts_with(&closed));
    assert_eq!(scene.agent.status().unconfirmed, None);
}
