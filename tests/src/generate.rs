//! Small worlds in which things collide a lot: few labels, few namespaces, nested address blocks, touching ports.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use enforcer::domain::account::AccountPattern;
use enforcer::domain::labels::{Condition, LabelSet, Requirement, Selector};
use enforcer::domain::policy::model::{
    Action, Entity, Layer, Namespaces, Peer, Peers, Policy, PolicyKey, PolicyKind, PolicyMode, PortMatch,
    PortRange, Ports, Rule, RuleDirection, RuleKey, Subject,
};
use enforcer::domain::timestamp::Timestamp;
use enforcer::domain::workload::{NamedPort, NamedPorts};
use enforcer_common::abi::config::SocketKind;
use enforcer_common::reason::Errno;
use enforcer_common::verdict::Direction;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::oracle::{Question, Service, Setting, Side};

/// Policies, who is there, and flows between them.
#[derive(Clone, Debug)]
pub struct World {
    /// Policies with distinct names, in any order.
    pub policies: Vec<Policy>,
    /// Workloads that are known before the policies are compiled, besides those of the flows.
    pub bystanders: Vec<Side>,
    /// Rules that got their numbers earlier, oldest first.
    pub history: Vec<RuleKey>,
    /// Flows to judge.
    pub questions: Vec<Question>,
    /// When they are judged, and what there is besides policies.
    pub setting: Setting,
}

/// A world with this number of flows.
pub fn world(flows: usize) -> impl Strategy<Value = World> {
    let bystanders = vec(workload(), 0..5);
    let history = vec(rule_key(), 0..6);
    (vec(policy(), 0..9), bystanders, history, vec(question(), flows), setting(), vec(0..16_usize, flows))
        .prop_map(|(mut policies, bystanders, history, mut questions, setting, draws)| {
            // Names are drawn from few, because the order of names matters and need not be the order given.
            let mut seen = BTreeSet::new();
            policies.retain(|policy| seen.insert(policy.key.clone()));
            // Some flows go where a service is.
            for (question, draw) in questions.iter_mut().zip(draws) {
                call(question, &setting.services, draw);
            }
            World { policies, bystanders, history, questions, setting }
        })
}

/// Turns one flow of four into one to a service, mostly to a port that it has.
fn call(question: &mut Question, services: &[Service], draw: usize) {
    let Some(service) = services.get(draw % 4) else { return };
    question.peer = Side::Service { namespace: service.namespace.clone(), name: service.name.clone() };
    question.address = service.addresses[draw % service.addresses.len()];
    let ports: Vec<(u8, u16)> = service.ports.keys().copied().collect();
    if let Some((protocol, port)) = ports.get(draw / 4) {
        (question.protocol, question.port, question.direction) = (*protocol, *port, Direction::Egress);
    }
}

fn namespace() -> impl Strategy<Value = String> + Clone {
    select(&["blue", "blue", "red", "green"]).prop_map(str::to_owned)
}

fn setting() -> impl Strategy<Value = Setting> {
    let namespaces = btree_map(namespace(), labels(), 0..4);
    let services = prop_oneof![1 => Just(Vec::new()), 2 => vec(service(), 1..4)];
    (moment(), namespaces, services).prop_map(|(at, namespaces, mut services)| {
        let mut seen = BTreeSet::new();
        services.retain(|service| seen.insert((service.namespace.clone(), service.name.clone())));
        Setting { at, namespaces, services }
    })
}

/// A service with few ports. A port may have no backend.
fn service() -> impl Strategy<Value = Service> {
    let backend = (
        prop_oneof![8 => workload().boxed(), 1 => select(&[Side::World, Side::Host]).boxed()],
        address(),
        port(),
    );
    let ports = btree_map((protocol(), port()), vec(backend, 0..4), 0..4);
    (namespace(), select(&["s", "t"]), vec(address(), 1..3), ports).prop_map(
        |(namespace, name, addresses, ports)| Service { namespace, name: name.to_owned(), addresses, ports },
    )
}

