//! However the sources tell it, and in however many steps: what is in force at the end is the same.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::domain::cluster::{Backend, Namespace, Service, ServiceKey, ServicePort};
use crate::domain::command::QuarantineWish;
use crate::domain::workload::{Changes, EndpointState};
use crate::engine::room::Limits;

const SOURCES: [&str; 2] = ["one", "two"];

/// Everything that a source could know, by number.
#[derive(Clone, Debug, Default, PartialEq)]
struct Known {
    workloads: BTreeMap<u8, (u8, u8, u8)>,
    services: BTreeMap<u8, (u8, u8)>,
    namespaces: BTreeMap<u8, u8>,
}

/// A container of `w-0` or `w-2`, which lies in the pod if that has the directory 3.
fn container(pod: u8, cgroup: u8) -> Resolved {
    let at = if cgroup == 0 { "-".to_owned() } else { cgroup.to_string() };
    let mut resolved = workload(&format!("w-{pod}/c@{at}"));
    resolved.above.insert(0, CgroupId(3));
    Arc::make_mut(&mut resolved.workload).containers = Containers::One("c".into());
    resolved
}

/// One of a few labels, directories and addresses each, so that they meet often.
fn pod(number: u8, (label, cgroup, address): (u8, u8, u8)) -> Resolved {
    if number > 6 {
        return container((number - 7) * 2, cgroup);
    }
    let at = if cgroup == 0 { "-".to_owned() } else { cgroup.to_string() };
    let mut resolved = workload(&format!("w-{number}@{at}"));
    let workload = Arc::make_mut(&mut resolved.workload);
    workload.labels = Arc::new(LabelSet([("app".to_owned(), format!("a{label}"))].into()));
    workload.key.namespace = if number.is_multiple_of(2) { "default".into() } else { "other".into() };
    if cgroup == 7 {
        workload.cgroup = None;
        resolved.cgroup = None;
    }
    let named = |name: &str| Some(Arc::new([name.to_owned()].into()));
    workload.containers = match number {
        0 => Containers::Told(None),
        2 => Containers::Told(named("c")),
        4 => Containers::Told(named("other")),
        _ => Containers::Unknown,
    };
    // Some stand for more than one address.
    let length = if address == 3 { 30 } else { 32 };
    workload.addresses = vec![ipnet::IpNet::new(IpAddr::from([192, 0, 2, address]), length).unwrap()];
    resolved
}

fn service(number: u8, (address, backend): (u8, u8)) -> Service {
    let backends = vec![Backend { address: [192, 0, 2, backend].into(), port: 5_432 }];
    Service {
        namespace: "default".into(),
        name: format!("s-{number}"),
        addresses: vec![[192, 0, 2, address].into()],
        ports: vec![ServicePort { protocol: 6, port: 80, backends }],
    }
}

fn namespace(number: u8, label: u8) -> Namespace {
    let name = ["default", "other", "third"][usize::from(number % 3)].to_owned();
    Namespace { name, labels: LabelSet([("team".to_owned(), format!("t{label}"))].into()) }
}

fn key_of(number: u8) -> WorkloadKey {
    pod(number, (0, 0, 0)).workload.key.clone()
}

impl Known {
    fn snapshot(&self, source: &str) -> Event {
        Event::Workloads(WorkloadEvent::Snapshot {
            source: source.into(),
            workloads: self.workloads.iter().map(|(number, pod)| self::pod(*number, *pod)).collect(),
            services: self.services.iter().map(|(number, it)| service(*number, *it)).collect(),
            namespaces: self.namespaces.iter().map(|(number, label)| namespace(*number, *label)).collect(),
        })
    }

    fn changes_to(&self, next: &Self, source: &str) -> Event {
        let changed = |number: &u8| self.workloads.get(number) != next.workloads.get(number);
        let changes = Changes {
            workloads: next
                .workloads
                .iter()
                .filter(|(n, _)| changed(n))
                .map(|(n, it)| pod(*n, *it))
                .collect(),
            gone: self
                .workloads
                .keys()
                .filter(|n| !next.workloads.contains_key(n))
                .map(|n| key_of(*n))
                .collect(),
            // What is as it was may be told again.
            services: next.services.iter().map(|(n, it)| service(*n, *it)).collect(),
            gone_services: self
                .services
                .keys()
                .filter(|number| !next.services.contains_key(number))
                .map(|number| ServiceKey { namespace: "default".into(), name: format!("s-{number}") })
                .collect(),
            namespaces: next.namespaces.iter().map(|(n, label)| namespace(*n, *label)).collect(),
            gone_namespaces: self
                .namespaces
                .keys()
                .filter(|number| !next.namespaces.contains_key(number))
                .map(|number| namespace(*number, 0).name)
                .collect(),
        };
        Event::Workloads(WorkloadEvent::Changes { source: source.into(), changes: Box::new(changes) })
    }
}

