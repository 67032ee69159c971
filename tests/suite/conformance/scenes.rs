//! Clusters made for what public suites leave out.

use std::net::{IpAddr, SocketAddr};

use enforcer::domain::offline::{End, Flow};
use enforcer::domain::workload::WorkloadKey;
use enforcer_common::reason::Reason;
use enforcer_tests::cluster::{Attempt, TCP, UDP};
use enforcer_tests::puppet::Means;

use super::{Bench, told_offline};

/// `one` serves `web` at 8080 by TCP, `two` at 9090, and `three` by UDP.
const NAMED: &str = "
apiVersion: v1
kind: List
items:
  - {kind: Pod, metadata: {name: one, labels: {app: server}}, status: {podIP: 198.51.100.1},
     spec: {containers: [{ports: [{name: web, containerPort: 8080}, {name: other, containerPort: 9090}]}]}}
  - {kind: Pod, metadata: {name: two, labels: {app: server}}, status: {podIP: 198.51.100.2},
     spec: {containers: [{ports: [{name: web, containerPort: 9090}, {name: other, containerPort: 8080}]}]}}
  - {kind: Pod, metadata: {name: three, labels: {app: server}}, status: {podIP: 198.51.100.3},
     spec: {containers: [{ports: [{name: web, containerPort: 8080, protocol: UDP}, {containerPort: 8080}]}]}}
  - {kind: Pod, metadata: {name: client, labels: {app: client}}, status: {podIP: 198.51.100.4}, spec: {}}
";

const WEB_IN: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec: {podSelector: {matchLabels: {app: server}}, ingress: [{ports: [{port: web}]}]}
";

const WEB_OUT: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec: {podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}
";

/// One name, two pods, two ports; and a third that has it by UDP alone, which a rule without a protocol does not mean.
pub(super) fn named_ports_differ() {
    let mut bench = Bench::new("named");
    let open = |to: &str, port: u16, stream: bool| Attempt {
        from: "198.51.100.4".parse().unwrap(),
        means: if stream { Means::Connection } else { Means::Datagram },
        to: SocketAddr::new(to.parse().unwrap(), port),
        bound: false,
    };
    let attempts = [
        open("198.51.100.1", 8080, true),
        open("198.51.100.2", 9090, true),
        open("198.51.100.1", 9090, true),
        open("198.51.100.2", 8080, true),
        open("198.51.100.3", 8080, true),
        open("198.51.100.3", 8080, false),
    ];
    let (open, denied) = ((true, 0), (false, libc::EPERM));
    let expected = [open, open, denied, denied, denied, denied];
    let attempts: Vec<_> = attempts.into_iter().zip(expected).map(|(it, (open, _))| (it, open)).collect();
    for policy in [WEB_IN, WEB_OUT] {
        bench.set(NAMED, policy);
        let seen: Vec<_> =
            bench.places.attempt(&attempts).iter().map(|seen| (seen.reached, seen.errno)).collect();
        assert_eq!(seen, expected, "{policy}");
    }
}

const TEAMS: &str = "
apiVersion: v1
kind: List
items:
  - {kind: Namespace, metadata: {name: shop, labels: {team: red}}}
  - {kind: Namespace, metadata: {name: bank, labels: {team: blue}}}
  - {kind: Namespace, metadata: {name: data}}
  - {kind: Pod, metadata: {namespace: shop, name: good, labels: {role: good}}, status: {podIP: 198.51.100.1}, spec: {}}
  - {kind: Pod, metadata: {namespace: shop, name: bad, labels: {role: bad}}, status: {podIP: 198.51.100.2}, spec: {}}
  - {kind: Pod, metadata: {namespace: bank, name: good, labels: {role: good}}, status: {podIP: 198.51.100.3}, spec: {}}
  - {kind: Pod, metadata: {namespace: data, name: db, labels: {app: db}}, status: {podIP: 198.51.100.4},
     spec: {containers: [{ports: [{containerPort: 5432}]}]}}
  - {kind: Pod, metadata: {namespace: data, name: free, labels: {app: free}}, status: {podIP: 198.51.100.5},
     spec: {containers: [{ports: [{containerPort: 5432}]}]}}
";

/// The red team goes on beneath: to the policy of `db`, to the baseline where there is none.
const PASS: &str = "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: teams}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: data}}}
  ingress:
    - {name: red, action: Pass, from: [{namespaces: {matchLabels: {team: red}}}]}
    - {name: others, action: Deny, from: [{namespaces: {}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: data, name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {role: good}}}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: default}
spec:
  tier: Baseline
  priority: 0
  subject: {namespaces: {}}
  ingress: [{name: nobody, action: Deny, from: [{namespaces: {}}]}]
";