/// A workload with labels, named ports and perhaps an account.
fn workload() -> impl Strategy<Value = Side> {
    let named = (protocol(), port()).prop_map(|(protocol, port)| NamedPort { protocol, port });
    let ports = prop_oneof![1 => Just(NamedPorts::new()), 2 => btree_map(port_name(), named, 0..3)];
    let container = option::weighted(0.25, select(&["main", "proxy", "*", "?"]));
    (namespace(), labels(), ports, option::of(account()), container).prop_map(
        |(namespace, mut labels, ports, account, container)| {
            labels.0.extend(container.map(|name| ("reserved:container".to_owned(), name.to_owned())));
            Side::Workload { namespace, labels, ports, account }
        },
    )
}

fn port_name() -> impl Strategy<Value = String> {
    select(&["http", "dns"]).prop_map(str::to_owned)
}

fn account() -> impl Strategy<Value = String> {
    select(&["api", "web"]).prop_map(str::to_owned)
}

fn label_key() -> impl Strategy<Value = String> {
    select(&["app", "tier", "zone"]).prop_map(str::to_owned)
}

fn label_value() -> impl Strategy<Value = String> {
    select(&["", "a", "b"]).prop_map(str::to_owned)
}

/// Labels of a workload.
pub fn labels() -> impl Strategy<Value = LabelSet> {
    btree_map(label_key(), label_value(), 0..3).prop_map(LabelSet)
}

/// A selector, often one that selects everything.
pub fn selector() -> impl Strategy<Value = Selector> {
    let condition = prop_oneof![
        4 => btree_set(label_value(), 1..3).prop_map(Condition::In),
        2 => btree_set(label_value(), 0..3).prop_map(Condition::NotIn),
        1 => Just(Condition::Exists),
        1 => Just(Condition::DoesNotExist),
    ];
    let requirement = (label_key(), condition).prop_map(|(key, condition)| Requirement { key, condition });
    prop_oneof![
        1 => Just(Selector::default()),
        2 => vec(requirement, 0..3).prop_map(|requirements| Selector { requirements }),
    ]
}

/// A selector of workloads, which may name a container.
fn workloads() -> impl Strategy<Value = Selector> {
    (selector(), option::weighted(0.15, select(&["main", "proxy"]))).prop_map(|(mut selector, container)| {
        selector.requirements.extend(container.map(enforcer::domain::container::is_called));
        selector
    })
}

/// IPv4 addresses, some in the same blocks.
const FOUR: &[u32] =
    &[0x0a00_0001, 0x0a00_0002, 0x0a00_0101, 0x0a01_0001, 0x7f00_0001, 0, u32::MAX, 0xc000_0201];
/// IPv6 addresses, some in the same blocks.
const SIX: &[u128] =
    &[1, 0, u128::MAX, 0x2001_0db8 << 96, (0x2001_0db8 << 96) + 1, (0x2001_0db8_0001 << 80) + 1];
/// The neighbours of the mapped block, which are not IPv4.
const EDGES: &[u128] = &[0xfffe_ffff_ffff, 0x1_0000_0000_0000];

/// An address out of few, mapped ones and both ends of both families included.
pub fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        6 => select(FOUR).prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
        3 => select(SIX).prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))),
        1 => select(EDGES).prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))),
        1 => select(FOUR).prop_map(|bits| IpAddr::V6(Ipv4Addr::from(bits).to_ipv6_mapped())),
        1 => any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
    ]
}

/// A block around one of those addresses, host bits left in.
pub fn block() -> impl Strategy<Value = IpNet> {
    let four = select(&[0_u8, 1, 8, 15, 16, 23, 24, 30, 31, 32]);
    let six = select(&[0_u8, 1, 32, 48, 64, 79, 80, 95, 96, 97, 104, 127, 128]);
    (address(), four, six).prop_filter_map("prefix lengths above fit", |(address, four, six)| match address {
        IpAddr::V4(address) => Ipv4Net::new(address, four).ok().map(IpNet::V4),
        IpAddr::V6(address) => Ipv6Net::new(address, six).ok().map(IpNet::V6),
    })
}