fn known() -> impl Strategy<Value = Known> {
    let pod = (0..3_u8, 0..8_u8, 0..6_u8);
    let workloads = proptest::collection::btree_map(0..9_u8, pod, 0..7);
    let services = proptest::collection::btree_map(0..3_u8, (3..9_u8, 0..6_u8), 0..3);
    let namespaces = proptest::collection::btree_map(0..3_u8, 0..2_u8, 0..3);
    (workloads, services, namespaces).prop_map(|(workloads, services, namespaces)| Known {
        workloads,
        services,
        namespaces,
    })
}

/// What happens, one thing after the other.
#[derive(Clone, Debug)]
enum Step {
    /// A source knows something else.
    Told { source: usize, known: Known, in_changes: bool },
    /// A workload is put into quarantine.
    Quarantine(u8),
    /// Whoever is in quarantine is released.
    Release,
    /// Other directories are managed.
    Managed(u8),
    /// The host has other addresses.
    Own(u8),
    /// The kernel refuses this directory from now on, or none.
    Refuses(Option<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let told = (0..2_usize, known(), any::<bool>());
    prop_oneof![
        6 => told.prop_map(|(source, known, in_changes)| Step::Told { source, known, in_changes }),
        1 => (0..9_u8).prop_map(Step::Quarantine),
        1 => Just(Step::Release),
        1 => (0..8_u8).prop_map(Step::Managed),
        1 => (0..4_u8).prop_map(Step::Own),
        1 => proptest::option::of(1..7_u8).prop_map(Step::Refuses),
    ]
}

/// What can be seen of a world, without numbers, which depend on what came first.
#[derive(Debug, PartialEq)]
struct Seen {
    bindings: BTreeMap<CgroupId, [String; 2]>,
    addresses: BTreeMap<ipnet::IpNet, String>,
    own: BTreeSet<IpAddr>,
    problems: BTreeMap<(Area, String), String>,
    standing: BTreeMap<(String, String), EndpointState>,
    counted: [u64; 4],
    names: BTreeMap<String, Vec<String>>,
    directories: BTreeMap<CgroupId, String>,
    services: Vec<String>,
    namespaces: crate::domain::cluster::NamespaceLabels,
}

fn seen(world: &mut World) -> Seen {
    let registry = world.state.registry.clone();
    let name =
        |id: IdentityId| registry.identity_key(id).map_or_else(|| id.to_string(), |key| format!("{key:?}"));
    let Reply::Endpoints(endpoints) = world.answer(Request::EndpointList) else { panic!() };
    let report = crate::engine::views::report(&world.state);
    let names = &world.state.names;
    let service = |known: &crate::domain::cluster::KnownService| {
        let answering: Vec<String> = known
            .ports
            .values()
            .flatten()
            .map(|one| format!("{} {}", name(one.identity), one.address))
            .collect();
        format!("{} {answering:?}", name(known.identity))
    };
    let mut services: Vec<String> =
        world.state.index.services.known.values().map(|known| service(known)).collect();
    services.sort();
    let standing: BTreeMap<_, _> =
        endpoints.iter().map(|it| ((it.namespace.clone(), it.name.clone()), it.state)).collect();
    let count = |state| standing.values().filter(|it| **it == state).count() as u64;
    let counted = [report.bound, report.waiting, report.remote, report.no_room];
    assert_eq!(
        counted,
        [
            count(EndpointState::Bound),
            count(EndpointState::WaitingForCgroup),
            count(EndpointState::Remote),
            count(EndpointState::NoRoom)
        ],
        "what is counted is what is listed"
    );
    Seen {
        bindings: world
            .kernel
            .bindings
            .iter()
            .map(|(cgroup, bound)| (*cgroup, [name(bound.identity), name(bound.after)]))
            .collect(),
        addresses: world.kernel.addresses.iter().map(|(net, id)| (*net, name(*id))).collect(),
        own: world.kernel.own.clone(),
        problems: world.state.problems.clone(),
        counted,
        standing,
        names: names
            .workloads
            .iter()
            .map(|(id, names)| (name(*id), names.iter().map(|name| name.to_string()).collect()))
            .collect(),
        directories: names.cgroups.iter().map(|(cgroup, name)| (*cgroup, name.to_string())).collect(),
        services,
        namespaces: world.state.namespaces.clone(),
    }
}

fn world(limits: Limits) -> World {
    let facts = Facts { limits, ..facts(&[SOURCES[0], SOURCES[1], POLICIES]) };
    let mut world = World::with(State::new(facts, Remembered::default()).unwrap());
    let text = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: a1}\nspec:\n  subject: \
                {matchLabels: {app: a1}}\n  egress: [{to: [{workloads: {matchLabels: {app: a2}}}]}]\n";
    let about_container = "apiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: c}\nspec:\n  subject: \
                           {matchLabels: {app: a1}, container: c}\n  ingress: []\n";
    let policies = [("a1.yaml", text), ("c.yaml", about_container)]
        .map(|(name, text)| PolicyFile { name: name.into(), text: text.into() });
    world.batch([adopted(), Event::PolicyFiles(policies.into())]);
    world
}

