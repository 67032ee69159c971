//! What an agent loses with each of its capabilities: the table of docs/install.md#rights, by agents that lack just one.

use std::fs;
use std::time::{Duration, Instant};

use enforcer_tests::agent::Agent;
use enforcer_tests::patience;
use enforcer_tests::puppet::{Fd, Order};
use enforcer_tests::sockaddr;
use enforcer_tests::workload::{Workload, descriptor};
use enforcer_tests::world::World;

const OLD: &str = "127.0.0.1:5432";
const OLDER_PORT: &str = "127.0.0.1:5434";
const NEW: &str = "127.0.0.1:5433";
const FOR_WEB: &str = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: db}\nspec:\n  \
                       subject: {matchLabels: {app: db}}\n  ingress: [{from: [{workloads: {matchLabels: {app: web}}}]}]\n";

/// What the policy denies is not refused, or nothing is told to enforce at all.
const ENFORCEMENT: &str = "enforcement";
/// Nobody looks at whose the sockets from before the start are.
const OLDER: &str = "older sockets";
/// A connection from before the start that is forbidden goes on.
const OLDER_CONNECTIONS: &str = "older connections";
/// A policy that changes is not enforced.
const CHANGES: &str = "changes";
/// An open connection that is forbidden now does not end.
const CUTS: &str = "cuts";
/// What the kernel has can't be compared with what it was given: the agent is degraded.
const COMPARISON: &str = "comparison";
/// Its canary was not refused.
const PROOF: &str = "proof";

/// Number (linux/capability.h), name, and what is lost without it.
const RIGHTS: [(u32, &str, &[&str]); 7] = [
    (21, "CAP_SYS_ADMIN", &[CHANGES, CUTS, COMPARISON]),
    (12, "CAP_NET_ADMIN", &[CUTS]),
    (19, "CAP_SYS_PTRACE", &[OLDER]),
    (7, "CAP_SETUID", &[PROOF]),
    (6, "CAP_SETGID", &[PROOF]),
    // Contained in CAP_SYS_ADMIN.
    (39, "CAP_BPF", &[]),
    (38, "CAP_PERFMON", &[]),
];

pub(super) fn each_capability_is_needed() {
    let mut wrong = Vec::new();
    for (number, name, expected) in RIGHTS {
        let lost = lost_without(number);
        println!("without {name}: lost {lost:?}");
        if lost != expected {
            wrong.push(format!("without {name}: lost {lost:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether it comes true soon; here not to come true is an answer.
fn soon(look: impl FnMut() -> bool) -> bool {
    within(patience::seconds(4), look)
}

fn within(limit: Duration, mut look: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !look() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Has an agent live without one capability, and looks at what it does.
fn lost_without(capability: u32) -> Vec<&'static str> {
    let world = World::new("lacks");
    let [web, db, other] = ["web", "db", "other"].map(|name| world.workload(name));
    db.serve(true, OLD);
    let (near, far) = open(&other, &db, OLDER_PORT);
    let mut agent = Agent::new(&world);
    agent.configure(&[("attach", &world.relative(&world.guarded())), ("canary-interval", "1s")]);
    agent.workloads([&web, &db, &other]);
    fs::write(agent.policies().join("db.yaml"), FOR_WEB).unwrap();
    agent.without(capability);
    agent.spawn();
    // Nobody's lack keeps it from its first table.
    agent.until_ready();
    let mut lost = Vec::new();
    let mut look = |what: &'static str, is_there: bool| lost.extend((!is_there).then_some(what));
    look(ENFORCEMENT, soon(|| other.connect(OLD).errno != 0));
    assert!(soon(|| web.connect(OLD).errno == 0), "what is allowed is allowed");
    look(OLDER, unseen(&agent.told()) < 3);
    let goes_on =
        || other.send_on(near, None).errno == 0 && db.puppet.obey(&Order::Receive { fd: far }).value == 1;
    look(OLDER_CONNECTIONS, soon(|| !goes_on()));
    let cuts = cuts(&agent, &web, &db);
    look(CHANGES, soon(|| web.connect(OLD).errno != 0));
    look(CUTS, cuts);
    look(PROOF, soon(|| agent.status().canary.state == "refused"));
    look(COMPARISON, agent.status().problems.is_empty());
    lost
}

/// How many processes there were whose sockets could not be looked at; one or two of a host may be like that with every right.
fn unseen(told: &str) -> u64 {
    let count =
        told.split_once(" descriptors of ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    count.unwrap_or(0)
}

/// A connection that is open: its ends.
fn open(web: &Workload, db: &Workload, at: &str) -> (Fd, Fd) {
    let server = db.open(true, &at.parse().unwrap());
    let near = web.socket(libc::AF_INET, libc::SOCK_STREAM);
    assert_eq!(web.connect_on(near, sockaddr::of(at.parse().unwrap())).errno, 0);
    (near, descriptor(&db.must(&Order::Accept { fd: server.fd })))
}

/// Opens a connection, and has it forbidden.
fn cuts(agent: &Agent, web: &Workload, db: &Workload) -> bool {
    let (near, far) = open(web, db, NEW);
    fs::write(agent.policies().join("db.yaml"), FOR_WEB.replace("app: web", "app: nobody")).unwrap();
    let is_over = |who: &Workload, fd| who.puppet.obey(&Order::Receive { fd }).errno != libc::EAGAIN;
    soon(|| is_over(web, near) && is_over(db, far))
}
