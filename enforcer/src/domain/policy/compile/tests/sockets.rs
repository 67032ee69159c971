//! Rules about kinds of sockets in a table.

use enforcer_common::abi::config::SocketKind::{self, Mptcp, Ping, Raw, Sctp, Tcp};

use super::*;
use crate::domain::quarantine::marked;

fn rule(action: Action, kinds: &[SocketKind]) -> Rule {
    Rule { action, ..allow(Peers::Everyone, Ports::Kinds(kinds.to_vec())) }
}

#[test]
fn a_kind_is_as_the_configuration_says_until_a_rule_speaks_of_it() {
    let (mut registry, ids) = world(&["app=db", "app=web"]);
    let [db, web] = ids[..] else { panic!() };
    let about = |rules| Policy { ingress: None, sockets: Some(rules), ..policy("kinds", "app=db", vec![]) };
    let asked = |table: &PolicyTable, subject, kind, allowed| {
        let word = table.decide_socket(subject, kind, allowed).enforced;
        (Reason::from_code(word.reason_code()).unwrap(), word.errno())
    };
    let both = about(vec![rule(Action::Allow, &[Ping, Raw]), rule(Action::Deny, &[Raw, Tcp])]);
    let table = compile([&both], &mut registry, Generation(1)).unwrap();
    let refused = (Reason::SocketKind, Errno::Perm);
    let free = (Reason::AllowedByDefault, Errno::Perm);
    for (subject, kind, allowed, expect) in [
        (db, Ping, false, (Reason::AllowedByRule, Errno::Perm)),
        (db, Raw, false, (Reason::DeniedByRule, Errno::ConnRefused)),
        (db, Tcp, true, (Reason::DeniedByRule, Errno::ConnRefused)),
        (db, Sctp, false, refused),
        (db, SocketKind::Udp, true, free),
        (web, Ping, false, refused),
        (web, Tcp, true, free),
        (IdentityId::UNMANAGED, Ping, false, refused),
        (IdentityId::UNMANAGED, Tcp, true, free),
        (IdentityId(9_999), Tcp, true, (Reason::InvalidIdentity, Errno::Perm)),
    ] {
        assert_eq!(asked(&table, subject, kind, allowed), expect, "{subject} {}", kind.name());
    }
    let denied = table.decide_socket(db, Raw, false).enforced;
    let rules: BTreeMap<RuleId, String> = registry.rules().map(|(key, id)| (id, key.to_string())).collect();
    assert_eq!(rules[&denied.rule()], "default/kinds sockets[1]");
    assert_eq!(rules.len(), 2, "it isolates nobody, so there is no isolation to name");
    // Neither flows nor listening are asked about it, and the other way round.
    assert_eq!(reason(&table, &query(db, web, 1)), Some(Reason::AllowedByDefault));
    assert!(!table.decide_listen(db, 6, 1).enforced.is_deny());
    assert!(!table.decide_listen(db, 255, Raw.class()).enforced.is_deny());
    let closed = Policy { egress: Some(vec![]), listen: Some(vec![]), ..policy("db", "app=db", vec![]) };
    let table = compile([&closed], &mut registry, Generation(1)).unwrap();
    assert_eq!(asked(&table, db, Tcp, true), free);
    let table =
        compile([&closed, &about(vec![rule(Action::Deny, &[Ping])])], &mut registry, Generation(1)).unwrap();
    assert_eq!(asked(&table, db, Tcp, true), free);
    // A table in which nobody speaks of sockets is not asked, whatever identities it knows.
    let table = compile([&closed], &mut registry, Generation(1)).unwrap();
    assert_eq!(asked(&table, IdentityId(9_999), Tcp, true), free);
    // Audit mode changes nothing that is enforced, and tells what it would refuse.
    let audited = Policy { mode: PolicyMode::Audit, ..both };
    let table = compile([&audited], &mut registry, Generation(1)).unwrap();
    assert_eq!(asked(&table, db, Ping, false), refused);
    assert!(table.decide_socket(db, Tcp, true).is_audited());
    assert!(!table.decide_socket(db, Ping, false).is_audited());
}

#[test]
fn tiers_pass_kinds_on_to_the_configuration_at_last() {
    let (mut registry, ids) = world(&["app=db"]);
    let db = ids[0];
    let tier = |name: &str, layer, rules| Policy {
        layer,
        ingress: None,
        sockets: Some(rules),
        ..policy(name, "app=db", vec![])
    };
    let admin = tier(
        "a",
        Layer::Admin { priority: 1 },
        vec![rule(Action::Pass, &[Ping, Sctp]), rule(Action::Allow, &[Raw]), rule(Action::Deny, &[Ping])],
    );
    let middle = tier("m", Layer::Namespaced, vec![rule(Action::Deny, &[Raw, Ping])]);
    let baseline = tier(
        "b",
        Layer::Baseline { priority: 1 },
        vec![
            rule(Action::Pass, &[Tcp, Sctp]),
            rule(Action::Allow, &[Ping]),
            rule(Action::Deny, &[Tcp, Sctp]),
        ],
    );
    let table = compile([&admin, &middle, &baseline], &mut registry, Generation(1)).unwrap();
    for (kind, allowed, expect) in [
        (Raw, false, Reason::AllowedByRule),
        (Ping, false, Reason::DeniedByRule),
        (Tcp, true, Reason::AllowedByDefault),
        (Tcp, false, Reason::SocketKind),
        // Passed on twice.
        (Sctp, true, Reason::AllowedByDefault),
        (Sctp, false, Reason::SocketKind),
    ] {
        let word = table.decide_socket(db, kind, allowed).enforced;
        assert_eq!(Reason::from_code(word.reason_code()), Some(expect), "{} {allowed}", kind.name());
    }
}

#[test]
fn a_quarantine_gives_no_kind_and_takes_those_that_are_denied() {
    let (mut registry, ids) = world(&["app=db"]);
    let key = registry.identity_key(ids[0]).unwrap().clone();
    let ward = registry.identity(&marked(&key, "db"));
    let rules = vec![rule(Action::Allow, &[Raw]), rule(Action::Deny, &[Mptcp])];
    let about = Policy { ingress: None, sockets: Some(rules), ..policy("kinds", "app=db", vec![]) };
    let table = compile([&about], &mut registry, Generation(1)).unwrap();
    let asked = |id, kind, allowed| {
        Reason::from_code(table.decide_socket(id, kind, allowed).enforced.reason_code()).unwrap()
    };
    assert_eq!(asked(ids[0], Raw, false), Reason::AllowedByRule);
    assert_eq!(asked(ward, Raw, false), Reason::SocketKind);
    assert_eq!(asked(ward, Raw, true), Reason::AllowedByDefault);
    assert_eq!(asked(ward, Mptcp, true), Reason::DeniedByRule);
}