/// Namespaces of a peer, or of a policy that has none itself.
fn namespaces() -> impl Strategy<Value = Namespaces> {
    let name = namespace().prop_map(|name| {
        let condition = Condition::In([name].into());
        let requirement = Requirement { key: "kubernetes.io/metadata.name".into(), condition };
        Selector { requirements: vec![requirement] }
    });
    prop_oneof![
        1 => Just(Namespaces::All),
        1 => vec(namespace(), 0..3).prop_map(Namespaces::Named),
        2 => selector().prop_map(Namespaces::Labelled),
        1 => name.prop_map(Namespaces::Labelled),
    ]
}

/// A peer of any kind.
pub fn peer() -> impl Strategy<Value = Peer> {
    let namespaces = prop_oneof![1 => Just(Namespaces::Own), 2 => namespaces()];
    let domain = option::weighted(0.3, select(&["cluster.local", "cluster.local", "other.example"]));
    let part = (option::of(namespace()), option::of(account()));
    let pattern = (domain, part).prop_map(|(trust_domain, (namespace, account))| AccountPattern {
        trust_domain: trust_domain.map(str::to_owned),
        namespace,
        account,
    });
    prop_oneof![
        4 => (namespaces, workloads(), option::weighted(0.2, pattern)).prop_map(
            |(namespaces, selector, account)| Peer::Workloads { namespaces, selector, account },
        ),
        4 => (block(), vec(block(), 0..3)).prop_map(|(net, except)| Peer::Cidr { net, except }),
        1 => select(&[Entity::Host, Entity::World, Entity::Cluster, Entity::Unmanaged]).prop_map(Peer::Entity),
    ]
}

fn protocol() -> impl Strategy<Value = u8> {
    select(&[6_u8, 6, 17, 132, 1])
}

fn port() -> impl Strategy<Value = u16> {
    select(&[0_u16, 1, 79, 80, 81, 82, 443, 8_080, 65_534, 65_535])
}

fn ports() -> impl Strategy<Value = Ports> {
    let range =
        (protocol(), port(), port(), any::<bool>()).prop_map(|(protocol, one, other, single)| PortRange {
            protocol,
            first: one.min(if single { one } else { other }),
            last: one.max(if single { one } else { other }),
        });
    let named = (option::of(protocol()), port_name())
        .prop_map(|(protocol, name)| PortMatch::Named { protocol, name });
    let whole = protocol().prop_map(|protocol| PortRange { protocol, first: 0, last: u16::MAX });
    let range = prop_oneof![5 => range, 1 => whole].prop_map(PortMatch::Range);
    let item = prop_oneof![3 => range, 1 => named];
    prop_oneof![
        3 => Just(Ports::All),
        4 => vec(item, 0..4).prop_map(Ports::AnyOf),
    ]
}

/// One of few moments, so that things expire before, after and just when flows are judged.
fn moment() -> impl Strategy<Value = Timestamp> {
    (0..5_i64, select(&[0_u32, 1])).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos })
}

fn rule() -> impl Strategy<Value = Rule> {
    let peers = prop_oneof![1 => Just(Peers::Everyone), 4 => vec(peer(), 0..4).prop_map(Peers::AnyOf)];
    rule_for(peers)
}

/// A rule about listening: it has no peers.
fn listen_rule() -> impl Strategy<Value = Rule> {
    rule_for(Just(Peers::Everyone))
}

/// A rule about kinds of sockets, which documents of namespaces could not all say.
fn sockets_rule() -> impl Strategy<Value = Rule> {
    let kinds = btree_set(socket_kind(), 1..4).prop_map(|kinds| Ports::Kinds(kinds.into_iter().collect()));
    rule_with(Just(Peers::Everyone), kinds)
}

/// One of few kinds, so that rules meet.
pub fn socket_kind() -> impl Strategy<Value = SocketKind> {
    select(&[SocketKind::Tcp, SocketKind::Ping, SocketKind::Raw, SocketKind::Other])
}

fn rule_for(peers: impl Strategy<Value = Peers>) -> impl Strategy<Value = Rule> {
    rule_with(peers, ports())
}

fn rule_with(
    peers: impl Strategy<Value = Peers>,
    ports: impl Strategy<Value = Ports>,
) -> impl Strategy<Value = Rule> {
    let action = prop_oneof![2 => Just(Action::Allow), 1 => Just(Action::Deny), 1 => Just(Action::Pass)];
    let errno = option::of(select(Errno::ALL));
    (action, peers, ports, errno, option::weighted(0.2, moment())).prop_map(
        |(action, peers, ports, errno, expires)| Rule { name: None, action, peers, ports, errno, expires },
    )
}

