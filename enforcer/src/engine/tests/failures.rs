//! What fails leaves the last good state in force, is told, and is tried again.

use super::*;
use crate::domain::command::Change;

/// Every step that a push takes, broken: refused, nothing changed, and whole again when it works.
#[test]
fn a_push_that_fails_is_taken_back() {
    for (broken, trace) in [
        (Step::Save, "save(registry+db) reply(2) save(-db)"),
        (Step::Publish, "save(registry+db) publish(3) reply(2) save(-db)"),
    ] {
        let mut world = World::enforcing();
        world.changed(push(&["api<web"]));
        world.trace();
        let enforced = world.table.clone();
        world.broken = vec![broken];
        let refused = world.refusal(push(&["db<api"]));
        assert!(refused.message.contains("no luck"), "{refused:?}");
        assert_eq!(world.trace(), trace, "{broken:?}");
        assert_eq!(world.table, enforced);
        let disk_differs = broken == Step::Save;
        assert_eq!(world.state.phase() == Phase::Degraded, disk_differs, "{broken:?}");
        world.broken.clear();
        world.batch([seconds(60)]);
        assert_eq!(world.state.phase(), Phase::Enforcing, "{broken:?} {:?}", world.state.problems);
        assert_eq!(world.documents.len(), 1, "{broken:?}");
        assert_eq!(world.table, enforced);
        assert_eq!(world.status().policies, 1);
    }
}

#[test]
fn a_full_disk_does_not_keep_a_restarted_workload_from_its_identity() {
    let mut world = World::enforcing();
    world.broken = vec![Step::Save];
    world.batch([workloads(&["web@11", "api@2", "db@3", "new@4"])]);
    assert_eq!(world.trace(), "save(registry) apply(3)");
    assert_eq!(world.bound()[&11], "app=web");
    assert_eq!(world.bound()[&4], "unmanaged", "its number is not on disk, so the kernel must not learn it");
    world.broken.clear();
    world.batch([seconds(2)]);
    assert_eq!(world.trace(), "save(registry) place(1) apply(1)");
    assert_eq!(world.bound()[&4], "app=new");
    assert_eq!(world.state.phase(), Phase::Enforcing);
}

#[test]
fn refused_operations_are_tried_again_alone() {
    let mut world = World::enforcing();
    world.refused = vec![CgroupId(12)];
    world.batch([workloads(&["web@11", "api@12", "db@13"])]);
    assert_eq!(world.trace(), "apply(6)");
    assert_eq!(world.state.phase(), Phase::Degraded);
    assert!(world.readiness.1.contains("no room"), "{:?}", world.readiness);
    assert_eq!(world.status().endpoints_waiting, 1);
    world.batch([seconds(2)]);
    assert_eq!(world.trace(), "apply(1)");
    world.refused.clear();
    world.batch([seconds(60)]);
    assert_eq!(world.trace(), "apply(1)");
    assert_eq!(world.bound()[&12], "app=api");
    assert_eq!(world.state.phase(), Phase::Enforcing);
}

#[test]
fn repetitions_come_with_growing_pauses() {
    let mut world = World::enforcing();
    world.broken = vec![Step::Publish];
    world.batch([workloads(&["new@4"])]);
    world.trace();
    let mut tries = Vec::new();
    for second in 1..=70 {
        world.batch([seconds(second)]);
        if world.trace().contains("publish") {
            tries.push(second);
        }
    }
    assert_eq!(tries, [1, 3, 7, 15, 31, 61]);
}

#[test]
fn without_its_first_tables_nothing_is_attached() {
    let mut world = World::new();
    world.broken = vec![Step::Publish];
    world.batch([adopted(), workloads(&["web@1"]), files(&[])]);
    assert_eq!(world.trace(), "save(registry) publish(1)");
    assert_eq!((world.state.phase(), world.readiness.0), (Phase::Syncing, false));
    world.broken = vec![Step::Attach];
    world.batch([seconds(2)]);
    assert_eq!(world.trace(), "publish(2) apply(1) attach");
    assert_eq!((world.state.phase(), world.readiness.0), (Phase::Syncing, false));
    world.broken.clear();
    world.batch([seconds(10)]);
    assert_eq!(world.trace(), "attach");
    assert_eq!(world.state.phase(), Phase::Enforcing);
}

