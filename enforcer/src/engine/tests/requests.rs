//! Pushing, deleting, asking.

use super::*;
use crate::domain::command::Change;

#[test]
fn a_push_is_answered_when_it_is_in_force() {
    let mut world = World::enforcing();
    let changed = world.changed(push(&["db<api", "api<web"]));
    assert_eq!(world.trace(), "save(registry+api+db) publish(2) reply(1)");
    assert_eq!((changed.generation, changed.dry_run), (2, false));
    let rows: Vec<_> =
        changed.policies.iter().map(|it| (it.name.as_str(), it.change, it.selects.as_slice())).collect();
    let selects = |name: &str| [format!("default/{name}")];
    assert_eq!(
        rows,
        [
            ("default/api", Change::Created, selects("api").as_slice()),
            ("default/db", Change::Created, selects("db").as_slice())
        ]
    );
    assert!(changed.entries_after > changed.entries_before);

    let changed = world.changed(push(&["db<api", "api<"]));
    assert_eq!(world.trace(), "save(+api) publish(3) reply(2)", "no new number, one new text");
    let changes: Vec<_> = changed.policies.iter().map(|it| it.change).collect();
    assert_eq!(changes, [Change::Configured, Change::Unchanged]);

    let changed = world.changed(push(&["db<api"]));
    assert_eq!(world.trace(), "reply(3)", "the same again changes nothing");
    assert_eq!(changed.generation, 3);

    let changed = world.changed(delete(&["default/db", "api"]));
    assert_eq!(world.trace(), "save(-api-db) publish(4) reply(4)");
    assert!(changed.policies.iter().all(|it| it.change == Change::Deleted && it.selects.len() == 1));
    assert!(world.documents.is_empty());
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut world = World::enforcing();
    let request = |dry_run| Request::PolicyApply {
        files: vec![policy("db<api")],
        dry_run,
        confirm_within: None,
        by: None,
    };
    let before = format!("{:?}", world.state);
    let tried = world.changed(request(true));
    assert_eq!(world.trace(), "reply(1)");
    assert_eq!(format!("{:?}", world.state), before);
    let done = world.changed(request(false));
    assert_eq!((tried.generation, tried.dry_run), (1, true));
    assert_eq!((tried.policies, tried.entries_after), (done.policies, done.entries_after));
}

#[test]
fn one_bad_document_keeps_all_out() {
    let mut world = World::enforcing();
    let mut files = vec![policy("db<api"), policy("api<web")];
    files[1].text.push_str("  colour: red\n");
    let refused = world.refusal(apply(files));
    assert_eq!(world.trace(), "reply(1)");
    assert_eq!(refused.message, "the documents have 1 problem; nothing was changed");
    assert!(refused.diagnostics[0].starts_with("dir/api.yaml:7:3: error"), "{refused:?}");
    assert!(world.documents.is_empty());
    let empty = world.refusal(push(&[]));
    assert!(empty.message.contains("contain no policy"), "{empty:?}");
}

#[test]
fn each_push_is_a_change_of_its_own() {
    let mut world = World::enforcing();
    let tickets = [push(&["db<api"]), push(&["db<web"]), delete(&["db"])].map(|request| world.ask(request));
    world.settle();
    let generations = tickets.map(|ticket| match &world.replies[&ticket] {
        Reply::Changed(changed) => changed.generation,
        other => panic!("{other:?}"),
    });
    assert_eq!(generations, [2, 3, 4]);
}

#[test]
fn policies_of_the_directory_belong_to_the_directory() {
    let mut world = World::enforcing();
    world.batch([files(&["db<api"])]);
    let refused = world.refusal(push(&["web<", "db<web"]));
    let message = "policy default/db comes from dir/db.yaml: edit that file instead; nothing was changed";
    assert_eq!(refused.message, message);
    let refused = world.refusal(delete(&["db"]));
    assert!(
        refused.message.starts_with("policy default/db comes from dir/db.yaml: remove the document"),
        "{refused:?}"
    );
    assert!(!refused.not_found);
    let refused = world.refusal(delete(&["db", "none"]));
    assert!(
        refused.not_found && refused.message.starts_with("there is no policy default/none"),
        "{refused:?}"
    );
    assert!(world.documents.is_empty());
}

