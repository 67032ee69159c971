//! Starting, syncing, enforcing, ending.

use super::*;
use crate::domain::id::RuleId;

#[test]
fn a_fresh_start_publishes_binds_and_attaches_in_this_order() {
    let mut world = World::new();
    world.batch([adopted(), workloads(&["web@1", "db@2"])]);
    assert_eq!(world.trace(), "", "half of the sources is no reason to publish");
    assert_eq!(world.state.phase(), Phase::Syncing);
    assert_eq!(world.readiness, (false, "syncing; waiting for the first word of policies".into()));
    world.batch([files(&["db<web"])]);
    assert_eq!(world.trace(), "save(registry) publish(1) apply(2) attach");
    assert_eq!(world.bound(), [(1, "app=web".into()), (2, "app=db".into())].into());
    assert_eq!(world.readiness, (true, "enforcing".into()));
}

#[test]
fn any_number_of_events_costs_one_publication() {
    let mut world = World::enforcing();
    world.batch((0..50).map(|count| workloads(&[&format!("web{count}@1"), "api@2", "db@3"])));
    assert_eq!(world.trace(), "save(registry) place(1) apply(1)");
}

#[test]
fn open_sockets_are_judged_once_after_each_change() {
    let mut world = World::enforcing();
    assert_eq!(world.judged, 1, "when the hooks are attached");
    world.changed(push(&["db<api"]));
    world.batch([workloads(&["web@11", "api@2", "db@3"])]);
    assert_eq!(world.judged, 3);
    world.batch([workloads(&["web@11", "api@2", "db@3"]), seconds(9)]);
    assert_eq!(world.judged, 3, "nothing changed");
    // Half of a change is no reason to cut anybody off.
    world.refused = vec![CgroupId(12)];
    world.batch([workloads(&["web@12", "new@4", "db@3"])]);
    assert_eq!(world.judged, 3);
    world.refused.clear();
    world.batch([seconds(99)]);
    assert_eq!(world.judged, 4);
}

#[test]
fn own_addresses_reach_the_kernel_and_outlive_the_agent() {
    let mut world = World::enforcing();
    let own = |last: &[u8]| Event::OwnAddresses(last.iter().map(|it| [192, 0, 2, *it].into()).collect());
    world.batch([own(&[1, 2])]);
    assert_eq!(world.trace(), "apply(2)");
    world.batch([own(&[2, 3]), own(&[2, 3])]);
    assert_eq!(world.trace(), "apply(2)");
    assert_eq!(world.kernel.own, [[192, 0, 2, 2].into(), [192, 0, 2, 3].into()].into());
    world.restart();
    let adopted = world.adopted();
    world.batch([adopted, workloads(&["web@1", "api@2", "db@3"]), files(&[])]);
    assert_eq!(world.trace(), "publish(2) attach", "what was found before stays until it is told anew");
    world.batch([own(&[])]);
    assert_eq!(world.trace(), "apply(2)");
    assert!(world.kernel.own.is_empty());
}

#[test]
fn what_changes_nothing_does_nothing() {
    let mut world = World::enforcing();
    world.batch([
        workloads(&["web@1", "api@2", "db@3"]),
        files(&[]),
        Event::KernelProblems(vec![]),
        seconds(9),
    ]);
    assert_eq!(world.trace(), "");
}

#[test]
fn a_known_identity_needs_no_publication() {
    let mut world = World::enforcing();
    world.batch([workloads(&["web@11", "web-b@12", "api@2", "db@3"])]);
    assert_eq!(world.trace(), "apply(3)", "the recreated directory, its old id, and a second one");
    assert_eq!(world.bound()[&11], "app=web");
    assert_eq!(world.bound()[&12], "app=web");
    assert!(!world.bound().contains_key(&1));
}

#[test]
fn a_workload_waits_for_its_directory() {
    let mut world = World::enforcing();
    world.batch([workloads(&["web@1", "api@2", "db@-"])]);
    assert_eq!(world.trace(), "apply(1)");
    let status = world.status();
    assert_eq!((status.endpoints, status.endpoints_waiting, status.state.as_str()), (3, 1, "enforcing"));
    world.batch([workloads(&["web@1", "api@2", "db@33"])]);
    assert_eq!(world.status().endpoints_waiting, 0);
    assert_eq!(world.bound()[&33], "app=db");
}

