//! Where policies stand: accepted, programmed, enforcing.

use super::*;
use crate::domain::Mode;
use crate::domain::canary::{Attempt, CanaryEvent, Outcome};
use crate::domain::conditions::{Condition, ConditionStatus, PolicyStatus};
use crate::domain::unguarded::missing_hooks;

/// Everything that has to be attached.
fn hooks() -> Vec<String> {
    missing_hooks(&[], &[]).into_iter().map(str::to_owned).collect()
}

fn all_hooks() -> Event {
    Event::KernelSeen { notices: Vec::new(), hooks: hooks() }
}

fn ready() -> Event {
    Event::Canary(CanaryEvent::Ready(CgroupId(99)))
}

fn tried(world: &World, outcome: Outcome) -> Event {
    let generation = generation(world).unwrap_or_default();
    Event::Canary(CanaryEvent::Tried(Attempt { generation, outcome, now: world.state.now }))
}

fn standing(world: &mut World, name: &str) -> PolicyStatus {
    let Reply::Policies(policies) = world.answer(Request::PolicyList) else { panic!("no list") };
    let policy = policies.into_iter().find(|policy| policy.name == name).expect("it is loaded");
    assert_eq!(policy.status.conditions.len(), 3);
    assert_eq!(policy.status.summary, policy.status.conditions[2].reason);
    policy.status
}

fn words(status: &PolicyStatus) -> String {
    let word = |it: &Condition| format!("{} {}", it.status.label(), it.reason);
    status.conditions.iter().map(word).collect::<Vec<_>>().join(", ")
}

/// Enforces with every hook, and the canary was refused.
fn proven() -> World {
    let mut world = World::enforcing();
    world.batch([all_hooks(), ready()]);
    let refused = tried(&world, Outcome::Refused);
    world.batch([refused]);
    world
}

#[test]
fn a_policy_is_enforcing_once_the_canary_was_refused_under_it() {
    let mut world = proven();
    world.batch([Event::Tick(at(10))]);
    world.changed(push(&["db<api"]));
    let generation = generation(&world).unwrap().0;
    let before = standing(&mut world, "db");
    assert_eq!(words(&before), "True Accepted, True Programmed, Unknown CanaryPending");
    assert_eq!(before.generation, generation);
    assert!(before.conditions[2].message.contains("no call has been tried"), "{before:?}");

    world.batch([Event::Tick(at(12))]);
    let refused = tried(&world, Outcome::Refused);
    world.batch([refused]);
    let after = standing(&mut world, "db");
    assert_eq!(words(&after), "True Accepted, True Programmed, True Enforcing");
    assert_eq!(after.conditions[2].observed_generation, generation);
    assert_eq!(after.conditions[1].last_transition_time, at(10).wall.whole_seconds());
    assert_eq!(after.conditions[2].last_transition_time, at(12).wall.whole_seconds());

    // Another publication: what was proven for the last one counts until the next attempt, and says of which it speaks.
    world.batch([Event::Tick(at(20))]);
    world.changed(push(&["api<web"]));
    let kept = standing(&mut world, "db");
    assert_eq!(words(&kept), "True Accepted, True Programmed, True Enforcing");
    assert_eq!(kept.conditions[2].observed_generation, generation);
    assert_eq!(kept.conditions[1].observed_generation, generation + 1);
    assert_eq!(kept.conditions[2].last_transition_time, at(12).wall.whole_seconds());
    assert_eq!(standing(&mut world, "api").summary, "CanaryPending");

    // One that is changed has to be proven anew.
    world.changed(push(&["db<web"]));
    assert_eq!(standing(&mut world, "db").summary, "CanaryPending");
}

#[test]
fn a_canary_that_is_not_refused_is_a_problem_and_no_policy_is_enforcing() {
    let mut world = proven();
    world.changed(push(&["db<api"]));
    let failed = tried(&world, Outcome::Failed("connect4 went through".into()));
    world.batch([failed]);
    assert_eq!(world.state.phase(), Phase::Degraded);
    let status = standing(&mut world, "db");
    assert_eq!(words(&status), "True Accepted, True Programmed, False CanaryFailed");
    assert!(status.conditions[2].message.ends_with("connect4 went through"), "{status:?}");
    assert_eq!(world.status().canary.state, "failed");
    // Not to be able to try is no failure, and no proof.
    let unproven = tried(&world, Outcome::Unproven("no cgroup can be made".into()));
    world.batch([unproven]);
    assert_eq!(world.state.phase(), Phase::Enforcing);
    let status = standing(&mut world, "db");
    assert_eq!(status.conditions[2].status, ConditionStatus::Unknown);
    assert_eq!(status.conditions[2].message, "not proven: no cgroup can be made");
    let refused = tried(&world, Outcome::Refused);
    world.batch([refused]);
    assert_eq!(standing(&mut world, "db").summary, "Enforcing");
    assert_eq!(world.status().canary.generation, generation(&world).unwrap().0);
}

