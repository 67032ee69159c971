//! The model as a document.

use enforcer::domain::container;
use enforcer::domain::labels::{Condition, Requirement, Selector};
use enforcer::domain::policy::document::version;
use enforcer::domain::policy::model::{
    Action, Entity, Layer, Namespaces, Peer, Peers, Pending, Policy, PolicyKind, PolicyMode, PortMatch,
    PortRange, Ports, Rule, RuleDirection,
};
use enforcer::domain::policy::ports::{OWN_PROTOCOLS, has_types};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

pub(crate) fn document(policy: &Policy) -> Value {
    let kind = policy.key.kind;
    let mut metadata = json!({ "name": policy.key.name });
    if kind.is_namespaced() {
        metadata["namespace"] = json!(policy.key.namespace);
    }
    let spec = match kind {
        PolicyKind::NetworkPolicy => network_policy(policy),
        PolicyKind::ClusterNetworkPolicy => cluster_network_policy(policy),
        PolicyKind::TrafficPolicy | PolicyKind::ClusterTrafficPolicy => traffic(policy),
    };
    json!({ "apiVersion": version(kind), "kind": kind.label(), "metadata": metadata, "spec": spec })
}

fn traffic(policy: &Policy) -> Value {
    let mut spec = Map::new();
    spec.insert("errno".into(), json!(policy.errno.name()));
    if policy.mode == PolicyMode::Audit {
        spec.insert("mode".into(), json!("audit"));
    }
    let subject = if policy.key.kind == PolicyKind::TrafficPolicy {
        selector(&policy.subject.selector)
    } else {
        let mut subject = namespaces(&policy.subject.namespaces);
        subject.insert("workloads".into(), selector(&policy.subject.selector));
        Value::Object(subject)
    };
    spec.insert("subject".into(), subject);
    layer(policy.layer, &mut spec);
    for (section, rules) in policy.sections() {
        let rules: Vec<Value> = rules.iter().map(|rule| traffic_rule(section, rule)).collect();
        spec.insert(section.label().into(), json!(rules));
    }
    Value::Object(spec)
}

fn layer(layer: Layer, spec: &mut Map<String, Value>) {
    let (tier, priority) = match layer {
        Layer::Admin { priority } => ("Admin", priority),
        Layer::Baseline { priority } => ("Baseline", priority),
        Layer::Namespaced => return,
    };
    spec.insert("tier".into(), json!(tier));
    spec.insert("priority".into(), json!(priority));
}

fn traffic_rule(section: RuleDirection, rule: &Rule) -> Value {
    let action = match rule.action {
        Action::Allow => "Allow",
        Action::Deny => "Deny",
        Action::Pass => "Pass",
    };
    let mut written = json!({ "action": action });
    if let Some(name) = &rule.name {
        written["name"] = json!(name);
    }
    if let Some(errno) = rule.errno {
        written["errno"] = json!(errno.name());
    }
    if let Peers::AnyOf(peers) = &rule.peers {
        let field = if section == RuleDirection::Egress { "to" } else { "from" };
        written[field] = peers.iter().map(traffic_peer).collect();
    }
    match &rule.ports {
        Ports::All => {}
        Ports::AnyOf(ports) => written["ports"] = ports.iter().map(port).collect(),
        Ports::Kinds(kinds) => written["kinds"] = kinds.iter().map(|kind| json!(kind.name())).collect(),
    }
    written
}

fn traffic_peer(peer: &Peer) -> Value {
    match peer {
        Peer::Workloads { namespaces: all, selector: labels, account } => {
            let mut written = match account {
                Some(account) if *all == Namespaces::All => {
                    Map::from_iter([("spiffe".to_owned(), json!(account.to_string()))])
                }
                Some(account) => {
                    let mut written = namespaces(all);
                    written.insert("serviceAccount".into(), json!(account.account));
                    written
                }
                None => namespaces(all),
            };
            written.insert("workloads".into(), selector(labels));
            Value::Object(written)
        }
        Peer::Cidr { net, except } => json!({ "cidr": net.to_string(), "except": texts(except) }),
        Peer::Entity(Entity::Host) => json!({ "entity": "host" }),
        Peer::Entity(Entity::World) => json!({ "entity": "world" }),
        Peer::Entity(Entity::Cluster) => json!({ "entity": "cluster" }),
        Peer::Entity(Entity::Unmanaged) => json!({ "entity": "unmanaged" }),
        Peer::Pending(_) => panic!("no such peer of this kind"),
    }
}

fn texts(nets: &[IpNet]) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}

fn namespaces(namespaces: &Namespaces) -> Map<String, Value> {
    match namespaces {
        Namespaces::Own => Map::new(),
        Namespaces::All => Map::from_iter([("namespaces".to_owned(), json!(["*"]))]),
        Namespaces::Named(names) => Map::from_iter([("namespaces".to_owned(), json!(names))]),
        Namespaces::Labelled(labels) => Map::from_iter([("namespaceSelector".to_owned(), selector(labels))]),
    }
}

fn protocol_name(number: u8) -> &'static str {
    OWN_PROTOCOLS.iter().find(|(_, known)| *known == number).unwrap().0
}