#[test]
fn a_restart_leaves_adopted_tables_alone_until_everything_is_known() {
    let mut world = World::enforcing();
    world.changed(push(&["db<api"]));
    world.trace();
    let before = (world.kernel.clone(), generation(&world));
    world.restart();
    let adopted = world.adopted();
    world.batch([adopted, workloads(&["web@1", "api@2", "db@3"])]);
    assert_eq!((world.kernel.clone(), generation(&world)), before);
    assert!(
        world.readiness.1.contains("generation 2 of the last run is enforced meanwhile"),
        "{:?}",
        world.readiness
    );
    assert_eq!(world.trace(), "");
    world.batch([files(&[])]);
    assert_eq!(world.trace(), "publish(3) attach", "nothing to save, the same bindings, a higher generation");
    assert_eq!(world.status().policies, 1);
}

#[test]
fn maps_of_another_registry_are_refused() {
    let known = Adopted {
        counted: [IdentityId::HOST].into(),
        counted_rules: [RuleId::NONE].into(),
        ..Adopted::default()
    };
    for (foreign, word) in [
        (
            Adopted { bindings: [(CgroupId(1), Bound::always(IdentityId(300)))].into(), ..known.clone() },
            "identity 300",
        ),
        (Adopted { counted: [IdentityId(301)].into(), ..known.clone() }, "identity 301"),
        (Adopted { counted_rules: [RuleId(7)].into(), ..known.clone() }, "rule 7"),
    ] {
        let mut world = World::new();
        world.batch([Event::Adopted(foreign)]);
        let trace = world.trace();
        assert!(trace.starts_with("refuse: ") && trace.contains(word) && trace.contains("/pins"), "{trace}");
    }
    let mut world = World::new();
    world.batch([Event::Adopted(known)]);
    assert_eq!(world.trace(), "");
}

#[test]
fn an_end_completes_what_is_under_way_and_refuses_the_rest() {
    let mut world = World::enforcing();
    world.paused = true;
    let first = world.ask(push(&["db<api"]));
    world.settle();
    let second = world.ask(push(&["db<web"]));
    world.step(Event::Shutdown);
    assert!(matches!(&world.replies[&second], Reply::Refused(it) if it.message.contains("ending")));
    assert!(!world.trace().contains("stop"));
    world.paused = false;
    world.settle();
    assert!(matches!(&world.replies[&first], Reply::Changed(it) if it.generation == 2));
    assert_eq!(world.trace(), "publish(2) reply(1) stop");
    let third = world.ask(push(&["db<"]));
    assert!(matches!(world.replies[&third], Reply::Refused(_)));
    assert_eq!(world.status().state, "draining");
}

#[test]
fn an_idle_agent_ends_at_once() {
    let mut world = World::enforcing();
    world.batch([Event::Shutdown, Event::Shutdown]);
    assert_eq!(world.trace(), "stop");
    assert!(!world.readiness.0);
}

#[test]
fn managed_directories_are_denied_until_a_workload_claims_them() {
    let managed = |ids: [Option<u64>; 2]| {
        let [a, b] = ids.map(|id| id.map(CgroupId));
        Event::Managed([("/a".to_owned(), a), ("/b".to_owned(), b)].into())
    };
    let mut world = World::with(State::new(facts(&["static", MANAGED]), Remembered::default()).unwrap());
    world.batch([adopted(), workloads(&["web@7"])]);
    assert_eq!(world.state.phase(), Phase::Syncing);
    world.batch([managed([Some(7), None])]);
    assert_eq!(world.bound(), [(7, "app=web".into())].into());
    assert_eq!(world.state.phase(), Phase::Degraded);
    assert!(world.readiness.1.contains("managed cgroup /b does not exist"), "{:?}", world.readiness);
    world.batch([managed([Some(7), Some(8)]), workloads(&[])]);
    assert_eq!(world.bound(), [(7, "unmanaged".into()), (8, "unmanaged".into())].into());
    assert_eq!(world.state.phase(), Phase::Enforcing);
}