#[test]
fn the_directory_of_the_canary_is_bound_to_its_identity() {
    let mut world = World::enforcing();
    let report = |world: &World| super::super::views::report(&world.state);
    assert!(report(&world).canary.is_none(), "nothing is bound yet");
    world.batch([all_hooks(), ready()]);
    assert_eq!(world.kernel.bindings[&CgroupId(99)], Bound::always(IdentityId::CANARY));
    assert_eq!(report(&world).canary, Some(CgroupId(99)), "it may try");
    world.step(Event::Canary(CanaryEvent::Ready(CgroupId(98))));
    assert_eq!(report(&world).canary, None, "not in another directory, which is not bound yet");
    world.settle();
    assert_eq!(report(&world).canary, Some(CgroupId(98)));
    assert_eq!(world.table.as_ref().unwrap().class_of_identity(IdentityId(5)), 0);
    assert_ne!(world.table.as_ref().unwrap().class_of_identity(IdentityId::CANARY), 0);
    // Hooks that are gone: there is nothing to be proven any more.
    let some = hooks().into_iter().filter(|hook| hook != "connect4").collect();
    world.batch([Event::KernelSeen { notices: Vec::new(), hooks: some }]);
    world.changed(push(&["db<api"]));
    let status = standing(&mut world, "db");
    assert_eq!(words(&status), "True Accepted, True Programmed, False HooksNotAttached");
    assert!(status.conditions[2].message.ends_with("not attached: connect4"), "{status:?}");
}

#[test]
fn a_mode_that_refuses_nothing_is_said() {
    for (mode, word) in [(Mode::Audit, "AuditMode"), (Mode::Off, "Off")] {
        let facts = Facts { mode, ..facts(&[]) };
        let mut world = World::with(State::new(facts, Remembered::default()).unwrap());
        world.batch([adopted(), workloads(&["db@3"]), files(&["db<api"]), all_hooks(), ready()]);
        let status = standing(&mut world, "db");
        assert_eq!(words(&status), format!("True Accepted, True Programmed, False {word}"));
        assert!(super::super::views::report(&world.state).canary.is_none(), "nothing would refuse it");
        assert_eq!(world.status().canary.state, "unproven");
    }
}

#[test]
fn what_keeps_a_policy_from_the_table_is_said() {
    let mut world = World::new();
    world.batch([adopted(), files(&["db<api"])]);
    let status = standing(&mut world, "db");
    assert_eq!(words(&status), "True Accepted, False NotPublished, False NotPublished");
    assert_eq!(status.generation, 0);
    assert!(status.conditions[1].message.contains("waits for the first word of static"), "{status:?}");

    let mut world = proven();
    world.broken.push(Step::Publish);
    world.batch([files(&["db<api"])]);
    let status = standing(&mut world, "db");
    assert_eq!(words(&status), "True Accepted, False NotPublished, False NotPublished");
    assert!(status.conditions[1].message.contains("no luck"), "{status:?}");
    world.broken.clear();
    world.batch([Event::Tick(at(60))]);
    assert_eq!(standing(&mut world, "db").summary, "CanaryPending");
}

#[test]
fn what_is_over_unconfirmed_or_pending_is_said() {
    let mut world = proven();
    let expiring = policy("db<api").text.replace("spec:", "spec:\n  expiresAt: \"1970-01-12T13:47:00Z\"");
    world.changed(apply(vec![PolicyFile { name: "x".into(), text: expiring }]));
    let refused = tried(&world, Outcome::Refused);
    world.batch([refused]);
    assert_eq!(standing(&mut world, "db").summary, "Enforcing");
    world.batch([Event::Tick(at(30))]);
    let over = standing(&mut world, "db");
    assert_eq!(words(&over), "True Accepted, False Expired, False Expired");
    assert!(over.conditions[1].message.starts_with("it expired at 1970-01-12T13:47:00Z"), "{over:?}");

    let names = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: out}\n\
                 spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: \
                 [{domainNames: [example.com]}]}]}\n";
    world.changed(apply(vec![PolicyFile { name: "y".into(), text: names.into() }]));
    let refused = tried(&world, Outcome::Refused);
    world.batch([refused]);
    let pending = standing(&mut world, "out");
    assert_eq!(words(&pending), "True Accepted, True PendingPeers, False PendingPeers");
    assert_eq!(pending.pending, ["egress[0]: domainNames example.com"]);
    assert!(pending.conditions[2].message.ends_with("egress[0]: domainNames example.com"), "{pending:?}");
    assert_eq!(world.status().pending_peers, ["clusternetworkpolicy/out egress[0]: domainNames example.com"]);

    let request = Request::PolicyApply {
        files: vec![policy("api<web")],
        dry_run: false,
        confirm_within: Some(60),
        by: None,
    };
    world.changed(request);
    let refused = tried(&world, Outcome::Refused);
    world.batch([refused]);
    let unconfirmed = standing(&mut world, "api");
    assert_eq!(words(&unconfirmed), "True Accepted, True Programmed, True Unconfirmed");
    assert!(unconfirmed.conditions[2].message.contains("taken back at"), "{unconfirmed:?}");
    let since = unconfirmed.since;
    world.changed(Request::PolicyConfirm { by: None });
    let confirmed = standing(&mut world, "api");
    assert_eq!((confirmed.summary.as_str(), confirmed.since), ("Enforcing", since));
    let counts = super::super::views::report(&world.state).standing;
    assert_eq!((counts["Enforcing"], counts["PendingPeers"], counts["Expired"]), (1, 1, 1));
}
