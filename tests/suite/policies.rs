//! Every example policy with its expectations: by the compiled table, and by real sockets with the event's own words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use enforcer::domain::cluster_file::Cluster;
use enforcer::domain::offline::Offline;
use enforcer::domain::timestamp::Timestamp;
use enforcer_common::abi::flow::Outcome;
use enforcer_common::reason::Reason;
use enforcer_tests::direct::{self, Direct};
use enforcer_tests::expect::{self, End, Expectation, ExpectedFlow, ExpectedVerdict};
use enforcer_tests::workload::Workload;
use enforcer_tests::world::World;
use enforcer_tests::{agent, numbers};

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[("offline", offline), ("live", live)];

const TCP: u8 = 6;

/// Path of the policies, and what is expected of them.
fn examples() -> Vec<(PathBuf, Expectation)> {
    let mut examples = Vec::new();
    for entry in std::fs::read_dir(agent::policies()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if let Some(base) = name.strip_suffix(".expect.yaml") {
            examples.push((PathBuf::from(format!("{base}.yaml")), expect::load(&path).unwrap()));
        } else if path.extension().is_some_and(|end| end == "yaml") {
            let expectation = path.with_extension("expect.yaml");
            assert!(expectation.exists(), "{name} has no expectations beside it");
        }
    }
    examples.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(examples.len() >= 7, "{}", examples.len());
    examples
}

/// What became of a flow, in the words of the expectations.
#[derive(Debug, PartialEq, Eq)]
struct Became {
    outcome: Outcome,
    reason: Reason,
    rule: String,
    errno: i32,
}

fn compare(file: &Path, flow: &ExpectedFlow, found: &Became) {
    let place = format!("{}:{}: {} -> {} {}", file.display(), flow.line, flow.from, flow.to, flow.port);
    let outcome = match flow.verdict {
        ExpectedVerdict::Forwarded => Outcome::Forwarded,
        ExpectedVerdict::Dropped => Outcome::Dropped,
        ExpectedVerdict::Audit => Outcome::Audit,
    };
    assert_eq!(found.outcome, outcome, "{place}: {found:?}");
    if let Some(reason) = flow.reason {
        assert_eq!(found.reason, reason, "{place}: {found:?}");
    }
    if let Some(rule) = &flow.rule {
        assert_eq!(&found.rule, rule, "{place}");
    }
    if let Some(errno) = flow.errno {
        assert_eq!(found.errno, errno.number(), "{place}: {found:?}");
    }
}

/// By the product's own `policy test`.
fn offline() {
    for (file, expectation) in examples() {
        let policies = direct::read(&std::fs::read_to_string(&file).unwrap());
        let cluster = expectation.cluster(&Cluster::default());
        let offline = Offline::new(policies, &cluster, Timestamp::EARLIEST).unwrap();
        for flow in &expectation.flows {
            let judged = offline.judge(&flow.flow());
            let found = flow.difference(&judged, |id| numbers::rule(offline.registry(), id));
            assert_eq!(found, None, "{}:{}: {} -> {}", file.display(), flow.line, flow.from, flow.to);
        }
    }
}

fn live() {
    // The harness knows workloads by their labels alone.
    for (file, expectation) in examples().into_iter().filter(|(_, expectation)| expectation.is_plain()) {
        let world = World::new("policies");
        let mut direct = Direct::start(&world);
        let mut ends: BTreeMap<End, Workload> = BTreeMap::new();
        for workload in &expectation.workloads {
            let labels: Vec<_> = workload.labels.0.iter().map(|(key, value)| (&**key, &**value)).collect();
            let made = world.workload_in(&workload.key.namespace, &workload.key.name, &labels);
            ends.insert(End::Workload(workload.key.clone()), made);
        }
        direct.policies(&std::fs::read_to_string(&file).unwrap());
        direct.bind(ends.values());
        ends.insert(End::Host, world.host());
        for flow in expectation.flows.iter().filter(|flow| flow.live) {
            let found = try_live(&mut direct, &ends[&flow.from], &ends[&flow.to], flow);
            compare(&file, flow, &found);
        }
    }
}

/// One flow by real sockets. The server is there for this one flow only, so that all can be on one address.
fn try_live(direct: &mut Direct, from: &Workload, to: &Workload, flow: &ExpectedFlow) -> Became {
    let stream = flow.protocol == TCP;
    let address = format!("127.0.0.1:{}", flow.port);
    let server = to.open(stream, &address.parse().unwrap());
    let seen = if stream { from.connect(&address) } else { from.send(&address) };
    let event = direct.event("the flow", |event| {
        (&event.from, &event.to, event.port) == (&from.name, &to.name, flow.port)
            && event.protocol == flow.protocol
    });
    to.shut(&server);
    assert_eq!(event.errno, seen.errno, "what the event says and what the application saw");
    // Audit mode: the application sees nothing, the event's word says what it would see.
    let errno = if event.outcome == Outcome::Audit { event.would_be.number() } else { seen.errno };
    Became { outcome: event.outcome, reason: event.reason, rule: event.rule, errno }
}
