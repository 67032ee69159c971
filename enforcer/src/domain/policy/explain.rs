//! Why a flow met its verdict: which line of the precedence list and which rule decided, what passed it on, which policies
//! isolate the subject, and what their allow rules missed it by.

use std::cmp::Reverse;
use std::fmt;

use enforcer_common::abi::config::SocketKind;
use enforcer_common::address::Address;
use enforcer_common::id::IdentityId;
use enforcer_common::reason::Reason;
use enforcer_common::verdict::{Direction, Query, Word};

use super::compile::is_inside;
use super::model::{
    Action, Entity, Layer, Peer, Peers, Policy, PolicyMode, PortMatch, Ports, Rule, RuleDirection, RuleKey,
};
use super::ports::type_name;
use crate::domain::account::TrustDomain;
use crate::domain::cluster::NamespaceLabels;
use crate::domain::registry::{IdentityKey, Registry};
use crate::domain::timestamp::Timestamp;

/// What there is besides policies.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Numbers of identities and rules.
    pub registry: &'a Registry,
    /// Labels of namespaces.
    pub namespaces: &'a NamespaceLabels,
    /// The trust domain of every workload.
    pub trust_domain: &'a TrustDomain,
    /// When the flow is judged: what is over by then says nothing.
    pub at: Timestamp,
    /// Whether it is the hypothetical verdict that is explained: policies in audit mode count there, and only there.
    pub hypothetical: bool,
}

impl Context<'_> {
    fn counts(&self, policy: &Policy) -> bool {
        !policy.is_over(self.at) && (self.hypothetical || policy.mode == PolicyMode::Enforce)
    }
}

/// Why a flow met its verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The line of the precedence list that decided, 1 to 7.
    pub precedence: u8,
    /// The rule that decided, if one did.
    pub rule: Option<RuleKey>,
    /// The rule of the admin tier that left the flow to the policies beneath.
    pub passed: Option<RuleKey>,
    /// Rules of the namespaced layer that allow the flow; they did not decide where something stronger denies it.
    pub allowing: Vec<RuleKey>,
    /// The policies that isolate the subject in the direction of the flow.
    pub isolations: Vec<Isolation>,
}

/// A policy that isolates the subject in the direction of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// The isolation, as a denial names it.
    pub rule: RuleKey,
    /// Whether it holds, or is only reported.
    pub mode: PolicyMode,
    /// Its allow rules that do not match the flow, nearest first.
    pub misses: Vec<Miss>,
}

/// An allow rule that does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// The rule.
    pub rule: RuleKey,
    /// Its name for people.
    pub name: Option<String>,
    /// Whether the peer is one that it matches.
    pub peer: bool,
    /// Whether the protocol and port are ones that it matches.
    pub port: bool,
    /// What was asked for, e.g. `TCP 8081`.
    pub asked: String,
    /// What the rule matches, e.g. `TCP 8080, UDP 53`.
    pub ports: String,
}

/// `default/db ingress[0] matched the peer, but allows TCP 8080, not TCP 8081`.
impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rule)?;
        if let Some(name) = &self.name {
            write!(f, " ({name})")?;
        }
        if self.peer {
            write!(f, " matched the peer, but allows {}, not {}", self.ports, self.asked)
        } else if self.port {
            write!(f, " matched {}, but not the peer", self.asked)
        } else {
            write!(f, " matched neither the peer nor {}", self.asked)
        }
    }
}

/// Explains the word that decided of a flow. Policies come in any order.
pub fn explain<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
    context: &Context<'_>,
    query: &Query,
    word: Word,
) -> Explanation {
    let policies: Vec<&Policy> = policies.into_iter().filter(|policy| context.counts(policy)).collect();
    let rule = context.registry.rules().find(|(_, id)| *id == word.rule()).map(|(key, _)| key.clone());
    let flow = Flow::new(context, query, query.direction.into());
    let selecting: Vec<&Policy> = policies.iter().copied().filter(|policy| flow.selects(policy)).collect();
    Explanation {
        precedence: precedence(&policies, rule.as_ref(), word),
        rule,
        passed: flow.passed(&selecting),
        allowing: flow.allowing(&selecting),
        isolations: selecting.iter().filter_map(|policy| flow.isolation(policy)).collect(),
    }
}

/// Explains the word that decided whether somebody may create a socket of a kind. Policies come in any order.
pub fn explain_socket<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
    context: &Context<'_>,
    (subject, kind): (IdentityId, SocketKind),
    word: Word,
) -> Explanation {
    let policies: Vec<&Policy> = policies.into_iter().filter(|policy| context.counts(policy)).collect();
    let rule = context.registry.rules().find(|(_, id)| *id == word.rule()).map(|(key, _)| key.clone());
    // There is no other end and no port.
    let query = Query {
        subject,
        peer: IdentityId::UNKNOWN,
        address: Address::v4(0),
        port: 0,
        protocol: 0,
        direction: Direction::Egress,
    };
    let flow = Flow { kind: Some(kind), ..Flow::new(context, &query, RuleDirection::Sockets) };
    let selecting: Vec<&Policy> = policies.iter().copied().filter(|policy| flow.selects(policy)).collect();
    Explanation {
        precedence: precedence(&policies, rule.as_ref(), word),
        rule,
        passed: flow.passed(&selecting),
        allowing: flow.allowing(&selecting),
        isolations: Vec::new(),
    }
}

