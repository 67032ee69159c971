//! Policies judged without an agent: a cluster from files, the table that an agent would make of it, and the verdict that
//! the kernel would give.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use enforcer_common::address::Address;
use enforcer_common::id::{Generation, IdentityId};
use enforcer_common::verdict::{Direction, Query, Verdict};
use ipnet::IpNet;

use super::account::TrustDomain;
use super::cluster::{Backend, KnownService, NamespaceLabels, Service, canonical};
use super::cluster_file::{Cluster, ClusterNode};
use super::container::{self, Containers, with_containers};
use super::policy::compile::{CompileError, Scene, compile_scene};
use super::policy::explain::Context;
use super::policy::model::{Peer, Peers, Pending, Policy};
use super::policy::ports::{OWN_PROTOCOLS, has_types, type_number};
use super::registry::{IdentityKey, Registry};
use super::table::PolicyTable;
use super::timestamp::Timestamp;
use super::workload::{Workload, WorkloadKey};

/// What stands for the address of a workload that has none: the one by which it would be called on its own host.
pub const NOWHERE: Address = Address::LOOPBACK_V4;

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A workload.
    Workload(WorkloadKey),
    /// A service; nobody opens flows from one.
    Service(WorkloadKey),
    /// A process outside all workloads.
    Host,
    /// An address that belongs to no workload.
    Address(IpAddr),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(key) => write!(f, "{key}"),
            Self::Service(key) => write!(f, "service/{key}"),
            Self::Host => f.write_str("host"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// A flow that nobody has opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who would open it.
    pub from: End,
    /// The server.
    pub to: End,
    /// IP protocol number.
    pub protocol: u8,
    /// Port of the server.
    pub port: u16,
}

/// How one end is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What was asked.
    pub query: Query,
    /// What the table says.
    pub verdict: Verdict,
}

/// How a flow is judged: at its client and at its server, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// By the policies of who opens it.
    pub egress: Option<Judgement>,
    /// By the policies of the server; for a service of every server behind it that answers on that port.
    pub ingress: Vec<(End, Judgement)>,
}

impl Judged {
    /// The judgements, the client's first.
    pub fn all(&self) -> impl Iterator<Item = &Judgement> {
        self.egress.iter().chain(self.ingress.iter().map(|(_, judgement)| judgement))
    }

    /// Whether the flow comes through. A service is reached only if whoever answers lets the client in.
    pub fn is_allowed(&self) -> bool {
        self.all().all(|judgement| !judgement.verdict.enforced.is_deny())
    }

    /// The judgement that decides: the first denial, else the first that audit mode held back, else the last word.
    pub fn decisive(&self) -> Option<&Judgement> {
        self.all()
            .find(|judgement| judgement.verdict.enforced.is_deny())
            .or_else(|| self.all().find(|judgement| judgement.verdict.is_audited()))
            .or_else(|| self.all().find(|judgement| judgement.verdict.enforced.rule() != NO_RULE))
            .or_else(|| self.all().next())
    }
}

const NO_RULE: enforcer_common::id::RuleId = enforcer_common::id::RuleId::NONE;

/// A cluster under policies.
#[derive(Clone, Debug)]
pub struct Offline {
    policies: Vec<Policy>,
    at: Timestamp,
    registry: Registry,
    namespaces: NamespaceLabels,
    trust_domain: TrustDomain,
    table: PolicyTable,
    ends: BTreeMap<End, (IdentityId, Address)>,
    /// Who their addresses stand for, where that is somebody else.
    known_as: BTreeMap<End, IdentityId>,
    services: Vec<Service>,
    by_address: BTreeMap<IpAddr, End>,
}

impl Offline {
    /// Compiles the policies for a cluster at a moment, where the trust domain is the default.
    ///
    /// # Errors
    /// If no table can hold them.
    pub fn new(policies: Vec<Policy>, cluster: &Cluster, at: Timestamp) -> Result<Self, CompileError> {
        Self::within(policies, cluster, at, TrustDomain::default())
    }

