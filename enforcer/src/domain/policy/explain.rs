//! Why a flow met isolation: which policies isolate the subject, and what their allow rules missed it by.

use std::cmp::Reverse;
use std::fmt;

use enforcer_common::id::IdentityId;
use enforcer_common::verdict::Query;

use super::compile::is_inside;
use super::model::{Action, Entity, Peer, Peers, Policy, PortMatch, Ports, Rule, RuleKey};
use crate::domain::cluster::NamespaceLabels;
use crate::domain::registry::{IdentityKey, Registry};

/// A policy that isolates the subject in the direction of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// The isolation, as a denial names it.
    pub rule: RuleKey,
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

/// The policies that isolate the subject of a flow in its direction, in the order given. Empty for subjects that are
/// not workloads.
pub fn why<'a>(
    policies: impl IntoIterator<Item = &'a Policy>,
    (registry, labels): (&Registry, &NamespaceLabels),
    query: &Query,
) -> Vec<Isolation> {
    let Some(subject) = workload(registry, query.subject) else { return Vec::new() };
    let peer = workload(registry, query.peer);
    let mut isolations = Vec::new();
    for policy in policies {
        if !policy.layer.isolates() || !policy.selects(subject, labels) {
            continue;
        }
        let Some(rules) = policy.rules(query.direction) else { continue };
        let key = |index| RuleKey { policy: policy.key.clone(), direction: query.direction.into(), index };
        let mut misses: Vec<Miss> = (0..)
            .zip(rules)
            .filter(|(_, rule)| rule.action == Action::Allow)
            .map(|(index, rule)| Miss {
                rule: key(Some(index)),
                name: rule.name.clone(),
                peer: matches_peer(policy, rule, query, (peer, labels)),
                port: matches_port(rule, query),
                asked: port_text(query.protocol, query.port, query.port),
                ports: ports_text(&rule.ports),
            })
            .filter(|miss| !(miss.peer && miss.port))
            .collect();
        misses.sort_by_key(|miss| Reverse((miss.peer, miss.port)));
        isolations.push(Isolation { rule: key(None), misses });
    }
    isolations
}

/// What is known of a workload's identity; nothing of a reserved one.
fn workload(registry: &Registry, id: IdentityId) -> Option<&IdentityKey> {
    if id < IdentityId::FIRST_WORKLOAD { None } else { registry.identity_key(id) }
}

fn matches_peer(
    policy: &Policy,
    rule: &Rule,
    query: &Query,
    (workload, labels): (Option<&IdentityKey>, &NamespaceLabels),
) -> bool {
    let Peers::AnyOf(peers) = &rule.peers else { return true };
    peers.iter().any(|peer| match peer {
        Peer::Workloads { namespaces, selector, account } => workload.is_some_and(|key| {
            namespaces.contain(&key.namespace, &policy.key.namespace, labels)
                && selector.matches(&key.labels)
                && account
                    .as_ref()
                    .is_none_or(|account| account.matches(&key.namespace, key.account.as_deref()))
        }),
        Peer::Cidr { net, except } => is_inside(query.address, *net, except),
        Peer::Entity(Entity::Host) => query.peer == IdentityId::HOST,
        Peer::Entity(Entity::World) => query.peer == IdentityId::WORLD,
        Peer::Entity(Entity::Cluster) => query.peer == IdentityId::HOST || workload.is_some(),
        Peer::Entity(Entity::Unmanaged) => query.peer == IdentityId::UNMANAGED,
        Peer::Pending(_) => false,
    })
}

fn matches_port(rule: &Rule, query: &Query) -> bool {
    match &rule.ports {
        Ports::All => true,
        Ports::AnyOf(items) => items.iter().any(|item| match item {
            PortMatch::Range(range) => {
                range.protocol == query.protocol && (range.first..=range.last).contains(&query.port)
            }
            PortMatch::Named { .. } => false,
        }),
    }
}

