//! A cluster of ordinary shape: namespaces of teams, apps with replicas, half of which carry the name of their pod as a
//! label, services, and the policies that people write.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use enforcer::domain::cluster::{
    Answering, Backend, KnownService, Namespace, NamespaceLabels, Service, ServicePort,
};
use enforcer::domain::container::Containers;
use enforcer::domain::labels::{Condition, LabelSet, Requirement, Selector};
use enforcer::domain::policy::model::{
    Action, Layer, Namespaces, Peer, Peers, Policy, PolicyKey, PolicyKind, PolicyMode, PortMatch, PortRange,
    Ports, Rule, Subject,
};
use enforcer::domain::registry::{IdentityKey, Registry};
use enforcer::domain::workload::{NamedPort, Resolved, Workload, WorkloadKey};
use enforcer_common::id::CgroupId;
use enforcer_common::reason::Errno;

/// Apps of a namespace.
pub(super) const APPS: usize = 10;
/// Teams, which namespaces belong to.
const TEAMS: usize = 20;

/// The cluster.
#[derive(Debug)]
pub(super) struct Site {
    workloads: usize,
    namespaces: usize,
}

/// What a workload is to policies.
pub(super) fn identity(resolved: &Resolved) -> IdentityKey {
    let Workload { key, labels, ports, account, .. } = &*resolved.workload;
    IdentityKey {
        namespace: key.namespace.clone(),
        labels: (**labels).clone(),
        ports: ports.clone(),
        account: account.clone(),
        service: None,
    }
}

fn namespace(number: usize) -> String {
    format!("ns-{number}")
}