    /// Compiles the policies for a cluster at a moment in a trust domain.
    ///
    /// # Errors
    /// If no table can hold them.
    pub fn within(
        policies: Vec<Policy>,
        cluster: &Cluster,
        at: Timestamp,
        trust_domain: TrustDomain,
    ) -> Result<Self, CompileError> {
        let policies: Vec<_> =
            policies.into_iter().map(|policy| with_nodes(policy, &cluster.nodes)).collect();
        let mut registry = Registry::default();
        let mut ends = BTreeMap::new();
        let mut by_address = BTreeMap::new();
        let mut known_as = BTreeMap::new();
        let containers = named_containers(&policies);
        for pod in &cluster.pods {
            let address = address_of(&pod.workload);
            let told = pod.containers.iter().filter(|name| containers.contains(*name));
            let told = told.map(|name| (name.clone(), String::new()));
            for workload in with_containers(pod.workload.clone(), told) {
                let end = End::Workload(workload.key.clone());
                by_address.extend(workload.addresses.iter().map(|net| (net.addr(), end.clone())));
                if matches!(workload.containers, Containers::Told(_)) && !workload.addresses.is_empty() {
                    let identity = registry.identity(&IdentityKey::at_address(&workload));
                    known_as.insert(end.clone(), identity);
                }
                ends.insert(end, (registry.identity(&IdentityKey::of(&workload)), address));
            }
        }
        let who = |address: IpAddr| {
            let Some(end) = by_address.get(&address) else { return IdentityId::WORLD };
            let own = || ends.get(end).map(|(id, _)| *id);
            known_as.get(end).copied().or_else(own).unwrap_or(IdentityId::WORLD)
        };
        let services: Vec<_> = cluster
            .services
            .iter()
            .map(|service| {
                let id = registry.identity(&IdentityKey::service(&*service.namespace, &*service.name));
                KnownService::new(id, service, who)
            })
            .collect();
        for (service, known) in cluster.services.iter().zip(&services) {
            let key = WorkloadKey { namespace: service.namespace.clone(), name: service.name.clone() };
            let end = End::Service(key);
            by_address.extend(service.addresses.iter().map(|address| (*address, end.clone())));
            let address = service.addresses.first().copied().map_or(NOWHERE, canonical);
            ends.insert(end, (known.identity, address));
        }
        let namespaces: NamespaceLabels = cluster.namespaces.iter().cloned().collect();
        let scene = Scene {
            at,
            namespaces: namespaces.clone(),
            services,
            trust_domain: trust_domain.clone(),
            ..Scene::default()
        };
        let table = compile_scene(&policies, &scene, &mut registry, Generation(1))?;
        let services = cluster.services.clone();
        Ok(Self {
            policies,
            at,
            registry,
            namespaces,
            trust_domain,
            table,
            ends,
            known_as,
            services,
            by_address,
        })
    }

    /// The policies, those of nodes that are known with their addresses.
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// When flows are judged.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Which numbers stand for what.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Labels of namespaces.
    pub fn namespaces(&self) -> &NamespaceLabels {
        &self.namespaces
    }

    /// The table.
    pub fn table(&self) -> &PolicyTable {
        &self.table
    }

    /// The workloads and services, in the order of their names.
    pub fn ends(&self) -> impl Iterator<Item = &End> {
        self.ends.keys()
    }

    /// Whose address it is, if it is anybody's.
    pub fn owner(&self, address: IpAddr) -> Option<&End> {
        self.by_address.get(&address)
    }

    /// Judges a flow. An address that belongs to somebody stands for them.
    pub fn judge(&self, flow: &Flow) -> Judged {
        judge(self, flow)
    }
}

/// Where flows can be judged: a table, and what it was made from.
pub trait Site {
    /// The policies, in any order.
    fn policies(&self) -> Vec<&Policy>;

    /// What there is besides policies.
    fn context(&self, hypothetical: bool) -> Context<'_>;

    /// The table.
    fn table(&self) -> &PolicyTable;

    /// Whoever an end stands for: an address that belongs to somebody stands for them.
    fn known<'e>(&'e self, end: &'e End) -> Cow<'e, End>;

    /// The identity and the address of an end.
    fn number(&self, end: &End) -> (IdentityId, Address);

    /// The identity by which somebody in another network namespace knows an end.
    fn known_as(&self, end: &End) -> IdentityId {
        self.number(end).0
    }

