//! Label sets that the tables in force were made without.

use super::*;
use crate::domain::workload::Changes;

/// Events of one more workload.
fn more(resolved: Resolved) -> Event {
    let changes = Changes { workloads: vec![resolved], ..Changes::default() };
    Event::Workloads(WorkloadEvent::Changes { source: "static".into(), changes: Box::new(changes) })
}

fn labelled(text: &str, labels: &[(&str, &str)]) -> Resolved {
    let mut resolved = workload(text);
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Arc::make_mut(&mut resolved.workload).labels = Arc::new(LabelSet(labels.collect()));
    resolved
}

#[test]
fn a_new_label_set_of_a_known_class_is_placed_in_the_tables_in_force_and_in_their_successors() {
    let mut world = World::enforcing();
    let expiring =
        policy("db<api").text.replace("ingress: [{", "ingress: [{expiresAt: \"1970-01-12T14:00:00Z\", ");
    world.changed(apply(vec![PolicyFile { name: "db.yaml".into(), text: expiring }]));
    assert_eq!(world.trace(), "save(registry+db) publish(2+) reply(1)");
    world.batch([more(labelled("api-2@4", &[("app", "api"), ("mark", "new")]))]);
    assert_eq!(world.trace(), "save(registry) place(1) apply(1)");
    let known = |world: &World, app: &str| world.state.registry.known(&key(app)).unwrap();
    let new = world.kernel.bindings[&CgroupId(4)].identity;
    let publication = world.publication.clone().unwrap();
    assert_eq!(publication.chain().count(), 2);
    for (table, _) in publication.chain() {
        assert_eq!(table.class_of_identity(new), table.class_of_identity(known(&world, "api")));
    }
    // As soon as it passes, the tables are made anew, with everyone in them.
    world.batch([seconds(1_000)]);
    assert_eq!(world.trace(), "publish(3)");
    world.batch([more(labelled("api-3@5", &[("app", "api"), ("mark", "newer")]))]);
    assert_eq!(world.trace(), "save(registry) place(1) apply(1)");
}

#[test]
fn what_a_table_can_not_tell_takes_another_table() {
    let mut world = World::enforcing();
    world.changed(push(&["db<api", "queue<"]));
    world.trace();
    // The first whom a policy selects, the first of a namespace, the first with an answer of its own.
    for (at, (resolved, trace)) in [
        (labelled("queue@4", &[("app", "queue")]), "save(registry) publish(3) apply(1)"),
        (labelled("queue-2@5", &[("app", "queue"), ("mark", "new")]), "save(registry) place(1) apply(1)"),
        (
            {
                let mut other = workload("web@6");
                Arc::make_mut(&mut other.workload).key.namespace = "other".into();
                other
            },
            "save(registry) publish(4) apply(1)",
        ),
        (labelled("more@7", &[("app", "none"), ("mark", "new")]), "save(registry) place(1) apply(1)"),
    ]
    .into_iter()
    .enumerate()
    {
        world.batch([more(resolved)]);
        assert_eq!(world.trace(), trace, "{at}");
        assert_eq!(world.state.phase(), Phase::Enforcing);
    }
}

#[test]
fn where_a_class_can_not_be_written_the_tables_are_made_anew() {
    let mut world = World::enforcing();
    world.broken = vec![Step::Publish];
    world.batch([more(labelled("api-2@4", &[("app", "api"), ("mark", "new")]))]);
    assert_eq!(world.trace(), "save(registry) place(1) apply(1)");
    assert_eq!(world.bound()[&4], "unmanaged", "no table knows it");
    assert_eq!(world.state.phase(), Phase::Degraded);
    world.broken.clear();
    world.batch([seconds(2)]);
    assert_eq!(world.trace(), "publish(2) apply(1)");
    assert_eq!((world.bound()[&4].as_str(), world.state.phase()), ("app=api,mark=new", Phase::Enforcing));
    world.batch([more(labelled("api-3@5", &[("app", "api"), ("mark", "newer")]))]);
    assert_eq!(world.trace(), "save(registry) place(1) apply(1)");
}

#[test]
fn beyond_what_a_table_has_room_for_another_is_made() {
    let mut world = World::enforcing();
    let spare = crate::domain::policy::compile::IDENTITY_SPARE;
    let batch = |from: usize, count: usize| {
        let one = |number: usize| {
            labelled(&format!("api-{number}@-"), &[("app", "api"), ("n", &number.to_string())])
        };
        let changes = Changes { workloads: (from..from + count).map(one).collect(), ..Changes::default() };
        Event::Workloads(WorkloadEvent::Changes { source: "static".into(), changes: Box::new(changes) })
    };
    world.batch([batch(0, spare - 16)]);
    assert_eq!(world.trace(), format!("save(registry) place({})", spare - 16));
    world.batch([batch(spare, 32)]);
    assert_eq!(world.trace(), "save(registry) publish(2)");
    world.batch([batch(2 * spare, 1)]);
    assert_eq!(world.trace(), "save(registry) place(1)");
}
