//! Audit log and flow history of the real daemon: sums are those of what was done, whatever is done to the daemon and its
//! disk; and what is enforced does not depend on either.

use std::fs;
use std::path::{Path, PathBuf};

use enforcer::domain::audit::record::Record;
use enforcer::domain::audit::verify::Range;
use enforcer::domain::history::{History, HistoryQuery};
use enforcer::telemetry::audit::read;
use enforcer::telemetry::history::query::query;
use enforcer_tests::agent::Agent;
use enforcer_tests::patience;
use enforcer_tests::puppet::Tally;
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("counts_of_a_flood_with_a_stalled_ring", counts_of_a_flood_with_a_stalled_ring),
    ("who_changed_what", who_changed_what),
    ("a_full_disk", a_full_disk),
    ("fail_closed", fail_closed),
    ("a_disk_that_does_not_answer", a_disk_that_does_not_answer),
];

const EPERM: i32 = 1;
const DB: &str = "127.0.0.1:5432";
/// `db` lets `web` in and nobody else.
const POLICY: &str = "\
apiVersion: enforcer.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: db}
spec:
  subject: {matchLabels: {app: db}}
  ingress:
    - from: [{workloads: {matchLabels: {app: web}}}]
";

struct Scene {
    agent: Agent,
    web: Workload,
    bad: Workload,
    world: World,
    mounted: Option<PathBuf>,
}

impl Scene {
    fn new(name: &str, settings: &[(&str, &str)]) -> Self {
        let world = World::new(name);
        let (web, bad, db) = (world.workload("web"), world.workload("bad"), world.workload("db"));
        let agent = Agent::new(&world);
        agent.workloads([&web, &bad, &db]);
        let guarded = world.relative(&world.guarded());
        let own = [("attach", guarded.as_str()), ("audit-interval", "1s"), ("log-level", "debug")];
        agent.configure(&[&own[..], settings].concat());
        fs::write(agent.policies().join("db.yaml"), POLICY).unwrap();
        db.serve(true, DB);
        // Its server lives as long as its process.
        std::mem::forget(db);
        Self { agent, web, bad, world, mounted: None }
    }

    fn audit(&self) -> PathBuf {
        self.world.folder().join("state/audit")
    }

    fn database(&self) -> PathBuf {
        self.world.folder().join("state/flows.db")
    }