fn labels(pairs: &[(&str, String)]) -> LabelSet {
    LabelSet(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

fn has(key: &str, value: String) -> Selector {
    let condition = Condition::In([value].into());
    Selector { requirements: vec![Requirement { key: key.into(), condition }] }
}

fn app(number: usize) -> Selector {
    has("app", format!("app-{}", number % APPS))
}

impl Site {
    pub(super) fn new(workloads: usize, namespaces: usize) -> Self {
        Self { workloads, namespaces }
    }

    /// One workload; `mark` makes its labels differ from all others.
    pub(super) fn workload(&self, number: usize, mark: &str) -> Resolved {
        let app = number / self.namespaces % APPS;
        let mut labels = labels(&[
            ("app", format!("app-{app}")),
            ("tier", ["front", "back"][app % 2].to_owned()),
            ("app.kubernetes.io/part-of", format!("suite-{}", app / 3)),
        ]);
        // A stateful set gives each of its pods a label of its own.
        if app.is_multiple_of(2) && number < self.workloads {
            labels.0.insert("statefulset.kubernetes.io/pod-name".into(), format!("app-{app}-{number}"));
        }
        if !mark.is_empty() {
            labels.0.insert("mark".into(), mark.to_owned());
        }
        let port = NamedPort { protocol: 6, port: if app.is_multiple_of(3) { 8_080 } else { 8_081 } };
        Resolved {
            workload: Arc::new(Workload {
                key: WorkloadKey {
                    namespace: namespace(number % self.namespaces),
                    name: format!("pod-{number}"),
                },
                labels: Arc::new(labels),
                cgroup: Some(format!("/pods/{number}")),
                addresses: vec![address(number).into()],
                ports: [("http".to_owned(), port)].into(),
                account: Some(format!("app-{app}")),
                containers: Containers::Unknown,
            }),
            cgroup: Some(CgroupId(1_000 + number as u64)),
            above: vec![CgroupId(1)],
        }
    }

    pub(super) fn workloads(&self) -> Vec<Resolved> {
        (0..self.workloads).map(|number| self.workload(number, "")).collect()
    }

    /// The namespaces as a source describes them.
    pub(super) fn described(&self) -> Vec<Namespace> {
        let described = (0..self.namespaces).map(|number| Namespace {
            name: namespace(number),
            labels: labels(&[("team", format!("team-{}", number % TEAMS))]),
        });
        described.collect()
    }

    pub(super) fn namespaces(&self) -> NamespaceLabels {
        self.described().into_iter().collect()
    }

    /// The service in front of an app, as a source describes it; one more pod than there were answers for it if asked.
    pub(super) fn service(&self, number: usize, more: Option<usize>) -> Service {
        let backends = (number..self.workloads).step_by(self.namespaces * APPS).chain(more);
        let backends = backends.map(|backend| Backend { address: address(backend), port: 8_080 });
        Service {
            namespace: namespace(number % self.namespaces),
            name: format!("svc-{number}"),
            addresses: vec![service_address(number)],
            ports: vec![ServicePort { protocol: 6, port: 80, backends: backends.collect() }],
        }
    }

    /// How many services there are.
    pub(super) fn service_count(&self) -> usize {
        self.namespaces * APPS
    }

    /// One service in front of each app.
    pub(super) fn services(&self, registry: &mut Registry) -> Vec<KnownService> {
        let mut services = Vec::new();
        for number in 0..self.namespaces * APPS {
            let key = IdentityKey::service(namespace(number % self.namespaces), format!("svc-{number}"));
            let backends = (number..self.workloads).step_by(self.namespaces * APPS);
            let answering = backends.map(|backend| Answering {
                identity: registry.identity(&identity(&self.workload(backend, ""))),
                address: address(backend),
                port: 8_080,
            });
            let ports = [((6, 80), answering.collect())].into();
            services.push(KnownService {
                identity: registry.identity(&key),
                addresses: vec![service_address(number)],
                ports,
            });
        }
        services
    }

    /// So many services with so many ports each, no two of them with a number in common, in front of apps by turns.
    pub(super) fn distinct_services(
        &self,
        registry: &mut Registry,
        count: usize,
        ports: usize,
    ) -> Vec<KnownService> {
        let mut services = Vec::new();
        for number in 0..count {
            let key = IdentityKey::service(namespace(number % self.namespaces), format!("svc-{number}"));
            let behind = (number..self.workloads).step_by(self.namespaces * APPS);
            let behind: Vec<(usize, IdentityKey)> =
                behind.map(|backend| (backend, identity(&self.workload(backend, "")))).collect();
            let of_port = |port: usize, registry: &mut Registry| {
                let answering = behind.iter().map(|(backend, key)| Answering {
                    identity: registry.identity(key),
                    address: address(*backend),
                    port: [8_080, 8_081, 9_090][port % 3],
                });
                answering.collect()
            };
            let first = 1_024 + ports * number;
            let number_of = |port: usize| u16::try_from(first + port).expect("few services");
            let ports = (0..ports).map(|port| ((6, number_of(port)), of_port(port, registry))).collect();
            services.push(KnownService {
                identity: registry.identity(&key),
                addresses: vec![service_address(number)],
                ports,
            });
        }
        services
    }

    /// So many policies: what people write, by turns.
    pub(super) fn policies(&self, count: usize) -> Vec<Policy> {
        (0..count).map(|number| self.policy(number)).collect()
    }

    fn policy(&self, number: usize) -> Policy {
        let key = PolicyKey {
            kind: PolicyKind::NetworkPolicy,
            namespace: namespace(number % self.namespaces),
            name: format!("policy-{number}"),
        };
        let which = number / self.namespaces;
        let plain = Policy {
            key,
            layer: Layer::Namespaced,
            mode: PolicyMode::Enforce,
            errno: Errno::Perm,
            subject: Subject::own(app(which)),
            ingress: None,
            egress: None,
            listen: None,
            sockets: None,
            expires: None,
        };
        let team = Namespaces::Labelled(has("team", format!("team-{}", number % TEAMS)));
        let own = |which| workloads(Namespaces::Own, app(which));
        match number % 11 {
            0 => Policy { subject: Subject::default(), ingress: Some(vec![]), egress: Some(vec![]), ..plain },
            1..=3 => Policy {
                ingress: Some(vec![allow(vec![own(which + 1), own(which + 2)], port(8_080))]),
                ..plain
            },
            4 | 5 => Policy {
                ingress: Some(vec![allow(vec![workloads(team, has("tier", "front".into()))], http())]),
                ..plain
            },
            6 | 7 => Policy {
                egress: Some(vec![
                    allow(vec![own(which + 3)], port(8_080)),
                    allow(vec![outside()], port(443)),
                ]),
                ..plain
            },
            8 | 9 => Policy {
                egress: Some(vec![allow(vec![workloads(team, Selector::default())], http())]),
                ..plain
            },
            _ => Policy {
                key: PolicyKey::cluster(PolicyKind::ClusterNetworkPolicy, format!("policy-{number}")),
                layer: Layer::Admin { priority: u16::try_from(number % 1_000).expect("less than that") },
                subject: Subject { namespaces: team.clone(), selector: app(which) },
                ingress: Some(vec![
                    Rule { action: Action::Pass, ..allow(vec![workloads(team, app(which + 1))], Ports::All) },
                    Rule { action: Action::Deny, ..allow(vec![outside()], port(22)) },
                ]),
                ..plain
            },
        }
    }

    /// So many documents, in the language that every version reads, which let this port in.
    pub(super) fn documents(&self, count: usize, port: u16) -> String {
        let mut text = String::new();
        for number in 0..count {
            let (namespace, which) = (namespace(number % self.namespaces), number / self.namespaces);
            let (one, other) = (which % APPS, (which + 1) % APPS);
            write!(
                text,
                "---\napiVersion: enforcer.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: policy-{number}, \
                 namespace: {namespace}}}\nspec:\n  subject: {{matchLabels: {{app: app-{one}}}}}\n  ingress: [{{from: \
                 [{{workloads: {{matchLabels: {{app: app-{other}}}}}}}], ports: [{{port: {port}}}]}}]\n  egress: [{{to: \
                 [{{workloads: {{}}, namespaces: [ns-1, ns-2]}}]}}]\n"
            )
            .expect("memory");
        }
        text
    }
}

fn service_address(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a60_0000 + u32::try_from(number).expect("few services")))
}

fn address(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a80_0000 + u32::try_from(number).expect("few workloads")))
}

fn workloads(namespaces: Namespaces, selector: Selector) -> Peer {
    Peer::Workloads { namespaces, selector, account: None }
}

fn outside() -> Peer {
    let net = |text: &str| text.parse().expect("a block");
    Peer::Cidr { net: net("0.0.0.0/0"), except: vec![net("10.0.0.0/8"), net("192.168.0.0/16")] }
}

fn port(port: u16) -> Ports {
    Ports::AnyOf(vec![PortMatch::Range(PortRange { protocol: 6, first: port, last: port })])
}

fn http() -> Ports {
    Ports::AnyOf(vec![PortMatch::Named { protocol: Some(6), name: "http".into() }])
}

fn allow(peers: Vec<Peer>, ports: Ports) -> Rule {
    let peers = Peers::AnyOf(peers);
    Rule { name: None, action: Action::Allow, peers, ports, errno: None, expires: None }
}
