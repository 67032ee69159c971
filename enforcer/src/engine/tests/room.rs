//! More workloads than the kernel has room for.

use proptest::prelude::*;

use super::super::room::Limits;
use super::*;
use crate::domain::workload::EndpointState;

const ABOVE: CgroupId = CgroupId(1000);

fn narrow(bindings: usize) -> World {
    let facts = Facts { limits: Limits { bindings, addresses: 2 }, ..facts(&["static", POLICIES]) };
    World::with(State::new(facts, Remembered::default()).unwrap())
}

fn standing(world: &mut World) -> Vec<(String, EndpointState)> {
    let Reply::Endpoints(endpoints) = world.answer(Request::EndpointList) else { panic!() };
    endpoints.into_iter().map(|info| (info.name, info.state)).collect()
}

#[test]
fn a_workload_without_room_is_denied_told_and_bound_when_there_is_room() {
    let mut world = narrow(3);
    world.batch([adopted(), files(&[]), workloads(&["web@1", "api@2", "db@3"])]);
    assert_eq!(world.state.phase(), Phase::Enforcing);
    world.batch([workloads(&["web@1", "api@2", "db@3", "cache@4", "queue@5"])]);
    // Two rows for those who had one, one for the directory above the others.
    assert_eq!(world.kernel.bindings.size(), 3);
    assert_eq!(world.kernel.bindings[&ABOVE].identity, IdentityId::UNMANAGED);
    assert!(
        world.kernel.bindings.contains_key(&CgroupId(1)) && world.kernel.bindings.contains_key(&CgroupId(2))
    );
    let standing_now = standing(&mut world);
    let no_room: Vec<_> = standing_now.iter().filter(|(_, state)| *state == EndpointState::NoRoom).collect();
    assert_eq!(no_room.len(), 3, "{standing_now:?}");
    let problems: Vec<_> = world.state.problems.values().cloned().collect();
    assert_eq!(
        problems,
        [
            "5 bindings are needed and the kernel has room for 3: default/db, default/cache, default/queue can't be \
          bound, and everything is denied in /test but to those that are bound until there are fewer workloads"
        ]
    );
    assert_eq!(world.state.phase(), Phase::Degraded);
    world.batch([workloads(&["web@1", "queue@5"])]);
    assert_eq!(world.kernel.bindings.keys().copied().collect::<Vec<_>>(), [CgroupId(1), CgroupId(5)]);
    assert_eq!(world.state.phase(), Phase::Enforcing);
}

#[test]
fn addresses_beyond_the_limit_are_left_out_and_the_others_stay() {
    let with = |name: &str, addresses: &[&str]| {
        let mut resolved = workload(&format!("{name}@-"));
        Arc::make_mut(&mut resolved.workload).addresses =
            addresses.iter().map(|it| it.parse().unwrap()).collect();
        resolved
    };
    let snapshot = |workloads| {
        Event::Workloads(WorkloadEvent::Snapshot {
            source: "static".into(),
            workloads,
            namespaces: Vec::new(),
            services: Vec::new(),
        })
    };
    let mut world = narrow(3);
    let (one, two) = (with("web", &["192.0.2.9/32"]), with("api", &["192.0.2.8/32"]));
    world.batch([adopted(), files(&[]), snapshot(vec![one.clone(), two.clone()])]);
    let before = world.kernel.addresses.clone();
    assert_eq!(before.size(), 2);
    world.batch([snapshot(vec![one, two, with("db", &["192.0.2.1/32"])])]);
    assert_eq!(world.kernel.addresses, before);
    let problem = world.state.problems.values().next().unwrap();
    assert!(
        problem.starts_with("3 addresses are needed and the kernel has room for 2: 192.0.2.1/32"),
        "{problem}"
    );
}

/// A tree of three levels: pods in groups in one top directory, some directly in the root.
fn place(at: u64, is_top: bool) -> Resolved {
    let mut resolved = workload(&format!("w-{at}@{at}"));
    if is_top {
        resolved.above.clear();
    } else {
        resolved.above = vec![CgroupId(1000 + at % 5), CgroupId(2000)];
    }
    resolved
}

proptest! {
    #[test]
    fn what_is_wanted_fits_and_nobody_is_taken_for_the_host(
        count in 0..40_u64, limit in 8..30_usize, old in 0..40_u64, tops in 0..4_u64,
    ) {
        let facts = Facts { limits: Limits { bindings: limit, addresses: 9 }, ..facts(&["static", POLICIES]) };
        let mut world = World::with(State::new(facts, Remembered::default()).unwrap());
        let snapshot = |count| {
            Event::Workloads(WorkloadEvent::Snapshot {
                source: "static".into(),
                workloads: (1..=count).map(|at| place(at, at <= tops)).collect(),
                namespaces: Vec::new(),
                services: Vec::new(),
            })
        };
        // On the way the maps are never full: the world sees to that.
        world.batch([adopted(), files(&[]), snapshot(old)]);
        world.batch([snapshot(count)]);
        let want = &world.kernel.bindings;
        prop_assert!(want.size() <= limit, "{}", want.size());
        prop_assert_eq!(world.state.problems.is_empty(), usize::try_from(count).unwrap() <= limit);
        let id = world.state.registry.known(&key("w"));
        for at in 1..=count {
            let place = place(at, at <= tops);
            // What the kernel would find: the innermost binding.
            let chain = place.cgroup.iter().chain(&place.above);
            let found = chain.clone().find_map(|id| want.get(id));
            let left = world.state.index.is_left_out(place.cgroup.unwrap());
            let wanted = Bound::always(if left { IdentityId::UNMANAGED } else { id.unwrap() });
            prop_assert_eq!(found, Some(&wanted), "{}", at);
        }
        let standing = standing(&mut world);
        prop_assert!(standing.iter().all(|(_, state)| *state != EndpointState::WaitingForCgroup));
    }
}
