//! Whatever somebody takes away from the kernel or changes in it: it is noticed, and put right or told.

use std::fs;

use enforcer_common::abi::config::{Mode, Setting};
use enforcer_tests::agent::Agent;
use enforcer_tests::foreign::{self, Foreign};
use enforcer_tests::patience;
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("removed_pins_come_back", removed_pins_come_back),
    ("an_unmounted_file_system_takes_nothing_away", an_unmounted_file_system_takes_nothing_away),
    ("a_program_of_others_is_told", a_program_of_others_is_told),
    ("another_program_in_our_link_is_put_out", another_program_in_our_link_is_put_out),
    ("what_others_write_is_written_again", what_others_write_is_written_again),
    ("a_directory_that_was_removed_is_attached_again", a_directory_that_was_removed_is_attached_again),
];

const EPERM: i32 = 1;
const API: &str = "127.0.0.1:8081";
const DB: &str = "127.0.0.1:5432";
const TIERS: &str = include_str!("../../policies/three-tier.yaml");

struct Scene {
    agent: Agent,
    web: Workload,
    _others: [Workload; 2],
    /// What is attached when all is well.
    hooks: Vec<String>,
    world: World,
}

impl Scene {
    fn new(name: &str) -> Self {
        let world = World::new(name);
        let (web, api, db) = (world.workload("web"), world.workload("api"), world.workload("db"));
        db.serve(true, DB);
        api.serve(true, API);
        let mut agent = Agent::new(&world);
        agent.workloads([&web, &api, &db]);
        fs::write(agent.policies().join("tiers.yaml"), TIERS).unwrap();
        agent.run();
        let hooks = agent.status().hooks;
        assert!(hooks.contains(&"connect4".to_owned()), "{hooks:?}");
        let scene = Self { agent, web, _others: [api, db], hooks, world };
        scene.check();
        scene
    }

    #[track_caller]
    fn check(&self) {
        assert_eq!(self.web.connect(API).errno, 0, "web -> api");
        assert_eq!(self.web.connect(DB).errno, EPERM, "web -> db");
    }

    fn repairs(&self, kind: &str) -> f64 {
        self.agent.metrics()[&format!("enforcer_repairs_total{{kind=\"{kind}\"}}")]
    }

    /// As good as new, and no problem is left.
    #[track_caller]
    fn expect_well(&self) {
        self.check();
        within("all is well", || self.agent.status().problems.is_empty());
        assert_eq!(self.agent.status().hooks, self.hooks);
    }
}

/// Waits as long as a fault may stay unnoticed.
fn within(what: &str, mut look: impl FnMut() -> bool) {
    patience::in_time(what, patience::seconds(5), || look().then_some(()));
}

fn removed_pins_come_back() {
    let mut scene = Scene::new("pins-removed");
    let pins = ["link_connect4", "BINDINGS", "EVENTS"].map(|name| scene.world.pins().join(name));
    for pin in &pins {
        fs::remove_file(pin).unwrap();
    }
    within("the pins are back", || pins.iter().all(|pin| pin.exists()));
    within("the repairs are counted", || (scene.repairs("pin") - 3.0).abs() < 0.5);
    scene.expect_well();
    assert!(scene.agent.told().contains("the pin of map BINDINGS was gone"), "{}", scene.agent.told());
    // They are the same things: the next daemon finds what is in force.
    scene.agent.kill9();
    scene.check();
    scene.agent.run();
    scene.expect_well();
}

