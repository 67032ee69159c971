//! The unit under a real service manager, as the first process of a world with cgroup v2 and nothing else: its hardening must leave
//! the service all that it needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use enforcer_tests::agent::program;
use enforcer_tests::patience;
use enforcer_tests::world::World;
use serde_json::Value;

use crate::registry::{Test, skip};

pub(crate) const TESTS: &[Test] =
    &[("the_unit_lives_under_its_own_hardening", the_unit_lives_under_its_own_hardening)];

const MANAGER: &str = "/lib/systemd/systemd";
const STAGE: &str = include_str!("stage.sh");
const TRY: &str = include_str!("try.sh");
const TIERS: &str = include_str!("../../../policies/three-tier.yaml");
/// The stage could not be built.
const CANNOT: i32 = 77;

/// The manager and all that it runs; killed together.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start(world: &World, shared: &Path) -> Machine {
    let cgroup = world.directory("machine").join("cgroup.procs");
    let stage = world.folder().join("stage");
    fs::create_dir(&stage).unwrap();
    let script = world.folder().join("stage.sh");
    fs::write(&script, STAGE).unwrap();
    let enter =
        "echo $$ > \"$CGROUP\"; exec unshare --mount --pid --cgroup --fork --kill-child bash \"$SCRIPT\"";
    let log = fs::File::create(shared.join("log")).unwrap();
    let child = Command::new("/bin/sh")
        .args(["-c", enter])
        .env("CGROUP", cgroup)
        .env("SCRIPT", script)
        .env("STAGE", stage)
        .env("SHARED", shared)
        .env("BINARY", program())
        .env("DEPLOY", Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    Machine(child.unwrap())
}

fn the_unit_lives_under_its_own_hardening() {
    if !Path::new(MANAGER).exists() {
        skip("there is no systemd on this machine");
    }
    let world = World::new("systemd");
    let shared = world.folder().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("try.sh"), TRY).unwrap();
    fs::write(shared.join("tiers.yaml"), TIERS).unwrap();
    let mut machine = start(&world, &shared);
    let read = |name: &str| fs::read_to_string(shared.join(name)).unwrap_or_default();
    patience::until("the service has lived", patience::seconds(90), || {
        match machine.0.try_wait().unwrap().map(|status| status.code()) {
            Some(Some(CANNOT)) => skip(format!("no stage for a service manager: {}", read("log").trim())),
            Some(code) => panic!("the manager ended with {code:?}: {} {}", read("log"), read("out")),
            None => shared.join("done").exists().then_some(()),
        }
    });
    let told = read("out");
    let told: BTreeMap<&str, &str> = told.lines().filter_map(|line| line.split_once(": ")).collect();
    for (what, value) in [
        ("started", "active"),
        ("words", "enforcing"),
        ("socket", "root enforcer 660"),
        ("state", "root 700"),
        ("enforcing", "3"),
        ("restarted", "active 3"),
        ("killed", "active 1"),
        ("reader", "3"),
        ("stopped", "inactive"),
    ] {
        assert_eq!(told.get(what), Some(&value), "{what}: {told:#?}");
    }
    assert!(told["writer"].contains("refused"), "{told:#?}");
    assert!(told["stranger"].contains("permission denied"), "{told:#?}");
    assert!(told["pins"].parse::<u32>().unwrap() > 10, "a stopped service goes on enforcing: {told:#?}");
    assert!(!told.get("removed").is_some_and(|left| left.contains("enforcer")), "{told:#?}");
    let status: Value = serde_json::from_str(told["status"]).unwrap();
    assert_eq!(status["problems"], Value::Array(Vec::new()), "{status:#}");
    assert_eq!(status["confinement"]["seccomp"], true, "{status:#}");
    assert_eq!(status["confinement"]["problems"], Value::Array(Vec::new()), "{status:#}");
    assert_eq!(status["state"], "enforcing", "{status:#}");
}
