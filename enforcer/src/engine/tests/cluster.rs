//! Services and namespaces: what changes tables, and what changes nothing.

use enforcer_common::address::Address;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::{Direction, Query};

use super::*;
use crate::domain::cluster::{Backend, Namespace, NamespaceLabels, Service, ServicePort};
use crate::domain::labels::{Condition, Requirement, Selector};
use crate::domain::policy::model::Namespaces;
use crate::engine::cluster;

const SERVICE: [u8; 4] = [10, 96, 0, 1];

/// Workloads `name@address`, each app in its own cgroup, and the service `db`, port 80, with those backends.
fn scene(workloads: &[(&str, u8)], backends: &[u8]) -> Event {
    let address = |last: u8| std::net::IpAddr::from([10, 0, 0, last]);
    let workloads = workloads.iter().map(|(name, last)| {
        let mut resolved = workload(&format!("{name}@{last}"));
        Arc::make_mut(&mut resolved.workload).addresses = vec![address(*last).into()];
        resolved
    });
    let backends = backends.iter().map(|last| Backend { address: address(*last), port: 5_432 }).collect();
    Event::Workloads(WorkloadEvent::Snapshot {
        source: "static".into(),
        workloads: workloads.collect(),
        namespaces: Vec::new(),
        services: vec![Service {
            namespace: "default".into(),
            name: "db".into(),
            addresses: vec![SERVICE.into()],
            ports: vec![ServicePort { protocol: 6, port: 80, backends }],
        }],
    })
}

/// `web` may call `db` on port 5432, and nobody else.
fn egress() -> PolicyFile {
    let text = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: web}\nspec:\n  subject: \
                {matchLabels: {app: web}}\n  egress: [{to: [{workloads: {matchLabels: {app: db}}}], ports: [{port: 5432}]}]\n";
    PolicyFile { name: "web.yaml".into(), text: text.into() }
}

fn called(world: &World, port: u16) -> Reason {
    let service = world.kernel.addresses[&std::net::IpAddr::from(SERVICE).into()];
    let query = Query {
        subject: world.kernel.bindings[&CgroupId(1)].identity,
        peer: service,
        address: Address::v4(u32::from_be_bytes(SERVICE)),
        port,
        protocol: 6,
        direction: Direction::Egress,
    };
    let word = world.table.as_ref().unwrap().decide(&query).enforced;
    assert_eq!(word.is_deny(), word.reason_code() != Reason::AllowedByRule as u8);
    Reason::from_code(word.reason_code()).unwrap()
}

#[test]
fn a_service_is_judged_by_its_backends_and_a_backend_of_a_known_class_changes_no_table() {
    let mut world = World::new();
    let two = [("web", 1), ("db", 2), ("api", 3)];
    world.batch([adopted(), scene(&two, &[2]), Event::PolicyFiles(vec![egress()])]);
    assert_eq!(world.state.phase(), Phase::Enforcing, "{:?}", world.state.problems);
    assert_eq!((called(&world, 80), called(&world, 5_432)), (Reason::AllowedByRule, Reason::Isolated));
    world.trace();
    let more = [("web", 1), ("db", 2), ("api", 3), ("db-2", 4)];
    world.batch([scene(&more, &[2, 4])]);
    assert_eq!(world.trace(), "apply(2)");
    // Somebody whom the policy does not mean.
    world.batch([scene(&more, &[2, 3])]);
    assert_eq!(world.trace(), "publish(2)");
    assert_eq!(called(&world, 80), Reason::MixedBackends);
    world.batch([scene(&more, &[3])]);
    assert_eq!((world.trace().as_str(), called(&world, 80)), ("publish(3)", Reason::Isolated));
}

#[test]
fn without_egress_policies_services_change_no_table() {
    let mut world = World::new();
    let two = [("web", 1), ("db", 2)];
    world.batch([adopted(), scene(&two, &[2]), Event::PolicyFiles(vec![policy("db<api")])]);
    world.trace();
    world.batch([scene(&two, &[1])]);
    assert_eq!(world.trace(), "");
}

#[test]
fn an_address_of_a_workload_stays_the_workloads() {
    let mut world = World::new();
    let Event::Workloads(WorkloadEvent::Snapshot { source, mut workloads, namespaces, mut services }) =
        scene(&[("web", 1)], &[1])
    else {
        panic!()
    };
    Arc::make_mut(&mut workloads[0].workload).addresses.push(std::net::IpAddr::from(SERVICE).into());
    let mut other = services[0].clone();
    other.name = "other".into();
    other.addresses = vec![[10, 96, 0, 2].into()];
    services.push(Service { name: "third".into(), ..other.clone() });
    services.push(other);
    let snapshot = WorkloadEvent::Snapshot { source, workloads, namespaces, services };
    world.batch([adopted(), Event::Workloads(snapshot), files(&[])]);
    let has = |address: [u8; 4]| world.kernel.addresses[&std::net::IpAddr::from(address).into()];
    assert_eq!(has(SERVICE), world.kernel.bindings[&CgroupId(1)].identity);
    assert_eq!(has([10, 96, 0, 2]), IdentityId::UNMANAGED);
    let problems: Vec<&String> = world.state.problems.values().collect();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().any(|it| it.contains("of service default/db belongs to a workload")));
    assert!(problems.iter().any(|it| it.contains("service default/other and to service default/third")));
}

#[test]
fn only_labels_of_namespaces_that_a_policy_looks_at_count() {
    let mut world = World::enforcing();
    world.changed(push(&["db<api"]));
    let labels = |pairs: &[(&str, &str)]| {
        LabelSet(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    };
    let shop = Namespace { name: "shop".into(), labels: labels(&[("team", "a"), ("cost", "7")]) };
    let all: NamespaceLabels = [shop].into_iter().collect();
    let looked_at = |world: &World| {
        let mut looks = cluster::Looks::new(&world.state.asked);
        let found = looks.namespaces(&all, 1);
        assert_eq!(
            looks.namespaces(&NamespaceLabels::default(), 1),
            found,
            "looked at once for each version"
        );
        assert_eq!(looks.namespaces(&NamespaceLabels::default(), 2).0, BTreeMap::new());
        found.0.clone()
    };
    assert_eq!(looked_at(&world), BTreeMap::new());
    let requirement = Requirement { key: "team".into(), condition: Condition::Exists };
    let selector = Selector { requirements: vec![requirement] };
    for loaded in Arc::make_mut(&mut world.state.asked).policies.pushed.values_mut() {
        Arc::make_mut(loaded).policy.subject.namespaces = Namespaces::Labelled(selector.clone());
    }
    let expect = BTreeMap::from([("shop".to_owned(), labels(&[("team", "a")]))]);
    assert_eq!(looked_at(&world), expect);
}