#[test]
fn a_push_is_not_acknowledged_before_the_hooks_are_attached() {
    let mut world = World::new();
    world.broken = vec![Step::Attach];
    world.batch([adopted(), workloads(&["web@1"]), files(&[])]);
    let refused = world.refusal(push(&["web<api"])).message;
    assert!(refused.contains("attaching failed") && refused.contains("is saved"), "{refused}");
    let again = world.refusal(push(&["web<api"]));
    assert!(again.message.contains("attaching failed"), "the same again is no better: {again:?}");
    assert!(!world.readiness.1.contains("of the last run"), "{:?}", world.readiness);
    world.broken.clear();
    assert_eq!(world.changed(push(&["web<api"])).policies[0].change, Change::Unchanged);
    assert_eq!(world.state.phase(), Phase::Enforcing);
}

#[test]
fn bad_files_leave_the_last_good_ones_in_force() {
    let mut world = World::enforcing();
    world.batch([files(&["db<api"])]);
    world.trace();
    let mut bad = policy("db<api");
    bad.text = bad.text.replace("subject", "subjekt");
    world.batch([Event::PolicyFiles(vec![bad])]);
    assert_eq!(world.trace(), "");
    let (ready, reason) = world.readiness.clone();
    assert!(
        ready && reason.contains("dir/db.yaml:5:3") && reason.contains("last good ones stay"),
        "{reason}"
    );
    assert_eq!(world.status().policies, 1);
    world.batch([files(&["db<api"])]);
    assert_eq!((world.trace().as_str(), world.state.phase()), ("", Phase::Enforcing));
}

#[test]
fn problems_come_and_go_with_their_cause() {
    let mut world = World::enforcing();
    let source = |message: &str| WorkloadEvent::Problem { source: "static".into(), message: message.into() };
    world.batch([
        Event::Workloads(source("file gone")),
        Event::KernelProblems(vec!["link detached".into(), "pin gone".into()]),
        Event::Part { name: "flows", problem: Some("ring ended".into()) },
        Event::SourceProblem { source: POLICIES, message: "directory gone".into() },
    ]);
    assert_eq!(world.trace(), "");
    let status = world.status();
    assert_eq!(status.state, "degraded");
    assert_eq!(
        status.problems,
        ["directory gone", "file gone", "link detached", "pin gone", "ring ended"],
        "what was in force stays in force"
    );
    world.log.clear();
    world.batch([
        workloads(&["web@1", "api@2", "db@3"]),
        files(&[]),
        Event::KernelProblems(vec![]),
        Event::Part { name: "flows", problem: None },
    ]);
    assert_eq!(world.state.phase(), Phase::Enforcing);
    assert_eq!(world.log.len(), 6, "each is told to be settled, and the phase: {:?}", world.log);
}

#[test]
fn a_disputed_directory_is_denied_everything() {
    let mut world = World::enforcing();
    world.batch([from_source("file:other", &["db-2@3", "api-2@3"])]);
    assert_eq!(world.bound()[&3], "unmanaged");
    let status = world.status();
    assert!(
        status.problems[0]
            .starts_with("cgroup /test/api-2 belongs to workload default/api-2 and to default/db, ")
    );
    world.batch([from_source("file:other", &["db-2@3"])]);
    assert_eq!(world.bound()[&3], "app=db", "the same to policies, so only the name is in doubt");
    assert_eq!(world.state.phase(), Phase::Degraded);
    world.batch([from_source("file:other", &["web@9"])]);
    assert!(world.status().problems[0].contains("workload default/web of source `static` is not used"));
}
