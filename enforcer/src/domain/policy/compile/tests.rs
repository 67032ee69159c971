//! Single statements about compiled tables; the property tests compare whole tables with the oracle.

mod size;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use enforcer_common::address::Address;
use enforcer_common::verdict::Query;

use super::*;
use crate::domain::labels::{Condition, LabelSet, Requirement, Selector};
use crate::domain::policy::model::{
    Action, Layer, Namespaces, Peer, Peers, PolicyKey, PortMatch, PortRange, Ports, Rule, Subject,
};
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
    Rule { name: None, action: Action::Allow, peers, ports, errno: None, expires: None }
}

fn app(text: &str) -> Peers {
    Peers::AnyOf(vec![Peer::Workloads {
        namespaces: Namespaces::Own,
        selector: selector(text),
        account: None,
    }])
}

fn tcp(ports: &[(u16, u16)]) -> Ports {
    Ports::AnyOf(
        ports
            .iter()
            .map(|(first, last)| PortRange { protocol: 6, first: *first, last: *last })
            .map(PortMatch::Range)
            .collect(),
    )
}

fn policy(name: &str, subject: &str, ingress: Vec<Rule>) -> Policy {
    Policy {
        key: PolicyKey::traffic("default", name),
        layer: Layer::Namespaced,
        mode: PolicyMode::Enforce,
        errno: Errno::ConnRefused,
        subject: Subject::own(selector(subject)),
        ingress: Some(ingress),
        egress: None,
        listen: None,
        sockets: None,
        expires: None,
    }
}

/// A registry that knows these identities of namespace `default`, and their numbers.
fn world(texts: &[&str]) -> (Registry, Vec<IdentityId>) {
    let mut registry = Registry::default();
    let key = |text: &&str| IdentityKey::new("default", labels(text));
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
    // Two for unmanaged processes, two for the canary, one for isolation, one for the rule.
    assert_eq!(compile(&policies, &mut registry, Generation(1)).unwrap().entries(), 6);
    // A policy that selects nobody splits nothing.
    let split = policy("split", "app=none", vec![allow(app("pod=p1"), Ports::All)]);
    let more = [policies[0].clone(), split];
    assert_eq!(compile(&more, &mut registry, Generation(1)).unwrap().entries(), 6);
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
    check(Ports::All, 0, 5);
    check(Ports::AnyOf(vec![]), 0, 5);
    check(tcp(&[(0, u16::MAX)]), 0, 6);
    check(tcp(&[(0, 100), (101, u16::MAX)]), 0, 6);
    check(tcp(&[(80, 80)]), 1, 6);
    // One list is one class, however many ranges it has.
    check(tcp(&[(80, 80), (443, 443), (8_000, 8_999)]), 1, 6);
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
    for direction in Direction::ALL {
        let query = Query { direction, ..query(IdentityId::CANARY, IdentityId::HOST, 80) };
        let canary = table.decide(&query).enforced;
        assert!(canary.is_deny() && canary.errno() == CANARY_ERRNO, "{direction:?}");
    }
    let enforced = policy("db", "app=db", vec![]);
    assert_eq!(compile([&enforced], &mut registry, Generation(1)).unwrap().entries(), 5);
}

