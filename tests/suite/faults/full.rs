//! More of everything than there is room for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use enforcer::domain::delta::{Bound, Operation};
use enforcer::kernel::Kernel;
use enforcer_common::id::{CgroupId, IdentityId};
use enforcer_common::limits;
use enforcer_tests::patience;
use enforcer_tests::puppet::Order;
use ipnet::{IpNet, Ipv4Net};

use super::stage::{EPERM, PROBE, Stage};
use super::{Figures, is_long, millis};
use crate::registry::skip;

/// Ports that rules speak of one by one, over TCP and over UDP: more than there are classes.
const PORTS: u32 = 36_000;
/// Ports of one policy: a list has a limit of its own.
const PORTS_EACH: u32 = 500;
/// Policies of one file: a file has one too.
const POLICIES_EACH: u32 = 18;
/// Numbers of directories that no tree has.
const NOWHERE: u64 = 1 << 60;

/// The maps themselves: what is one too many is refused with the limit, and changes nothing.
pub(super) fn full_maps() {
    let mut figures = Figures::new("full-maps");
    let mut stage = Stage::enforcing("full");
    figures.exactly("push-refused-whole", u64::from(too_many_rules(&stage)), 1);
    if !is_long() {
        return figures.finish();
    }
    assert_eq!(stage.agent.terminate(), 0);
    // Behind the daemon's back, with its own hands.
    let (mut kernel, adopted) =
        Kernel::start(&stage.world.settings()).unwrap_or_else(|error| panic!("{error}"));
    let bind = |at: usize| Operation::Bind(CgroupId(NOWHERE + at as u64), Bound::always(IdentityId(256)));
    let address = |at: usize| {
        let net = Ipv4Net::new(Ipv4Addr::from(0xc633_0000 + u32::try_from(at).unwrap()), 32).unwrap();
        Operation::SetAddress(IpNet::V4(net), IdentityId(256))
    };
    let mut full = |name: &'static str, there: usize, limit: usize, make: &dyn Fn(usize) -> Operation| {
        for at in there..limit {
            kernel.apply(&make(at)).unwrap_or_else(|error| panic!("{name} {at}: {error}"));
        }
        let error = kernel.apply(&make(limit)).unwrap_err().to_string();
        assert!(error.contains(&format!("map {name} is full at {limit} entries")), "{error}");
        // What is there can be changed all the same.
        kernel.apply(&make(limit - 1)).unwrap_or_else(|error| panic!("{name}: {error}"));
    };
    full("BINDINGS", adopted.bindings.len(), limits::BINDINGS, &bind);
    full("ADDRESSES", adopted.addresses.len(), limits::ADDRESSES, &address);
    stage.check();
    drop(kernel);
    // A daemon that finds them so makes room, and brings in what is new meanwhile.
    stage.agent.disarm();
    let other = stage.world.workload_in("default", "other", &[("app", "good")]);
    stage.agent.workloads([&stage.good, &stage.bad, &stage.server, &other]);
    stage.agent.run();
    stage.check();
    assert_eq!(other.connect(PROBE).errno, 0);
    let metrics = stage.agent.metrics();
    let entries = |map: &str| metrics[&format!("enforcer_map_entries{{map_name=\"{map}\"}}")];
    figures.exactly("bindings-left", super::stage::whole(entries("bindings")), 4);
    figures.exactly("addresses-left", super::stage::whole(entries("addresses")), 0);
    figures.finish();
}

/// A push that needs more port classes than there are. Whether it was refused whole, with the numbers.
fn too_many_rules(stage: &Stage) -> bool {
    let status = stage.agent.status();
    let folder = stage.world.folder().join("many");
    fs::create_dir(&folder).unwrap();
    let policy = |number: u32| {
        let first = number * PORTS_EACH + 1;
        let rules: String = (first..first + PORTS_EACH)
            .map(|port| {
                format!("  - ports: [{{port: {port}}}]\n  - ports: [{{port: {port}, protocol: UDP}}]\n")
            })
            .collect();
        format!(
            "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: many-{number}}}\nspec:\n  \
             subject: {{matchLabels: {{app: bad}}}}\n  egress:\n{rules}---\n"
        )
    };
    for file in 0..PORTS / PORTS_EACH / POLICIES_EACH {
        let text: String = (file * POLICIES_EACH..(file + 1) * POLICIES_EACH).map(policy).collect();
        fs::write(folder.join(format!("{file}.yaml")), text).unwrap();
    }
    let told = stage.agent.cli(&["policy", "apply", "-f", &folder.display().to_string()]);
    println!("soak: full-maps: {} {}", told.code, told.stderr.lines().next().unwrap_or_default());
    stage.check();
    let now = stage.agent.status();
    let intact =
        (now.generation, now.policies, now.entries) == (status.generation, status.policies, status.entries);
    told.code != 0 && intact && told.stderr.contains(&limits::PORT_CLASSES.to_string())
}

