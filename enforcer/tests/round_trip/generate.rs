//! Policies that each kind can say.

use enforcer::domain::account::AccountPattern;
use enforcer::domain::container;
use enforcer::domain::labels::{Condition, Requirement, Selector};
use enforcer::domain::policy::model::{
    Action, Entity, Layer, Namespaces, Peer, Peers, Pending, Policy, PolicyKey, PolicyKind, PolicyMode,
    PortMatch, PortRange, Ports, Rule, Subject,
};
use enforcer_common::abi::config::SocketKind;
use enforcer_common::reason::Errno;
use ipnet::IpNet;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

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

/// Of rules that may speak of ICMP.
fn ports_and_types() -> impl Strategy<Value = Ports> {
    let message = select(&[(1_u8, 8_u16), (1, 3), (1, 255), (58, 128), (58, 1)]);
    let types = (message, any::<bool>()).prop_map(|((protocol, kind), all)| {
        let (first, last) = if all { (0, u16::MAX) } else { (kind, kind) };
        PortMatch::Range(PortRange { protocol, first, last })
    });
    prop_oneof![3 => ports(true, true), 1 => vec(types, 1..4).prop_map(Ports::AnyOf)]
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

pub(crate) fn policy(kind: PolicyKind) -> BoxedStrategy<Policy> {
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
        sockets: None,
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
    let section = rules(rule(peers, ports_and_types(), actions)).boxed();
    let listen = rules(rule(Just(Peers::Everyone), ports(true, true), &[Action::Allow, Action::Deny]));
    // Only policies of the cluster allow kinds.
    let about_kinds: &[Action] = if is_cluster { actions } else { &[Action::Deny] };
    let kinds = vec(select(SocketKind::ALL), 1..4).prop_map(|mut kinds| {
        kinds.sort_unstable();
        kinds.dedup();
        kinds.reverse();
        Ports::Kinds(kinds)
    });
    let sockets = option::of(vec(rule(Just(Peers::Everyone), kinds, about_kinds), 1..4));
    let layer = if ordered { tier().boxed() } else { Just(Layer::Namespaced).boxed() };
    let errno = select(&[Errno::Perm, Errno::ConnRefused]);
    let sections = (section.clone(), section, listen, sockets);
    let policy = (some(), labels(), layer, sections, errno).prop_map(
        move |(namespaces, selector, layer, (ingress, egress, listen, sockets), errno)| {
            let namespaces = if is_cluster { namespaces } else { Namespaces::Own };
            let listen = if ordered { None } else { listen };
            let is_empty = egress.is_none() && listen.is_none() && sockets.is_none();
            let ingress = if is_empty { ingress.or(Some(vec![])) } else { ingress };
            let made = make(kind, Subject { namespaces, selector }, layer);
            Policy { ingress, egress, listen, sockets, errno, ..made }
        },
    );
    (policy, option::of(any::<bool>())).prop_map(|(policy, place)| with_container(policy, place)).boxed()
}

/// Names a container as the subject, or as a peer of ingress; nowhere else and never in both places.
fn with_container(mut policy: Policy, place: Option<bool>) -> Policy {
    let name = |selector: &mut Selector| {
        selector.requirements.push(container::is_called("proxy"));
        selector.requirements.sort();
    };
    match place {
        None => {}
        Some(true) => name(&mut policy.subject.selector),
        Some(false) => {
            for rule in policy.ingress.iter_mut().flatten() {
                let Peers::AnyOf(peers) = &mut rule.peers else { continue };
                for peer in peers {
                    if let Peer::Workloads { selector, .. } = peer {
                        name(selector);
                    }
                }
            }
        }
    }
    policy
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