    /// A small file system for the audit log.
    fn small_disk(&mut self) -> PathBuf {
        let place = self.audit();
        fs::create_dir_all(&place).unwrap();
        mount(Some("none"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=256k,mode=0700")).unwrap();
        self.mounted = Some(place.clone());
        place
    }

    #[track_caller]
    fn check(&self) {
        assert_eq!(self.bad.connect(DB).errno, EPERM, "bad -> db");
        assert_eq!(self.web.connect(DB).errno, 0, "web -> db");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(place) = &self.mounted {
            umount2(place, MntFlags::MNT_DETACH).expect("unmount what was mounted");
        }
    }
}

fn records(directory: &Path) -> Vec<Record> {
    let mut all = Vec::new();
    read::records(directory, Range::default(), |_, record| {
        all.push(record);
        Ok(())
    })
    .unwrap();
    all
}

/// Verdicts in the log from this workload.
fn denied(directory: &Path, from: &str) -> u64 {
    let is_from = |record: &&Record| {
        record.source.as_ref().is_some_and(|source| source.address == format!("default/{from}"))
    };
    let all = records(directory);
    all.iter().filter(is_from).filter_map(|record| Some(record.enforcer.verdicts.as_ref()?.count)).sum()
}

#[track_caller]
fn is_whole(directory: &Path) {
    let report = read::verify(directory, None, Range::default()).unwrap();
    assert_eq!(report.findings, []);
    assert!(report.records > 0);
}

fn history(database: &Path) -> History {
    query(database, &HistoryQuery::default()).unwrap()
}

/// Denials and allowed flows to `db` in the history, as the server's policy judged them, and bytes of the client.
fn kept(database: &Path) -> (u64, u64) {
    let sum = |verdict: &str| {
        let edges = history(database).edges;
        let ours = edges.iter().filter(|edge| edge.traffic_direction == "INGRESS" && edge.verdict == verdict);
        ours.map(|edge| edge.verdicts).sum()
    };
    (sum("DROPPED"), sum("FORWARDED"))
}

fn counts_of_a_flood_with_a_stalled_ring() {
    let mut scene = Scene::new("auditflood", &[]);
    scene.agent.run();
    let each = patience::scaled(4_000, 500);
    let refused = |count| assert_eq!(scene.bad.repeat(count, true, DB), Tally::from([(EPERM, count)]));
    // Nobody reads the ring, which overflows.
    scene.agent.signal(Signal::SIGSTOP);
    refused(2 * each);
    scene.agent.signal(Signal::SIGCONT);
    let lost = || scene.agent.metrics()["enforcer_lost_events_total{source=\"ring\"}"];
    patience::until_true("the ring has overflowed", patience::seconds(10), || lost() > 0.0);
    patience::until_true("the flood is recorded", patience::seconds(20), || {
        denied(&scene.audit(), "bad") == 2 * each
    });
    // A daemon that is killed, and counts that go on without it.
    refused(17);
    scene.agent.kill9();
    assert_eq!(scene.bad.repeat(each, true, DB), Tally::from([(EPERM, each)]));
    assert_eq!(scene.web.repeat(23, true, DB), Tally::from([(0, 23)]));
    scene.agent.run();
    assert_eq!(scene.bad.repeat(5, true, DB), Tally::from([(EPERM, 5)]));
    assert_eq!(scene.agent.terminate(), 0);
    let all = 3 * each + 22;
    assert_eq!(denied(&scene.audit(), "bad"), all);
    assert_eq!(kept(&scene.database()), (all, 23));
    is_whole(&scene.audit());
    // The canary was refused many times by now, which is nobody's business.
    let told = scene.agent.cli(&["audit", "list", &scene.audit().display().to_string()]).expect_ok();
    assert!(!told.contains("canary"), "{told}");
    assert!(!history(&scene.database()).edges.iter().any(|edge| format!("{edge:?}").contains("canary")));
    let with_process = records(&scene.audit()).into_iter().filter(|record| {
        record.process.is_some() && record.enforcer.verdicts.as_ref().is_some_and(|it| it.errno == "EPERM")
    });
    assert!(with_process.count() > 0, "events add who it was");
    // The command line finds the same, with and without an agent, and a record that is changed.
    let directory = scene.audit().display().to_string();
    let verified = scene.agent.cli(&["audit", "verify"]).expect_ok();
    assert!(verified.contains("whole: ") && verified.contains("\nhead: "), "{verified}");
    let head = verified.trim().rsplit_once("head: ").unwrap().1.to_owned();
    assert!(scene.agent.cli(&["audit", "list", &directory]).expect_ok().contains("flow-denied"));
    assert!(scene.agent.cli(&["audit", "export", "-o", "ocsf"]).expect_ok().contains("\"class_uid\":4001"));
    let database = scene.database().display().to_string();
    let offline =
        scene.agent.cli(&["flows", "history", "--verdict", "DROPPED", "--database", &database]).expect_ok();
    assert!(offline.contains(&all.to_string()), "{offline}");
    scene.agent.run();
    let asked = scene.agent.cli(&["flows", "history", "--from", "bad", "-o", "json"]).expect_ok();
    assert!(asked.contains(&format!("\"verdicts\": {all}")), "{asked}");
    assert_eq!(scene.agent.terminate(), 0);
    let file = fs::read_dir(scene.audit()).unwrap().map(|entry| entry.unwrap().path());
    let file = file.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).min().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("default/bad", "default/web", 1)).unwrap();
    let told = scene.agent.cli(&["audit", "verify", "--checkpoint", &head]);
    assert_eq!(told.code, 1, "{told:#?}");
    assert!(
        told.stdout.contains(&format!("{}:", file.display())) && told.stdout.contains("changed"),
        "{told:#?}"
    );
}

fn who_changed_what() {
    let mut scene = Scene::new("auditwho", &[]);
    scene.agent.run();
    let pushed = POLICY.replace("name: db", "name: more");
    scene.agent.cli_with(&["policy", "apply", "-f", "-"], &pushed).expect_ok();
    scene
        .agent
        .cli_with(&["policy", "apply", "-f", "-"], &pushed.replace("app: web", "app: api"))
        .expect_ok();
    scene.agent.cli(&["policy", "delete", "more"]).expect_ok();
    assert_eq!(scene.agent.cli(&["policy", "delete", "more"]).code, 1);
    scene.agent.cli(&["quarantine", "add", "bad"]).expect_ok();
    scene.agent.cli(&["quarantine", "release", "bad"]).expect_ok();
    scene.agent.workloads([&scene.web]);
    patience::until_true("the others are gone", patience::seconds(10), || {
        records(&scene.audit()).iter().filter(|record| record.event.action == "workload-gone").count() == 2
    });
    assert_eq!(scene.agent.terminate(), 0);
    scene.agent.cli(&["uninstall"]).expect_ok();
    is_whole(&scene.audit());
    let all = records(&scene.audit());
    let one = |action: &str| {
        let mut found = all.iter().filter(|record| record.event.action == action && record.user.is_some());
        let one = found.next().unwrap_or_else(|| panic!("no record of {action}"));
        assert!(one.process.as_ref().is_some_and(|process| process.pid > 1), "{one:#?}");
        assert_eq!(one.user.as_ref().unwrap().id, "0");
        one
    };
    let changed = one("policy-changed");
    assert_eq!(changed.rule.as_ref().unwrap().ruleset, "default/more");
    let diff = &changed.enforcer.change.as_ref().unwrap().diff;
    assert!(diff.contains("-    - from: [{workloads: {matchLabels: {app: web}}}]\n+"), "{diff}");
    assert!(changed.enforcer.generation > one("policy-created").enforcer.generation);
    assert_eq!(one("policy-deleted").event.types, ["deletion"]);
    assert!(one("policy-delete").event.reason.contains("there is no policy default/more"));
    one("quarantine-began");
    one("quarantine-ended");
    one("uninstalled");
    let actions: Vec<&str> = all.iter().map(|record| record.event.action.as_str()).collect();
    assert_eq!(actions[0], "agent-started");
    assert!(actions.ends_with(&["agent-stopped", "uninstalled"]), "{actions:?}");
    assert!(all.iter().any(|record| record.event.action == "workload-appeared"
        && record.labels.get("workload_labels").is_some_and(|labels| labels.contains("app=web"))));
}

