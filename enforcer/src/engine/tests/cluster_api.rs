//! What a cluster's API tells: policy objects as a third origin, the rank of sources, labels that count.

use super::*;
use crate::domain::cluster_policy::{ClusterPolicy, GoodPolicy, KUBERNETES, ObjectVersion, SourceInfo};
use crate::domain::policy::check::check;

fn object(name: &str, generation: i64, spec: &str) -> Arc<ClusterPolicy> {
    let text = format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    );
    let file = PolicyFile { name: name.into(), text: text.clone() };
    let policy = check(&[file]).into_result().expect("a policy").remove(0).policy;
    let object = ObjectVersion { uid: "u".into(), generation };
    let good = Some(Arc::new(GoodPolicy { policy, text, object: object.clone() }));
    Arc::new(ClusterPolicy { key: PolicyKey::traffic("default", name), object, good, problems: Vec::new() })
}

fn told_by(source: &str, workloads: Vec<Resolved>) -> Event {
    Event::Workloads(WorkloadEvent::Snapshot {
        source: source.into(),
        workloads,
        namespaces: Vec::new(),
        services: Vec::new(),
    })
}

fn labelled(name: &str, labels: &[(&str, &str)]) -> Resolved {
    let mut resolved = workload(name);
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Arc::make_mut(&mut resolved.workload).labels = Arc::new(LabelSet(labels));
    resolved
}

fn labels_of(world: &World, cgroup: u64) -> String {
    let identity = world.kernel.bindings[&CgroupId(cgroup)].identity;
    world.registry.identity_key(identity).expect("it is saved").labels.to_string()
}

fn policies(world: &mut World) -> Vec<crate::domain::command::PolicyInfo> {
    match world.answer(Request::PolicyList) {
        Reply::Policies(policies) => policies,
        other => panic!("{other:?}"),
    }
}