fn port(port: &PortMatch) -> Value {
    match port {
        PortMatch::Range(PortRange { protocol, first: 0, last: u16::MAX }) => {
            json!({ "protocol": protocol_name(*protocol) })
        }
        PortMatch::Range(PortRange { protocol, first, .. }) if has_types(*protocol) => {
            json!({ "protocol": protocol_name(*protocol), "types": [first] })
        }
        PortMatch::Range(PortRange { protocol, first, last }) => {
            json!({ "protocol": protocol_name(*protocol), "port": first, "endPort": last })
        }
        PortMatch::Named { protocol: Some(protocol), name } => {
            json!({ "protocol": protocol_name(*protocol), "port": name })
        }
        PortMatch::Named { protocol: None, name } => json!({ "port": name }),
    }
}

fn selector(selector: &Selector) -> Value {
    let container = container::named(selector).map(|name| json!(name));
    let expressions: Vec<Value> = selector
        .requirements
        .iter()
        .filter(|requirement| requirement.key != container::LABEL)
        .map(|Requirement { key, condition }| match condition {
            Condition::In(values) => json!({ "key": key, "operator": "In", "values": values }),
            Condition::NotIn(values) => json!({ "key": key, "operator": "NotIn", "values": values }),
            Condition::Exists => json!({ "key": key, "operator": "Exists" }),
            Condition::DoesNotExist => json!({ "key": key, "operator": "DoesNotExist" }),
        })
        .collect();
    let mut written = json!({});
    if !expressions.is_empty() {
        written["matchExpressions"] = json!(expressions);
    }
    if let Some(name) = container {
        written["container"] = name;
    }
    written
}

fn network_policy(policy: &Policy) -> Value {
    let mut types = Vec::new();
    let mut spec = json!({ "podSelector": selector(&policy.subject.selector) });
    for (section, rules) in policy.sections() {
        let (name, field) = match section {
            RuleDirection::Ingress => ("Ingress", "from"),
            RuleDirection::Egress => ("Egress", "to"),
            RuleDirection::Listen | RuleDirection::Sockets => panic!("no such section of this kind"),
        };
        types.push(name);
        let rules = rules.iter().map(|rule| {
            let mut written = json!({});
            // An empty list is everyone here, as a missing one is.
            written[field] = match &rule.peers {
                Peers::Everyone => json!([]),
                Peers::AnyOf(peers) => peers.iter().map(network_peer).collect(),
            };
            if let Ports::AnyOf(ports) = &rule.ports {
                written["ports"] = ports.iter().map(port).collect();
            }
            written
        });
        spec[section.label()] = rules.collect();
    }
    spec["policyTypes"] = json!(types);
    spec
}

fn network_peer(peer: &Peer) -> Value {
    match peer {
        Peer::Workloads { namespaces, selector: labels, account: None } => match namespaces {
            Namespaces::Own => json!({ "podSelector": selector(labels) }),
            Namespaces::All => json!({ "podSelector": selector(labels), "namespaceSelector": {} }),
            Namespaces::Labelled(namespaces) => {
                json!({ "podSelector": selector(labels), "namespaceSelector": selector(namespaces) })
            }
            Namespaces::Named(_) => panic!("no such peer of this kind"),
        },
        Peer::Cidr { net, except } => {
            json!({ "ipBlock": { "cidr": net.to_string(), "except": texts(except) } })
        }
        _ => panic!("no such peer of this kind"),
    }
}

fn pods(all: &Namespaces, labels: &Selector) -> Value {
    let namespaces = match all {
        Namespaces::All => json!({}),
        Namespaces::Labelled(namespaces) => selector(namespaces),
        _ => panic!("no such subject of this kind"),
    };
    json!({ "pods": { "namespaceSelector": namespaces, "podSelector": selector(labels) } })
}

fn cluster_network_policy(policy: &Policy) -> Value {
    let mut spec = Map::new();
    layer(policy.layer, &mut spec);
    spec.insert("subject".into(), pods(&policy.subject.namespaces, &policy.subject.selector));
    for (section, rules) in policy.sections() {
        let field = if section == RuleDirection::Egress { "to" } else { "from" };
        let rules: Vec<Value> = rules
            .iter()
            .map(|rule| {
                let action = match rule.action {
                    Action::Allow => "Accept",
                    Action::Deny => "Deny",
                    Action::Pass => "Pass",
                };
                let Peers::AnyOf(peers) = &rule.peers else { panic!("no such rule of this kind") };
                let peers: Vec<Value> = peers.iter().map(cluster_peer).collect();
                let mut written = json!({ "action": action });
                written[field] = json!(peers);
                if let Some(name) = &rule.name {
                    written["name"] = json!(name);
                }
                if let Ports::AnyOf(ports) = &rule.ports {
                    written["protocols"] = ports.iter().map(protocol).collect();
                }
                written
            })
            .collect();
        spec.insert(section.label().into(), json!(rules));
    }
    Value::Object(spec)
}

fn cluster_peer(peer: &Peer) -> Value {
    match peer {
        Peer::Workloads { namespaces, selector, account: None } => pods(namespaces, selector),
        Peer::Cidr { net, .. } => json!({ "networks": [net.to_string()] }),
        Peer::Pending(Pending::Domains(names)) => json!({ "domainNames": names }),
        Peer::Pending(Pending::Nodes(labels)) => json!({ "nodes": selector(labels) }),
        _ => panic!("no such peer of this kind"),
    }
}

fn protocol(port: &PortMatch) -> Value {
    match port {
        PortMatch::Named { name, .. } => json!({ "destinationNamedPort": name }),
        PortMatch::Range(range) => {
            let name = protocol_name(range.protocol).to_lowercase();
            let port = if range.first == range.last {
                json!({ "number": range.first })
            } else {
                json!({ "range": { "start": range.first, "end": range.last } })
            };
            json!({ name: { "destinationPort": port } })
        }
    }
}