/// A Pass is neither a yes nor a no: the network policy decides, or the baseline where none selects the server.
pub(super) fn a_pass_goes_on_beneath() {
    let mut bench = Bench::new("pass");
    let (_, offline) = bench.set(TEAMS, PASS);
    let ends = [("shop/good", 1), ("shop/bad", 2), ("bank/good", 3)];
    let servers = [("data/db", 4), ("data/free", 5)];
    let denials = [
        ("shop/bad", "data/db", (Reason::Isolated, "networkpolicy/data/db ingress (isolated)")),
        ("bank/good", "data/db", (Reason::DeniedByRule, "clusternetworkpolicy/teams ingress[1]")),
        ("shop/good", "data/free", (Reason::DeniedByRule, "clusternetworkpolicy/default ingress[0]")),
        ("shop/bad", "data/free", (Reason::DeniedByRule, "clusternetworkpolicy/default ingress[0]")),
        ("bank/good", "data/free", (Reason::DeniedByRule, "clusternetworkpolicy/teams ingress[1]")),
    ];
    let address = |last: u8| IpAddr::from([198, 51, 100, last]);
    for (from, source) in ends {
        for (to, server) in servers {
            let to_server = SocketAddr::new(address(server), 5432);
            let attempt =
                Attempt { from: address(source), means: Means::Connection, to: to_server, bound: false };
            let denial = denials.iter().find(|(client, server, _)| (*client, *server) == (from, to));
            let seen = bench.places.try_one(attempt, denial.is_none());
            assert_eq!(seen.reached, denial.is_none(), "{from} -> {to}: {seen:?}");
            let Some((_, _, (reason, rule))) = denial else { continue };
            assert_eq!(seen.errno, libc::EPERM, "{from} -> {to}");
            let told = bench.told(attempt);
            assert_eq!(told, (*reason, (*rule).to_owned()), "{from} -> {to}");
            let workload = |name: &str| {
                let (namespace, name) = name.split_once('/').unwrap();
                End::Workload(WorkloadKey { namespace: namespace.into(), name: name.into() })
            };
            let flow = Flow { from: workload(from), to: workload(to), protocol: TCP, port: 5432 };
            assert_eq!(told, told_offline(&offline, &flow), "{from} -> {to}");
        }
    }
}

/// Nobody translates the addresses of these services: what the hook of the call says is all that is looked at.
const SERVICES: &str = "
apiVersion: v1
kind: List
items:
  - {kind: Pod, metadata: {name: a, labels: {app: a, all: both}}, status: {podIP: 198.51.100.1},
     spec: {containers: [{ports: [{containerPort: 8080}, {containerPort: 8080, protocol: UDP}]}]}}
  - {kind: Pod, metadata: {name: b, labels: {app: b, all: both}}, status: {podIP: 198.51.100.2},
     spec: {containers: [{ports: [{containerPort: 8080}, {containerPort: 8080, protocol: UDP}]}]}}
  - {kind: Pod, metadata: {name: client, labels: {app: client}}, status: {podIP: 198.51.100.3}, spec: {}}
  - {kind: Service, metadata: {name: a}, spec: {clusterIP: 203.0.113.1, selector: {app: a}, ports: [
     {name: tcp, port: 80, targetPort: 8080}, {name: udp, port: 80, targetPort: 8080, protocol: UDP}]}}
  - {kind: Service, metadata: {name: b}, spec: {clusterIP: 203.0.113.2, selector: {app: b}, ports: [
     {name: tcp, port: 80, targetPort: 8080}, {name: udp, port: 80, targetPort: 8080, protocol: UDP}]}}
  - {kind: Service, metadata: {name: both}, spec: {clusterIP: 203.0.113.3, selector: {all: both}, ports: [
     {name: tcp, port: 80, targetPort: 8080}, {name: udp, port: 80, targetPort: 8080, protocol: UDP}]}}
";

const TO_A: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: to-a}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: 8080}, {port: 8080, protocol: UDP}]}]
";

/// The call of a service is refused where those who answer for it may not be called; of several, if one may not.
pub(super) fn services_by_those_who_answer() {
    let mut bench = Bench::new("services");
    let (_, offline) = bench.set(SERVICES, TO_A);
    let expected = [
        ("a", "203.0.113.1", None),
        ("b", "203.0.113.2", Some(Reason::Isolated)),
        ("both", "203.0.113.3", Some(Reason::MixedBackends)),
    ];
    let from: IpAddr = "198.51.100.3".parse().unwrap();
    for (service, address, denial) in expected {
        let to = SocketAddr::new(address.parse().unwrap(), 80);
        for means in [Means::Connection, Means::Datagram, Means::ConnectedDatagram] {
            let attempt = Attempt { from, means, to, bound: false };
            let seen = bench.places.try_one(attempt, false);
            assert!(!seen.reached, "nobody is at {to}");
            assert_eq!(seen.errno == libc::EPERM, denial.is_some(), "{service}, {means:?}: {seen:?}");
            let Some(reason) = denial else { continue };
            let protocol = if means == Means::Connection { TCP } else { UDP };
            let end = |name: &str| WorkloadKey { namespace: "default".into(), name: name.into() };
            let (from, to) = (End::Workload(end("client")), End::Service(end(service)));
            let told = bench.told(attempt);
            assert_eq!(told.0, reason, "{service}, {means:?}: {told:?}");
            let flow = Flow { from, to, protocol, port: 80 };
            assert_eq!(told, told_offline(&offline, &flow), "{service}, {means:?}");
        }
    }
    // The same addresses under no policy: whatever happens there, it is no denial.
    bench.direct.set_policies(Vec::new());
    for (service, address, _) in expected {
        let to = SocketAddr::new(address.parse().unwrap(), 80);
        let seen = bench.places.try_one(Attempt { from, means: Means::Connection, to, bound: false }, false);
        assert_ne!(seen.errno, libc::EPERM, "{service} without policies");
    }
}
