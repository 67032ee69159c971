//! Whether a policy means somebody, and whether a rule means a flow.

use std::net::IpAddr;

use enforcer::domain::account::AccountPattern;
use enforcer::domain::labels::{Condition, LabelSet, Selector};
use enforcer::domain::policy::model::{Entity, Namespaces, Peer, Peers, Policy, PortMatch, Ports, Rule};
use enforcer_common::verdict::Direction;
use ipnet::{IpNet, Ipv4Net};

use super::{Question, Setting, Side};

/// Whether a policy speaks of somebody: of workloads only.
pub(super) fn selects(policy: &Policy, subject: &Side, setting: &Setting) -> bool {
    let Side::Workload { namespace, labels, .. } = subject else { return false };
    is_among(&policy.subject.namespaces, policy, namespace, setting)
        && has_labels(&policy.subject.selector, labels)
}

/// The label of containers.
const CONTAINER: &str = "reserved:container";
/// Its value where somebody is known by the address of the pod.
pub(super) const ANY: &str = "*";
/// Its value where somebody is in a container that nobody knows yet.
pub(super) const UNKNOWN: &str = "?";

/// Whether a policy is about a container of pods of which somebody is known as `which`.
pub(super) fn selects_as(policy: &Policy, subject: &Side, setting: &Setting, which: &str) -> bool {
    let Side::Workload { namespace, labels, .. } = subject else { return false };
    is_among(&policy.subject.namespaces, policy, namespace, setting)
        && has_labels_as(&policy.subject.selector, labels, which)
}

/// Whether a policy about a container says who may call somebody's pod.
pub(super) fn is_contested(policies: &[&Policy], subject: &Side, setting: &Setting) -> bool {
    let Side::Workload { namespace, labels, .. } = subject else { return false };
    policies.iter().any(|policy| {
        policy.ingress.is_some()
            && names_container(&policy.subject.selector)
            && is_among(&policy.subject.namespaces, policy, namespace, setting)
            && has_labels(&without_container(&policy.subject.selector), labels)
    })
}

fn names_container(selector: &Selector) -> bool {
    selector.requirements.iter().any(|requirement| requirement.key == CONTAINER)
}

fn without_container(selector: &Selector) -> Selector {
    let mut selector = selector.clone();
    selector.requirements.retain(|requirement| requirement.key != CONTAINER);
    selector
}

/// Whether somebody who is known as `which` container of a pod may be the one that a selector names.
fn has_labels_as(selector: &Selector, labels: &LabelSet, which: &str) -> bool {
    names_container(selector)
        && labels.0.get(CONTAINER).is_some_and(|value| value == which)
        && has_labels(&without_container(selector), labels)
}

/// Whether a rule for callers names a container that its peer, known as `which` of its pod, may be, and does not mean that peer
/// by what it is anyway.
pub(super) fn widely_matches_flow(
    policy: &Policy,
    rule: &Rule,
    question: &Question,
    setting: &Setting,
    which: &str,
) -> bool {
    let Peers::AnyOf(peers) = &rule.peers else { return false };
    let Side::Workload { namespace, labels, account: own, .. } = &question.peer else { return false };
    let by_itself =
        |peer: &Peer| !matches!(peer, Peer::Cidr { .. }) && is_meant(policy, peer, question, setting);
    question.direction == Direction::Ingress
        && !names_container(&policy.subject.selector)
        && matches_port(rule, &question.subject, question.protocol, question.port)
        && !peers.iter().any(by_itself)
        && peers.iter().any(|peer| {
            let Peer::Workloads { namespaces, selector, account } = peer else { return false };
            is_among(namespaces, policy, namespace, setting)
                && has_labels_as(selector, labels, which)
                && account.as_ref().is_none_or(|account| has_account(account, namespace, own.as_deref()))
        })
}

/// Whether a rule means a flow: some peer of its list, and some port of its list.
pub(super) fn matches_flow(policy: &Policy, rule: &Rule, question: &Question, setting: &Setting) -> bool {
    let peers: Vec<Option<&Peer>> = match &rule.peers {
        Peers::Everyone => vec![None],
        Peers::AnyOf(peers) => peers.iter().map(Some).collect(),
    };
    peers.into_iter().any(|peer| {
        let meant = peer.is_none_or(|peer| is_meant(policy, peer, question, setting));
        meant
            && match question.direction {
                Direction::Ingress => matches_port(rule, &question.subject, question.protocol, question.port),
                // An address has no names.
                Direction::Egress if matches!(peer, Some(Peer::Cidr { .. })) => {
                    matches_port(rule, &Side::World, question.protocol, question.port)
                }
                Direction::Egress => matches_port(rule, &question.peer, question.protocol, question.port),
            }
    })
}

