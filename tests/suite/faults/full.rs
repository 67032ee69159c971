//! More of everything than there is room for.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

use enforcer::domain::delta::{Bound, Operation};
use enforcer::kernel::Kernel;
use enforcer_common::id::{CgroupId, IdentityId};
use enforcer_common::limits;
use enforcer_tests::patience;
use enforcer_tests::workload::Workload;
use ipnet::{IpNet, Ipv4Net};

use super::stage::{EPERM, PROBE, Stage, whole};
use super::{Figures, is_long};

/// Rules for ports. Each overlaps the next in one port, so that each makes two classes: more than there are.
const RULES: u32 = 33_000;
/// Of these, so many are for TCP, which has no more ports; the others are for UDP.
const OF_TCP: u32 = 32_760;
/// Rules of one policy: a list has a limit of its own.
const RULES_EACH: u32 = 1_000;
/// Policies of one file: a file has one too.
const POLICIES_EACH: u32 = 11;
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
    // One of them is the canary's.
    figures.exactly("bindings-left", whole(entries("bindings")), 5);
    figures.exactly("addresses-left", whole(entries("addresses")), 0);
    figures.finish();
}

/// A push that needs more port classes than there are. Whether it was refused whole, with the numbers.
fn too_many_rules(stage: &Stage) -> bool {
    let status = stage.agent.status();
    let folder = stage.world.folder().join("many");
    fs::create_dir(&folder).unwrap();
    let policy = |number: u32| {
        let first = number * RULES_EACH;
        let one = |rule: u32| {
            let (place, protocol) = rule.checked_sub(OF_TCP).map_or((rule, "TCP"), |place| (place, "UDP"));
            let (from, to) = (2 * place + 1, 2 * place + 3);
            format!("  - ports: [{{port: {from}, endPort: {to}, protocol: {protocol}}}]\n")
        };
        let rules: String = (first..first + RULES_EACH).map(one).collect();
        format!(
            "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: many-{number}}}\nspec:\n  \
             subject: {{matchLabels: {{app: bad}}}}\n  egress:\n{rules}---\n"
        )
    };
    for file in 0..RULES / RULES_EACH / POLICIES_EACH {
        let text: String = (file * POLICIES_EACH..(file + 1) * POLICIES_EACH).map(policy).collect();
        fs::write(folder.join(format!("{file}.yaml")), text).unwrap();
    }
    // A machine that has no time for so many rules within the limit of an answer has not judged them.
    let push = || stage.agent.cli(&["policy", "apply", "-f", &folder.display().to_string()]);
    let mut told = (0..5).map(|_| push()).filter(|told| !told.stderr.contains("did not answer in time"));
    let told = told.next().expect("the daemon answers in time");
    println!("soak: full-maps: {} {}", told.code, told.stderr.lines().next().unwrap_or_default());
    stage.check();
    let now = stage.agent.status();
    let intact =
        (now.generation, now.policies, now.entries) == (status.generation, status.policies, status.entries);
    told.code != 0 && intact && told.stderr.contains(&limits::PORT_CLASSES.to_string())
}

/// Bindings that there is room for, one of them for the canary.
const ROOM: usize = 7;
/// Workloads besides those of the stage.
const CROWD: usize = 8;

/// More workloads than bindings: the real daemon, told that the map is a small one, because no file of workloads is large
/// enough for the real one.
pub(super) fn full_bindings() {
    let mut figures = Figures::new("full-bindings");
    let mut stage = Stage::set("bindings");
    stage.agent.arm("bindings", ROOM as u64);
    stage.agent.run();
    stage.check();
    // Next to the stage's own, whose rows stay.
    let crowd: Vec<Workload> = (0..CROWD)
        .map(|at| stage.world.workload_in("default", &format!("crowd{at}"), &[("app", "good")]))
        .collect();
    let all = [&stage.good, &stage.bad, &stage.server];
    let left = all.len() + CROWD - (ROOM - 2);
    let no_room = r#"enforcer_endpoint_state{state="no-room"}"#;
    let bindings = r#"enforcer_map_entries{map_name="bindings"}"#;
    let before = stage.agent.metrics()[bindings];
    stage.agent.workloads(all.into_iter().chain(&crowd));
    // Who has no room is known before the kernel has the others.
    let metrics = patience::until("the crowd is known", patience::seconds(20), || {
        let metrics = stage.agent.metrics();
        let known = metrics.get(no_room).copied().unwrap_or_default() > 0.0;
        (known && metrics[bindings] > before).then_some(metrics)
    });
    figures.exactly("no-room", whole(metrics[no_room]), left as u64);
    let bound = whole(metrics[bindings]);
    figures.exactly("bindings", bound, ROOM as u64);
    stage.check();
    let without = without_room(&stage);
    let (mut allowed, mut refused, mut wrong) = (0, 0, 0);
    for workload in &crowd {
        match (workload.connect(PROBE).errno, without.contains(&workload.name)) {
            (0, false) => allowed += 1,
            (EPERM, true) => refused += 1,
            _ => wrong += 1,
        }
    }
    figures.exactly("let-in-without-a-binding", wrong, 0);
    figures.exactly("refused", refused, left as u64);
    figures.exactly("allowed", allowed, (CROWD - left) as u64);
    let problems = stage.agent.status().problems;
    let named = format!("{} bindings are needed and the kernel has room for {ROOM}", all.len() + CROWD + 1);
    figures.exactly("told", problems.iter().filter(|problem| problem.contains(&named)).count() as u64, 1);
    // With fewer workloads everything is as it should be.
    stage.agent.workloads(all);
    patience::until_true("the crowd is forgotten", patience::seconds(20), || {
        stage.agent.status().problems.is_empty()
    });
    stage.check();
    figures.finish();
}

/// Names of the workloads that `endpoint list` says there is no room for.
fn without_room(stage: &Stage) -> BTreeSet<String> {
    let listed = stage.agent.cli(&["endpoint", "list", "-o", "json"]).expect_ok();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let all = listed["endpoints"].as_array().unwrap();
    let left = all.iter().filter(|it| it["state"] == "no-room");
    left.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
}