/// Performs one step; `None` in place of how it is told means as snapshots.
fn perform(
    world: &mut World,
    step: &Step,
    before: &mut [Known; 2],
    as_told: bool,
    quarantined: &mut Option<u8>,
) {
    match step {
        Step::Told { source, known, in_changes } => {
            let name = SOURCES[*source];
            let event = if as_told && *in_changes {
                before[*source].changes_to(known, name)
            } else {
                known.snapshot(name)
            };
            before[*source] = known.clone();
            world.batch([event]);
        }
        Step::Quarantine(number) if quarantined.is_none() => {
            let wish = QuarantineWish {
                workload: key_of(*number).to_string(),
                seconds: None,
                allow_from: Vec::new(),
                by: None,
            };
            // Where the kernel refuses the binding, the quarantine is kept and the answer says so.
            world.answer(Request::QuarantineAdd(wish));
            *quarantined = world.state.asked.quarantines.contains_key(&key_of(*number)).then_some(*number);
        }
        Step::Quarantine(_) => {}
        Step::Release => {
            if let Some(number) = quarantined.take() {
                world.answer(Request::QuarantineRelease { workload: key_of(number).to_string(), by: None });
            }
        }
        Step::Managed(bits) => {
            let managed = (0..3_u8).filter(|bit| bits & (1 << bit) != 0);
            let managed = managed.map(|bit| (format!("/m{bit}"), Some(CgroupId(u64::from(bit) + 3))));
            world.batch([Event::Managed(managed.collect())]);
        }
        Step::Own(bits) => {
            let own = (0..2_u8).filter(|bit| bits & (1 << bit) != 0);
            world.batch([Event::OwnAddresses(own.map(|bit| IpAddr::from([192, 0, 2, bit])).collect())]);
        }
        Step::Refuses(cgroup) => {
            world.refused = cgroup.iter().map(|it| CgroupId(u64::from(*it))).collect();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn changes_and_snapshots_end_alike(
        steps in proptest::collection::vec(step(), 1..12),
        rows in prop_oneof![Just(100_usize), 4..8_usize],
    ) {
        let limits = Limits { bindings: rows, addresses: rows };
        let (mut told, mut whole) = (world(limits), world(limits));
        let mut known = [[Known::default(), Known::default()], [Known::default(), Known::default()]];
        let mut quarantined = [None, None];
        for world in [&mut told, &mut whole] {
            world.batch(SOURCES.map(|source| Known::default().snapshot(source)));
        }
        for step in &steps {
            perform(&mut told, step, &mut known[0], true, &mut quarantined[0]);
            perform(&mut whole, step, &mut known[1], false, &mut quarantined[1]);
            prop_assert_eq!(quarantined[0], quarantined[1]);
        }
        for world in [&mut told, &mut whole] {
            world.refused.clear();
            (1..100).for_each(|second| world.batch([seconds(second)]));
        }
        let one = seen(&mut told);
        prop_assert_eq!(&one, &seen(&mut whole));
        // Who has no room may depend on who came first; everything else is as if it had been so from the start.
        if rows == 100 {
            let mut fresh = world(limits);
            fresh.batch(SOURCES.iter().zip(&known[0]).map(|(source, known)| known.snapshot(source)));
            if let Some(Step::Managed(bits)) = steps.iter().rev().find(|it| matches!(it, Step::Managed(_))) {
                perform(&mut fresh, &Step::Managed(*bits), &mut known[1], false, &mut quarantined[1]);
            }
            if let Some(Step::Own(bits)) = steps.iter().rev().find(|it| matches!(it, Step::Own(_))) {
                perform(&mut fresh, &Step::Own(*bits), &mut known[1], false, &mut quarantined[1]);
            }
            if quarantined[0].is_none() {
                prop_assert_eq!(&one, &seen(&mut fresh));
            }
        }
    }
}

#[test]
fn changes_before_the_first_snapshot_do_not_stand_for_it() {
    let mut world = World::new();
    let changes = Changes { workloads: vec![workload("web@1")], ..Changes::default() };
    let event = WorkloadEvent::Changes { source: "static".into(), changes: Box::new(changes) };
    world.batch([adopted(), files(&[]), Event::Workloads(event)]);
    assert_eq!(world.state.phase(), Phase::Syncing);
    assert_eq!(world.kernel, Tables::default());
    world.batch([workloads(&["api@2"])]);
    assert_eq!(world.bound().into_keys().collect::<Vec<_>>(), [2], "the snapshot is all there is");
}

#[test]
fn one_more_workload_costs_one_binding_and_one_address() {
    let mut world = World::enforcing();
    let mut more = workload("web-2@4");
    Arc::make_mut(&mut more.workload).addresses = vec!["192.0.2.4/32".parse().unwrap()];
    let changes = Changes { workloads: vec![more], ..Changes::default() };
    world.batch([Event::Workloads(WorkloadEvent::Changes {
        source: "static".into(),
        changes: Box::new(changes),
    })]);
    assert_eq!(world.trace(), "apply(2)");
    let gone = WorkloadKey { namespace: "default".into(), name: "web-2".into() };
    let changes = Changes { gone: vec![gone], ..Changes::default() };
    world.batch([Event::Workloads(WorkloadEvent::Changes {
        source: "static".into(),
        changes: Box::new(changes),
    })]);
    assert_eq!((world.trace().as_str(), world.kernel.bindings.size()), ("apply(2)", 3));
}