/// Whether a rule means a port of a server.
pub(super) fn matches_port(rule: &Rule, server: &Side, protocol: u8, port: u16) -> bool {
    let items = match &rule.ports {
        Ports::All => return true,
        Ports::AnyOf(items) => items,
        Ports::Kinds(_) => return false,
    };
    items.iter().any(|item| match item {
        PortMatch::Range(range) => range.protocol == protocol && (range.first..=range.last).contains(&port),
        PortMatch::Named { protocol: wanted, name } => {
            let Side::Workload { ports, .. } = server else { return false };
            ports.get(name).is_some_and(|named| {
                named.protocol == protocol
                    && named.port == port
                    && wanted.is_none_or(|wanted| wanted == named.protocol)
            })
        }
    })
}

fn is_meant(policy: &Policy, peer: &Peer, question: &Question, setting: &Setting) -> bool {
    let is_inside = |net: &IpNet| is_inside(question.address, *net);
    match (peer, &question.peer) {
        (
            Peer::Workloads { namespaces, selector, account },
            Side::Workload { namespace, labels, account: own, .. },
        ) => {
            is_among(namespaces, policy, namespace, setting)
                && has_labels(selector, labels)
                && account.as_ref().is_none_or(|account| has_account(account, namespace, own.as_deref()))
        }
        (Peer::Cidr { net, except }, _) => is_inside(net) && !except.iter().any(is_inside),
        (Peer::Entity(Entity::Host), side) => *side == Side::Host,
        (Peer::Entity(Entity::World), side) => *side == Side::World,
        (Peer::Entity(Entity::Unmanaged), side) => *side == Side::Unmanaged,
        (Peer::Entity(Entity::Cluster), side) => matches!(side, Side::Host | Side::Workload { .. }),
        (Peer::Workloads { .. } | Peer::Pending(_), _) => false,
    }
}

fn is_among(namespaces: &Namespaces, policy: &Policy, namespace: &str, setting: &Setting) -> bool {
    match namespaces {
        Namespaces::Own => namespace == policy.key.namespace,
        Namespaces::All => true,
        Namespaces::Named(names) => names.iter().any(|name| name == namespace),
        Namespaces::Labelled(selector) => {
            let mut labels = setting.namespaces.get(namespace).cloned().unwrap_or_default();
            labels.0.insert("kubernetes.io/metadata.name".into(), namespace.into());
            has_labels(selector, &labels)
        }
    }
}

/// By the text of the SPIFFE ID, part by part.
fn has_account(pattern: &AccountPattern, namespace: &str, account: Option<&str>) -> bool {
    let Some(account) = account else { return false };
    let own = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
    let pattern = pattern.to_string();
    let (own, pattern): (Vec<&str>, Vec<&str>) = (own.split('/').collect(), pattern.split('/').collect());
    own.len() == pattern.len() && own.iter().zip(pattern).all(|(own, wanted)| wanted == "*" || *own == wanted)
}

fn has_labels(selector: &Selector, labels: &LabelSet) -> bool {
    for requirement in &selector.requirements {
        let holds = match (&requirement.condition, labels.0.get(&requirement.key)) {
            (Condition::In(values), Some(value)) => values.contains(value),
            (Condition::NotIn(values), Some(value)) => !values.contains(value),
            (Condition::Exists, Some(_)) | (Condition::NotIn(_) | Condition::DoesNotExist, None) => true,
            (Condition::DoesNotExist, Some(_)) | (Condition::In(_) | Condition::Exists, None) => false,
        };
        if !holds {
            return false;
        }
    }
    true
}

/// An IPv4-mapped IPv6 address is the IPv4 address, and a net of such addresses is the IPv4 net. Beyond that a net
/// has addresses of its own family only.
fn is_inside(address: IpAddr, net: IpNet) -> bool {
    let net = match net {
        IpNet::V6(six) => match six.addr().to_ipv4_mapped() {
            Some(four) if six.prefix_len() >= 96 => {
                Ipv4Net::new(four, six.prefix_len() - 96).map_or(net, IpNet::V4)
            }
            _ => net,
        },
        IpNet::V4(_) => net,
    };
    net.contains(&address.to_canonical())
}