#[test]
fn a_file_never_replaces_what_was_pushed() {
    let mut world = World::enforcing();
    world.changed(push(&["db<api"]));
    world.batch([files(&["db<web", "web<"])]);
    assert_eq!(world.state.phase(), Phase::Degraded);
    let status = world.status();
    assert!(status.problems[0].contains("policy default/db in dir/db.yaml is not used"), "{status:?}");
    assert_eq!(status.policies, 2);
    let origin = |world: &mut World| match world.answer(Request::PolicyList) {
        Reply::Policies(list) => list.into_iter().map(|it| (it.name, it.origin)).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(origin(&mut world), [("db".into(), "pushed".into()), ("web".into(), "dir/web.yaml".into())]);
    world.changed(delete(&["db"]));
    assert_eq!(origin(&mut world)[0].1, "dir/db.yaml", "with the pushed one gone the file counts");
    assert_eq!(world.state.phase(), Phase::Enforcing);
}

#[test]
fn a_push_waits_for_the_sources_unless_one_is_broken() {
    let mut world = World::new();
    world.batch([adopted(), workloads(&["db@3"])]);
    let waiting = world.ask(push(&["db<api"]));
    world.settle();
    assert!(world.replies.is_empty());
    world.batch([Event::PolicyFiles(vec![PolicyFile {
        name: "dir/x.yaml".into(),
        text: "kind: Nothing\n".into(),
    }])]);
    let Some(Reply::Refused(refused)) = world.replies.get(&waiting) else { panic!("{:?}", world.replies) };
    assert!(refused.message.contains("dir/x.yaml:1:"), "{refused:?}");
    assert_eq!(world.state.phase(), Phase::Syncing);
    world.batch([files(&[])]);
    assert_eq!(world.changed(push(&["db<api"])).generation, 2);
}

#[test]
fn a_push_whose_sender_is_gone_is_forgotten() {
    let mut world = World::new();
    world.batch([adopted(), workloads(&["db@3"])]);
    let gone = world.ask(push(&["db<"]));
    let waiting = world.ask(push(&["web<"]));
    world.batch([Event::Gone(Ticket(gone)), files(&[])]);
    assert_eq!(world.replies.keys().collect::<Vec<_>>(), [&waiting]);
    assert_eq!(world.documents.len(), 1);
}

#[test]
fn lists_say_what_is_there() {
    let mut world = World::enforcing();
    world.changed(push(&["db<api"]));
    let Reply::Endpoints(endpoints) = world.answer(Request::EndpointList) else { panic!() };
    let rows: Vec<_> =
        endpoints.iter().map(|it| (it.name.as_str(), it.cgroup_id, it.ingress_policies.len())).collect();
    assert_eq!(rows, [("api", Some(2), 0), ("db", Some(3), 1), ("web", Some(1), 0)]);
    let Reply::Identities(identities) = world.answer(Request::IdentityList) else { panic!() };
    assert_eq!(identities[1].labels, ["reserved:host"]);
    assert_eq!(identities.last().unwrap().workloads.len(), 1);
    let Reply::Policies(policies) = world.answer(Request::PolicyList) else { panic!() };
    assert_eq!((policies[0].rules, policies[0].isolates.as_slice()), (1, ["ingress".to_owned()].as_slice()));
    assert_eq!(policies[0].selects, ["default/db"]);
    let names = &world.state.names;
    let rules: Vec<String> = names.rules.values().map(|(key, _)| key.to_string()).collect();
    assert_eq!(rules, ["default/db ingress (isolated)", "default/db ingress[0]"]);
    assert_eq!(names.cgroups[&CgroupId(3)].to_string(), "default/db");
}

#[test]
fn saved_policies_that_are_bad_now_are_named() {
    let stored = [PolicyFile { name: "state/policies/default.db.yaml".into(), text: "kind: Other\n".into() }];
    let error = State::new(facts(&[]), Remembered { documents: stored.into(), ..Remembered::default() })
        .unwrap_err()
        .to_string();
    assert!(error.contains("state/policies/default.db.yaml:1:"), "{error}");
}
