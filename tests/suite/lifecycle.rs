//! The daemon dies, comes back, is given other policies and goes: what is enforced stays right all the time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

use enforcer_common::hook::Hook;
use enforcer_tests::agent::Agent;
use enforcer_tests::direct::Direct;
use enforcer_tests::patience;
use enforcer_tests::puppet::Order;
use enforcer_tests::sockaddr;
use enforcer_tests::workload::{Server, Workload};
use enforcer_tests::world::World;
use nix::sys::signal::Signal;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("killed_under_load_and_adopted", killed_under_load_and_adopted),
    ("servers_from_before_are_known", servers_from_before_are_known),
    ("restarted_with_other_policies", restarted_with_other_policies),
    ("a_bad_push_changes_nothing", a_bad_push_changes_nothing),
    ("uninstall_frees_everything", uninstall_frees_everything),
    ("generations_change_under_load", generations_change_under_load),
    ("a_stopped_daemon_loses_no_count", a_stopped_daemon_loses_no_count),
    ("workloads_come_and_go", workloads_come_and_go),
    ("charged_socket_storage_is_told", charged_socket_storage_is_told),
    ("a_new_label_set_is_enforced_by_the_table_in_force", a_new_label_set_is_enforced_by_the_table_in_force),
];

const EPERM: i32 = 1;
const API: &str = "127.0.0.1:8081";
const DB: &str = "127.0.0.1:5432";
const TIERS: &str = include_str!("../../policies/three-tier.yaml");

/// The three tiers under a real daemon.
struct Scene {
    agent: Agent,
    web: Workload,
    api: Workload,
    db: Workload,
    db_server: Server,
    world: World,
}

impl Scene {
    fn new(name: &str) -> Self {
        Self::with(name, &[])
    }

    fn with(name: &str, settings: &[(&str, &str)]) -> Self {
        let world = World::new(name);
        let (web, api, db) = (world.workload("web"), world.workload("api"), world.workload("db"));
        let agent = Agent::new(&world);
        agent.configure(&[&[("attach", world.relative(&world.guarded()).as_str())], settings].concat());
        agent.workloads([&web, &api, &db]);
        fs::write(agent.policies().join("tiers.yaml"), TIERS).unwrap();
        let mut scene = {
            let mut agent = agent;
            agent.run();
            let db_server = db.serve(true, DB);
            api.serve(true, API);
            Self { agent, web, api, db, db_server, world }
        };
        scene.check();
        scene
    }

    /// The statements that hold as long as the three tiers are enforced.
    #[track_caller]
    fn check(&mut self) {
        assert_eq!(self.web.connect(API).errno, 0, "web -> api");
        assert_eq!(self.web.connect(DB).errno, EPERM, "web -> db");
    }

    /// What is attached, by the numbers the kernel gave: pins are files with inodes of their own. A link of the security
    /// module can't be given another program: a new one is attached beside it and takes its name, so its number is 0 here.
    fn links(&self) -> BTreeMap<String, u64> {
        let beside = format!("link_{}", Hook::SocketCreate.program());
        let entries = fs::read_dir(self.world.pins()).unwrap().map(Result::unwrap);
        entries
            .map(|it| (it.file_name().to_string_lossy().into_owned(), it.metadata().unwrap().ino()))
            .map(|(name, number)| if name == beside { (name, 0) } else { (name, number) })
            .collect()
    }
}

fn hammer(who: &Workload, to: &str) {
    who.must(&Order::Hammer { to: sockaddr::of(to.parse().unwrap()) });
}

#[track_caller]
fn rest(who: &Workload, errno: i32) -> u64 {
    let tally = who.must(&Order::Rest).tally;
    let count = tally.get(&errno).copied().unwrap_or_default();
    assert!(count > 0 && tally.len() == 1, "{}: {tally:?}", who.name);
    count
}

