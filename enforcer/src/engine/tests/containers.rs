//! Containers that a cluster or a runtime tells: who they are, when they are told apart, and what is between.

use enforcer_common::address::Address;
use enforcer_common::verdict::{Direction, Query};

use super::*;
use crate::domain::cluster_policy::KUBERNETES;
use crate::domain::command::QuarantineWish;
use crate::domain::workload::Changes;

const POD: u64 = 21;
const MAIN: u64 = 22;
const PROXY: u64 = 23;

/// `web@21` with containers of these names, if all of them are known.
fn pod(text: &str, names: Option<&[&str]>) -> Resolved {
    let mut resolved = workload(text);
    let pod = Arc::make_mut(&mut resolved.workload);
    let names = names.map(|names| Arc::new(names.iter().map(|&name| name.to_owned()).collect()));
    pod.containers = Containers::Told(names);
    pod.addresses = vec!["192.0.2.7/32".parse().unwrap()];
    resolved
}

/// `web/main@22`, a container in directory 21.
fn container(text: &str, within: u64) -> Resolved {
    let mut resolved = workload(text);
    resolved.above.insert(0, CgroupId(within));
    let container = Arc::make_mut(&mut resolved.workload);
    let (_, name) = container.key.name.split_once('/').unwrap();
    container.containers = Containers::One(name.to_owned());
    resolved
}

fn told_by(source: &str, workloads: Vec<Resolved>) -> Event {
    Event::Workloads(WorkloadEvent::Snapshot {
        source: source.into(),
        workloads,
        namespaces: Vec::new(),
        services: Vec::new(),
    })
}

fn changed(source: &str, workloads: Vec<Resolved>) -> Event {
    let changes = Changes { workloads, ..Changes::default() };
    Event::Workloads(WorkloadEvent::Changes { source: source.into(), changes: Box::new(changes) })
}

/// A cluster's pod with two containers, in a world with others.
fn scene() -> World {
    let mut world = World::enforcing();
    let told = vec![
        pod("web@21", Some(&["main", "proxy"])),
        container("web/main@22", POD),
        container("web/proxy@23", POD),
    ];
    world.batch([told_by(KUBERNETES, told)]);
    world
}

/// `web`, or one container of it, may call port 443 and nothing else.
fn only_443(subject: &str) -> PolicyFile {
    let text = format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: only}}\nspec:\n  subject: {subject}\n  \
         egress: [{{ports: [{{port: 443}}]}}]\n"
    );
    PolicyFile { name: "only.yaml".into(), text }
}

fn about_main() -> PolicyFile {
    only_443("{matchLabels: {app: web}, container: main}")
}

/// What each directory from 20 on is bound to.
fn bound(world: &World) -> Vec<(u64, String)> {
    world.bound().into_iter().filter(|(cgroup, _)| *cgroup > 20).collect()
}

fn pairs(all: &[(u64, &str)]) -> Vec<(u64, String)> {
    all.iter().map(|(cgroup, labels)| (*cgroup, (*labels).to_owned())).collect()
}

/// Whether who is in a directory may call a port elsewhere.
fn may_call(world: &World, cgroup: u64, port: u16) -> bool {
    let query = Query {
        subject: world.kernel.bindings[&CgroupId(cgroup)].identity,
        peer: IdentityId::WORLD,
        address: Address::LOOPBACK_V4,
        port,
        protocol: 6,
        direction: Direction::Egress,
    };
    !world.table.as_ref().unwrap().decide(&query).enforced.is_deny()
}

fn endpoints(world: &mut World) -> Vec<String> {
    match world.answer(Request::EndpointList) {
        Reply::Endpoints(list) => list.into_iter().map(|it| it.name).collect(),
        other => panic!("{other:?}"),
    }
}

fn known_at(world: &World, net: &str) -> String {
    let identity = world.kernel.addresses[&net.parse().unwrap()];
    world.registry.identity_key(identity).unwrap().labels.to_string()
}

