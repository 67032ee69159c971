//! Whatever the order of events and wherever a batch ends, the outcome is the same.

use enforcer_common::address::Address;
use enforcer_common::verdict::{Direction, Query};
use proptest::prelude::*;

use super::*;

/// What others can see of an outcome, without the numbers, which do depend on the order.
#[derive(Debug, PartialEq)]
struct Outcome {
    bound: BTreeMap<u64, String>,
    documents: Vec<String>,
    problems: Vec<String>,
    verdicts: Vec<bool>,
    phase: Phase,
}

fn outcome(world: &mut World) -> Outcome {
    let apps = ["web", "api", "db", "new"];
    let table = world.table.clone().expect("a table");
    let registry = world.state.registry.clone();
    let id = |app: &str| {
        registry.identities().find(|(it, _)| **it == key(app)).map_or(IdentityId::UNKNOWN, |(_, id)| id)
    };
    let judge = |subject: &str, peer: &str, direction| {
        let query = Query {
            subject: id(subject),
            peer: id(peer),
            address: Address::LOOPBACK_V4,
            port: 80,
            protocol: 6,
            direction,
        };
        table.decide(&query).enforced.is_deny()
    };
    let pairs = apps.iter().flat_map(|subject| apps.iter().map(move |peer| (*subject, *peer)));
    let verdicts = pairs
        .flat_map(|(subject, peer)| Direction::ALL.map(|direction| judge(subject, peer, direction)))
        .collect();
    Outcome {
        bound: world.bound(),
        documents: world.documents.values().cloned().collect(),
        problems: world.status().problems,
        verdicts,
        phase: world.state.phase(),
    }
}

#[derive(Clone, Debug)]
enum Input {
    Event(Event),
    Push(Request),
}

/// Inputs that do not replace each other: one snapshot per source, pushes of different names.
fn inputs() -> Vec<Input> {
    vec![
        Input::Event(adopted()),
        Input::Event(workloads(&["web@1", "api@2", "db@3"])),
        Input::Event(from_source("file:other", &["new@4", "api-2@3", "web@5", "db-2@-"])),
        Input::Event(files(&["db<api", "new<"])),
        Input::Event(Event::Managed(
            [("/m".to_owned(), Some(CgroupId(6))), ("/w".to_owned(), Some(CgroupId(1)))].into(),
        )),
        Input::Event(Event::Workloads(WorkloadEvent::Problem {
            source: "third".into(),
            message: "gone".into(),
        })),
        Input::Push(push(&["web<"])),
        Input::Push(push(&["api<web"])),
    ]
}

fn run(order: &[usize], ends: &[bool], fail: Option<Step>) -> Outcome {
    let required = facts(&["static", "file:other", POLICIES, MANAGED]);
    let mut world = World::with(State::new(required, Remembered::default()).unwrap());
    let inputs = inputs();
    for (at, end) in order.iter().zip(ends) {
        match inputs[*at].clone() {
            Input::Event(event) => world.step(event),
            Input::Push(request) => drop(world.ask(request)),
        }
        if *end {
            world.settle();
        }
    }
    if let Some(step) = fail {
        // The first attempt fails; pushes are answered and pushed again, as people do.
        world.broken = vec![step];
        world.settle();
        world.broken.clear();
        for second in 1..100 {
            world.batch([seconds(second)]);
        }
        for request in [push(&["web<"]), push(&["api<web"])] {
            world.changed(request);
        }
    }
    world.settle();
    outcome(&mut world)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_converges(
        order in Just((0..inputs().len()).collect::<Vec<_>>()).prop_shuffle(),
        ends in proptest::collection::vec(any::<bool>(), inputs().len()),
        fail in proptest::option::of(prop_oneof![
            Just(Step::Save), Just(Step::Publish), Just(Step::Attach)
        ]),
    ) {
        let straight: Vec<usize> = (0..inputs().len()).collect();
        let expected = run(&straight, &[false; 8], None);
        prop_assert_eq!(&expected.bound[&3], "unmanaged");
        prop_assert_eq!(run(&order, &ends, fail), expected);
    }
}