#[test]
fn a_quarantine_beats_every_policy_and_only_its_guests_come_in() {
    use crate::domain::quarantine::marked;
    let (mut registry, ids) = world(&["app=db", "app=api", "app=web", "app=probe", "app=other"]);
    let [db, api, web, probe, other] = ids[..] else { panic!() };
    let key = |id: IdentityId, registry: &Registry| registry.identity_key(id).unwrap().clone();
    let ward = marked(&key(db, &registry), "db");
    let ward = registry.identity(&ward);
    let closed = marked(&key(web, &registry), "web");
    let closed = registry.identity(&closed);
    // The database is open to everyone by an allow rule, and closed to the probe by a deny rule.
    let mut open =
        policy("db", "app=db", vec![allow(Peers::Everyone, Ports::All), allow(app("app=probe"), Ports::All)]);
    if let Some(rules) = &mut open.ingress {
        rules[1].action = Action::Deny;
    }
    let net = "10.0.0.0/24".parse().unwrap();
    let guests =
        [(ward, vec![Guest::Identity(probe), Guest::Peer(Peer::Cidr { net, except: Vec::new() })])].into();
    let scene = Scene { guests, ..Scene::default() };
    let table = compile_scene([&open], &scene, &mut registry, Generation(1)).unwrap();
    let far = |query: Query| Query { address: Address::v4(Ipv4Addr::new(192, 0, 2, 1).into()), ..query };
    let egress = |query: Query| Query { direction: Direction::Egress, ..query };
    for (query, expect) in [
        (far(query(ward, probe, 1)), Reason::AllowedByRule),
        (query(ward, IdentityId::WORLD, 1), Reason::AllowedByRule),
        (far(query(ward, api, 1)), Reason::Quarantined),
        // The same to policies as the probe, and still not the probe.
        (far(query(ward, other, 1)), Reason::Quarantined),
        (far(query(ward, ward, 1)), Reason::Quarantined),
        (far(query(ward, IdentityId::HOST, 1)), Reason::Quarantined),
        (far(query(ward, IdentityId::UNKNOWN, 1)), Reason::Quarantined),
        // Nobody who is let in can be called.
        (egress(query(ward, probe, 1)), Reason::Quarantined),
        (egress(query(ward, IdentityId::WORLD, 1)), Reason::Quarantined),
        // Without guests nobody comes in.
        (query(closed, probe, 1), Reason::Quarantined),
        // Who is not in quarantine is judged as before.
        (far(query(db, api, 1)), Reason::AllowedByRule),
        (far(query(db, probe, 1)), Reason::DeniedByRule),
        (egress(query(probe, ward, 1)), Reason::AllowedByDefault),
    ] {
        assert_eq!(reason(&table, &query), Some(expect), "{query:?}");
    }
    let denied = table.decide(&far(query(ward, api, 1))).enforced;
    assert_eq!((denied.errno(), denied.rule()), (Errno::Perm, RuleId::NONE));
}

#[test]
fn a_mark_without_a_quarantine_is_closed_and_costs_one_class() {
    use crate::domain::quarantine::marked;
    let (mut registry, ids) = world(&["app=db"]);
    let key = registry.identity_key(ids[0]).unwrap().clone();
    let left: Vec<IdentityId> =
        (0..20).map(|name| registry.identity(&marked(&key, &name.to_string()))).collect();
    let mut audited = policy("db", "app=db", vec![allow(Peers::Everyone, Ports::All)]);
    audited.mode = PolicyMode::Audit;
    let table = compile([&audited], &mut registry, Generation(1)).unwrap();
    for id in left {
        let verdict = table.decide(&query(id, ids[0], 1));
        let reasons =
            [verdict.enforced, verdict.hypothetical].map(|word| Reason::from_code(word.reason_code()));
        assert_eq!(reasons, [Some(Reason::Quarantined); 2], "audit mode does not open it");
    }
    // Unmanaged, the canary and quarantined: two directions in two planes each. The policy: its one rule, in one plane, for the
    // class of the database and for that of the marked ones, which has a stronger word already.
    assert_eq!(table.entries(), 4 + 4 + 4 + 1);
}

