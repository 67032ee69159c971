//! Quarantine: who is bound to what, when, and what is remembered of it.

use enforcer_common::address::Address;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::{Direction, Query};
use ipnet::IpNet;

use super::*;
use crate::domain::command::{QuarantineInfo, QuarantineWish};
use crate::domain::quarantine::marked;

fn add(workload: &str, seconds: Option<u64>, allow_from: &[&str]) -> Request {
    let allow_from = allow_from.iter().map(|text| text.parse().unwrap()).collect();
    Request::QuarantineAdd(QuarantineWish { workload: workload.into(), seconds, allow_from, by: Some(1000) })
}

fn release(workload: &str) -> Request {
    Request::QuarantineRelease { workload: workload.into(), by: None }
}

fn put(world: &mut World, request: Request) -> QuarantineInfo {
    match world.answer(request) {
        Reply::Quarantine(info) => *info,
        other => panic!("{other:?}"),
    }
}

fn list(world: &mut World) -> Vec<QuarantineInfo> {
    match world.answer(Request::QuarantineList) {
        Reply::Quarantines(list) => list,
        other => panic!("{other:?}"),
    }
}

/// Why a flow is let through or not by the table in force, both ends by their present bindings.
fn reason(world: &World, subject: u64, peer: u64, direction: Direction) -> Reason {
    let bound = |cgroup| world.kernel.bindings[&CgroupId(cgroup)].identity;
    let address = Address::LOOPBACK_V4;
    let query =
        Query { subject: bound(subject), peer: bound(peer), address, port: 80, protocol: 6, direction };
    let word = world.table.as_ref().unwrap().decide(&query).enforced;
    Reason::from_code(word.reason_code()).unwrap()
}

const WEB: u64 = 1;
const API: u64 = 2;
const DB: u64 = 3;

#[test]
fn a_workload_in_quarantine_has_an_identity_of_its_own() {
    let mut world = World::enforcing();
    let info = put(&mut world, add("web", None, &["default/api"]));
    assert_eq!(
        world.trace(),
        "save(registryquarantines) publish(2) apply(1) reply(1)",
        "answered when it is bound"
    );
    assert_eq!(world.bound()[&WEB], "app=web,reserved:quarantine=web");
    assert_eq!((info.since.as_str(), info.until), ("1970-01-12T13:46:40Z", None));
    assert_eq!((info.allow_from, info.by, info.exists), (vec!["default/api".to_owned()], Some(1000), true));
    assert!(world.log.iter().any(|line| {
        line == "quarantine of default/web: without an end, let in: default/api; asked for by user 1000"
    }));
    for (subject, peer, direction, expect) in [
        (WEB, DB, Direction::Egress, Reason::Quarantined),
        (WEB, API, Direction::Egress, Reason::Quarantined),
        (WEB, DB, Direction::Ingress, Reason::Quarantined),
        (WEB, API, Direction::Ingress, Reason::AllowedByRule),
        (API, WEB, Direction::Egress, Reason::AllowedByDefault),
        (DB, API, Direction::Ingress, Reason::AllowedByDefault),
    ] {
        assert_eq!(reason(&world, subject, peer, direction), expect, "{subject} {peer} {direction:?}");
    }
    assert_eq!(world.status().quarantined, ["default/web"]);
    let Reply::Endpoints(endpoints) = world.answer(Request::EndpointList) else { panic!() };
    let quarantined: Vec<bool> = endpoints.iter().map(|it| it.quarantined).collect();
    assert_eq!(quarantined, [false, false, true]);
    assert!(endpoints.iter().all(|it| it.state == crate::domain::workload::EndpointState::Bound));
    world.trace();
    put(&mut world, release("default/web"));
    assert_eq!(world.trace(), "save(quarantines) publish(3) apply(1) reply(4)");
    assert_eq!(world.bound()[&WEB], "app=web");
    assert!(world.quarantines.is_empty() && list(&mut world).is_empty());
}

