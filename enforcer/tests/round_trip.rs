//! Every kind of policy written as a document and read again is the same policy.
//!
//! What matters most is what is not there: an empty list of peers must never come back as everyone, nor everyone as
//! nobody.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the lints' exception for tests does not see helper functions"
)]

use std::collections::BTreeSet;

use enforcer::domain::account::AccountPattern;
use enforcer::domain::command::PolicyFile;
use enforcer::domain::labels::{Condition, Requirement, Selector};
use enforcer::domain::policy::check::check;
use enforcer::domain::policy::document::version;
use enforcer::domain::policy::model::{
    Action, Entity, Layer, Namespaces, Peer, Peers, Pending, Policy, PolicyKey, PolicyKind, PolicyMode,
    PortMatch, PortRange, Ports, Rule, RuleDirection, Subject,
};
use enforcer::domain::policy::ports::PROTOCOLS;
use enforcer_common::reason::Errno;
use ipnet::IpNet;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

// === the model as a document ===

fn document(policy: &Policy) -> Value {
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
    if let Ports::AnyOf(ports) = &rule.ports {
        written["ports"] = ports.iter().map(port).collect();
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
    PROTOCOLS.iter().find(|(_, known)| *known == number).unwrap().0
}

fn port(port: &PortMatch) -> Value {
    match port {
        PortMatch::Range(PortRange { protocol, first: 0, last: u16::MAX }) => {
            json!({ "protocol": protocol_name(*protocol) })
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
    let expressions: Vec<Value> = selector
        .requirements
        .iter()
        .map(|Requirement { key, condition }| match condition {
            Condition::In(values) => json!({ "key": key, "operator": "In", "values": values }),
            Condition::NotIn(values) => json!({ "key": key, "operator": "NotIn", "values": values }),
            Condition::Exists => json!({ "key": key, "operator": "Exists" }),
            Condition::DoesNotExist => json!({ "key": key, "operator": "DoesNotExist" }),
        })
        .collect();
    if expressions.is_empty() { json!({}) } else { json!({ "matchExpressions": expressions }) }
}

fn network_policy(policy: &Policy) -> Value {
    let mut types = Vec::new();
    let mut spec = json!({ "podSelector": selector(&policy.subject.selector) });
    for (section, rules) in policy.sections() {
        let (name, field) = match section {
            RuleDirection::Ingress => ("Ingress", "from"),
            RuleDirection::Egress => ("Egress", "to"),
            RuleDirection::Listen => panic!("no such section of this kind"),
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

// === policies that each kind can say ===

fn labels() -> impl Strategy<Value = Selector> {
    let values = || btree_set(select(&["a", "b", ""]).prop_map(str::to_owned), 1..3);
    let condition = prop_oneof![
        values().prop_map(Condition::In),
        values().prop_map(Condition::NotIn),
        Just(Condition::Exists),
        Just(Condition::DoesNotExist),
    ];
    let requirement = (select(&["app", "x.y/z", "tier"]), condition)
        .prop_map(|(key, condition)| Requirement { key: key.to_owned(), condition });
    // A check sorts them and drops what is said twice.
    btree_set(requirement, 0..3).prop_map(|found| Selector { requirements: found.into_iter().collect() })
}

fn conditions() -> impl Strategy<Value = Selector> {
    labels().prop_filter("a selector without conditions is every namespace", |found| {
        !found.requirements.is_empty()
    })
}

fn net() -> impl Strategy<Value = IpNet> {
    select(&["192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "198.51.100.7/32"])
        .prop_map(|text| text.parse().unwrap())
}

fn block() -> impl Strategy<Value = Peer> {
    (net(), any::<bool>()).prop_map(|(net, with_except)| {
        let except = net.subnets(net.max_prefix_len().min(net.prefix_len() + 1)).unwrap();
        let except = except.filter(|part| with_except && *part != net).take(1).collect();
        Peer::Cidr { net, except }
    })
}

fn ports(zero: bool, no_protocol: bool) -> impl Strategy<Value = Ports> {
    let protocol = || select(&[6_u8, 17, 132]);
    let range = (protocol(), 1_u16..=u16::MAX, any::<u16>(), any::<bool>()).prop_map(
        move |(protocol, first, length, all)| {
            let last = first.saturating_add(length);
            if all && zero {
                return PortMatch::Range(PortRange { protocol, first: 0, last: u16::MAX });
            }
            PortMatch::Range(PortRange { protocol, first, last })
        },
    );
    let named =
        (protocol(), select(&["http", "a-1"]), any::<bool>()).prop_map(move |(protocol, name, any)| {
            PortMatch::Named { protocol: (!(any && no_protocol)).then_some(protocol), name: name.to_owned() }
        });
    let listed = vec(prop_oneof![range, named], 1..4).prop_map(Ports::AnyOf);
    prop_oneof![Just(Ports::All), listed]
}

fn rule(
    peers: impl Strategy<Value = Peers>,
    ports: impl Strategy<Value = Ports>,
    actions: &'static [Action],
) -> impl Strategy<Value = Rule> {
    (peers, ports, select(actions)).prop_map(|(peers, ports, action)| Rule {
        name: None,
        action,
        peers,
        ports,
        errno: None,
        expires: None,
    })
}

fn rules(rule: impl Strategy<Value = Rule>) -> impl Strategy<Value = Option<Vec<Rule>>> {
    option::of(vec(rule, 0..4))
}

fn policy(kind: PolicyKind) -> BoxedStrategy<Policy> {
    match kind {
        PolicyKind::TrafficPolicy => traffic_policy(kind, false),
        PolicyKind::ClusterTrafficPolicy => {
            prop_oneof![traffic_policy(kind, false), traffic_policy(kind, true)].boxed()
        }
        PolicyKind::NetworkPolicy => any_network_policy(),
        PolicyKind::ClusterNetworkPolicy => any_cluster_network_policy(),
    }
}

fn make(kind: PolicyKind, subject: Subject, layer: Layer) -> Policy {
    let key = if kind.is_namespaced() {
        PolicyKey { kind, namespace: "shop".into(), name: "p".into() }
    } else {
        PolicyKey::cluster(kind, "p")
    };
    Policy {
        key,
        layer,
        mode: PolicyMode::Enforce,
        errno: Errno::default(),
        subject,
        ingress: None,
        egress: None,
        listen: None,
        expires: None,
    }
}

fn tier() -> impl Strategy<Value = Layer> {
    (any::<bool>(), 0_u16..=1_000).prop_map(|(is_admin, priority)| {
        if is_admin { Layer::Admin { priority } } else { Layer::Baseline { priority } }
    })
}

fn traffic_policy(kind: PolicyKind, ordered: bool) -> BoxedStrategy<Policy> {
    let is_cluster = kind == PolicyKind::ClusterTrafficPolicy;
    let own = if is_cluster { Namespaces::All } else { Namespaces::Own };
    let some = move || {
        prop_oneof![
            Just(own.clone()),
            Just(Namespaces::Named(vec!["a".into(), "b".into()])),
            Just(Namespaces::All),
            conditions().prop_map(Namespaces::Labelled),
        ]
    };
    let account = option::of((any::<bool>(), any::<bool>()));
    let workloads = (some(), labels(), account).prop_map(|(namespaces, selector, account)| {
        let account = account.map(|(domain, namespace)| AccountPattern {
            // Only a whole ID says these.
            trust_domain: (domain && namespaces == Namespaces::All).then(|| "cluster.local".to_owned()),
            namespace: (namespace && namespaces == Namespaces::All).then(|| "a".to_owned()),
            account: Some("api".to_owned()),
        });
        Peer::Workloads { namespaces, selector, account }
    });
    let entity = select(&[Entity::Host, Entity::World, Entity::Cluster, Entity::Unmanaged]);
    let peer = prop_oneof![workloads, block(), entity.prop_map(Peer::Entity)].boxed();
    let peers = prop_oneof![Just(Peers::Everyone), vec(peer, 1..4).prop_map(Peers::AnyOf)].boxed();
    let actions: &[Action] =
        if ordered { &[Action::Allow, Action::Deny, Action::Pass] } else { &[Action::Allow, Action::Deny] };
    let section = rules(rule(peers, ports(true, true), actions)).boxed();
    let listen = rules(rule(Just(Peers::Everyone), ports(true, true), &[Action::Allow, Action::Deny]));
    let layer = if ordered { tier().boxed() } else { Just(Layer::Namespaced).boxed() };
    let errno = select(&[Errno::Perm, Errno::ConnRefused]);
    (some(), labels(), layer, section.clone(), section, listen, errno)
        .prop_map(move |(namespaces, selector, layer, ingress, egress, listen, errno)| {
            let namespaces = if is_cluster { namespaces } else { Namespaces::Own };
            let listen = if ordered { None } else { listen };
            let ingress =
                if egress.is_none() && listen.is_none() { ingress.or(Some(vec![])) } else { ingress };
            let made = make(kind, Subject { namespaces, selector }, layer);
            Policy { ingress, egress, listen, errno, ..made }
        })
        .boxed()
}

fn any_network_policy() -> BoxedStrategy<Policy> {
    let some = prop_oneof![
        Just(Namespaces::Own),
        Just(Namespaces::All),
        conditions().prop_map(Namespaces::Labelled)
    ];
    let workloads = (some, labels()).prop_map(|(namespaces, selector)| Peer::Workloads {
        namespaces,
        selector,
        account: None,
    });
    let peers = vec(prop_oneof![workloads, block()], 1..4).prop_map(Peers::AnyOf);
    let peers = prop_oneof![Just(Peers::Everyone), peers].boxed();
    let section = rules(rule(peers, ports(true, false), &[Action::Allow])).boxed();
    (labels(), section.clone(), section)
        .prop_map(|(selector, ingress, egress)| {
            // The API has no policy that isolates in no direction.
            let ingress = if egress.is_none() { ingress.or(Some(vec![])) } else { ingress };
            let made = make(PolicyKind::NetworkPolicy, Subject::own(selector), Layer::Namespaced);
            Policy { ingress, egress, ..made }
        })
        .boxed()
}

fn any_cluster_network_policy() -> BoxedStrategy<Policy> {
    let some = || prop_oneof![Just(Namespaces::All), conditions().prop_map(Namespaces::Labelled)];
    let workloads = || {
        (some(), labels()).prop_map(|(namespaces, selector)| Peer::Workloads {
            namespaces,
            selector,
            account: None,
        })
    };
    let elsewhere = prop_oneof![
        net().prop_map(|net| Peer::Cidr { net, except: Vec::new() }),
        labels().prop_map(|labels| Peer::Pending(Pending::Nodes(labels))),
        Just(Peer::Pending(Pending::Domains(vec!["*.example.com".into(), "example.org".into()]))),
    ];
    let actions: &[Action] = &[Action::Allow, Action::Deny, Action::Pass];
    let of_pods = rule(vec(workloads(), 1..4).prop_map(Peers::AnyOf), ports(false, true), actions);
    // A name without a protocol is the only kind of name here.
    let of_pods = of_pods.prop_map(|mut rule| {
        if let Ports::AnyOf(ports) = &mut rule.ports {
            for port in ports {
                if let PortMatch::Named { protocol, .. } = port {
                    *protocol = None;
                }
            }
        }
        rule
    });
    let out = rule(vec(elsewhere, 1..4).prop_map(Peers::AnyOf), Just(Ports::All), &[Action::Allow]);
    let of_pods = of_pods.boxed();
    let ingress = vec(of_pods.clone(), 0..4);
    let egress = vec(prop_oneof![of_pods, out], 0..4);
    (tier(), some(), labels(), ingress, egress)
        .prop_map(|(layer, namespaces, selector, ingress, egress)| {
            let made = make(PolicyKind::ClusterNetworkPolicy, Subject { namespaces, selector }, layer);
            let some = |rules: Vec<Rule>| (!rules.is_empty()).then_some(rules);
            Policy { ingress: some(ingress), egress: some(egress), ..made }
        })
        .boxed()
}

/// Reads a document that must be right.
fn read(document: &Value) -> Policy {
    let text = document.to_string();
    let outcome = check(&[PolicyFile { name: "p".into(), text: text.clone() }]);
    assert!(outcome.is_ok(), "{text}\n{:#?}", outcome.diagnostics);
    let policy = outcome.policies.first().unwrap().policy.clone();
    let again = check(&[PolicyFile { name: "p".into(), text: outcome.policies[0].text.clone() }]);
    assert_eq!(again.policies.first().map(|checked| &checked.policy), Some(&policy));
    policy
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn every_kind_comes_back(policy in select(&PolicyKind::ALL).prop_flat_map(policy)) {
        let written = document(&policy);
        prop_assert_eq!(&read(&written), &policy, "{}", written);
        // The same as an item of a list, and as an API server gives it back.
        let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": [written] });
        prop_assert_eq!(&read(&list), &policy);
    }
}

#[test]
fn null_missing_and_empty_mean_what_kubernetes_says() {
    let policy = |rule: Value| {
        let read = read(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "p" },
            "spec": { "podSelector": null, "ingress": [rule] },
        }));
        read.ingress.unwrap().remove(0)
    };
    for everyone in [json!({}), json!({ "from": null }), json!({ "from": [] })] {
        assert_eq!(policy(everyone).peers, Peers::Everyone);
    }
    for all in [json!({}), json!({ "ports": null }), json!({ "ports": [] })] {
        assert_eq!(policy(all).ports, Ports::All);
    }
    let own = policy(json!({ "from": [{ "podSelector": {}, "namespaceSelector": null }] }));
    let all = Selector { requirements: Vec::new() };
    let peer =
        |namespaces| Peers::AnyOf(vec![Peer::Workloads { namespaces, selector: all.clone(), account: None }]);
    assert_eq!(own.peers, peer(Namespaces::Own));
    let every = policy(json!({ "from": [{ "namespaceSelector": {} }] }));
    assert_eq!(every.peers, peer(Namespaces::All));
    // Neither of these is everyone, or nobody: they are refused.
    for refused in [json!([{}]), json!([{ "podSelector": null }]), json!([null])] {
        let text = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "p" },
            "spec": { "ingress": [{ "from": refused }] },
        });
        let outcome = check(&[PolicyFile { name: "p".into(), text: text.to_string() }]);
        assert!(!outcome.is_ok() && outcome.policies.is_empty(), "{text}");
    }
}

#[test]
fn policy_types_default_as_the_api_does() {
    let directions = |spec: Value| {
        let read = read(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "p" },
            "spec": spec,
        }));
        let found: BTreeSet<_> =
            read.sections().map(|(section, rules)| (section.label(), rules.len())).collect();
        found.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(directions(json!({})), [("ingress", 0)]);
    assert_eq!(directions(json!(null)), [("ingress", 0)]);
    assert_eq!(directions(json!({ "egress": [] })), [("ingress", 0)]);
    assert_eq!(directions(json!({ "egress": [{}] })), [("egress", 1), ("ingress", 0)]);
    assert_eq!(directions(json!({ "policyTypes": [], "egress": [{}] })), [("egress", 1), ("ingress", 0)]);
    assert_eq!(directions(json!({ "policyTypes": ["Egress"], "ingress": [{}] })), [("egress", 0)]);
    assert_eq!(directions(json!({ "policyTypes": ["Egress", "Ingress"] })), [("egress", 0), ("ingress", 0)]);
}

#[test]
fn what_an_api_server_adds_loads_unchanged() {
    let text = include_str!("documents/from-api-server.yaml");
    let outcome = check(&[PolicyFile { name: "p".into(), text: text.into() }]);
    assert!(outcome.diagnostics.is_empty(), "{:#?}", outcome.diagnostics);
    let names: Vec<_> = outcome.policies.iter().map(|checked| checked.policy.key.to_string()).collect();
    assert_eq!(
        names,
        [
            "networkpolicy/shop/db",
            "clusternetworkpolicy/admin",
            "networkpolicy/default/bare",
            "networkpolicy/default/flow",
        ]
    );
    for checked in &outcome.policies {
        let again = check(&[PolicyFile { name: "p".into(), text: checked.text.clone() }]);
        assert_eq!(again.policies.len(), 1, "{}\n{:#?}", checked.text, again.diagnostics);
        assert_eq!(again.policies[0].policy, checked.policy);
    }
}