fn ports_text(ports: &Ports) -> String {
    match ports {
        Ports::All => "all ports".to_owned(),
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

fn port_text(protocol: u8, first: u16, last: u16) -> String {
    let protocol = match protocol {
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    };
    match (first, last) {
        (0, u16::MAX) => protocol,
        (first, last) if first == last => format!("{protocol} {first}"),
        (first, last) => format!("{protocol} {first}-{last}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use enforcer_common::address::Address;
    use enforcer_common::reason::Errno;
    use enforcer_common::verdict::Direction;

    use super::*;
    use crate::domain::labels::{Condition, LabelSet, Requirement, Selector};
    use crate::domain::policy::model::{Layer, Namespaces, PolicyKey, PolicyMode, PortRange, Subject};

    fn app(value: &str) -> Selector {
        let condition = Condition::In(BTreeSet::from([value.to_owned()]));
        Selector { requirements: vec![Requirement { key: "app".into(), condition }] }
    }

    fn rule(action: Action, peer: Peer, ports: &[(u16, u16)]) -> Rule {
        let range = |(first, last): &(u16, u16)| PortRange { protocol: 6, first: *first, last: *last };
        let ports = Ports::AnyOf(ports.iter().map(range).map(PortMatch::Range).collect());
        Rule { name: None, action, peers: Peers::AnyOf(vec![peer]), ports, errno: None, expires: None }
    }

    fn workloads(value: &str) -> Peer {
        Peer::Workloads { namespaces: Namespaces::Own, selector: app(value), account: None }
    }

    #[test]
    fn the_nearest_miss_comes_first() {
        let mut registry = Registry::default();
        let mut id = |value: &str| {
            let labels = LabelSet([("app".to_owned(), value.to_owned())].into());
            registry.identity(&IdentityKey::new("default", labels))
        };
        let (db, api, web) = (id("db"), id("api"), id("web"));
        let policies = [Policy {
            key: PolicyKey::traffic("default", "db"),
            mode: PolicyMode::Enforce,
            errno: Errno::Perm,
            layer: Layer::Namespaced,
            subject: Subject::own(app("db")),
            ingress: Some(vec![
                rule(Action::Allow, workloads("web"), &[(9_000, 9_009), (0, u16::MAX)]),
                rule(Action::Deny, workloads("api"), &[(1, 1)]),
                rule(Action::Allow, workloads("api"), &[(8_080, 8_080)]),
                rule(
                    Action::Allow,
                    Peer::Cidr {
                        net: "10.0.0.0/8".parse().unwrap(),
                        except: vec!["10.9.0.0/16".parse().unwrap()],
                    },
                    &[],
                ),
                rule(Action::Allow, Peer::Entity(Entity::Host), &[(22, 22)]),
            ]),
            egress: None,
            listen: None,
            expires: None,
        }];
        let check = |subject, peer, address, port, direction, expect: &[&str]| {
            let address = Address::v4(address);
            let query = Query { subject, peer, address, port, protocol: 6, direction };
            let isolations = why(&policies, (&registry, &NamespaceLabels::default()), &query);
            let found: Vec<String> =
                isolations.iter().flat_map(|one| one.misses.iter().map(ToString::to_string)).collect();
            assert_eq!(found, expect, "{query:?}");
            isolations.len()
        };
        let (inside, excepted) = (0x0a00_0001, 0x0a09_0001);
        let count = check(
            db,
            api,
            inside,
            8_081,
            Direction::Ingress,
            &[
                "default/db ingress[2] matched the peer, but allows TCP 8080, not TCP 8081",
                "default/db ingress[3] matched the peer, but allows no ports, not TCP 8081",
                "default/db ingress[0] matched TCP 8081, but not the peer",
                "default/db ingress[4] matched neither the peer nor TCP 8081",
            ],
        );
        assert_eq!(count, 1);
        let count = check(
            db,
            IdentityId::HOST,
            excepted,
            8_080,
            Direction::Ingress,
            &[
                "default/db ingress[4] matched the peer, but allows TCP 22, not TCP 8080",
                "default/db ingress[0] matched TCP 8080, but not the peer",
                "default/db ingress[2] matched TCP 8080, but not the peer",
                "default/db ingress[3] matched neither the peer nor TCP 8080",
            ],
        );
        assert_eq!(count, 1);
        assert_eq!(check(db, web, inside, 1, Direction::Egress, &[]), 0);
        assert_eq!(check(web, db, inside, 1, Direction::Ingress, &[]), 0);
        assert_eq!(check(IdentityId::UNMANAGED, db, inside, 1, Direction::Ingress, &[]), 0);
    }
}
