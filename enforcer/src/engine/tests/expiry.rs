//! What passes with time: rules, policies, pushes that nobody confirms.

use enforcer_common::address::Address;
use enforcer_common::verdict::{Direction, Query};

use super::*;

/// `db<api` whose rule, or whose policy, expires so many seconds after the start.
fn expiring(text: &str, rule: Option<i64>, policy: Option<i64>) -> PolicyFile {
    let moment = |seconds: i64| Timestamp { seconds: 1_000_000 + seconds, nanos: 0 }.to_string();
    let mut file = super::policy(text);
    if let Some(seconds) = rule {
        file.text = file.text.replace("[{from:", &format!("[{{expiresAt: {}, from:", moment(seconds)));
    }
    if let Some(seconds) = policy {
        file.text += "  expiresAt: ";
        file.text += &moment(seconds);
        file.text += "\n";
    }
    file
}

fn confirm_within(texts: &[&str], seconds: u64) -> Request {
    let files = texts.iter().map(|text| super::policy(text)).collect();
    Request::PolicyApply { files, dry_run: false, confirm_within: Some(seconds), by: Some(1000) }
}

const CONFIRM: Request = Request::PolicyConfirm { by: Some(1001) };

/// What the kernel says of api -> db when so many seconds have passed and nobody has done anything.
fn allowed(world: &World, seconds: u64) -> bool {
    let publication = world.publication.as_ref().unwrap();
    let now = at(seconds).boot;
    let passed = publication.next.iter().rev().find(|(from, _)| *from <= now);
    let table = passed.map_or(&publication.table, |(_, table)| table);
    let id = |app: &str| world.state.registry.known(&key(app)).unwrap();
    let query = Query {
        subject: id("db"),
        peer: id("api"),
        address: Address::LOOPBACK_V4,
        port: 80,
        protocol: 6,
        direction: Direction::Ingress,
    };
    !table.decide(&query).enforced.is_deny()
}

fn told(world: &World, line: &str) -> bool {
    world.log.iter().any(|told| told.contains(line))
}

#[test]
fn the_kernel_gets_what_follows_and_the_engine_follows_it() {
    let mut world = World::enforcing();
    world.changed(apply(vec![expiring("db<api", Some(60), Some(90)), expiring("web<api", Some(60), None)]));
    assert_eq!(world.trace(), "save(registry+db+web) publish(2++) reply(1)", "two moments, not three");
    assert_eq!([59, 60, 89, 90].map(|seconds| allowed(&world, seconds)), [true, false, false, true]);
    let Reply::Policies(list) = world.answer(Request::PolicyList) else { panic!() };
    let rows: Vec<_> = list.iter().map(|it| (it.name.as_str(), it.expired, it.expires.as_deref())).collect();
    let (rule, whole) = ("1970-01-12T13:47:40Z", "1970-01-12T13:48:10Z");
    assert_eq!(rows, [("db", 0, Some(rule)), ("web", 0, Some(rule))]);
    world.trace();
    world.batch([seconds(59)]);
    assert_eq!(world.trace(), "");
    world.batch([seconds(60)]);
    assert_eq!(world.trace(), "publish(3+)");
    assert!(!allowed(&world, 60) && allowed(&world, 90), "the same verdicts as before");
    assert!(told(&world, "rule default/db ingress[0] expired at 1970-01-12T13:47:40Z and is left out"));
    let Reply::Policies(list) = world.answer(Request::PolicyList) else { panic!() };
    let rows: Vec<_> = list.iter().map(|it| (it.name.as_str(), it.expired, it.expires.as_deref())).collect();
    assert_eq!(rows, [("db", 1, Some(whole)), ("web", 1, None)]);
    world.trace();
    world.batch([seconds(90)]);
    assert_eq!(world.trace(), "publish(4)");
    assert!(told(&world, "policy default/db expired at 1970-01-12T13:48:10Z and is left out"));
    world.batch([seconds(10_000)]);
    assert_eq!(world.trace(), "");
    assert_eq!(world.documents.len(), 2, "documents stay");
}

#[test]
fn what_was_over_when_it_came_is_accepted_and_left_out() {
    let mut world = World::enforcing();
    world.changed(apply(vec![expiring("db<api", Some(-1), None)]));
    assert_eq!(world.trace(), "save(registry+db) publish(2) reply(1)");
    assert!(!allowed(&world, 0) && told(&world, "rule default/db ingress[0] expired at"));
    world.log.clear();
    world.restart();
    let adopted = world.adopted();
    world.batch([adopted, workloads(&["web@1", "api@2", "db@3"]), files(&[])]);
    assert!(told(&world, "rule default/db ingress[0] expired at"), "told again: {:?}", world.log);
}