fn an_unmounted_file_system_takes_nothing_away() {
    let mut scene = Scene::new("pins-unmounted");
    let bpf = scene.world.folder().join("bpf");
    let pins = || fs::read_dir(scene.world.pins()).map_or(0, Iterator::count);
    let before = pins();
    umount2(&bpf, MntFlags::MNT_DETACH).unwrap();
    scene.check();
    within("it is told", || {
        scene.agent.status().problems.iter().any(|problem| problem.contains("no BPF file system"))
    });
    assert_eq!(scene.agent.status().hooks, scene.hooks, "nothing is detached");
    scene.check();
    mount(Some("bpf"), &bpf, Some("bpf"), MsFlags::empty(), None::<&str>).unwrap();
    within("all pins are back", || pins() == before);
    scene.expect_well();
    // The lock is on the new directory.
    let other = |name: &str| scene.world.folder().join(name).display().to_string();
    let (state, socket) = (other("other"), other("other.sock"));
    let arguments = ["--state-dir", &state, "--socket", &socket, "--metrics-listen", "none"];
    let second = scene.agent.refused(&arguments);
    assert!(second.stderr.contains("another instance uses the pins"), "{second:#?}");
    scene.agent.kill9();
    scene.check();
    scene.agent.run();
    scene.expect_well();
}

fn a_program_of_others_is_told() {
    let scene = Scene::new("foreign");
    let foreign = Foreign::load("somebody");
    let counted = || scene.agent.metrics()[r#"enforcer_foreign_programs{hook="connect4"}"#];
    let told = || {
        let status = scene.agent.status();
        status.notices.iter().any(|notice| notice.contains("program somebody") && notice.contains("connect4"))
    };
    within("nobody is there", || counted() < 0.5);
    for place in [&scene.web.cgroup, &scene.world.guarded(), &scene.world.guarded().join("..")] {
        let attached = foreign.attach(place);
        within("it is told", &told);
        assert!(counted() > 0.5);
        scene.expect_well();
        drop(attached);
        within("it is gone", || !told());
    }
    assert_eq!(scene.agent.status().state, "enforcing");
}

fn another_program_in_our_link_is_put_out() {
    let scene = Scene::new("replaced");
    let pin = scene.world.pins().join("link_connect4");
    Foreign::load("somebody").put_into(&pin);
    // The wall stands behind the program that was put out.
    assert_ne!(scene.web.connect(DB).errno, 0);
    within("the repair is counted", || scene.repairs("program") > 0.5);
    scene.expect_well();
}

fn what_others_write_is_written_again() {
    let scene = Scene::new("written");
    let config = scene.world.pins().join("CONFIG");
    foreign::write_word(&config, Setting::Mode as u32, Mode::Off as u64);
    within("the mode is back", || scene.web.connect(DB).errno == EPERM);
    within("the repair is counted", || scene.repairs("setting") > 0.5);
    foreign::remove(&scene.world.pins().join("TABLES"), 0);
    within("the table is back", || scene.web.connect(API).errno == 0);
    within("the repair is counted", || scene.repairs("table") > 0.5);
    scene.expect_well();
}

fn a_directory_that_was_removed_is_attached_again() {
    let world = World::new("remade");
    let place = world.directory("place");
    let mut agent = Agent::new(&world);
    let path = world.relative(&place);
    // The canary would live in there, and keep the directory from being removed.
    agent.configure(&[("attach", &path), ("managed", &format!("[{path}]")), ("canary-interval", "none")]);
    agent.run();
    let refused = || {
        let stray = world.workload_in("place", "stray", &[]);
        stray.puppet.obey(&enforcer_tests::puppet::Order::Enter { cgroup: place.clone() });
        stray.connect(DB).errno == EPERM
    };
    assert!(refused());
    let hooks = agent.status().hooks;
    patience::until_true("it is empty", patience::seconds(5), || fs::remove_dir(&place).is_ok());
    within("it is told", || {
        agent.status().problems.iter().any(|problem| problem.contains("nothing is enforced"))
    });
    assert!(!agent.status().hooks.contains(&"connect4".to_owned()));
    fs::create_dir(&place).unwrap();
    within("it is attached again", || agent.status().hooks == hooks);
    within("strangers are refused", &refused);
    within("all is well", || agent.status().problems.is_empty());
    assert!(agent.metrics()[r#"enforcer_repairs_total{kind="link"}"#] >= 5.0);
}