/// What is left of the disk is used up.
fn fill(place: &Path) -> PathBuf {
    use std::io::Write as _;
    let path = place.join("fill");
    let mut file = fs::File::create(&path).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}
    path
}

fn a_full_disk() {
    let mut scene = Scene::new("auditfull", &[]);
    let place = scene.small_disk();
    scene.agent.run();
    scene.check();
    let filled = fill(&place);
    assert_eq!(scene.bad.repeat(40, true, DB), Tally::from([(EPERM, 40)]));
    let pushed = |name: &str| POLICY.replace("name: db", &format!("name: {name}"));
    scene.agent.cli_with(&["policy", "apply", "-f", "-"], &pushed("while-full")).expect_ok();
    patience::until_true("it is a problem", patience::seconds(20), || {
        scene.agent.status().problems.iter().any(|problem| problem.contains("the audit log in"))
    });
    assert!(scene.agent.metrics()["enforcer_audit_writable"] < 0.5);
    scene.check();
    fs::remove_file(filled).unwrap();
    patience::until_true("it goes on", patience::seconds(20), || scene.agent.status().problems.is_empty());
    // The other way to have no disk.
    let remount =
        |flags| mount(None::<&str>, &place, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>);
    remount(MsFlags::MS_RDONLY).unwrap_or_else(|_| drop(fill(&place)));
    assert_eq!(scene.bad.repeat(7, true, DB), Tally::from([(EPERM, 7)]));
    scene.agent.cli_with(&["policy", "apply", "-f", "-"], &pushed("while-away")).expect_ok();
    scene.check();
    remount(MsFlags::empty()).unwrap();
    fs::remove_file(place.join("fill")).ok();
    let at_least = 40 + 7 + 3;
    patience::until_true("all of it is recorded", patience::seconds(20), || {
        denied(&place, "bad") == at_least
    });
    assert_eq!(scene.agent.terminate(), 0);
    is_whole(&place);
    let created = records(&place).into_iter().filter(|record| record.event.action == "policy-created");
    let names: Vec<String> = created.filter_map(|record| Some(record.rule?.ruleset)).collect();
    assert!(names.ends_with(&["default/while-full".into(), "default/while-away".into()]), "{names:?}");
}

fn fail_closed() {
    let mut scene = Scene::new("auditclosed", &[("audit", "fail-closed"), ("audit-fsync", "always")]);
    let place = scene.small_disk();
    scene.agent.run();
    let push = |name: &str| {
        let text = POLICY.replace("name: db", &format!("name: {name}"));
        scene.agent.cli_with(&["policy", "apply", "-f", "-"], &text)
    };
    push("one").expect_ok();
    let filled = fill(&place);
    let told = push("two");
    assert_eq!(told.code, 1, "{told:#?}");
    assert!(told.stderr.contains("no change is made that can't be recorded"), "{told:#?}");
    assert_eq!(scene.agent.cli(&["quarantine", "add", "bad"]).code, 1);
    // Traffic and questions go on.
    scene.check();
    assert!(!scene.agent.cli(&["policy", "list"]).expect_ok().contains("two"));
    fs::remove_file(filled).unwrap();
    push("three").expect_ok();
    assert_eq!(scene.agent.terminate(), 0);
    is_whole(&place);
    let all = records(&place);
    let asked = all.iter().filter(|record| record.event.action == "policy-apply-requested").count();
    assert!(asked >= 2, "a change is recorded before it is made: {asked}");
}

/// A log that is a pipe which nobody empties: the writer waits for ever, and nobody else does.
fn a_disk_that_does_not_answer() {
    let mut scene = Scene::new("auditslow", &[]);
    let place = scene.audit();
    fs::create_dir_all(&place).unwrap();
    // The start waits for a reader of the pipe, which never comes.
    let pipe = place.join("audit-00000000000000000001.jsonl");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    scene.agent.run();
    scene.check();
    scene
        .agent
        .cli_with(&["policy", "apply", "-f", "-"], &POLICY.replace("name: db", "name: more"))
        .expect_ok();
    patience::until_true("it is a problem", patience::seconds(20), || {
        scene.agent.status().problems.iter().any(|problem| problem.contains("has not answered for"))
    });
    scene.check();
    assert_eq!(scene.agent.terminate(), 0, "and it ends all the same");
}