#[test]
fn more_moments_than_the_kernel_keeps_are_refused() {
    let many = |count: i64| -> Vec<PolicyFile> {
        (0..count).map(|at| expiring(&format!("p{at}<api"), Some(10 + at), None)).collect()
    };
    let mut world = World::enforcing();
    let refused = world.refusal(apply(many(9)));
    assert!(
        refused.message.contains("9 moments ahead") && refused.message.contains("keeps 8: round"),
        "{refused:?}"
    );
    assert_eq!(world.trace(), "reply(1)");
    world.changed(apply(many(8)));
    assert!(world.trace().contains("publish(2++++++++)"));
    world.refusal(confirm_within(&["db<api"], 60));
    // From files: the last good tables stay, and it is a problem until it is corrected.
    world.batch([Event::PolicyFiles(vec![expiring("db<api", Some(500), None)])]);
    assert_eq!(world.state.phase(), Phase::Degraded);
    assert!(world.status().problems[0].contains("9 moments ahead"), "{:?}", world.state.problems);
    world.batch([seconds(10)]);
    assert_eq!(world.state.phase(), Phase::Enforcing, "with one of them over it fits");
}

#[test]
fn a_clock_that_is_set_moves_what_is_ahead() {
    let mut world = World::enforcing();
    world.changed(apply(vec![expiring("db<api", Some(60), None)]));
    world.trace();
    let with_wall = |seconds: u64, ahead: i64| {
        let mut now = at(seconds);
        now.wall.seconds += ahead;
        Event::Tick(now)
    };
    world.batch([with_wall(1, 1)]);
    assert_eq!(world.trace(), "", "drift");
    world.batch([with_wall(2, 30)]);
    assert_eq!(world.trace(), "publish(3+)");
    assert!(allowed(&world, 29) && !allowed(&world, 30));
    world.batch([with_wall(30, 30)]);
    assert_eq!(world.trace(), "publish(4)");
    world.batch([with_wall(31, 3_600)]);
    assert_eq!(world.trace(), "", "with nothing ahead it makes no difference");
}

#[test]
fn an_unconfirmed_push_goes_back_by_itself() {
    let mut world = World::enforcing();
    world.changed(push(&["db<"]));
    assert!(!allowed(&world, 0));
    world.trace();
    let changed = world.changed(confirm_within(&["db<api", "web<"], 60));
    assert_eq!(changed.confirm_until.as_deref(), Some("1970-01-12T13:47:40Z"));
    assert_eq!(
        world.trace(),
        "save(registryunconfirmed) publish(3+) reply(2)",
        "the old documents stay where they are"
    );
    assert!(allowed(&world, 59) && !allowed(&world, 60));
    assert!(told(&world, "a push by user 1000 is taken back at 1970-01-12T13:47:40Z unless it is confirmed"));
    world.batch([seconds(20)]);
    let waiting = world.status().unconfirmed.unwrap();
    assert_eq!((waiting.seconds_left, waiting.by), (40, Some(1000)));
    for second in [push(&["api<"]), delete(&["db"]), confirm_within(&["api<"], 5)] {
        let refused = world.refusal(second);
        assert!(
            refused
                .message
                .contains("taken back in 40 s; nothing was changed: run `enforcer policy confirm`")
        );
    }
    let dry =
        Request::PolicyApply { files: vec![policy("api<")], dry_run: true, confirm_within: None, by: None };
    assert!(world.changed(dry).dry_run, "asking is free");
    world.trace();
    world.batch([seconds(60)]);
    assert_eq!(world.trace(), "save(settled) publish(4)");
    assert!(!allowed(&world, 60));
    assert_eq!(world.status().policies, 1);
    assert_eq!(world.state.phase(), Phase::Enforcing);
    let message =
        "the push of 1970-01-12T13:46:40Z was not confirmed by 1970-01-12T13:47:40Z and was taken back";
    assert!(told(&world, message) && world.status().rolled_back.unwrap().contains(message));
    let refused = world.refusal(CONFIRM);
    assert!(refused.message.starts_with("nothing waits for a confirmation: the push of"), "{refused:?}");
    world.changed(push(&["api<"]));
    assert_eq!(world.status().rolled_back, None);
    assert!(world.refusal(CONFIRM).message.ends_with("nothing was changed"));
}

#[test]
fn a_confirmed_push_stays() {
    let mut world = World::enforcing();
    world.changed(push(&["db<", "web<"]));
    world.changed(confirm_within(&["db<api", "api<"], 60));
    world.trace();
    world.batch([seconds(59)]);
    let changed = world.changed(CONFIRM);
    assert_eq!(world.trace(), "save(+api+dbsettled) publish(4) reply(3)");
    let names: Vec<&str> = changed.policies.iter().map(|it| it.name.as_str()).collect();
    assert_eq!((names, changed.confirm_until), (vec!["default/api", "default/db"], None));
    assert!(told(&world, "the push is confirmed by user 1001"));
    world.batch([seconds(600)]);
    assert_eq!(world.trace(), "");
    assert!(allowed(&world, 600));
    assert_eq!((world.documents.len(), world.status().unconfirmed), (3, None));
}

