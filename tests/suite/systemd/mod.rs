//! The unit under a real service manager, as the first process of a world with cgroup v2 and nothing else: its hardening must leave
//! the service all that it needs. And the manual's part about units, by real ones.
//!
//! `try.sh` has the statements. Its stage is a host made of namespaces here, and machines that systemd boots in `cargo xtask
//! cluster-test`, whose consoles are judged by the same assertions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use enforcer_tests::agent::program;
use enforcer_tests::patience;
use enforcer_tests::world::World;
use serde_json::Value;

use crate::pages::HOST;
use crate::registry::{Test, skip};

pub(crate) const TESTS: &[Test] = &[
    ("the_unit_lives_under_its_own_hardening", the_unit_lives_under_its_own_hardening),
    ("a_machine_boots_with_it", a_machine_boots_with_it),
];

const MANAGER: &str = "/lib/systemd/systemd";
const STAGE: &str = include_str!("stage.sh");
/// What both sides see.
const SHARED: [(&str, &str); 8] = [
    ("try.sh", include_str!("try.sh")),
    ("call.sh", include_str!("call.sh")),
    ("tiers.yaml", include_str!("../../../policies/three-tier.yaml")),
    ("host.md", HOST),
    ("units/try.service", include_str!("units/try.service")),
    ("units/nginx.service", include_str!("units/nginx.service")),
    ("units/other.service", include_str!("units/other.service")),
    ("units/app@.service", include_str!("units/app@.service")),
];
/// The file with what a machine told, as `cargo xtask cluster-test` names it.
const TOLD: &str = "ENFORCER_TOLD";
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
    let enter = "echo $$ > \"$CGROUP\"; exec unshare --mount --pid --net --cgroup --fork --kill-child bash \"$SCRIPT\"";
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
    fs::create_dir_all(shared.join("units")).unwrap();
    for (name, text) in SHARED {
        fs::write(shared.join(name), text).unwrap();
    }
    let mut machine = start(&world, &shared);
    let read = |name: &str| fs::read_to_string(shared.join(name)).unwrap_or_default();
    patience::until("the service has lived", patience::seconds(90), || {
        match machine.0.try_wait().unwrap().map(|status| status.code()) {
            Some(Some(CANNOT)) => skip(format!("no stage for a service manager: {}", read("log").trim())),
            Some(code) => panic!("the manager ended with {code:?}: {} {}", read("log"), read("out")),
            None => shared.join("done").exists().then_some(()),
        }
    });
    judge(&Told::new(&read("out")));
}

/// What the scripts told: `WHAT: VALUE`.
#[derive(Debug)]
struct Told(BTreeMap<String, String>);

impl Told {
    fn new(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once(": "));
        Self(pairs.map(|(what, value)| (what.to_owned(), value.to_owned())).collect())
    }

    #[track_caller]
    fn of(&self, what: &str) -> &str {
        self.0.get(what).unwrap_or_else(|| panic!("nothing is told of {what}: {self:#?}"))
    }

    #[track_caller]
    fn is(&self, what: &str, value: &str) {
        assert_eq!(self.of(what), value, "{what}: {self:#?}");
    }

    #[track_caller]
    fn has(&self, what: &str, part: &str) {
        assert!(self.of(what).contains(part), "{what} has no `{part}`: {self:#?}");
    }

    #[track_caller]
    fn number(&self, what: &str) -> u32 {
        self.of(what).parse().unwrap_or_else(|_| panic!("{what} is no number: {self:#?}"))
    }
}

/// Of the life of the service, on whichever stage.
fn judge(told: &Told) {
    for (what, value) in [
        ("started", "active"),
        ("words", "enforcing"),
        ("socket", "root enforcer 660"),
        ("state", "root 700"),
        ("enforcing", "3"),
        ("checked", "good"),
        ("restarted", "active 3"),
        ("killed", "active 1"),
        ("reader", "3"),
        ("manager", "active"),
        ("stopped", "inactive"),
        // The manual's part about units: the two that it chooses, and what becomes of calls.
        ("directory", "/system.slice/nginx.service"),
        ("nginx", "allowed"),
        ("other", "Operation not permitted"),
        ("nginx_alone", "allowed"),
        ("other_alone", "Operation not permitted"),
        ("other_free", "allowed"),
    ] {
        told.is(what, value);
    }
    for label in
        ["unit=nginx.service", "unit=app.service", "slice=system.slice", "slice=app.slice", "instance=blue"]
    {
        told.has("labels", &format!("systemd.io/{label}"));
        assert!(HOST.contains(label.split('=').next_back().unwrap()), "the page has no {label}");
    }
    // A name can't have the sign, so it is another one with a hash.
    let (blue, nginx) = told.of("units").split_once(' ').unwrap_or_default();
    assert!(blue.starts_with("app-blue.service-") && nginx == "nginx.service", "{told:#?}");
    told.has("writer", "refused");
    told.has("stranger", "permission denied");
    assert!(told.number("pins") > 10, "a stopped service goes on enforcing: {told:#?}");
    assert!(!told.0.get("removed").is_some_and(|left| left.contains("enforcer")), "{told:#?}");
    let status: Value = serde_json::from_str(told.of("status")).unwrap();
    assert_eq!(status["problems"], Value::Array(Vec::new()), "{status:#}");
    assert_eq!(status["confinement"]["seccomp"], true, "{status:#}");
    assert_eq!(status["confinement"]["problems"], Value::Array(Vec::new()), "{status:#}");
    assert_eq!(status["state"], "enforcing", "{status:#}");
}

/// Of a machine that systemd has booted, with the service enabled: besides its life, its place in the order of boot and end.
fn a_machine_boots_with_it() {
    let Ok(file) = std::env::var(TOLD) else {
        skip(format!("{TOLD} names nothing that a machine has told: `cargo xtask cluster-test` boots some"));
    };
    let told = Told::new(&fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")));
    told.is("first", "systemd");
    for controller in ["cpu", "io", "memory", "pids"] {
        told.has("controllers", controller);
    }
    told.is("old_trees", "0");
    // The first chance of a service that brings up a network: the order holds, and it is enforced already.
    told.is("boot", "active active inactive");
    told.is("boot_words", "enforcing");
    told.has("boot_policies", "boot");
    assert!(told.number("boot_links") > 10, "{told:#?}");
    judge(&told);
    told.is("failed", "");
    // It had ended in time when the services that began before it were ended, and what is loaded held until the end.
    told.is("shutdown", "success inactive");
    assert!(told.number("shutdown_links") > 10, "{told:#?}");
}