#[test]
fn a_pod_is_divided_only_while_a_policy_names_one_of_its_containers() {
    let mut world = scene();
    assert_eq!(bound(&world), pairs(&[(POD, "-")]));
    assert_eq!(endpoints(&mut world), ["api", "db", "web"]);
    // A policy about another container, and one about the pod.
    world.batch([Event::PolicyFiles(vec![only_443("{matchLabels: {app: web}, container: other}")])]);
    assert_eq!(bound(&world), pairs(&[(POD, "app=web")]));
    assert_eq!(known_at(&world, "192.0.2.7/32"), "app=web");
    world.batch([Event::PolicyFiles(vec![about_main()])]);
    let divided = pairs(&[
        (POD, "app=web,reserved:container=?"),
        (MAIN, "app=web,reserved:container=main"),
        (PROXY, "app=web"),
    ]);
    assert_eq!(bound(&world), divided);
    assert_eq!(known_at(&world, "192.0.2.7/32"), "app=web,reserved:container=*");
    assert_eq!(endpoints(&mut world), ["api", "db", "web", "web/main", "web/proxy"]);
    let may = |cgroup| (may_call(&world, cgroup, 443), may_call(&world, cgroup, 80));
    assert_eq!((may(MAIN), may(PROXY)), ((true, false), (true, true)));
    world.batch([files(&[])]);
    assert_eq!(bound(&world), pairs(&[(POD, "-")]));
}

/// What nobody knows yet has no right that only another container of its pod has, and what is denied to one is denied to it.
#[test]
fn an_unknown_container_has_what_all_of_them_have() {
    let mut world = scene();
    // `main` may call 443 although the pod may not, and 80 is denied to it although the pod may.
    let text = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: pod}\nspec:\n  subject: {matchLabels: \
                {app: web}}\n  egress: [{ports: [{port: 80}]}, {ports: [{port: 53}]}]\n---\napiVersion: \
                enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: main}\nspec:\n  subject: {matchLabels: {app: \
                web}, container: main}\n  egress: [{ports: [{port: 443}]}, {action: Deny, ports: [{port: 80}]}]\n";
    world.batch([Event::PolicyFiles(vec![PolicyFile { name: "two.yaml".into(), text: text.into() }])]);
    let may = |cgroup| [80, 53, 443].map(|port| may_call(&world, cgroup, port));
    assert_eq!(may(MAIN), [false, true, true]);
    assert_eq!(may(PROXY), [true, true, false]);
    assert_eq!(may(POD), [false, true, false], "the directory of the pod is where unknown containers are");
}

#[test]
fn containers_are_told_apart_before_the_policy_that_names_them_is_in_force() {
    let mut world = scene();
    let before = world.table.as_ref().unwrap().generation();
    world.paused = true;
    world.ask(apply(vec![about_main()]));
    world.settle();
    let mut steps = 0;
    while let Some(ack) = world.acks.pop_front() {
        world.step(ack);
        world.step(Event::Quiet);
        steps += 1;
        let has_policy =
            world.table.as_ref().is_some_and(|table| table.entries() > 0 && table.generation() > before);
        let is_divided = bound(&world).len() == 3;
        assert!(!has_policy || is_divided, "after step {steps}");
        // Whoever is known goes on as the policies in force say.
        assert!(has_policy || may_call(&world, POD, 80), "after step {steps}");
    }
    assert!(steps >= 4, "{steps}");
    assert_eq!(bound(&world)[1], (MAIN, "app=web,reserved:container=main".to_owned()));
}

#[test]
fn a_container_that_is_started_again_is_itself_in_its_new_directory() {
    let mut world = scene();
    world.batch([Event::PolicyFiles(vec![about_main()])]);
    world.batch([changed(KUBERNETES, vec![container("web/main@32", POD)])]);
    let divided = pairs(&[
        (POD, "app=web,reserved:container=?"),
        (PROXY, "app=web"),
        (32, "app=web,reserved:container=main"),
    ]);
    assert_eq!(bound(&world), divided);
}

