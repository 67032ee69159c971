//! What is told of single flows.

use std::collections::BTreeSet;

use enforcer_common::address::Address;
use enforcer_common::reason::Errno;
use enforcer_common::verdict::Direction;

use super::*;
use crate::domain::labels::{Condition, LabelSet, Requirement, Selector};
use crate::domain::policy::compile::{Scene, compile_scene};
use crate::domain::policy::model::{
    Layer, Namespaces, PolicyKey, PolicyKind, PolicyMode, PortRange, Subject,
};
use crate::domain::workload::NamedPort;
use enforcer_common::id::Generation;

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

/// Some rules that say something of `api`, and some that don't.
fn for_db() -> Policy {
    Policy {
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
        sockets: None,
        expires: None,
    }
}

#[test]
fn the_nearest_miss_comes_first() {
    let mut registry = Registry::default();
    let mut id = |value: &str| {
        let labels = LabelSet([("app".to_owned(), value.to_owned())].into());
        registry.identity(&IdentityKey::new("default", labels))
    };
    let (db, api, web) = (id("db"), id("api"), id("web"));
    let policies = [for_db()];
    let scene = Scene::default();
    let (namespaces, trust_domain) = (&scene.namespaces, &scene.trust_domain);
    let context = Context {
        registry: &registry,
        namespaces,
        trust_domain,
        at: Timestamp::EARLIEST,
        hypothetical: false,
    };
    let check = |subject, peer, address, port, direction, expect: &[&str]| {
        let address = Address::v4(address);
        let query = Query { subject, peer, address, port, protocol: 6, direction };
        let isolations = why(&policies, &context, &query);
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

/// An admin tier that denies `web`, passes `api` and would allow it later, and a policy that lets `api` call a named port.
fn tiers() -> [Policy; 3] {
    let tier = |name: &str, layer, rules| Policy {
        key: PolicyKey::cluster(PolicyKind::ClusterNetworkPolicy, name),
        layer,
        mode: PolicyMode::Enforce,
        errno: Errno::Perm,
        subject: Subject { namespaces: Namespaces::All, selector: app("db") },
        ingress: Some(rules),
        egress: None,
        listen: None,
        sockets: None,
        expires: None,
    };
    let rule = |action, value: &str, ports| Rule {
        name: None,
        action,
        peers: Peers::AnyOf(vec![Peer::Workloads {
            namespaces: Namespaces::All,
            selector: app(value),
            account: None,
        }]),
        ports,
        errno: None,
        expires: None,
    };
    let named = Ports::AnyOf(vec![PortMatch::Named { protocol: None, name: "sql".into() }]);
    let own = Policy {
        key: PolicyKey { kind: PolicyKind::NetworkPolicy, ..PolicyKey::traffic("shop", "db") },
        subject: Subject::own(app("db")),
        ..tier("", Layer::Namespaced, vec![rule(Action::Allow, "api", named)])
    };
    let early = vec![rule(Action::Deny, "web", Ports::All), rule(Action::Pass, "api", Ports::All)];
    [
        own,
        tier("late", Layer::Admin { priority: 9 }, vec![rule(Action::Allow, "api", Ports::All)]),
        tier("early", Layer::Admin { priority: 1 }, early),
    ]
}

#[test]
fn tiers_are_told_with_what_they_pass() {
    let mut registry = Registry::default();
    let mut id = |value: &str, ports: &[(&str, u16)]| {
        let labels = LabelSet([("app".to_owned(), value.to_owned())].into());
        let named = |(name, port): &(&str, u16)| ((*name).to_owned(), NamedPort { protocol: 6, port: *port });
        let ports = ports.iter().map(named).collect();
        registry.identity(&IdentityKey { ports, ..IdentityKey::new("shop", labels) })
    };
    let (db, api, web) = (id("db", &[("sql", 5_432)]), id("api", &[]), id("web", &[]));
    let policies = tiers();
    let scene = Scene::default();
    let table = compile_scene(&policies, &scene, &mut registry, Generation(1)).unwrap();
    let context = Context {
        registry: &registry,
        namespaces: &scene.namespaces,
        trust_domain: &scene.trust_domain,
        at: scene.at,
        hypothetical: false,
    };
    let told = |peer, port| {
        let (address, direction) = (Address::v4(1), Direction::Ingress);
        let query = Query { subject: db, peer, address, port, protocol: 6, direction };
        let found = explain(&policies, &context, &query, table.decide(&query).enforced);
        let text = |key: Option<RuleKey>| key.map_or_else(|| "-".to_owned(), |key| key.to_string());
        let isolated: Vec<String> =
            found.isolations.iter().flat_map(|one| one.misses.iter().map(ToString::to_string)).collect();
        format!(
            "{} {} passed {} {}",
            found.precedence,
            text(found.rule),
            text(found.passed),
            isolated.join(";")
        )
    };
    assert_eq!(
        told(web, 5_432),
        "2 clusternetworkpolicy/early ingress[0] passed - networkpolicy/shop/db ingress[0] matched TCP 5432, but \
         not the peer"
    );
    assert_eq!(
        told(api, 5_432),
        "4 networkpolicy/shop/db ingress[0] passed clusternetworkpolicy/early ingress[1] "
    );
    assert_eq!(
        told(api, 80),
        "5 networkpolicy/shop/db ingress (isolated) passed clusternetworkpolicy/early ingress[1] \
         networkpolicy/shop/db ingress[0] matched the peer, but allows the port `sql`, not TCP 80"
    );
}