fn status(world: &mut World) -> Status {
    match world.answer(Request::Status) {
        Reply::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

const DENY: &str = "{subject: {matchLabels: {app: db}}, ingress: []}";

#[test]
fn nothing_is_published_before_the_cluster_has_spoken() {
    let state = State::new(facts(&["static", POLICIES, KUBERNETES, POLICY_OBJECTS]), Remembered::default());
    let mut world = World::with(state.unwrap());
    world.batch([adopted(), workloads(&["web@1"]), files(&[]), told_by(KUBERNETES, Vec::new())]);
    assert!(world.table.is_none() && world.readiness.1.contains(POLICY_OBJECTS), "{:?}", world.readiness);
    world.batch([Event::PolicyObjects(vec![object("db", 1, DENY)])]);
    assert!(world.table.is_some() && world.readiness.0);
}

#[test]
fn policies_of_the_cluster_count_beside_the_others_and_come_last_by_name() {
    let mut world = World::enforcing();
    world.batch([Event::PolicyObjects(vec![object("db", 1, DENY), object("web", 1, DENY)])]);
    let origins = |world: &mut World| -> Vec<(String, String)> {
        policies(world).into_iter().map(|it| (it.name, it.origin)).collect()
    };
    let pair = |name: &str, origin: &str| (name.to_owned(), origin.to_owned());
    assert_eq!(origins(&mut world), [pair("db", "kubernetes"), pair("web", "kubernetes")]);
    // A file of the same name counts, and that is told.
    let text = object("db", 1, "{subject: {}, egress: []}").good.as_ref().unwrap().text.clone();
    world.batch([Event::PolicyFiles(vec![PolicyFile { name: "/p/db.yaml".into(), text }])]);
    assert_eq!(origins(&mut world), [pair("db", "/p/db.yaml"), pair("web", "kubernetes")]);
    let problems = status(&mut world).problems;
    assert!(problems[0].contains("of the cluster is not used because /p/db.yaml"), "{problems:?}");
    // What comes from the cluster is deleted there.
    let Reply::Refused(refused) = world.answer(Request::PolicyDelete { names: vec!["default/web".into()] })
    else {
        panic!("it is refused");
    };
    assert!(refused.message.contains("kubectl delete trafficpolicy -n default web"), "{refused:?}");
    world.batch([Event::PolicyFiles(Vec::new()), Event::PolicyObjects(Vec::new())]);
    assert!(policies(&mut world).is_empty() && status(&mut world).problems.is_empty());
}

#[test]
fn a_refused_object_is_told_and_its_last_good_version_stays() {
    let mut world = World::enforcing();
    let good = object("db", 1, DENY);
    world.batch([Event::PolicyObjects(vec![Arc::clone(&good)])]);
    let generation = world.table.as_ref().unwrap().generation();
    let bad = ClusterPolicy {
        object: ObjectVersion { generation: 2, ..good.object.clone() },
        problems: vec!["x: it is wrong".into()],
        ..(*good).clone()
    };
    world.batch([Event::PolicyObjects(vec![Arc::new(bad)])]);
    assert_eq!(world.table.as_ref().unwrap().generation(), generation, "nothing is another table");
    let problems = status(&mut world).problems;
    assert!(
        problems[0].contains("default/db of the cluster is refused")
            && problems[0].contains("(generation 1)")
    );
    let Reply::PolicyObjects(infos) = world.answer(Request::PolicyObjects) else { panic!("objects") };
    assert_eq!((infos[0].object.generation, infos[0].in_force.as_ref().unwrap().generation), (2, 1));
    world.batch([Event::PolicyObjects(vec![good])]);
    assert!(status(&mut world).problems.is_empty());
}

#[test]
fn the_cluster_outranks_the_file_and_the_file_the_runtimes() {
    for order in [["docker", "static", KUBERNETES], [KUBERNETES, "static", "docker"]] {
        let mut world = World::new();
        world.batch([adopted(), files(&[]), workloads(&[])]);
        world.batch([Event::PolicyObjects(vec![object(
            "db",
            1,
            "{subject: {matchLabels: {by: x}}, ingress: []}",
        )])]);
        for source in order {
            // All of them call it by one name, and say other things of it.
            world.batch([told_by(source, vec![labelled("web@1", &[("by", source)])])]);
        }
        assert_eq!(labels_of(&world, 1), "by=kubernetes");
        world.batch([told_by(KUBERNETES, Vec::new())]);
        assert_eq!(labels_of(&world, 1), "by=static");
        world.batch([workloads(&[])]);
        assert_eq!(labels_of(&world, 1), "by=docker");
    }
}

#[test]
fn of_one_directory_the_word_of_the_best_source_counts() {
    let mut world = World::new();
    world.batch([adopted(), files(&[]), workloads(&[])]);
    world.batch([Event::PolicyObjects(vec![object(
        "db",
        1,
        "{subject: {matchLabels: {by: x}}, ingress: []}",
    )])]);
    let claim = |name: &str, by: &str| labelled(&format!("{name}@1"), &[("by", by)]);
    world.batch([told_by("docker", vec![claim("a", "docker")])]);
    assert_eq!(labels_of(&world, 1), "by=docker");
    world.batch([told_by(KUBERNETES, vec![claim("z", "kubernetes")])]);
    assert_eq!(labels_of(&world, 1), "by=kubernetes");
    assert!(status(&mut world).problems.is_empty(), "a runtime may have other names");
    world.batch([told_by("static", vec![claim("m", "static")])]);
    assert_eq!(labels_of(&world, 1), "by=kubernetes");
    let problems = status(&mut world).problems;
    assert!(
        problems[0].contains("belongs to workload default/z as the cluster says, and not to default/m"),
        "{problems:?}"
    );
    // Two of one rank are still nobody's.
    world.batch([told_by(KUBERNETES, vec![claim("z", "kubernetes"), claim("y", "other")])]);
    assert_eq!(world.kernel.bindings[&CgroupId(1)].identity, IdentityId::UNMANAGED);
}

#[test]
fn only_labels_that_are_named_make_identities() {
    let facts = Facts { labels: ["team".to_owned()].into(), ..facts(&["static", POLICIES]) };
    let mut world = World::with(State::new(facts, Remembered::default()).unwrap());
    world.batch([adopted(), files(&[]), workloads(&["own@9"])]);
    let pods = |count: u64| {
        (1..=count)
            .map(|at| {
                labelled(&format!("p{at}@{at}"), &[("app", "web"), ("team", "a"), ("hash", &at.to_string())])
            })
            .collect::<Vec<_>>()
    };
    world.batch([told_by(KUBERNETES, pods(5))]);
    assert_eq!((labels_of(&world, 1), labels_of(&world, 5)), ("team=a".into(), "team=a".into()));
    assert_eq!(labels_of(&world, 9), "app=own", "the administrator's own count all");
    world.batch([Event::PolicyObjects(vec![object(
        "db",
        1,
        "{subject: {matchLabels: {app: web}}, ingress: []}",
    )])]);
    assert_eq!(labels_of(&world, 1), "app=web,team=a");
    assert_eq!(world.kernel.bindings[&CgroupId(1)], world.kernel.bindings[&CgroupId(5)]);
    // What nobody names any more is left out.
    world.batch([Event::PolicyObjects(Vec::new())]);
    assert_eq!(labels_of(&world, 1), "team=a");
}

#[test]
fn labels_count_before_the_policy_that_names_them_is_in_force() {
    let mut world = World::enforcing();
    world.batch([told_by(KUBERNETES, vec![labelled("pod@7", &[("app", "pod"), ("tier", "x")])])]);
    assert_eq!(labels_of(&world, 7), "-");
    world.trace();
    let text = object("p", 1, "{subject: {}, ingress: [{from: [{workloads: {matchExpressions: [{key: tier, operator: DoesNotExist}]}}]}]}")
        .good
        .as_ref()
        .unwrap()
        .text
        .clone();
    let before = world.table.as_ref().unwrap().generation();
    world.paused = true;
    let push = Request::PolicyApply {
        files: vec![PolicyFile { name: "p".into(), text: text.clone() }],
        dry_run: false,
        confirm_within: None,
        by: None,
    };
    world.ask(push);
    world.settle();
    // Step by step: whenever the table with the policy is in force, the pod is bound to who it is.
    let mut steps = 0;
    while let Some(ack) = world.acks.pop_front() {
        world.step(ack);
        world.step(Event::Quiet);
        steps += 1;
        let has_policy =
            world.table.as_ref().is_some_and(|table| table.entries() > 0 && table.generation() > before);
        let is_known = labels_of(&world, 7) == "tier=x";
        assert!(!has_policy || is_known, "after step {steps}");
    }
    world.paused = false;
    assert!(steps >= 4, "{steps}");
    assert_eq!(labels_of(&world, 7), "tier=x");
    assert_eq!(policies(&mut world).len(), 1);
}

#[test]
fn a_node_that_has_converged_says_so_by_one_number() {
    let mut world = World::enforcing();
    let sums = |world: &mut World| {
        world.batch([Event::Tick(world.state.now)]);
        world.state.sums.0
    };
    let first = sums(&mut world);
    assert_eq!(first.desired, first.loaded);
    // The kernel takes nothing for a while.
    world.broken = vec![Step::Publish];
    world.batch([Event::PolicyObjects(vec![object("db", 1, DENY)])]);
    let behind = sums(&mut world);
    assert!(behind.loaded == first.loaded && behind.desired != first.desired, "{first:?} {behind:?}");
    world.broken.clear();
    world.state.now.up += Duration::from_mins(1);
    let converged = sums(&mut world);
    let converged = if converged.desired == converged.loaded { converged } else { sums(&mut world) };
    assert_eq!(converged.desired, converged.loaded);
    assert_eq!(converged.desired, behind.desired);
    world.refused = vec![CgroupId(8)];
    world.batch([told_by(KUBERNETES, vec![labelled("pod@8", &[("app", "db")])])]);
    let refused = sums(&mut world);
    assert_ne!(refused.desired, refused.loaded);
}

#[test]
fn trouble_of_a_source_stays_until_the_source_says_otherwise() {
    let mut world = World::enforcing();
    let info = |problems: &[&str]| SourceInfo {
        name: KUBERNETES.into(),
        state: "away".into(),
        problems: problems.iter().map(|&it| it.to_owned()).collect(),
        ..SourceInfo::default()
    };
    world.batch([Event::Source(info(&["pods are away", "nodes are away"]))]);
    // What it goes on to tell is no sign that the rest is well.
    world.batch([told_by(KUBERNETES, vec![workload("pod@8")])]);
    let told = status(&mut world);
    assert_eq!((told.problems.len(), told.sources.len(), world.state.phase()), (2, 1, Phase::Degraded));
    world.batch([Event::Source(info(&[]))]);
    assert!(status(&mut world).problems.is_empty());
}
