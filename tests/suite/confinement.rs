//! What the agent has given up holds for every thread and child of it, as long as it lives, and keeps it from nothing that it does.
//! Every other test of this suite runs under it too.

mod lack;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use enforcer_tests::agent::Agent;
use enforcer_tests::patience;
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("every_thread_for_its_whole_life", every_thread_for_its_whole_life),
    ("without_the_filter_it_is_told", without_the_filter_it_is_told),
    ("each_capability_is_needed", lack::each_capability_is_needed),
];

const DB: &str = "127.0.0.1:5432";
const TIERS: &str = include_str!("../../policies/three-tier.yaml");
/// `SECCOMP_MODE_FILTER`
const FILTER: &str = "2";
/// Bits of capabilities (linux/capability.h) that nobody needs who enforces, among many.
const DANGEROUS: [u32; 6] = [13, 16, 17, 18, 22, 27];

/// What the kernel says of all threads of a process, of one kind; `None` if the process has ended.
#[track_caller]
fn one(pid: u32, field: &str) -> Option<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let all: BTreeSet<String> = tasks
        .filter_map(|task| {
            // A thread may end meanwhile, and so may the process.
            let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
            Some(line.trim().to_owned())
        })
        .collect();
    assert!(all.len() <= 1, "the threads of {pid} differ in {field}: {all:?}");
    all.into_iter().next()
}

/// Looks at what a process may, and returns how many capabilities that are; `None` if it has ended.
#[track_caller]
fn look(pid: u32, who: &str) -> Option<u32> {
    assert_eq!(one(pid, "Seccomp")?, FILTER, "{who}");
    assert_eq!(one(pid, "NoNewPrivs")?, "1", "{who}");
    let mut count = 0;
    for field in ["CapEff", "CapPrm", "CapBnd"] {
        let set = u64::from_str_radix(&one(pid, field)?, 16).unwrap();
        for bit in DANGEROUS {
            assert_eq!(set >> bit & 1, 0, "{who} has capability {bit} in {field}");
        }
        if field == "CapPrm" {
            count = set.count_ones();
        }
    }
    Some(count)
}

fn canary(agent: &Agent) -> u32 {
    let children = format!("/proc/{0}/task", agent.pid());
    patience::until("the canary runs", patience::seconds(10), || {
        let tasks = fs::read_dir(&children).ok()?.filter_map(Result::ok);
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        children.collect::<String>().split_whitespace().next()?.parse().ok()
    })
}

#[track_caller]
fn check(agent: &Agent) {
    let told = agent.status().confinement;
    assert_eq!(told.problems, Vec::<String>::new());
    assert!(told.seccomp && told.no_new_privileges, "{told:?}");
    let has = look(agent.pid(), "the agent").expect("the agent runs");
    assert_eq!(has as usize, told.capabilities.len(), "{told:?}");
    // Another takes its place when it ends.
    patience::until("the canary is looked at", patience::seconds(20), || look(canary(agent), "its canary"));
}

fn scene(name: &str, settings: &[(&str, &str)]) -> (World, Agent, Workload, Workload) {
    let world = World::new(name);
    let (web, db) = (world.workload("web"), world.workload("db"));
    db.serve(true, DB);
    let mut agent = Agent::new(&world);
    let attach = world.relative(&world.guarded());
    // As the root of a tree is, which is what hosts attach to.
    fs::set_permissions(world.guarded(), fs::Permissions::from_mode(0o555)).unwrap();
    let own = [("attach", attach.as_str()), ("canary-interval", "100ms")];
    agent.configure(&own.into_iter().chain(settings.iter().copied()).collect::<Vec<_>>());
    agent.workloads([&web, &db]);
    agent.run();
    (world, agent, web, db)
}

fn every_thread_for_its_whole_life() {
    let (_world, mut agent, web, _db) = scene("confined", &[]);
    check(&agent);
    agent.cli_with(&["policy", "apply", "-f", "-"], TIERS).expect_ok();
    assert_ne!(web.connect(DB).errno, 0);
    check(&agent);
    // The next one loads its programs, adopts what is there and makes a canary of its own. `faults::kills` has the kernel of the
    // emulated machine take that from a daemon that is as confined.
    if !patience::is_emulated() {
        agent.kill9();
        agent.run();
        check(&agent);
    }
    assert_ne!(web.connect(DB).errno, 0);
    agent.cli(&["policy", "delete", "web", "db", "api"]).expect_ok();
    check(&agent);
    assert_eq!(agent.terminate(), 0);
}

fn without_the_filter_it_is_told() {
    let (_world, agent, ..) = scene("unfiltered", &[("seccomp", "off")]);
    let told = agent.status().confinement;
    assert!(!told.seccomp && told.no_new_privileges, "{told:?}");
    assert_eq!(one(agent.pid(), "NoNewPrivs").as_deref(), Some("1"));
    let text = agent.cli(&["status"]).stdout;
    assert!(text.contains("seccomp off"), "{text}");
}