/// The policies that isolate the subject of a flow in its direction, in the order given. Empty for subjects that are
/// not workloads.
pub fn why<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
    context: &Context<'_>,
    query: &Query,
) -> Vec<Isolation> {
    let flow = Flow::new(context, query, query.direction.into());
    let there = policies.into_iter().filter(|policy| context.counts(policy) && flow.selects(policy));
    there.filter_map(|policy| flow.isolation(policy)).collect()
}

/// The line of the precedence list that a word stands for. A service's word stands for the line of the backend that
/// decided.
fn precedence(policies: &[&Policy], rule: Option<&RuleKey>, word: Word) -> u8 {
    if word.reason_code() == Reason::Quarantined as u8 {
        return 1;
    }
    let Some(key) = rule else { return 7 };
    let policy = policies.iter().find(|policy| policy.key == key.policy);
    let found = policy.and_then(|policy| {
        let rule = key.index.and_then(|index| policy.section(key.direction)?.get(index as usize));
        Some((policy.layer, rule?.action))
    });
    match found {
        Some((Layer::Admin { .. }, _)) => 2,
        Some((Layer::Baseline { .. }, _)) => 6,
        Some((Layer::Namespaced, Action::Deny)) => 3,
        Some((Layer::Namespaced, Action::Allow | Action::Pass)) => 4,
        None => 5,
    }
}

/// A flow with what is known of its ends, or a socket that is created.
struct Flow<'a> {
    context: &'a Context<'a>,
    query: &'a Query,
    /// Whose rules are asked.
    section: RuleDirection,
    /// The kind of the socket that is created.
    kind: Option<SocketKind>,
    subject: Option<&'a IdentityKey>,
    peer: Option<&'a IdentityKey>,
}

impl<'a> Flow<'a> {
    fn new(context: &'a Context<'a>, query: &'a Query, section: RuleDirection) -> Self {
        let workload = |id: IdentityId| {
            let key = (id >= IdentityId::FIRST_WORKLOAD).then(|| context.registry.identity_key(id)).flatten();
            key.filter(|key| key.is_workload())
        };
        let (subject, peer) = (workload(query.subject), workload(query.peer));
        Self { context, query, section, kind: None, subject, peer }
    }

    fn selects(&self, policy: &Policy) -> bool {
        self.subject.is_some_and(|subject| policy.selects(subject, self.context.namespaces))
    }