#[test]
fn what_changes_nothing_need_not_be_confirmed() {
    let mut world = World::enforcing();
    world.changed(push(&["db<api"]));
    world.trace();
    let changed = world.changed(confirm_within(&["db<api"], 60));
    assert_eq!((changed.confirm_until, world.trace().as_str()), (None, "reply(2)"));
    for seconds in [0, 86_401] {
        let refused = world.refusal(confirm_within(&["db<"], seconds));
        assert!(refused.message.contains("from a second to a day"), "{refused:?}");
    }
}

#[test]
fn a_restarted_agent_does_as_the_kernel_does() {
    let sources = || [workloads(&["web@1", "api@2", "db@3"]), files(&[])];
    let pushed = || {
        let mut world = World::enforcing();
        world.changed(push(&["db<"]));
        world.changed(confirm_within(&["db<api"], 60));
        world.trace();
        world
    };
    // In time: it keeps waiting, to the nanosecond.
    let mut world = pushed();
    let until = world.publication.as_ref().unwrap().next[0].0;
    let now = at(30);
    world.restart_with(Facts { now, ..facts(&["static", POLICIES]) });
    let adopted = world.adopted();
    world.batch([vec![adopted], sources().to_vec()].concat());
    assert_eq!(world.trace(), "publish(4+) attach");
    assert_eq!(world.publication.as_ref().unwrap().next[0].0, until);
    assert!(allowed(&world, 59) && !allowed(&world, 60));
    assert_eq!(world.status().unconfirmed.unwrap().seconds_left, 30);
    world.changed(CONFIRM);
    assert_eq!(world.trace(), "save(+dbsettled) publish(5) reply(4)");
    // Late: the kernel has gone back.
    let mut world = pushed();
    world.restart_with(Facts { now: at(61), ..facts(&["static", POLICIES]) });
    let adopted = world.adopted();
    world.batch([vec![adopted], sources().to_vec()].concat());
    assert_eq!(world.trace(), "save(settled) publish(4) attach");
    assert!(!allowed(&world, 61) && told(&world, "was taken back"));
    // Between: the sources speak after the time is over.
    let mut world = pushed();
    world.restart_with(Facts { now: at(59), ..facts(&["static", POLICIES]) });
    let adopted = world.adopted();
    world.batch([adopted, seconds(60)]);
    world.batch(sources());
    assert_eq!(world.trace(), "save(settled) publish(4) attach");
    assert!(!allowed(&world, 61));
    // After a start of the host.
    let mut world = pushed();
    world.restart_with(Facts { now: at(1), boot_id: "next".into(), ..facts(&["static", POLICIES]) });
    world.table = None;
    world.kernel = Tables::default();
    world.batch([vec![super::adopted()], sources().to_vec()].concat());
    assert!(world.trace().starts_with("save(settled) publish(1)"));
    assert!(!allowed(&world, 1) && world.status().rolled_back.is_some());
}

#[test]
fn a_push_that_fails_leaves_nothing_to_confirm() {
    for broken in [Step::Save, Step::Publish] {
        let mut world = World::enforcing();
        world.changed(push(&["db<"]));
        world.broken = vec![broken];
        world.refusal(confirm_within(&["db<api"], 60));
        world.broken.clear();
        world.batch([seconds(50)]);
        assert_eq!((&world.confirmation, world.documents.len()), (&Confirmation::Settled, 1), "{broken:?}");
        assert!(!allowed(&world, 0) && world.status().unconfirmed.is_none(), "{broken:?}");
        assert!(world.refusal(CONFIRM).message.ends_with("nothing was changed"));
    }
}

#[test]
fn rules_that_expire_meet_a_push_that_is_not_confirmed() {
    let mut world = World::enforcing();
    // Before: the rule ends at 100. After: open until 40, closed until it is taken back at 60.
    world.changed(apply(vec![expiring("db<api", Some(100), None)]));
    let files = vec![expiring("db<api", Some(40), None)];
    world.changed(Request::PolicyApply { files, dry_run: false, confirm_within: Some(60), by: None });
    let expected = [(39, true), (40, false), (59, false), (60, true), (99, true), (100, false)];
    for (seconds, open) in expected {
        assert_eq!(allowed(&world, seconds), open, "{seconds}");
    }
    for (now, open) in expected {
        world.batch([seconds(now)]);
        assert_eq!(allowed(&world, now), open, "{now}");
        for (later, open) in expected.into_iter().filter(|(later, _)| *later >= now) {
            assert_eq!(allowed(&world, later), open, "at {now} of {later}");
        }
    }
}

#[test]
fn time_that_passes_during_a_change_is_seen_after_it() {
    let mut world = World::enforcing();
    world.changed(push(&["db<"]));
    world.changed(confirm_within(&["db<api"], 60));
    world.trace();
    world.paused = true;
    world.batch([workloads(&["web@1", "api@2", "db@3", "new@4"])]);
    world.step(seconds(60));
    world.step(Event::Quiet);
    assert!(world.state.asked.unconfirmed.is_some(), "the change under way is finished first");
    world.paused = false;
    world.settle();
    assert!(!allowed(&world, 61) && world.status().unconfirmed.is_none());
    assert_eq!(world.bound()[&4], "app=new");
}