/// More workloads than bindings: the real daemon, with real directories.
pub(super) fn full_bindings() {
    if !is_long() {
        skip("makes 65,600 cgroups: `cargo xtask soak full_bindings`; the short form is engine::tests::room");
    }
    let mut figures = Figures::new("full-bindings");
    let mut stage = Stage::enforcing("bindings");
    let crowd = stage.world.directory("crowd");
    let count = limits::BINDINGS + 64;
    let start = std::time::Instant::now();
    for at in 0..count {
        fs::create_dir(crowd.join(at.to_string())).unwrap();
    }
    figures.note("directories", count);
    figures.note("made-in-ms", millis(start));
    let relative = stage.world.relative(&crowd);
    // Those of the stage have their rows and keep them.
    let crowd_items =
        (0..count).map(|at| format!("{{name: c{at}, labels: {{app: good}}, cgroup: {relative}/{at}}}"));
    let stage_items = [&stage.good, &stage.bad, &stage.server].map(|workload| {
        let path = stage.world.relative(&workload.cgroup);
        format!("{{name: {}, labels: {{app: {}}}, cgroup: {path}}}", workload.name, workload.name)
    });
    let items: Vec<String> = stage_items.into_iter().chain(crowd_items).collect();
    let start = std::time::Instant::now();
    fs::write(stage.world.folder().join("workloads.yaml"), format!("workloads: [{}]\n", items.join(",\n")))
        .unwrap();
    let metrics = patience::until("the crowd is known", patience::seconds(120), || {
        let metrics = stage.agent.metrics();
        let known = metrics.get(r#"enforcer_endpoints{state="no-room"}"#).copied().unwrap_or_default() > 0.0;
        let bound = metrics[r#"enforcer_map_entries{map_name="bindings"}"#];
        (known && super::stage::whole(bound) == limits::BINDINGS as u64).then_some(metrics)
    });
    figures.note("known-in-ms", millis(start));
    figures.note("resident-kb", super::resident_kilobytes(stage.agent.pid()));
    figures.exactly(
        "no-room",
        super::stage::whole(metrics[r#"enforcer_endpoints{state="no-room"}"#]),
        64 + 3 + 1,
    );
    stage.check();
    let seen = crowd_verdicts(&stage, &crowd, count);
    // Some of the crowd are bound and may; the others may nothing, and none of them is the host.
    let status = stage.agent.status();
    figures.exactly("let-in-without-a-binding", seen.get("leak").copied().unwrap_or_default(), 0);
    figures.at_least("refused", seen.get("refused").copied().unwrap_or_default(), 1);
    figures.at_least("allowed", seen.get("allowed").copied().unwrap_or_default(), 1);
    let named =
        status.problems.iter().any(|problem| problem.contains(&format!("room for {}", limits::BINDINGS)));
    figures.exactly("told", u64::from(named), 1);
    assert_eq!(stage.agent.terminate(), 0);
    stage.check();
    for at in 0..count {
        fs::remove_dir(crowd.join(at.to_string())).unwrap();
    }
    figures.finish();
}

/// What becomes of processes in the crowd's directories, judged by what `endpoint list` says of them.
fn crowd_verdicts(stage: &Stage, crowd: &Path, count: usize) -> BTreeMap<&'static str, u64> {
    let listed = stage.agent.cli(&["endpoint", "list", "-o", "json"]).expect_ok();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let all = listed["endpoints"].as_array().unwrap();
    let left: BTreeSet<&str> =
        all.iter().filter(|it| it["state"] == "no-room").map(|it| it["name"].as_str().unwrap()).collect();
    assert!(!left.is_empty(), "{} endpoints", all.len());
    let walker = stage.world.workload_in("default", "walker", &[]);
    let mut seen = BTreeMap::new();
    for at in (0..count).rev().take(100).chain(0..20) {
        let directory = crowd.join(at.to_string());
        walker.must(&Order::Enter { cgroup: directory });
        let let_in = walker.connect(PROBE).errno;
        let left_out = left.contains(format!("c{at}").as_str());
        let what = match (let_in, left_out) {
            (0, false) => "allowed",
            (EPERM, true) => "refused",
            _ => "leak",
        };
        *seen.entry(what).or_default() += 1;
    }
    walker.must(&Order::Enter { cgroup: walker.cgroup.clone() });
    seen
}
