//! Single statements about compiled tables; the property tests compare whole tables with the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use enforcer_common::address::Address;
use enforcer_common::verdict::Query;

use super::*;
use crate::domain::labels::{Condition, LabelSet, Requirement, Selector};
use crate::domain::policy::model::{Namespaces, PolicyKey, PortRange, Ports};
use crate::domain::registry::IdentityKey;

fn labels(text: &str) -> LabelSet {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    LabelSet(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>())
}

fn selector(text: &str) -> Selector {
    let requirements = labels(text)
        .0
        .into_iter()
        .map(|(key, value)| Requirement { key, condition: Condition::In(BTreeSet::from([value])) });
    Selector { requirements: requirements.collect() }
}

fn allow(peers: Peers, ports: Ports) -> Rule {
    Rule { name: None, action: Action::Allow, peers, ports, errno: None }
}

fn app(text: &str) -> Peers {
    Peers::AnyOf(vec![Peer::Workloads { namespaces: Namespaces::Own, selector: selector(text) }])
}

fn tcp(ports: &[(u16, u16)]) -> Ports {
    Ports::AnyOf(
        ports.iter().map(|(first, last)| PortRange { protocol: 6, first: *first, last: *last }).collect(),
    )
}

fn policy(name: &str, subject: &str, ingress: Vec<Rule>) -> Policy {
    Policy {
        key: PolicyKey { namespace: "default".into(), name: name.into() },
        mode: PolicyMode::Enforce,
        errno: Errno::ConnRefused,
        subject: selector(subject),
        ingress: Some(ingress),
        egress: None,
    }
}

/// A registry that knows these identities of namespace `default`, and their numbers.
fn world(texts: &[&str]) -> (Registry, Vec<IdentityId>) {
    let mut registry = Registry::default();
    let key = |text: &&str| IdentityKey { namespace: "default".into(), labels: labels(text) };
    let ids = texts.iter().map(|text| registry.identity(&key(text))).collect();
    (registry, ids)
}

fn query(subject: IdentityId, peer: IdentityId, port: u16) -> Query {
    let address = Address::v4(Ipv4Addr::new(10, 0, 0, 1).into());
    Query { subject, peer, address, port, protocol: 6, direction: Direction::Ingress }
}

fn reason(table: &PolicyTable, query: &Query) -> Option<Reason> {
    Reason::from_code(table.decide(query).enforced.reason_code())
}

#[test]
fn a_policy_isolates_and_its_rules_allow() {
    let (mut registry, ids) = world(&["app=db", "app=api", "app=web"]);
    let policies = [policy("db", "app=db", vec![allow(app("app=api"), tcp(&[(5432, 5432)]))])];
    let table = compile(&policies, &mut registry, Generation(3)).unwrap();
    let [db, api, web] = ids[..] else { panic!() };
    for (subject, peer, port, expect) in [
        (db, api, 5432, Reason::AllowedByRule),
        (db, api, 5433, Reason::Isolated),
        (db, web, 5432, Reason::Isolated),
        (db, db, 5432, Reason::Isolated),
        (db, IdentityId::HOST, 5432, Reason::Isolated),
        (db, IdentityId::UNKNOWN, 5432, Reason::Isolated),
        (web, db, 5432, Reason::AllowedByDefault),
        (IdentityId::HOST, web, 1, Reason::AllowedByDefault),
        (IdentityId::UNMANAGED, web, 1, Reason::Unmanaged),
        (IdentityId::UNKNOWN, web, 1, Reason::InvalidIdentity),
        (IdentityId(255), web, 1, Reason::InvalidIdentity),
        (IdentityId(9_999), web, 1, Reason::InvalidIdentity),
        // Someone the table has never heard of may be who a deny rule means.
        (web, IdentityId(9_999), 1, Reason::InvalidIdentity),
    ] {
        assert_eq!(reason(&table, &query(subject, peer, port)), Some(expect), "{subject} {peer} {port}");
    }
    let denied = table.decide(&query(db, web, 5432)).enforced;
    let rules: BTreeMap<RuleId, String> = registry.rules().map(|(key, id)| (id, key.to_string())).collect();
    assert_eq!(rules[&denied.rule()], "default/db ingress (isolated)");
    assert_eq!(denied.errno(), Errno::ConnRefused);
    assert_eq!(table.generation(), Generation(3));
}

#[test]
fn identities_that_no_policy_tells_apart_share_a_class() {
    let many: Vec<String> = (0..500).map(|number| format!("app=web,pod=p{number}")).collect();
    let mut texts: Vec<&str> = many.iter().map(String::as_str).collect();
    texts.push("app=db");
    let (mut registry, _) = world(&texts);
    let policies = [policy("db", "app=db", vec![allow(app("app=web"), Ports::All)])];
    // Two for unmanaged processes, one for isolation, one for the rule.
    assert_eq!(compile(&policies, &mut registry, Generation(1)).unwrap().entries(), 4);
    // A policy that selects nobody splits nothing.
    let split = policy("split", "app=none", vec![allow(app("pod=p1"), Ports::All)]);
    let more = [policies[0].clone(), split];
    assert_eq!(compile(&more, &mut registry, Generation(1)).unwrap().entries(), 4);
}

#[test]
fn whole_protocols_need_no_port_table() {
    let check = |ports: Ports, tables: usize, entries: usize| {
        let (mut registry, _) = world(&["app=db"]);
        let policies = [policy("db", "app=db", vec![allow(Peers::Everyone, ports.clone())])];
        let table = compile(&policies, &mut registry, Generation(1)).unwrap();
        assert_eq!((table.rows().len() / 2_048, table.entries()), (tables, entries), "{ports:?}");
    };
    // Everyone on all ports has the key of the isolation, and outranks it.
    check(Ports::All, 0, 3);
    check(Ports::AnyOf(vec![]), 0, 3);
    check(tcp(&[(0, u16::MAX)]), 0, 4);
    check(tcp(&[(0, 100), (101, u16::MAX)]), 0, 4);
    check(tcp(&[(80, 80)]), 1, 4);
    // One list is one class, however many ranges it has.
    check(tcp(&[(80, 80), (443, 443), (8_000, 8_999)]), 1, 4);
}

#[test]
fn only_audit_mode_needs_the_second_plane() {
    let (mut registry, ids) = world(&["app=db"]);
    let mut audited = policy("db", "app=db", vec![]);
    audited.mode = PolicyMode::Audit;
    let table = compile([&audited], &mut registry, Generation(1)).unwrap();
    let verdict = table.decide(&query(ids[0], IdentityId::WORLD, 80));
    assert!(verdict.is_audited());
    assert_eq!(Reason::from_code(verdict.reported().reason_code()), Some(Reason::Isolated));
    let unmanaged = table.decide(&query(IdentityId::UNMANAGED, IdentityId::WORLD, 80));
    assert!(unmanaged.enforced.is_deny() && unmanaged.hypothetical.is_deny());
    let enforced = policy("db", "app=db", vec![]);
    assert_eq!(compile([&enforced], &mut registry, Generation(1)).unwrap().entries(), 3);
}
