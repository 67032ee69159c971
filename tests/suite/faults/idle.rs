//! A host full of workloads at which nothing happens.

use std::fs;
use std::time::{Duration, Instant};

use enforcer_tests::patience;

use super::stage::{Stage, whole};
use super::{Figures, is_long, millis, resident_kilobytes, sized};

/// Memory of a daemon that knows ten thousand workloads.
const RESIDENT_KILOBYTES: u64 = 64 << 10;

pub(super) fn idle() {
    let mut figures = Figures::new("idle");
    let mut stage = Stage::enforcing("idle");
    let crowd = stage.world.directory("crowd");
    let count = sized(500, 10_000);
    let relative = stage.world.relative(&crowd);
    // A hundred to a service, as deployments have.
    let mut items: Vec<String> = (0..count)
        .map(|at| {
            fs::create_dir(crowd.join(at.to_string())).unwrap();
            format!("{{name: c{at}, labels: {{app: a{}}}, cgroup: {relative}/{at}}}", at / 100)
        })
        .collect();
    items.extend([&stage.good, &stage.bad, &stage.server].map(|workload| {
        let path = stage.world.relative(&workload.cgroup);
        format!("{{name: {}, labels: {{app: {}}}, cgroup: {path}}}", workload.name, workload.name)
    }));
    fs::write(stage.world.folder().join("workloads.yaml"), format!("workloads: [{}]\n", items.join(",\n")))
        .unwrap();
    let all_bound = |stage: &Stage| {
        let metrics = stage.agent.metrics();
        whole(metrics.get(r#"enforcer_endpoint_state{state="bound"}"#).copied().unwrap_or_default())
            == count + 3
    };
    let start = Instant::now();
    patience::until_true("all are bound", patience::seconds(120), || all_bound(&stage));
    figures.note("workloads", count);
    figures.note("bound-in-ms", millis(start));
    // A daemon that starts with all of them has no memory of a smaller time.
    assert_eq!(stage.agent.terminate(), 0);
    let start = Instant::now();
    stage.agent.run();
    patience::until_true("all are bound", patience::seconds(120), || all_bound(&stage));
    figures.note("start-ms", millis(start));
    std::thread::sleep(Duration::from_secs(sized(1, 10)));
    stage.check();
    let resident = resident_kilobytes(stage.agent.pid());
    if is_long() {
        figures.at_most("resident-kb", resident, RESIDENT_KILOBYTES);
    } else {
        figures.note("resident-kb", resident);
    }
    figures.exactly("problems", stage.agent.status().problems.len() as u64, 0);
    for at in 0..count {
        fs::remove_dir(crowd.join(at.to_string())).unwrap();
    }
    figures.finish();
}