#[test]
fn it_comes_back_with_the_workload_and_with_the_agent() {
    let mut world = World::enforcing();
    put(&mut world, add("web", Some(600), &[]));
    world.batch([workloads(&["api@2", "db@3"])]);
    assert!(!list(&mut world)[0].exists);
    world.batch([workloads(&["web@7", "api@2", "db@3"])]);
    assert_eq!(world.bound()[&7], "app=web,reserved:quarantine=web");
    // Its labels do not matter, only its name does.
    let mut relabelled = workload("web@7");
    Arc::make_mut(&mut Arc::make_mut(&mut relabelled.workload).labels).0.insert("app".into(), "other".into());
    let others = ["api@2", "db@3"].map(workload);
    let workloads_now = [vec![relabelled], others.to_vec()].concat();
    let snapshot = |workloads| {
        Event::Workloads(WorkloadEvent::Snapshot {
            source: "static".into(),
            workloads,
            namespaces: Vec::new(),
            services: Vec::new(),
        })
    };
    world.batch([snapshot(workloads_now.clone())]);
    assert_eq!(world.bound()[&7], "app=other,reserved:quarantine=web");
    world.restart();
    let adopted = world.adopted();
    world.trace();
    world.batch([adopted, snapshot(workloads_now), files(&[])]);
    assert_eq!(world.trace(), "publish(6) attach", "the binding is what it was, to the nanosecond");
    assert_eq!(list(&mut world)[0].until.as_deref(), Some("1970-01-12T13:56:40Z"));
}

#[test]
fn its_end_is_the_kernels_and_the_engine_follows() {
    let mut world = World::enforcing();
    let mut far = workload("far@-");
    Arc::make_mut(&mut far.workload).addresses = vec!["192.0.2.1/32".parse().unwrap()];
    Arc::make_mut(&mut far.workload).cgroup = None;
    let all = [vec![far], ["web@1", "api@2", "db@3"].map(workload).to_vec()].concat();
    world.batch([Event::Workloads(WorkloadEvent::Snapshot {
        source: "static".into(),
        workloads: all,
        namespaces: Vec::new(),
        services: Vec::new(),
    })]);
    put(&mut world, add("default/web", Some(60), &[]));
    put(&mut world, add("default/far", Some(60), &[]));
    let ordinary = world.state.registry.known(&key("web")).unwrap();
    let ward = world.state.registry.known(&marked(&key("web"), "web")).unwrap();
    let until = Some(BootTime(160_000_000_000));
    assert_eq!(world.kernel.bindings[&CgroupId(WEB)], Bound { identity: ward, until, after: ordinary });
    let net: IpNet = "192.0.2.1/32".parse().unwrap();
    assert_eq!(Some(world.kernel.addresses[&net]), world.state.registry.known(&marked(&key("far"), "far")));
    world.trace();
    world.batch([seconds(59)]);
    assert_eq!(world.trace(), "");
    world.batch([seconds(60)]);
    assert_eq!(world.trace(), "save(quarantines) publish(4) apply(2)");
    assert_eq!(world.kernel.bindings[&CgroupId(WEB)], Bound::always(ordinary));
    assert_eq!(Some(world.kernel.addresses[&net]), world.state.registry.known(&key("far")));
    assert!(world.log.iter().any(|line| line == "quarantine of default/web ends: its time is over"));
    assert!(list(&mut world).is_empty());
}

#[test]
fn after_a_start_of_the_host_the_wall_clock_counts() {
    let mut world = World::enforcing();
    put(&mut world, add("web", Some(600), &[]));
    // The host was down for 400 s and runs for 10 s.
    let mut now = at(400);
    now.boot = BootTime(10_000_000_000);
    world.kernel = Tables::default();
    world.table = None;
    world.restart_with(Facts { boot_id: "next".into(), now, ..facts(&["static", POLICIES]) });
    world.batch([adopted(), workloads(&["web@9"]), files(&[])]);
    assert_eq!(world.kernel.bindings[&CgroupId(9)].until, Some(BootTime(210_000_000_000)));
    let saved = world.quarantines.values().next().unwrap().until.clone().unwrap();
    assert_eq!(saved.boot_id, "next", "written anew");
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let mut world = World::enforcing();
    let many = ["a=b"; 65];
    for (request, needle, not_found) in [
        (
            add("wep", None, &[]),
            "there is no workload default/wep; nothing was changed: did you mean `default/web`?",
            true,
        ),
        (add("a/b/c/d", None, &[]), "`a/b/c/d` is no workload", false),
        (add("a/b/c", None, &[]), "there is no workload a/b/c", true),
        (add("web", Some(0), &[]), "from a second to ten years", false),
        (add("web", Some(u64::MAX), &[]), "from a second to ten years", false),
        (add("web", None, &["default/nobody"]), "there is no workload default/nobody", true),
        (add("web", None, &many), "65 peers are more than the 64", false),
        (release("web"), "workload default/web is not in quarantine", true),
    ] {
        let refused = world.refusal(request);
        assert!(refused.message.contains(needle) && refused.not_found == not_found, "{refused:?}");
        assert!(refused.message.contains("nothing was changed"), "{refused:?}");
    }
    assert!(!world.trace().contains("save"));
}