#[test]
fn what_is_over_is_left_out_and_its_isolation_stays() {
    let (mut registry, ids) = world(&["app=db", "app=api", "app=web"]);
    let [db, api, web] = ids[..] else { panic!() };
    let at = |seconds| Timestamp { seconds, nanos: 0 };
    let until = |seconds, rule: Rule| Rule { expires: Some(at(seconds)), ..rule };
    let deny = Rule { action: Action::Deny, ..allow(app("app=web"), Ports::All) };
    let rules = vec![
        until(10, allow(app("app=api"), Ports::All)),
        until(20, deny),
        allow(app("app=web"), Ports::All),
    ];
    let whole = Policy { expires: Some(at(30)), ..policy("db", "app=db", rules) };
    assert_eq!(whole.expiries().collect::<Vec<_>>(), [at(10), at(20), at(30)]);
    let numbers = {
        use Reason::{AllowedByDefault, AllowedByRule, DeniedByRule, Isolated};
        let mut compiled = |seconds| {
            let scene = Scene { at: at(seconds), ..Scene::default() };
            let table = compile_scene([&whole], &scene, &mut registry, Generation(1)).unwrap();
            [api, web].map(|peer| reason(&table, &query(db, peer, 1)).unwrap())
        };
        for (seconds, expect) in [
            (9, [AllowedByRule, DeniedByRule]),
            (10, [Isolated, DeniedByRule]),
            (19, [Isolated, DeniedByRule]),
            (20, [Isolated, AllowedByRule]),
            (29, [Isolated, AllowedByRule]),
            (30, [AllowedByDefault; 2]),
        ] {
            assert_eq!(compiled(seconds), expect, "{seconds}");
        }
        registry.rules().count()
    };
    assert_eq!(numbers, 4, "the isolation and three rules, whatever is over");
}

#[test]
fn listening_and_being_called_are_two_things() {
    let (mut registry, ids) = world(&["app=db", "app=web"]);
    let [db, web] = ids[..] else { panic!() };
    let rule = |action, ports| Rule { action, ..allow(Peers::Everyone, ports) };
    let listen = |rules| Policy { ingress: None, listen: Some(rules), ..policy("listen", "app=db", vec![]) };
    let only =
        listen(vec![rule(Action::Allow, tcp(&[(5432, 5440)])), rule(Action::Deny, tcp(&[(5433, 5433)]))]);
    let table = compile([&only], &mut registry, Generation(1)).unwrap();
    let asked = |table: &PolicyTable, subject, port| {
        Reason::from_code(table.decide_listen(subject, 6, port).enforced.reason_code()).unwrap()
    };
    for (subject, port, expect) in [
        (db, 5432, Reason::AllowedByRule),
        (db, 5433, Reason::DeniedByRule),
        (db, 80, Reason::Isolated),
        (web, 80, Reason::AllowedByDefault),
        (IdentityId::HOST, 80, Reason::AllowedByDefault),
        (IdentityId(9_999), 80, Reason::InvalidIdentity),
    ] {
        assert_eq!(asked(&table, subject, port), expect, "{subject} {port}");
    }
    let denied = table.decide_listen(db, 17, 5432).enforced;
    assert_eq!(
        (Reason::from_code(denied.reason_code()), denied.errno()),
        (Some(Reason::Isolated), Errno::ConnRefused)
    );
    let rules: BTreeMap<RuleId, String> = registry.rules().map(|(key, id)| (id, key.to_string())).collect();
    assert_eq!(rules[&denied.rule()], "default/listen listen (isolated)");
    assert_eq!(rules[&table.decide_listen(db, 6, 5433).enforced.rule()], "default/listen listen[1]");
    // It isolates nobody's flows.
    for port in [80, 5432, 5433] {
        assert_eq!(reason(&table, &query(db, web, port)), Some(Reason::AllowedByDefault));
    }
    // And isolated flows keep nobody from listening.
    let table = compile([&policy("db", "app=db", vec![])], &mut registry, Generation(1)).unwrap();
    assert_eq!(asked(&table, db, 80), Reason::AllowedByDefault);
    assert_eq!(reason(&table, &query(db, web, 80)), Some(Reason::Isolated));
    // Nothing at all, and in audit mode.
    let table = compile([&listen(vec![])], &mut registry, Generation(1)).unwrap();
    assert_eq!(asked(&table, db, 80), Reason::Isolated);
    let audited = Policy { mode: PolicyMode::Audit, ..listen(vec![]) };
    let table = compile([&audited], &mut registry, Generation(1)).unwrap();
    assert!(table.decide_listen(db, 6, 80).is_audited());
}