#[test]
fn a_runtime_tells_containers_earlier_and_the_cluster_says_what_they_are() {
    let mut world = World::enforcing();
    world.batch([Event::PolicyFiles(vec![about_main()])]);
    world.batch([told_by(KUBERNETES, vec![pod("web@21", Some(&["main"]))])]);
    assert_eq!(bound(&world), pairs(&[(POD, "app=web,reserved:container=?")]), "before it is there");
    // The runtime calls the pod by other labels; one container it places elsewhere, of one it knows no pod.
    let mut own = pod("web@21", None);
    let mut main = container("web/main@22", POD);
    for resolved in [&mut own, &mut main] {
        Arc::make_mut(&mut resolved.workload).labels =
            Arc::new(LabelSet([("app".into(), "x".into())].into()));
    }
    let told = vec![own, main, container("web/proxy@23", 99), container("other/main@24", POD)];
    world.batch([told_by("containerd", told)]);
    let divided = pairs(&[(POD, "app=web,reserved:container=?"), (MAIN, "app=web,reserved:container=main")]);
    assert_eq!(bound(&world), divided);
    // The cluster changes its mind about the pod: its containers follow.
    let mut pod = pod("web@21", Some(&["main"]));
    Arc::make_mut(&mut pod.workload).labels = Arc::new(LabelSet([("app".into(), "y".into())].into()));
    world.batch([changed(KUBERNETES, vec![pod])]);
    assert_eq!(bound(&world)[1], (MAIN, "app=y,reserved:container=main".to_owned()));
}

#[test]
fn of_a_runtimes_pod_nobody_knows_which_containers_will_come() {
    let mut world = World::enforcing();
    // Of a name that the file does not have.
    world.batch([told_by("containerd", vec![pod("web-9@21", None)])]);
    assert_eq!(bound(&world), pairs(&[(POD, "-")]));
    world.batch([Event::PolicyFiles(vec![about_main()])]);
    assert_eq!(bound(&world), pairs(&[(POD, "app=web,reserved:container=?")]));
    assert!(!may_call(&world, POD, 80));
}

#[test]
fn a_container_in_quarantine_divides_its_pod_and_an_unknown_one_may_be_it() {
    let mut world = scene();
    let wish = |seconds| QuarantineWish {
        workload: "default/web/proxy".into(),
        seconds,
        allow_from: Vec::new(),
        by: None,
    };
    let Reply::Quarantine(_) = world.answer(Request::QuarantineAdd(wish(None))) else { panic!("refused") };
    let apart = pairs(&[
        (POD, "reserved:container=?,reserved:quarantine=web"),
        (MAIN, "-"),
        (PROXY, "reserved:quarantine=web/proxy"),
    ]);
    assert_eq!(bound(&world), apart);
    assert_eq!(
        known_at(&world, "192.0.2.7/32"),
        "reserved:container=*",
        "whoever calls the pod calls the pod"
    );
    assert!(may_call(&world, MAIN, 80) && !may_call(&world, PROXY, 80) && !may_call(&world, POD, 80));
    let release = Request::QuarantineRelease { workload: "default/web/proxy".into(), by: None };
    let Reply::Quarantine(_) = world.answer(release) else { panic!("refused") };
    assert_eq!(bound(&world), pairs(&[(POD, "-")]));
    // One with an end ends in the kernel for both directories.
    let Reply::Quarantine(_) = world.answer(Request::QuarantineAdd(wish(Some(60)))) else {
        panic!("refused")
    };
    for cgroup in [POD, PROXY] {
        assert!(world.kernel.bindings[&CgroupId(cgroup)].until.is_some(), "{cgroup}");
    }
    world.batch([seconds(61)]);
    assert_eq!(bound(&world), pairs(&[(POD, "-")]));
}