fn policy_key() -> impl Strategy<Value = PolicyKey> {
    let name = select(&["p", "q", "r", "s", "t"]).prop_map(str::to_owned);
    let kind = select(&[
        PolicyKind::TrafficPolicy,
        PolicyKind::TrafficPolicy,
        PolicyKind::NetworkPolicy,
        PolicyKind::ClusterTrafficPolicy,
        PolicyKind::ClusterNetworkPolicy,
    ]);
    (kind, namespace(), name).prop_map(|(kind, namespace, name)| {
        let namespace = if kind.is_namespaced() { namespace } else { String::new() };
        PolicyKey { kind, namespace, name }
    })
}

/// The layer of a policy of this kind. Priorities are drawn from few, so that names decide.
fn layer(kind: PolicyKind) -> impl Strategy<Value = Layer> {
    let ordered = match kind {
        PolicyKind::TrafficPolicy | PolicyKind::NetworkPolicy => 0,
        PolicyKind::ClusterTrafficPolicy => 1,
        PolicyKind::ClusterNetworkPolicy => 4,
    };
    let priority = || select(&[0_u16, 1, 1, 1_000, u16::MAX]);
    (0..=4_u8, any::<bool>(), priority()).prop_map(move |(draw, is_admin, priority)| match is_admin {
        _ if draw + ordered <= 3 => Layer::Namespaced,
        true => Layer::Admin { priority },
        false => Layer::Baseline { priority },
    })
}

/// Which workloads a policy of this kind speaks of.
fn subject(kind: PolicyKind) -> impl Strategy<Value = Subject> {
    (namespaces(), workloads()).prop_map(move |(namespaces, selector)| {
        let namespaces = if kind.is_namespaced() { Namespaces::Own } else { namespaces };
        Subject { namespaces, selector }
    })
}

/// A policy.
pub fn policy() -> impl Strategy<Value = Policy> {
    let mode = prop_oneof![3 => Just(PolicyMode::Enforce), 1 => Just(PolicyMode::Audit)];
    let rules = || option::weighted(0.75, vec(rule(), 0..4));
    let listen = option::weighted(0.3, vec(listen_rule(), 0..4));
    let sockets = option::weighted(0.3, vec(sockets_rule(), 0..4));
    let sections = (rules(), rules(), listen, sockets, option::weighted(0.1, moment()));
    let key = policy_key().prop_flat_map(|key| {
        let (layer, subject) = (layer(key.kind), subject(key.kind));
        (Just(key), layer, subject)
    });
    (key, mode, select(Errno::ALL), sections).prop_map(
        |((key, layer, subject), mode, errno, (ingress, egress, listen, sockets, expires))| Policy {
            key,
            layer,
            mode,
            errno,
            subject,
            ingress,
            egress,
            listen,
            sockets,
            expires,
        },
    )
}

fn direction() -> impl Strategy<Value = Direction> {
    select(&Direction::ALL)
}

fn rule_key() -> impl Strategy<Value = RuleKey> {
    (policy_key(), select(&RuleDirection::ALL), option::of(0..4_u32))
        .prop_map(|(policy, direction, index)| RuleKey { policy, direction, index })
}

fn side(workload: u32) -> impl Strategy<Value = Side> {
    let reserved = select(&[Side::Host, Side::World, Side::Unmanaged, Side::Unknown]);
    prop_oneof![
        workload => self::workload(),
        1 => reserved,
    ]
}

/// A flow. The addresses of workloads are the ones that blocks are made of.
pub fn question() -> impl Strategy<Value = Question> {
    let protocol = prop_oneof![9 => protocol(), 1 => Just(1_u8), 1 => any::<u8>()];
    let port = prop_oneof![9 => port(), 1 => any::<u16>()];
    (side(15), side(2), address(), protocol, port, direction()).prop_map(
        |(subject, peer, address, protocol, port, direction)| Question {
            subject,
            peer,
            address,
            protocol,
            port,
            direction,
        },
    )
}
