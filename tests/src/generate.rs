//! Small worlds in which things collide a lot: few labels, few namespaces, nested address blocks, touching ports.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use enforcer::domain::labels::{Condition, LabelSet, Requirement, Selector};
use enforcer::domain::policy::model::{
    Action, Entity, Layer, Namespaces, Peer, Peers, Policy, PolicyKey, PolicyMode, PortMatch, PortRange,
    Ports, Rule, RuleDirection, RuleKey, Subject,
};
use enforcer::domain::timestamp::Timestamp;
use enforcer_common::reason::Errno;
use enforcer_common::verdict::Direction;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::oracle::{Question, Side};

/// Policies, who is there, and flows between them.
#[derive(Clone, Debug)]
pub struct World {
    /// Policies with distinct names, in any order.
    pub policies: Vec<Policy>,
    /// Identities that are known before the policies are compiled, besides those of the flows.
    pub bystanders: Vec<(String, LabelSet)>,
    /// Rules that got their numbers earlier, oldest first.
    pub history: Vec<RuleKey>,
    /// Flows to judge.
    pub questions: Vec<Question>,
    /// When they are judged.
    pub at: Timestamp,
}

/// A world with this number of flows.
pub fn world(flows: usize) -> impl Strategy<Value = World> {
    let bystanders = vec((namespace(), labels()), 0..5);
    (vec(policy(), 0..9), bystanders, vec(rule_key(), 0..6), vec(question(), flows), moment()).prop_map(
        |(mut policies, bystanders, history, questions, at)| {
            // Names are drawn from few, because the order of names matters and need not be the order given.
            let mut seen = BTreeSet::new();
            policies.retain(|policy| seen.insert(policy.key.clone()));
            World { policies, bystanders, history, questions, at }
        },
    )
}

fn namespace() -> impl Strategy<Value = String> + Clone {
    select(&["blue", "blue", "red"]).prop_map(str::to_owned)
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

/// A peer of any kind.
pub fn peer() -> impl Strategy<Value = Peer> {
    let namespaces = prop_oneof![
        Just(Namespaces::Own),
        Just(Namespaces::All),
        vec(namespace(), 0..3).prop_map(Namespaces::Named),
    ];
    prop_oneof![
        4 => (namespaces, selector())
            .prop_map(|(namespaces, selector)| Peer::Workloads { namespaces, selector, account: None }),
        4 => (block(), vec(block(), 0..3)).prop_map(|(net, except)| Peer::Cidr { net, except }),
        1 => select(&[Entity::Host, Entity::World]).prop_map(Peer::Entity),
    ]
}

fn protocol() -> impl Strategy<Value = u8> {
    select(&[6_u8, 6, 17, 132])
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
    let whole = protocol().prop_map(|protocol| PortRange { protocol, first: 0, last: u16::MAX });
    prop_oneof![
        3 => Just(Ports::All),
        4 => vec(prop_oneof![5 => range, 1 => whole], 0..4).prop_map(|ranges| Ports::AnyOf(ranges.into_iter().map(PortMatch::Range).collect())),
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

fn rule_for(peers: impl Strategy<Value = Peers>) -> impl Strategy<Value = Rule> {
    let action = prop_oneof![2 => Just(Action::Allow), 1 => Just(Action::Deny)];
    let errno = option::of(select(Errno::ALL));
    (action, peers, ports(), errno, option::weighted(0.2, moment())).prop_map(
        |(action, peers, ports, errno, expires)| Rule { name: None, action, peers, ports, errno, expires },
    )
}

fn policy_key() -> impl Strategy<Value = PolicyKey> {
    let name = select(&["p", "q", "r", "s", "t"]).prop_map(str::to_owned);
    (namespace(), name).prop_map(|(namespace, name)| PolicyKey::traffic(namespace, name))
}

/// A policy.
pub fn policy() -> impl Strategy<Value = Policy> {
    let mode = prop_oneof![3 => Just(PolicyMode::Enforce), 1 => Just(PolicyMode::Audit)];
    let rules = || option::weighted(0.75, vec(rule(), 0..4));
    let listen = option::weighted(0.3, vec(listen_rule(), 0..4));
    let sections = (rules(), rules(), listen, option::weighted(0.1, moment()));
    (policy_key(), mode, select(Errno::ALL), selector(), sections).prop_map(
        |(key, mode, errno, subject, (ingress, egress, listen, expires))| Policy {
            key,
            layer: Layer::Namespaced,
            mode,
            errno,
            subject: Subject::own(subject),
            ingress,
            egress,
            listen,
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
        workload => (namespace(), labels())
            .prop_map(|(namespace, labels)| Side::Workload { namespace, labels }),
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
