//! Kubernetes' policies by real sockets: pods with addresses and namespaces of their own, compared with what public suites
//! expect and with what is judged offline.

mod public;
mod scenes;

use enforcer::domain::cluster_file::{Cluster, parse_cluster};
use enforcer::domain::command::PolicyFile;
use enforcer::domain::offline::{Flow, Offline};
use enforcer::domain::policy::model::Policy;
use enforcer::domain::timestamp::Timestamp;
use enforcer_common::abi::flow::Outcome;
use enforcer_common::reason::Reason;
use enforcer_tests::cluster::{Attempt, Places, TCP, UDP};
use enforcer_tests::direct::{Direct, read};
use enforcer_tests::numbers;
use enforcer_tests::puppet::Means;
use enforcer_tests::world::World;

use crate::registry::Test;

pub(crate) const TESTS: &[Test] = &[
    ("public_cases", public::cases),
    ("named_ports_differ", scenes::named_ports_differ),
    ("a_pass_goes_on_beneath", scenes::a_pass_goes_on_beneath),
    ("services_by_those_who_answer", scenes::services_by_those_who_answer),
];

/// Pods on this machine, under policies. Dropped in this order.
struct Bench {
    places: Places,
    direct: Direct,
    world: World,
}

impl Bench {
    fn new(name: &str) -> Self {
        let world = World::new(name);
        // First: what is made before has no identity.
        let direct = Direct::start(&world);
        Self { places: Places::new(), direct, world }
    }

    /// Makes places for these pods, with a server at each port that they declare.
    fn house(&mut self, cluster: &Cluster) {
        for pod in &cluster.pods {
            for address in pod.workload.addresses.iter().map(ipnet::IpNet::addr) {
                self.places.settle(&self.world, address, true);
                for (protocol, port) in pod.ports.iter().filter(|(protocol, _)| is_tried(*protocol)) {
                    self.places.serve(address, *protocol, *port);
                }
            }
        }
    }

    /// Has the pods of a cluster be who they are there.
    fn settle(&mut self, cluster: &Cluster) {
        let places = &self.places;
        self.direct.settle(cluster, |pod| places.at(pod.addresses[0].addr()).cgroup());
    }

    /// Has a cluster and policies as they are written.
    fn set(&mut self, cluster: &str, policies: &str) -> (Cluster, Offline) {
        let cluster = parsed(cluster);
        self.house(&cluster);
        self.settle(&cluster);
        let offline = offline(read(policies), &cluster);
        self.direct.set_policies(offline.policies().to_vec());
        (cluster, offline)
    }

    /// Tries a flow that is denied at once; reason and rule of its event.
    fn told(&mut self, attempt: Attempt) -> (Reason, String) {
        self.direct.forget_events();
        let seen = self.places.try_one(attempt, false);
        assert!(!seen.reached, "{attempt:?} is denied");
        let cgroup = self.places.at(attempt.from).cgroup().0;
        let protocol = if attempt.means == Means::Connection { TCP } else { UDP };
        let told = self.direct.event("the denial", |told| {
            (told.subject_cgroup, told.port, told.protocol) == (cgroup, attempt.to.port(), protocol)
                && told.outcome == Outcome::Dropped
        });
        (told.reason, told.rule)
    }
}

/// SCTP is left out: workloads may not create such sockets.
fn is_tried(protocol: u8) -> bool {
    [TCP, UDP].contains(&protocol)
}

fn parsed(text: &str) -> Cluster {
    let outcome = parse_cluster(&[PolicyFile { name: "cluster".into(), text: text.into() }]);
    assert!(outcome.is_ok(), "{:#?}", outcome.diagnostics);
    outcome.cluster
}

fn offline(policies: Vec<Policy>, cluster: &Cluster) -> Offline {
    Offline::new(policies, cluster, Timestamp::EARLIEST).expect("a table")
}

/// What deciding word and rule are offline.
fn told_offline(offline: &Offline, flow: &Flow) -> (Reason, String) {
    let judged = offline.judge(flow);
    let word = judged.decisive().expect("a judgement").verdict.enforced;
    let rule = numbers::rule(offline.registry(), word.rule()).map_or("-".to_owned(), |rule| rule.to_string());
    (Reason::from_code(word.reason_code()).expect("a reason"), rule)
}