    /// Who answers for a service on that port, and on which port of theirs.
    fn servers(&self, key: &WorkloadKey, protocol: u8, port: u16) -> BTreeSet<(End, u16)>;

    /// Whether the policies of a client are asked here.
    fn judges_client(&self, end: &End) -> bool {
        is_judge(end)
    }
}

/// Whether two ends are containers of one pod, or a container and its pod.
fn is_one_pod(one: &End, other: &End) -> bool {
    let (End::Workload(one), End::Workload(other)) = (one, other) else { return false };
    let pod = |key: &WorkloadKey| key.pod().unwrap_or_else(|| key.clone());
    pod(one) == pod(other)
}

/// Nobody judges for an address, and a service is judged where its servers are.
const fn is_judge(end: &End) -> bool {
    matches!(end, End::Workload(_) | End::Host)
}

/// Judges a flow.
pub fn judge(site: &impl Site, flow: &Flow) -> Judged {
    let (from, to) = (site.known(&flow.from), site.known(&flow.to));
    let (port, protocol) = (flow.port, flow.protocol);
    let ask = |subject, (peer, address), direction, port| {
        let query = Query { subject, peer, address, port, protocol, direction };
        Judgement { query, verdict: site.table().decide(&query) }
    };
    // How one end knows another: by its socket within a network namespace, else by its address.
    let seen = |end: &End, by: &End| {
        let (own, address) = site.number(end);
        (if is_one_pod(end, by) { own } else { site.known_as(end) }, address)
    };
    let egress = site
        .judges_client(&from)
        .then(|| ask(site.number(&from).0, seen(&to, &from), Direction::Egress, port));
    // The server's policies are asked at both ends, and both must allow.
    let at_server = |end: &End, port| {
        let exactly = ask(site.number(end).0, seen(&from, end), Direction::Ingress, port);
        let at_client = ask(seen(end, &from).0, site.number(&from), Direction::Ingress, port);
        let is_worse = at_client.verdict.enforced.is_deny() && !exactly.verdict.enforced.is_deny();
        if is_worse { at_client } else { exactly }
    };
    let servers = match &*to {
        End::Service(key) => site.servers(key, protocol, port),
        to => [(to.clone(), port)].into(),
    };
    let ingress = servers
        .into_iter()
        .filter(|(end, _)| is_judge(end))
        .map(|(end, port)| (end.clone(), at_server(&end, port)))
        .collect();
    Judged { egress, ingress }
}

/// Who answers for a service on a port that clients call.
pub fn backends(service: &Service, protocol: u8, port: u16) -> impl Iterator<Item = &Backend> {
    let fronts = service.ports.iter().filter(move |front| (front.protocol, front.port) == (protocol, port));
    fronts.flat_map(|front| &front.backends)
}

impl Site for Offline {
    fn policies(&self) -> Vec<&Policy> {
        self.policies.iter().collect()
    }

    fn context(&self, hypothetical: bool) -> Context<'_> {
        let Self { registry, namespaces, trust_domain, .. } = self;
        Context { registry, namespaces, trust_domain, at: self.at, hypothetical }
    }

    fn table(&self) -> &PolicyTable {
        &self.table
    }

    fn servers(&self, key: &WorkloadKey, protocol: u8, port: u16) -> BTreeSet<(End, u16)> {
        let is_it = |service: &&Service| (&service.namespace, &service.name) == (&key.namespace, &key.name);
        let Some(service) = self.services.iter().find(is_it) else { return BTreeSet::new() };
        let server = |backend: &Backend| {
            let end = End::Address(backend.address);
            (self.known(&end).into_owned(), backend.port)
        };
        backends(service, protocol, port).map(server).collect()
    }

    fn known<'e>(&'e self, end: &'e End) -> Cow<'e, End> {
        Cow::Borrowed(match end {
            End::Address(address) => self.by_address.get(address).unwrap_or(end),
            end => end,
        })
    }

    fn number(&self, end: &End) -> (IdentityId, Address) {
        match end {
            End::Workload(_) | End::Service(_) => {
                // A container that no policy names is as its pod.
                let pod = || self.ends.get(&of_pod(end));
                self.ends.get(end).or_else(pod).copied().unwrap_or((IdentityId::UNKNOWN, NOWHERE))
            }
            End::Host => (IdentityId::HOST, NOWHERE),
            End::Address(address) => (IdentityId::WORLD, canonical(*address)),
        }
    }

    fn known_as(&self, end: &End) -> IdentityId {
        self.known_as.get(&of_pod(end)).copied().unwrap_or_else(|| self.number(end).0)
    }
}