fn killed_under_load_and_adopted() {
    let mut scene = Scene::new("killed");
    let denied = scene.world.puppet(&scene.web.cgroup);
    let links = scene.links();
    let generation = scene.agent.status().generation;
    let before = scene.agent.metrics();
    hammer(&scene.web, API);
    denied.obey(&Order::Hammer { to: sockaddr::of(DB.parse().unwrap()) });
    for _ in 0..patience::scaled(3, 1) {
        scene.agent.kill9();
        // Alone for a while.
        let start = Instant::now();
        patience::until_true("time without a daemon", patience::seconds(5), || {
            start.elapsed().as_millis() > 200
        });
        assert_eq!(scene.api.connect(DB).errno, 0);
        scene.agent.run();
    }
    let allowed = rest(&scene.web, 0);
    let tally = denied.obey(&Order::Rest).tally;
    let refused = tally.get(&EPERM).copied().unwrap_or_default();
    assert!(refused > 0 && tally.len() == 1, "{tally:?}");
    scene.db.until_served(&scene.db_server, patience::scaled(3, 1));
    assert_eq!(scene.links(), links, "the same pins");
    let status = scene.agent.status();
    assert!(status.generation >= generation, "{status:?}");
    let required = Hook::ALL.iter().filter(|hook| !hook.is_optional());
    for hook in required {
        assert!(status.hooks.iter().any(|name| name == hook.program()), "{hook:?}: {status:?}");
    }
    // Counters outlive the daemon: all that was done since is in them.
    let now = scene.agent.metrics();
    let grown = |marks: [&str; 3]| grown(&before, &now, &marks);
    assert_eq!(grown([r#"action="forwarded""#, r#"direction="egress""#, r#"port="8081""#]), allowed);
    assert_eq!(grown([r#"action="dropped""#, r#"direction="egress""#, r#"port="5432""#]), refused);
}

/// How much the verdicts with these labels have grown.
fn grown(before: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>, marks: &[&str]) -> u64 {
    let sum = |metrics: &BTreeMap<String, f64>| -> f64 {
        let rows = metrics.iter().filter(|(name, _)| name.starts_with("enforcer_policy_verdicts_total"));
        rows.filter(|(name, _)| marks.iter().all(|mark| name.contains(mark))).map(|(_, value)| value).sum()
    };
    let difference = sum(now) - sum(before);
    assert!(difference >= 0.0 && difference.fract() == 0.0, "{difference}");
    format!("{difference}").parse().unwrap()
}

/// A server that listens since before the first daemon is its workload's, and `observe` tells who refused whom.
fn servers_from_before_are_known() {
    let world = World::new("before");
    let (other, db) = (world.workload("other"), world.workload("db"));
    db.serve(true, DB);
    let mut agent = Agent::new(&world);
    agent.workloads([&other, &db]);
    fs::write(agent.policies().join("tiers.yaml"), TIERS).unwrap();
    agent.run();
    assert_eq!(other.connect(DB).errno, EPERM);
    let flow: serde_json::Value = patience::until("the flow is told", patience::seconds(5), || {
        let arguments = ["observe", "--verdict", "DROPPED", "--to", "db", "-o", "json"];
        let told = agent.cli(&arguments).expect_ok();
        told.lines()
            .last()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["flow"].take())
    });
    assert_eq!(flow["source"]["workloads"][0]["name"], "other", "{flow}");
    assert_eq!(flow["destination"]["workloads"][0]["name"], "db", "{flow}");
    assert_eq!(
        (&flow["enforcer"]["errno"], &flow["l4"]["TCP"]["destination_port"]),
        (&"EPERM".into(), &5432.into()),
        "{flow}"
    );
    assert_eq!(flow["drop_reason_desc"], "POLICY_DENIED", "{flow}");
    assert_eq!(
        (&flow["ingress_denied_by"][0]["name"], &flow["ingress_denied_by"][0]["rule"]),
        (&"db".into(), &"ingress (isolated)".into())
    );
}

fn restarted_with_other_policies() {
    let mut scene = Scene::new("other");
    let links = scene.links();
    assert_eq!(scene.agent.terminate(), 0);
    scene.check();
    fs::remove_file(scene.agent.policies().join("tiers.yaml")).unwrap();
    scene.check();
    scene.agent.run();
    assert_eq!(scene.links(), links);
    assert_eq!(scene.web.connect(DB).errno, 0, "no policy isolates anybody any more");
    // And a file that comes is taken without a restart.
    fs::write(scene.agent.policies().join("tiers.yaml"), TIERS).unwrap();
    patience::until_true("the policies are enforced", patience::seconds(10), || {
        scene.web.connect(DB).errno == EPERM
    });
}

fn a_bad_push_changes_nothing() {
    let mut scene = Scene::new("push");
    let generation = scene.agent.status().generation;
    let bad = TIERS.replace("ingress:", "ingres:").replace("port: 5432", "port: 99999");
    let refused = scene.agent.cli_with(&["policy", "apply", "-f", "-"], &bad);
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(refused.stderr.contains("unknown-field") && refused.stderr.contains("bad-port"), "{refused:#?}");
    assert_eq!(scene.agent.status().generation, generation);
    scene.check();
    let quarantine = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: quarantine}\n\
                      spec: {errno: EHOSTUNREACH, subject: {matchLabels: {app: web}}, egress: [{action: Deny}]}\n";
    let dry = scene.agent.cli_with(&["policy", "apply", "--dry-run", "-f", "-"], quarantine);
    dry.expect_ok();
    scene.check();
    scene.agent.cli_with(&["policy", "apply", "-f", "-"], quarantine).expect_ok();
    assert_eq!(scene.web.connect(API).errno, 113, "in force when the command is done");
    // A push is kept, whatever becomes of the daemon. Files are files on every kernel: once is enough.
    if !patience::is_emulated() {
        scene.agent.kill9();
        scene.agent.run();
        assert_eq!(scene.web.connect(API).errno, 113);
    }
    scene.agent.cli(&["policy", "delete", "quarantine"]).expect_ok();
    scene.check();
}

fn uninstall_frees_everything() {
    let mut scene = Scene::new("uninstall");
    let refused = scene.agent.cli(&["uninstall"]);
    assert_eq!(refused.code, 2, "a daemon runs: {refused:#?}");
    scene.check();
    assert_eq!(scene.agent.terminate(), 0);
    scene.check();
    let told = scene.agent.cli(&["uninstall"]).expect_ok();
    assert!(told.contains("link_connect4"), "{told}");
    assert_eq!(scene.web.connect(DB).errno, 0);
    assert!(!scene.world.pins().exists());
    let again = scene.agent.cli(&["uninstall"]);
    assert_eq!(again.code, 0, "{again:#?}");
}

/// Whatever is published, `web -> api` is allowed and `web -> db` is not.
fn generations_change_under_load() {
    let world = World::new("swap");
    let mut direct = Direct::start(&world);
    let (web, api, db) = (world.workload("web"), world.workload("api"), world.workload("db"));
    let other = world.puppet(&web.cgroup);
    direct.policies(TIERS);
    direct.bind([&web, &api, &db]);
    api.serve(true, API);
    let server = db.serve(true, DB);
    let policy = |rest: &str| {
        format!(
            "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: x}}\nspec: {{subject: {rest}}}\n"
        )
    };
    let api_only = "{matchLabels: {app: web}}, egress: [{to: [{workloads: {matchLabels: {app: api}}}]}]";
    let all_but_db = "{matchLabels: {app: db}}, ingress: [{action: Deny}, {}]";
    let texts = [TIERS.to_owned(), policy(api_only), policy(all_but_db)];
    hammer(&web, API);
    other.obey(&Order::Hammer { to: sockaddr::of(DB.parse().unwrap()) });
    for round in 0..patience::scaled(300, 60) {
        direct.policies(&texts[usize::try_from(round).unwrap() % texts.len()]);
    }
    rest(&web, 0);
    let tally = other.obey(&Order::Rest).tally;
    assert!(tally.len() == 1 && tally.contains_key(&EPERM), "{tally:?}");
    db.until_served(&server, 0);
}

fn a_stopped_daemon_loses_no_count() {
    // The canary would try at moments of its own, and be refused by events like others.
    let scene = Scene::with("stopped", &[("canary-interval", "none")]);
    // What was done before has been read.
    let settled = || {
        let metrics = scene.agent.metrics();
        let delivered = metrics[r#"enforcer_kernel_stats_total{stat="events_delivered"}"#];
        (metrics["enforcer_events_read_total"] >= delivered).then_some(metrics)
    };
    let before = patience::until("the events are read", patience::seconds(5), settled);
    scene.agent.signal(Signal::SIGSTOP);
    // More events than the ring holds.
    let count = 9_000;
    assert_eq!(scene.web.repeat(count, true, DB), BTreeMap::from([(EPERM, count)]));
    scene.agent.signal(Signal::SIGCONT);
    let now = patience::until("the events are read", patience::seconds(20), settled);
    let marks = [r#"action="dropped""#, r#"direction="egress""#, r#"port="5432""#];
    assert_eq!(grown(&before, &now, &marks), count);
    let difference = |name: &str| now[name] - before.get(name).copied().unwrap_or_default();
    let read = difference("enforcer_events_read_total");
    let lost = difference(r#"enforcer_lost_events_total{source="ring"}"#);
    assert!(lost > 0.0, "the ring held all of {read}");
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let expected = count as f64;
    assert!((read + lost - expected).abs() < 0.5, "{read} + {lost} are {expected}");
}

fn workloads_come_and_go() {
    let mut scene = Scene::new("come");
    let other = scene.world.workload("other");
    assert_eq!(other.connect(DB).errno, EPERM, "the host may not");
    let mut twin = scene.world.workload_in("default", "twin", &[("app", "api")]);
    scene.agent.workloads([&scene.web, &scene.api, &scene.db, &twin]);
    patience::until_true("the new workload is known", patience::seconds(10), || twin.connect(DB).errno == 0);
    scene.check();
    twin.relabel(&[("app", "none")]);
    scene.agent.workloads([&scene.web, &scene.api, &scene.db, &twin]);
    patience::until_true("the new label is known", patience::seconds(10), || twin.connect(DB).errno == EPERM);
    scene.agent.workloads([&scene.web, &scene.db]);
    patience::until_true("api is forgotten", patience::seconds(10), || scene.api.connect(DB).errno == EPERM);
}

/// Where the daemon can't leave its memory cgroup, that is told, by it and by the next one.
fn charged_socket_storage_is_told() {
    use enforcer::kernel::{Kernel, Settings};
    let world = World::new("charged");
    let good = world.settings();
    let (kernel, _) = Kernel::start(&good).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(kernel.storage_is_charged(), None);
    drop(kernel);
    enforcer::kernel::uninstall(&good.pins).unwrap();
    // Without the tree there is no root of the memory controller to go to.
    let bad = Settings { cgroup_root: world.folder().join("nowhere"), ..good.clone() };
    let (kernel, _) = Kernel::start(&bad).unwrap_or_else(|error| panic!("{error}"));
    let told = kernel.storage_is_charged().expect("it is told");
    assert!(told.contains("No such file"), "{told}");
    drop(kernel);
    let mut agent = Agent::start(&world);
    patience::until_true("it is told", patience::seconds(5), || {
        agent.status().notices.iter().any(|notice| notice.contains("an earlier daemon has made the map"))
    });
    assert!(agent.metrics()["enforcer_socket_storage_charged"] > 0.5);
    assert_eq!(agent.terminate(), 0);
    agent.cli(&["uninstall"]).expect_ok();
    agent.run();
    assert!(agent.metrics()["enforcer_socket_storage_charged"] < 0.5);
}

/// Two label sets that nobody had before, of classes that are there: no other table is made, and the kernel judges by them.
fn a_new_label_set_is_enforced_by_the_table_in_force() {
    let mut scene = Scene::new("label");
    let generation = scene.agent.status().generation;
    let friend = scene.world.workload_in("default", "friend", &[("app", "api"), ("mark", "new")]);
    let stranger = scene.world.workload_in("default", "stranger", &[("app", "web"), ("mark", "new")]);
    scene.agent.workloads([&scene.web, &scene.api, &scene.db, &friend, &stranger]);
    let known = || friend.connect(DB).errno == 0 && stranger.connect(API).errno == 0;
    patience::until_true("the new workloads are known", patience::seconds(10), known);
    assert_eq!(stranger.connect(DB).errno, EPERM, "web may not");
    assert_eq!(scene.agent.status().generation, generation, "by the table that was in force");
    scene.check();
    // What was counted is who they are to `top` as well.
    let top = scene.agent.cli(&["top", "--batch", "--interval", "200ms", "--sort", "denied"]).expect_ok();
    let edge = |source: &str, destination: &str| {
        top.lines()
            .any(|line| line.starts_with(source) && line.split_whitespace().nth(1) == Some(destination))
    };
    assert!(edge("default/api", "default/db:5432") && edge("default/web", "default/db:5432"), "{top}");
    assert!(!top.contains("canary"), "{top}");
}
