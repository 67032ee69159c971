//! What the daemon refuses to start with: an exit code and one precise sentence with the next command.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use enforcer_tests::agent::{self, Agent, Output};
use enforcer_tests::patience;
use enforcer_tests::puppet::Order;
use enforcer_tests::world::World;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("not_root", not_root),
    ("what_is_missing", what_is_missing),
    ("what_is_taken", what_is_taken),
    ("a_wrong_configuration", a_wrong_configuration),
    ("nobody_answers", nobody_answers),
    ("a_missing_cgroup_is_told_and_picked_up", a_missing_cgroup_is_told_and_picked_up),
    ("a_damaged_state_is_not_guessed", a_damaged_state_is_not_guessed),
];

const FAILED: i32 = 2;
const NOBODY: u32 = 65_534;

/// One sentence on standard error, with these words in it; nothing on standard output.
#[track_caller]
fn refuses(output: &Output, words: &[&str]) {
    assert_eq!((output.code, output.stdout.as_str()), (FAILED, ""), "{output:#?}");
    for word in words {
        assert!(output.stderr.contains(word), "no `{word}` in {output:#?}");
    }
    let errors = output.stderr.lines().filter(|line| line.starts_with("error")).count();
    assert_eq!(errors, 1, "one sentence: {output:#?}");
}

fn not_root() {
    let world = World::new("nobody");
    let agent = Agent::new(&world);
    // Where another user can read it, whatever the folder of the sources is like.
    let program = world.folder().join("enforcer");
    fs::copy(agent::program(), &program).unwrap();
    for arguments in [&["run"][..], &["uninstall"]] {
        let mut command = Command::new(&program);
        command.env_clear().arg("--config").arg(agent.config()).args(arguments).uid(NOBODY).gid(NOBODY);
        let output = agent::output(command);
        refuses(&output, &["root", "sudo"]);
    }
}

fn what_is_missing() {
    let world = World::new("missing");
    let agent = Agent::new(&world);
    let folder = world.folder().display().to_string();
    refuses(&agent.refused(&["--cgroup-root", &folder]), &["cgroup v2", &folder, "findmnt -t cgroup2"]);
    let nowhere = format!("{folder}/nowhere/enforcer");
    refuses(&agent.refused(&["--pins", &nowhere]), &["BPF file system", "mount -t bpf"]);
    let plain = format!("{folder}/enforcer");
    refuses(&agent.refused(&["--pins", &plain]), &["BPF file system", "mount -t bpf"]);
    refuses(&agent.refused(&["--attach", "/no/such/cgroup"]), &["/no/such/cgroup", "mkdir -p"]);
    assert!(!world.pins().exists(), "nothing was touched");
}

fn what_is_taken() {
    let world = World::new("taken");
    let mut first = Agent::start(&world);
    let folder = world.folder().display().to_string();
    let (state, socket) = (format!("{folder}/other-state"), format!("{folder}/other.sock"));
    let pins = format!("{folder}/bpf/other");
    let pid = first.pid().to_string();
    refuses(&first.refused(&[]), &["another instance", &pid, "--state-dir"]);
    let own = ["--state-dir", &state, "--metrics-listen", "none"];
    let with = |rest: &[&str]| first.refused(&[&own[..], rest].concat());
    refuses(&with(&["--pins", &pins]), &["socket in use", "enforcer.sock"]);
    refuses(&with(&["--socket", &socket]), &["another instance", "pins", "--pins"]);
    let monitoring = ["--state-dir", &state, "--socket", &socket, "--pins", &pins];
    refuses(&first.refused(&monitoring), &["127.0.0.1:9962", "--metrics-listen"]);
    assert_eq!(first.status().state, "enforcing", "the first one does not mind");
    // A file that is no socket is not ours to remove.
    let file = format!("{folder}/precious");
    fs::write(&file, "precious").unwrap();
    refuses(&with(&["--pins", &pins, "--socket", &file]), &["precious", "socket"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert_eq!(first.terminate(), 0);
}

fn a_wrong_configuration() {
    let world = World::new("config");
    let agent = Agent::new(&world);
    agent.configure(&[("atach", "/"), ("log-levl", "info")]);
    let output = agent.refused(&[]);
    assert_eq!(output.code, FAILED, "{output:#?}");
    for word in ["enforcer.yaml:", "atach", "attach", "log-level"] {
        assert!(output.stderr.contains(word), "no `{word}` in {output:#?}");
    }
    agent.configure(&[("mode", "enforced")]);
    let output = agent.refused(&[]);
    assert_eq!(output.code, FAILED, "{output:#?}");
    assert!(output.stderr.contains("enforce, audit, off"), "{output:#?}");
    fs::remove_file(agent.config()).unwrap();
    refuses(&agent.refused(&[]), &["enforcer.yaml", "read"]);
}

fn nobody_answers() {
    let world = World::new("silent");
    let agent = Agent::new(&world);
    for arguments in [&["status"][..], &["policy", "list"], &["endpoint", "list"], &["observe"]] {
        refuses(&agent.cli(arguments), &["enforcer.sock", "enforcer run"]);
    }
}

fn a_missing_cgroup_is_told_and_picked_up() {
    const DB: &str = "127.0.0.1:5432";
    let world = World::new("absent");
    let mut agent = Agent::new(&world);
    let closed = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: late}\n\
                  spec: {subject: {matchLabels: {app: late}}, egress: []}\n";
    fs::write(agent.policies().join("late.yaml"), closed).unwrap();
    let (db, late) = (world.workload("db"), world.workload("late"));
    db.serve(true, DB);
    agent.workloads([&db, &late]);
    // Its process waits elsewhere until there is a directory.
    late.must(&Order::Enter { cgroup: world.guarded() });
    fs::remove_dir(&late.cgroup).unwrap();
    agent.run();
    let list = agent.cli(&["endpoint", "list"]).expect_ok();
    let row = list.lines().find(|line| line.contains("late")).expect("a row").to_owned();
    assert!(row.contains("waiting"), "{list}");
    let status = agent.status();
    assert_eq!((status.endpoints, status.endpoints_waiting), (2, 1), "{status:?}");
    fs::create_dir(&late.cgroup).unwrap();
    late.must(&Order::Enter { cgroup: late.cgroup.clone() });
    patience::until_true("the new directory is bound", patience::seconds(10), || late.connect(DB).errno == 1);
    patience::until_true("nobody waits", patience::seconds(5), || agent.status().endpoints_waiting == 0);
    // And made again: another directory under the old name.
    late.must(&Order::Enter { cgroup: world.guarded() });
    fs::remove_dir(&late.cgroup).unwrap();
    fs::create_dir(&late.cgroup).unwrap();
    late.must(&Order::Enter { cgroup: late.cgroup.clone() });
    patience::until_true("the next directory is bound", patience::seconds(10), || {
        late.connect(DB).errno == 1
    });
}

fn a_damaged_state_is_not_guessed() {
    let world = World::new("damaged");
    let mut agent = Agent::start(&world);
    let policy = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p}\n\
                  spec: {subject: {}, egress: []}\n";
    agent.cli_with(&["policy", "apply", "-f", "-"], policy).expect_ok();
    agent.kill9();
    let file = world.folder().join("state/registry.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    refuses(&agent.refused(&[]), &["registry.json", "damaged", "mv "]);
}
