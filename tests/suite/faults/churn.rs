//! Directories come and go in a managed tree, quicker than anybody starts containers.

use std::fs;
use std::time::Instant;

use enforcer::kernel::Kernel;
use enforcer_tests::agent::Agent;
use enforcer_tests::patience;
use enforcer_tests::world::World;

use super::stage::whole;
use super::{Figures, is_long, millis, resident_kilobytes, sized};

/// Workloads whose directories come and go.
const PLACES: u64 = 40;
/// Memory that the second half may cost.
const GROWTH_KILOBYTES: u64 = 1 << 10;
const BINDINGS: &str = r#"enforcer_map_entries{map_name="bindings"}"#;

pub(super) fn churn() {
    let mut figures = Figures::new("churn");
    let world = World::new("churn");
    let mut agent = Agent::new(&world);
    let managed = world.directory("managed");
    let name = world.relative(&managed);
    let guarded = world.relative(&world.guarded());
    // The canary has a binding too, from a moment on that is not ours.
    let managed_setting = format!("[{name}]");
    agent.configure(&[("attach", &guarded), ("managed", &managed_setting), ("canary-interval", "none")]);
    let items: Vec<String> = (0..PLACES)
        .map(|at| format!("{{name: w{at}, labels: {{app: w{}}}, cgroup: {name}/w{at}}}", at % 8))
        .collect();
    fs::write(world.folder().join("workloads.yaml"), format!("workloads: [{}]\n", items.join(",\n")))
        .unwrap();
    agent.run();
    let bound = || whole(agent.metrics().get(BINDINGS).copied().unwrap_or_default());
    let alone = bound();
    let count = sized(500, 20_000);
    let cycle = |number: u64| {
        let place = managed.join(format!("w{}", number % PLACES));
        fs::create_dir(&place).and_then(|()| fs::remove_dir(&place)).unwrap();
        // Others than workloads' too.
        let other = managed.join(format!("other{number}"));
        fs::create_dir(&other).and_then(|()| fs::remove_dir(&other)).unwrap();
    };
    let start = Instant::now();
    let before = resident_kilobytes(agent.pid());
    (0..count / 2).for_each(cycle);
    // Lists have grown by now to what they need; what grows on is a leak.
    let resident = resident_kilobytes(agent.pid());
    (count / 2..count).for_each(cycle);
    figures.note("cycles", count);
    figures.note("a-second", count * 1000 / millis(start).max(1));
    figures.note("grown-first-half-kb", resident.saturating_sub(before));
    // The source has kept up if what happens now is seen now.
    let last = managed.join("w0");
    let start = Instant::now();
    fs::create_dir(&last).unwrap();
    patience::until_true("a new directory is bound", patience::seconds(20), || bound() == alone + 1);
    figures.time("behind-ms", millis(start), 2_000);
    fs::remove_dir(&last).unwrap();
    patience::until_true("it is forgotten", patience::seconds(20), || bound() == alone);
    let growth = resident_kilobytes(agent.pid()).saturating_sub(resident);
    if is_long() {
        figures.at_most("grown-second-half-kb", growth, GROWTH_KILOBYTES);
    } else {
        figures.note("grown-second-half-kb", growth);
    }
    figures.exactly("bindings-left", bound() - alone, 0);
    let status = agent.status();
    figures.exactly("problems", status.problems.len() as u64, 0);
    // The kernel's own view: what the next daemon would find in the maps.
    assert_eq!(agent.terminate(), 0);
    let (_kernel, adopted) = Kernel::start(&world.settings()).unwrap_or_else(|error| panic!("{error}"));
    figures.exactly("map-entries", adopted.bindings.len() as u64, alone);
    figures.finish();
}