    /// Every rule of the direction that is not over, with its name.
    fn rules<'p>(&self, policy: &'p Policy) -> impl Iterator<Item = (RuleKey, &'p Rule)> {
        let direction = self.section;
        let at = self.context.at;
        (0..)
            .zip(policy.section(direction).unwrap_or_default())
            .filter(move |(_, rule)| !rule.is_over(at))
            .map(move |(index, rule)| {
                (RuleKey { policy: policy.key.clone(), direction, index: Some(index) }, rule)
            })
    }

    /// The first rule of the admin tier that matches, if it passes.
    fn passed(&self, selecting: &[&Policy]) -> Option<RuleKey> {
        let mut ordered: Vec<(u16, &Policy)> = selecting
            .iter()
            .filter_map(|policy| match policy.layer {
                Layer::Admin { priority } => Some((priority, *policy)),
                Layer::Namespaced | Layer::Baseline { .. } => None,
            })
            .collect();
        ordered.sort_by_key(|(priority, policy)| (*priority, &policy.key.name, &policy.key));
        let mut rules = ordered.into_iter().flat_map(|(_, policy)| {
            self.rules(policy).map(move |(key, rule)| (policy, key, rule)).collect::<Vec<_>>()
        });
        let (_, key, rule) = rules.find(|(policy, _, rule)| self.matches(policy, rule))?;
        (rule.action == Action::Pass).then_some(key)
    }

    fn allowing(&self, selecting: &[&Policy]) -> Vec<RuleKey> {
        let mut allowing = Vec::new();
        for policy in selecting.iter().filter(|policy| policy.layer.isolates()) {
            let rules = self.rules(policy);
            let matching =
                rules.filter(|(_, rule)| rule.action == Action::Allow && self.matches(policy, rule));
            allowing.extend(matching.map(|(key, _)| key));
        }
        allowing
    }

    fn isolation(&self, policy: &Policy) -> Option<Isolation> {
        let direction = self.section;
        if !policy.isolates(direction) {
            return None;
        }
        let mut misses: Vec<Miss> = self
            .rules(policy)
            .filter(|(_, rule)| rule.action == Action::Allow && !self.matches(policy, rule))
            .map(|(key, rule)| Miss {
                rule: key,
                name: rule.name.clone(),
                peer: self.matches_peers(policy, rule),
                port: self.matches_port(rule, false),
                asked: port_text(self.query.protocol, self.query.port, self.query.port),
                ports: ports_text(&rule.ports),
            })
            .collect();
        misses.sort_by_key(|miss| Reverse((miss.peer, miss.port)));
        let rule = RuleKey { policy: policy.key.clone(), direction, index: None };
        Some(Isolation { rule, mode: policy.mode, misses })
    }

    /// Whether a rule matches the flow. An address has no names, so behind a block only numbers of ports count.
    fn matches(&self, policy: &Policy, rule: &Rule) -> bool {
        match &rule.peers {
            Peers::Everyone => self.matches_port(rule, false),
            Peers::AnyOf(peers) => peers.iter().any(|peer| {
                let is_address =
                    self.query.direction == Direction::Egress && matches!(peer, Peer::Cidr { .. });
                self.matches_peer(policy, peer) && self.matches_port(rule, is_address)
            }),
        }
    }

    fn matches_peers(&self, policy: &Policy, rule: &Rule) -> bool {
        match &rule.peers {
            Peers::Everyone => true,
            Peers::AnyOf(peers) => peers.iter().any(|peer| self.matches_peer(policy, peer)),
        }
    }

    fn matches_peer(&self, policy: &Policy, peer: &Peer) -> bool {
        match peer {
            Peer::Workloads { namespaces, selector, account } => self.peer.is_some_and(|key| {
                namespaces.contain(&key.namespace, &policy.key.namespace, self.context.namespaces)
                    && selector.matches(&key.labels)
                    && account.as_ref().is_none_or(|account| {
                        account.matches(self.context.trust_domain, &key.namespace, key.account.as_deref())
                    })
            }),
            Peer::Cidr { net, except } => is_inside(self.query.address, *net, except),
            Peer::Entity(Entity::Host) => self.query.peer == IdentityId::HOST,
            Peer::Entity(Entity::World) => self.query.peer == IdentityId::WORLD,
            Peer::Entity(Entity::Cluster) => self.query.peer == IdentityId::HOST || self.peer.is_some(),
            Peer::Entity(Entity::Unmanaged) => self.query.peer == IdentityId::UNMANAGED,
            Peer::Pending(_) => false,
        }
    }

    fn matches_port(&self, rule: &Rule, numbers_only: bool) -> bool {
        let Query { protocol, port, direction, .. } = *self.query;
        let items = match &rule.ports {
            Ports::AnyOf(items) => items,
            Ports::All => return true,
            Ports::Kinds(kinds) => return self.kind.is_some_and(|kind| kinds.contains(&kind)),
        };
        let server = match direction {
            Direction::Egress => self.peer,
            Direction::Ingress => self.subject,
        };
        items.iter().any(|item| match item {
            PortMatch::Range(range) => {
                range.protocol == protocol && (range.first..=range.last).contains(&port)
            }
            PortMatch::Named { protocol: wanted, name } => {
                let named = server.and_then(|server| server.ports.get(name));
                !numbers_only
                    && wanted.is_none_or(|wanted| wanted == protocol)
                    && named.is_some_and(|named| (named.protocol, named.port) == (protocol, port))
            }
        })
    }
}

fn ports_text(ports: &Ports) -> String {
    match ports {
        Ports::All => "all ports".to_owned(),
        Ports::Kinds(kinds) => kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", "),
        Ports::AnyOf(ranges) if ranges.is_empty() => "no ports".to_owned(),
        Ports::AnyOf(ranges) => {
            let text = |item: &PortMatch| match item {
                PortMatch::Range(range) => port_text(range.protocol, range.first, range.last),
                PortMatch::Named { name, .. } => format!("the port `{name}`"),
            };
            ranges.iter().map(text).collect::<Vec<_>>().join(", ")
        }
    }
}

fn port_text(number: u8, first: u16, last: u16) -> String {
    let protocol = match number {
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        132 => "SCTP".to_owned(),
        1 => "ICMP".to_owned(),
        58 => "ICMPv6".to_owned(),
        other => format!("protocol {other}"),
    };
    if let Some(name) = type_name(number, first).filter(|_| first == last) {
        return format!("{protocol} {name}");
    }
    match (first, last) {
        (0, u16::MAX) => protocol,
        (first, last) if first == last => format!("{protocol} {first}"),
        (first, last) => format!("{protocol} {first}-{last}"),
    }
}

#[cfg(test)]
mod tests;