#[test]
fn doing_it_again_changes_the_terms() {
    let mut world = World::enforcing();
    put(&mut world, add("web", Some(60), &["api"]));
    world.batch([seconds(30)]);
    let info = put(&mut world, add("web", None, &["db", "reserved:host", "db"]));
    assert_eq!((info.since.as_str(), info.until), ("1970-01-12T13:46:40Z", None));
    assert_eq!(info.allow_from, ["default/db", "reserved:host"]);
    assert_eq!(reason(&world, WEB, API, Direction::Ingress), Reason::Quarantined);
    assert_eq!(reason(&world, WEB, DB, Direction::Ingress), Reason::AllowedByRule);
    world.batch([seconds(100)]);
    assert_eq!(world.bound()[&WEB], "app=web,reserved:quarantine=web");
}

#[test]
fn a_guest_is_let_in_by_who_it_is_now() {
    let mut world = World::enforcing();
    put(&mut world, add("web", None, &["api"]));
    world.trace();
    // The guest's labels change to ones that are known already: no new number, and still a new table.
    let mut api = workload("api@2");
    Arc::make_mut(&mut api.workload).labels = key("db").labels.into();
    let all = vec![workload("web@1"), api, workload("db@3")];
    world.batch([Event::Workloads(WorkloadEvent::Snapshot {
        source: "static".into(),
        workloads: all,
        namespaces: Vec::new(),
        services: Vec::new(),
    })]);
    assert_eq!(world.trace(), "publish(3) apply(1)");
    assert_eq!(reason(&world, WEB, API, Direction::Ingress), Reason::AllowedByRule);
    put(&mut world, add("api", None, &[]));
    assert_eq!(
        reason(&world, WEB, API, Direction::Ingress),
        Reason::AllowedByRule,
        "a guest in quarantine itself"
    );
    assert_eq!(reason(&world, API, WEB, Direction::Egress), Reason::Quarantined);
    assert_eq!(reason(&world, WEB, DB, Direction::Ingress), Reason::Quarantined, "is not who it was");
}

#[test]
fn a_quarantine_that_fails_is_refused_and_taken_back() {
    for (broken, trace) in [
        (Step::Save, "save(registryquarantines) reply(1) save(registryquarantines) apply(0)"),
        (Step::Publish, "save(registryquarantines) publish(2) reply(1) save(quarantines) publish(3)"),
    ] {
        let mut world = World::enforcing();
        world.broken = vec![broken];
        let refused = world.refusal(add("web", None, &[]));
        assert!(refused.message.contains("no luck"), "{refused:?}");
        let told = world.trace();
        assert!(told.starts_with(trace.split(" apply(0)").next().unwrap()), "{told}");
        world.broken.clear();
        world.batch([seconds(60)]);
        assert_eq!(world.state.phase(), Phase::Enforcing, "{broken:?} {:?}", world.state.problems);
        assert!(world.quarantines.is_empty() && list(&mut world).is_empty(), "{broken:?}");
        assert_eq!(world.bound()[&WEB], "app=web");
    }
    let mut world = World::enforcing();
    world.refused = vec![CgroupId(WEB)];
    let refused = world.refusal(add("web", None, &[]));
    assert!(
        refused.message.contains("no room") && refused.message.contains("the change is saved"),
        "{refused:?}"
    );
    world.refused.clear();
    world.batch([seconds(60)]);
    assert_eq!(world.bound()[&WEB], "app=web,reserved:quarantine=web");
}