/// The pod of a container; anybody else is what they are.
pub fn of_pod(end: &End) -> End {
    match end {
        End::Workload(key) => End::Workload(key.pod().unwrap_or_else(|| key.clone())),
        end => end.clone(),
    }
}

/// Containers that policies name: only they have to be told from their pods.
fn named_containers(policies: &[Policy]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for policy in policies {
        names.extend(container::named(&policy.subject.selector).map(str::to_owned));
        for (_, _, rule) in policy.all_rules() {
            let Peers::AnyOf(peers) = &rule.peers else { continue };
            for peer in peers {
                if let Peer::Workloads { selector, .. } = peer {
                    names.extend(container::named(selector).map(str::to_owned));
                }
            }
        }
    }
    names
}

/// The address by which a workload is known, or what stands for it.
pub fn address_of(workload: &Workload) -> Address {
    workload.addresses.first().map_or(NOWHERE, |net| canonical(net.addr()))
}

/// The policy with the addresses of the nodes that it means, where nodes are known.
fn with_nodes(mut policy: Policy, nodes: &[ClusterNode]) -> Policy {
    if nodes.is_empty() {
        return policy;
    }
    let sections = [&mut policy.ingress, &mut policy.egress];
    for rule in sections.into_iter().flatten().flatten() {
        let Peers::AnyOf(peers) = &mut rule.peers else { continue };
        for peer in std::mem::take(peers) {
            match peer {
                Peer::Pending(Pending::Nodes(selector)) => {
                    let meant = nodes.iter().filter(|node| selector.matches(&node.labels));
                    let addresses = meant.flat_map(|node| node.addresses.iter().copied());
                    peers.extend(
                        addresses.map(|address| Peer::Cidr { net: IpNet::from(address), except: Vec::new() }),
                    );
                }
                peer => peers.push(peer),
            }
        }
    }
    policy
}

/// Which pods reach which, on one protocol and port.
pub type Reach = BTreeMap<String, BTreeMap<String, bool>>;

/// The reachability of every ordered pair of different workloads on these ports: `PROTO/port`, then who opens, then the
/// server. Containers that policies name stand beside their pods.
pub fn matrix(offline: &Offline, ports: &BTreeSet<(u8, u16)>) -> BTreeMap<String, Reach> {
    let pods: Vec<&End> = offline.ends().filter(|end| matches!(end, End::Workload(_))).collect();
    let names: Vec<String> = pods.iter().map(ToString::to_string).collect();
    let mut matrix = BTreeMap::new();
    for (protocol, port) in ports.iter().copied() {
        let mut reach = Reach::new();
        for (from, from_name) in pods.iter().zip(&names) {
            let row = reach.entry(from_name.clone()).or_default();
            for (to, to_name) in pods.iter().zip(&names) {
                if from_name == to_name {
                    continue;
                }
                let flow = Flow { from: (*from).clone(), to: (*to).clone(), protocol, port };
                row.insert(to_name.clone(), offline.judge(&flow).is_allowed());
            }
        }
        matrix.insert(port_text(protocol, port), reach);
    }
    matrix
}

/// `TCP/80`; of ICMP with the number of a type.
pub fn port_text(protocol: u8, port: u16) -> String {
    match OWN_PROTOCOLS.iter().find(|(_, number)| *number == protocol) {
        Some((name, _)) => format!("{name}/{port}"),
        None => format!("{protocol}/{port}"),
    }
}

/// Reads `TCP/80`, `ICMP/8` or `ICMP/echo-request`.
pub fn parse_port(text: &str) -> Option<(u8, u16)> {
    let (name, port) = text.split_once('/')?;
    let (_, protocol) = OWN_PROTOCOLS.iter().find(|(known, _)| *known == name)?;
    let port = type_number(*protocol, port).or_else(|| port.parse().ok()).filter(|port| *port > 0)?;
    (!has_types(*protocol) || port <= u8::MAX.into()).then_some((*protocol, port))
}
